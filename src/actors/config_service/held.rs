//! What operators ask about parked inputs, and what they decide about them.

use std::sync::Arc;

use actix::Message;
use tracing::{info, warn};

use super::{
    ConfigLinks, ConfigMemory, Ingest,
    job::{self, JobError, STORE_LIMIT, current, run},
    memory::FunnelSource,
    parking::Parked,
    restore::restore_inputs,
    task::Approval,
};
use crate::{
    actors::{poller::Outcome, store::SaveRegisters},
    clock,
    model::Cause,
};

pub use crate::pipeline::guard::{Changed, Difference, Items, Trip};

/// Asks for the parked inputs of an environment. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "Vec<HeldInput>")]
pub struct GetHeld {
    /// Which environment.
    pub environment: String,
}

/// A parked input.
#[derive(Clone, Debug)]
pub struct HeldInput {
    /// Whose it is.
    pub source: String,
    /// What of it is parked: `payload`, `experiments`, `connections`.
    pub parts: Vec<&'static str>,
    /// Hash of what it means.
    pub digest: String,
    /// Why it is parked.
    pub reasons: Vec<Trip>,
    /// What it would change.
    pub difference: Difference,
    /// Unix milliseconds at which it first came.
    pub first_seen_ms: i64,
    /// Unix milliseconds at which it last came.
    pub last_seen_ms: i64,
    /// How often it came again.
    pub repeats: u32,
    /// Whether an operator has discarded it.
    pub is_discarded: bool,
    /// After how many repeats it is taken by itself; `None`: never.
    pub auto_accept_after: Option<u32>,
}

impl HeldInput {
    pub(super) fn new(source: &FunnelSource, parked: &Parked) -> Self {
        let reasons = parked.trips.iter().map(|(_, trip)| trip.clone());
        Self {
            source: source.id.to_string(),
            parts: parked.kinds(),
            digest: parked.digest.clone(),
            reasons: reasons.collect(),
            difference: parked.difference.clone(),
            first_seen_ms: clock::to_ms(parked.first_seen),
            last_seen_ms: clock::to_ms(parked.last.at),
            repeats: parked.repeats,
            is_discarded: parked.is_discarded,
            auto_accept_after: parked.auto_accept_after(source.auto_accept_after),
        }
    }
}

/// What is to become of a parked input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is taken in, whatever guards say.
    Approve,
    /// It is not wanted: the same input again alarms nobody and is not taken by itself.
    Discard,
}

/// Decides about a parked input. Sent by the control plane; may be sent twice.
#[derive(Clone, Message)]
#[rtype(result = "Result<HeldDecided, HeldError>")]
pub struct DecideHeld {
    /// Tells it from other orders: one that comes again after it was carried out is answered as done.
    pub id: String,
    /// The environment that its source feeds.
    pub environment: String,
    /// Its source.
    pub source: String,
    /// What is to become of it.
    pub fate: Fate,
    /// Digest of what the operator has seen; `None`: whatever is parked.
    pub digest: Option<String>,
    /// Who decides.
    pub by: String,
    /// The operator's words.
    pub reason: String,
}

/// What came of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldDecided {
    /// `published`, `unchanged` or `discarded`.
    pub outcome: &'static str,
    /// Revision served after it; `None`: still nothing.
    pub revision: Option<u64>,
}

/// Why nothing could be decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeldError {
    /// Nothing of this source is parked.
    #[error("nothing of this source is held")]
    NotHeld {
        /// Sources of the environment with parked inputs.
        held: Vec<String>,
    },
    /// Something else is parked than the operator has seen.
    #[error("another input is held now; look at it first")]
    Changed {
        /// Its digest.
        digest: String,
    },
    /// It does not pass validation.
    #[error("{0}")]
    Refused(String),
    /// It could not be taken in now.
    #[error("{0}")]
    Failed(String),
}

/// Carries out an operator's decision.
pub(super) async fn decide(
    memory: &Arc<ConfigMemory>,
    links: &ConfigLinks,
    order: &DecideHeld,
) -> Result<HeldDecided, HeldError> {
    let source = memory.source(&order.source);
    let source = source.filter(|source| *source.environment == *order.environment);
    let found = source.and_then(|source| Some((memory.parking.get(&source.id)?, source)));
    let Some((parked, source)) = found else {
        if memory.approvals.lock().get(&*order.source) == Some(&order.id) {
            return approved_before(memory, links, &order.environment).await;
        }
        let held = memory.held(&order.environment).into_iter();
        return Err(HeldError::NotHeld {
            held: held.map(|held| held.source).collect(),
        });
    };
    if order
        .digest
        .as_ref()
        .is_some_and(|digest| *digest != parked.digest)
    {
        let digest = parked.digest;
        return Err(HeldError::Changed { digest });
    }
    match order.fate {
        Fate::Approve => approve(memory, links, &source, parked, order).await,
        Fate::Discard => {
            let discarded = discard(memory, links, &source, &parked).await;
            discarded.map_err(|error| HeldError::Failed(error.to_string()))
        }
    }
}

/// The answer to an approval that was under way when the actor ended: the next incarnation has stitched with it.
async fn approved_before(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &str,
) -> Result<HeldDecided, HeldError> {
    let environment = Arc::from(environment);
    let served = current(links, &environment).await;
    let served = served.map_err(|error| HeldError::Failed(error.to_string()))?;
    let outcome = if memory.is_pinned(&environment) {
        Outcome::Unchanged
    } else {
        Outcome::Published
    };
    Ok(HeldDecided {
        outcome: outcome.as_str(),
        revision: served.map(|served| served.revision),
    })
}

/// Remembers that an input is not wanted, and has that stored.
async fn discard(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    source: &FunnelSource,
    parked: &Parked,
) -> Result<HeldDecided, JobError> {
    let changes = memory
        .parking
        .discard(&source.id, &parked.digest, clock::now_ms());
    job::note_held(memory, links, source);
    let save = SaveRegisters {
        environment: Arc::clone(&source.environment),
        changes,
        ended: Vec::new(),
    };
    let is_durable = links.store.ask_again(save, STORE_LIMIT).await?;
    info!(source.id = %source.id, "the held input of {} was discarded", source.id);
    if !is_durable {
        warn!(source.id = %source.id, "neither database nor backup has taken yet that an input of {} was discarded", source.id);
    }
    let served = current(links, &source.environment).await?;
    Ok(HeldDecided {
        outcome: "discarded",
        revision: served.map(|served| served.revision),
    })
}

async fn approve(
    memory: &Arc<ConfigMemory>,
    links: &ConfigLinks,
    source: &Arc<FunnelSource>,
    parked: Parked,
    order: &DecideHeld,
) -> Result<HeldDecided, HeldError> {
    let failed = |error: JobError| HeldError::Failed(error.to_string());
    restore_inputs(memory, links).await.map_err(failed)?;
    let served = current(links, &source.environment).await.map_err(failed)?;
    let approval = Approval {
        cause: Cause {
            what: format!("approve {}", source.id),
            by: Some(order.by.clone()),
            reason: Some(order.reason.clone()),
        },
        removed: parked.removed(),
    };
    let ingest = Ingest {
        source: source.id.to_string(),
        parts: Arc::new(parked.parts()),
        has_all_parts: false,
        is_push: true,
        connections: parked.last.connections,
        sequence: parked.last.sequence,
        at: clock::now(),
    };
    memory
        .approvals
        .lock()
        .insert(Arc::clone(&source.id), order.id.clone());
    // What is parked of an override file has been made a payload of already.
    let as_payload = Arc::new(FunnelSource {
        is_override: false,
        ..FunnelSource::clone(source)
    });
    let report = run(
        memory,
        links,
        &as_payload,
        &ingest,
        served.as_ref(),
        Some(approval),
    );
    let report = report.await.map_err(failed)?;
    let reason = report.reason.unwrap_or_default();
    if !report.refused_parts.is_empty() {
        return Err(HeldError::Refused(reason));
    }
    memory
        .parking
        .set_approved(&source.id, report.accepted.into_keys());
    let changes = memory.parking.want(&source.id, &parked.digest);
    if !changes.is_empty() {
        let save = SaveRegisters {
            environment: Arc::clone(&source.environment),
            changes,
            ended: Vec::new(),
        };
        if let Err(error) = links.store.ask_again(save, STORE_LIMIT).await {
            // It is taken all the same.
            warn!(source.id = %source.id, "an approved input of {} is still remembered as discarded: {error}", source.id);
        }
    }
    info!(source.id = %source.id, "the held input of {} was approved", source.id);
    let outcome = match report.outcome {
        // The rest of a first load is still to come.
        Outcome::Failed => Outcome::Unchanged,
        outcome => outcome,
    };
    Ok(HeldDecided {
        outcome: outcome.as_str(),
        revision: report.revision.or(served.map(|served| served.revision)),
    })
}
