//! One job of the funnel: gather what it needs, compute on a blocking thread, keep and publish what came of it.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use tracing::warn;

use super::{
    ConfigLinks, ConfigMemory, Ingest, IngestReport,
    funnel::{self, Intake, Rendered, Scope, Sources},
    memory::{Accepted, FunnelSource},
    relay,
    restore::restore_inputs,
};
use crate::{
    actors::{
        poller::Outcome,
        slot::AskError,
        store::{GetSnapshot, Publish, Published, SaveInput},
    },
    clock,
    model::{Candidate, Snapshot, snapshot::hex},
    pipeline::{Refusal, guard, input::SourceInput},
    settings::Connection,
    store::StoredInput,
};

/// How long the store may take for one question; publishing itself waits 250 ms at most.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(10);

/// Stitches an environment from what is stored, before anything new is looked at.
pub(super) async fn start(memory: &Arc<ConfigMemory>, links: &ConfigLinks, environment: &Arc<str>) {
    memory.set_settled(environment, false);
    let restored = async {
        restore_inputs(memory, links).await?;
        current(links, environment).await
    };
    let served = match restored.await {
        Ok(served) => served,
        Err(error) => {
            warn!(
                environment = &**environment,
                "the stored state of {environment} cannot be read yet: {error}"
            );
            return;
        }
    };
    let sources = memory.of_environment(environment);
    if sources.iter().all(|(_, accepted)| accepted.is_none())
        || missing(&sources, served.as_deref()).is_some()
    {
        return;
    }
    let (for_task, name) = (served.clone(), Arc::clone(environment));
    // Made "at" the moment of what is served, so that an unchanged stitch stays unchanged.
    let now = clock::now();
    let rendered =
        blocking(move || funnel::render(&name, &sources, for_task.as_deref(), now, "start")).await;
    match rendered {
        Ok(Ok(rendered)) => {
            if let Err(error) = publish(memory, links, environment, rendered).await {
                warn!(
                    environment = &**environment,
                    "{environment} could not be published at start: {error}"
                );
            }
        }
        Ok(Err(refusal)) => warn!(
            environment = &**environment,
            "{environment} stays as stored: {refusal}"
        ),
        Err(lost) => warn!(
            environment = &**environment,
            "{environment} was not stitched at start: {lost}"
        ),
    }
}

/// Takes one fetch in.
pub(super) async fn ingest(
    memory: &Arc<ConfigMemory>,
    links: &ConfigLinks,
    ingest: &Ingest,
) -> IngestReport {
    let Some(source) = memory.source(&ingest.source) else {
        return IngestReport::failed(format!("no source is called `{}`", ingest.source));
    };
    if let Err(error) = restore_inputs(memory, links).await {
        return IngestReport::failed(error.to_string());
    }
    let served = match current(links, &source.environment).await {
        Ok(served) => served,
        Err(error) => return IngestReport::failed(error.to_string()),
    };
    let mut report = match run(memory, links, &source, ingest, served.as_ref()).await {
        Ok(report) => report,
        Err(error) => IngestReport::failed(error.to_string()),
    };
    report.revision = report.revision.or(served.map(|served| served.revision));
    report
}

/// Why a job could not be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    #[error(transparent)]
    Store(#[from] AskError),
    #[error("the funnel panicked; its input was dropped")]
    Panicked,
}

async fn run(
    memory: &Arc<ConfigMemory>,
    links: &ConfigLinks,
    source: &Arc<FunnelSource>,
    ingest: &Ingest,
    served: Option<&Arc<Snapshot>>,
) -> Result<IngestReport, JobError> {
    let environment = &source.environment;
    if let Some(connections) = &ingest.connections {
        // Before what they brought is published, so that no key is unknown whose document is there.
        links
            .board
            .client_keys()
            .set_discovered(&source.id, connections);
    }
    let was_settled = memory.is_settled(environment);
    memory.set_settled(environment, false);
    let task = Task {
        source: Arc::clone(source),
        sources: memory.of_environment(environment),
        parts: memory.not_older(ingest),
        connections: ingest.connections.clone(),
        has_all_parts: ingest.has_all_parts,
        is_push: ingest.is_push,
        at: ingest.at,
        served: served.cloned(),
        was_settled,
    };
    let done = blocking(move || task.run()).await?;
    let is_held = done
        .intake
        .refused
        .iter()
        .any(|(_, refusal)| matches!(refusal, Refusal::Empty { .. }));
    keep(memory, links, source, &done).await?;
    memory.set_sequence(&source.id, done.intake.accepted.keys(), ingest.sequence);
    memory.set_held(&source.id, is_held);
    let published = if let Some(rendered) = done.rendered {
        publish(memory, links, environment, rendered).await?
    } else {
        memory.set_settled(environment, was_settled && done.waiting_for.is_none());
        None
    };
    let mut reasons: Vec<String> = done
        .intake
        .refused
        .iter()
        .map(|(part, refusal)| format!("{part}: {}: {refusal}", refusal.code()))
        .collect();
    reasons.extend(done.waiting_for.clone());
    let outcome = match published {
        Some(published) if published.is_new => Outcome::Published,
        _ if is_held => Outcome::Held,
        _ if done.waiting_for.is_some() || !done.intake.has_arrived => Outcome::Failed,
        _ => Outcome::Unchanged,
    };
    let mut refused_parts: Vec<&'static str> =
        done.intake.refused.iter().map(|(part, _)| *part).collect();
    refused_parts.dedup();
    Ok(IngestReport {
        outcome,
        revision: published.map(|published| published.revision),
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        refused_parts,
        accepted: done.intake.accepted,
        lost: done.intake.lost,
    })
}

/// What the blocking part of a job needs.
struct Task {
    source: Arc<FunnelSource>,
    sources: Sources,
    parts: Arc<std::collections::BTreeMap<crate::sources::PartId, crate::sources::PartOutcome>>,
    connections: Option<Arc<Vec<Connection>>>,
    has_all_parts: bool,
    is_push: bool,
    at: OffsetDateTime,
    served: Option<Arc<Snapshot>>,
    was_settled: bool,
}

/// What the blocking part of a job found.
struct Done {
    intake: Intake,
    /// The input to keep, when it changed or its check time moved.
    accepted: Option<Accepted>,
    /// The same, packed, when its content changed.
    to_store: Option<crate::store::PackedInput>,
    rendered: Option<Rendered>,
    /// Why nothing can be published yet.
    waiting_for: Option<String>,
}

impl Task {
    fn run(self) -> Done {
        let old = self
            .sources
            .iter()
            .find(|(source, _)| source.id == self.source.id);
        let old = old.and_then(|(_, accepted)| accepted.clone());
        let before = old
            .as_ref()
            .map_or_else(SourceInput::default, |old| (*old.input).clone());
        let intake = funnel::take_in(&self.source, &before, &self.parts, self.scope(false));
        let done = self.decide(intake, old.as_ref());
        let emptied = done.intake.refused.iter().any(|(part, refusal)| {
            *part == "experiments"
                && matches!(
                    refusal,
                    Refusal::Empty {
                        code: "empty_view",
                        ..
                    }
                )
        });
        if !emptied {
            return done;
        }
        // The experiments would empty a consumer: they are left as they were, the payload's news still counts.
        let refused = done.intake.refused;
        let mut intake = funnel::take_in(&self.source, &before, &self.parts, self.scope(true));
        intake.refused.extend(refused);
        self.decide(intake, old.as_ref())
    }

    fn scope(&self, skip_experiments: bool) -> Scope {
        Scope {
            skip_experiments,
            is_push: self.is_push,
        }
    }

    fn decide(&self, mut intake: Intake, old: Option<&Accepted>) -> Done {
        intake.is_whole &= self.has_all_parts;
        let mut done = Done {
            intake,
            accepted: None,
            to_store: None,
            rendered: None,
            waiting_for: None,
        };
        let served = self.served.as_deref();
        let checked_at = match old {
            Some(old) if !done.intake.is_whole => old.checked_at,
            _ => self.at,
        };
        let input = Arc::new(std::mem::take(&mut done.intake.input));
        let known = old.map_or(&self.source.listed, |old| &old.connections);
        let connections = relay::proven(known, self.connections.as_ref(), &done.intake);
        let is_first = !funnel::contributes(served, &self.source.id);
        let is_complete = self.source.is_complete(&input);
        if is_first && is_complete && !self.source.allow_empty {
            let payloads: Vec<_> = input.payloads.values().map(|part| &*part.payload).collect();
            let list = input.experiments.as_ref().map(|part| &*part.list);
            if let Err(refusal) = guard::first_load_not_empty(&payloads, list) {
                done.intake.refused.push(("payload", refusal));
                done.intake.accepted.clear();
                return done;
            }
        }
        let accepted = Accepted {
            input: Arc::clone(&input),
            checked_at,
            connections,
        };
        // Another encryption key, say: the same content in other bytes.
        let is_rekeyed =
            old.is_some_and(|old| !relay::is_same(&old.connections, &accepted.connections));
        let is_due = old.is_some_and(|old| funnel::is_due(&input, old.checked_at, checked_at));
        done.accepted = Some(accepted.clone());
        if done.intake.is_news {
            done.to_store = Some(self.packed(&input));
        }
        if is_first && !is_complete {
            done.waiting_for = Some(self.incomplete(&input));
            return done;
        }
        if !(done.intake.is_news || is_due || is_first || is_rekeyed)
            && self.was_settled
            && served.is_some()
        {
            return done;
        }
        self.stitch(&mut done, &accepted);
        done
    }

    /// Stitches the environment with what was accepted.
    fn stitch(&self, done: &mut Done, accepted: &Accepted) {
        let served = self.served.as_deref();
        let mut sources = self.sources.clone();
        for (source, slot) in &mut sources {
            if source.id == self.source.id {
                *slot = Some(accepted.clone());
            }
        }
        if let Some(missing) = missing(&sources, served) {
            done.waiting_for = Some(format!(
                "the stored input of source `{missing}` is missing; waiting for its poll"
            ));
            return;
        }
        let what = if self.is_push { "push" } else { "poll" };
        let cause = format!("{what} {}", self.source.id);
        match funnel::render(&self.source.environment, &sources, served, self.at, &cause) {
            Ok(rendered) => done.rendered = Some(rendered),
            Err(refusal) => {
                let part = if self.source.has_experiments {
                    "experiments"
                } else {
                    "payload"
                };
                done.intake.refused.push((part, refusal));
                done.intake.accepted.clear();
                done.accepted = None;
                done.to_store = None;
            }
        }
    }

    fn incomplete(&self, input: &SourceInput) -> String {
        let lacks_list = self.source.has_experiments && input.experiments.is_none();
        let what = if lacks_list {
            "experiments"
        } else {
            "payloads"
        };
        format!(
            "the first publish waits for the {what} of source `{}`",
            self.source.id
        )
    }

    fn packed(&self, input: &SourceInput) -> crate::store::PackedInput {
        use sha2::Digest as _;
        let body = input.to_bytes();
        let stored = StoredInput {
            source: self.source.id.to_string(),
            digest: hex(&sha2::Sha256::digest(&body)),
            accepted_at_ms: clock::to_ms(self.at),
            body,
        };
        stored.pack()
    }
}

/// A source that is part of what is served and whose input is not here: stitching without it would drop its items.
fn missing(sources: &Sources, served: Option<&Snapshot>) -> Option<Arc<str>> {
    let is_missing = |(source, accepted): &&(Arc<FunnelSource>, Option<Accepted>)| {
        accepted.is_none() && source.is_enabled && funnel::contributes(served, &source.id)
    };
    sources
        .iter()
        .find(is_missing)
        .map(|(source, _)| Arc::clone(&source.id))
}

/// Remembers what was accepted and has it stored.
async fn keep(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    source: &FunnelSource,
    done: &Done,
) -> Result<(), JobError> {
    let Some(accepted) = &done.accepted else {
        return Ok(());
    };
    memory.set_accepted(&source.id, accepted.clone());
    if done.intake.is_whole
        && let Some(clock) = links.board.source(&source.id)
    {
        clock.set_last_success_ms(clock::to_ms(accepted.checked_at));
    }
    if let Some(input) = &done.to_store {
        links
            .store
            .ask_again(
                SaveInput {
                    input: Arc::new(input.clone()),
                },
                STORE_LIMIT,
            )
            .await?;
    }
    Ok(())
}

async fn publish(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
    rendered: Rendered,
) -> Result<Option<Published>, JobError> {
    links.metrics.issues(environment, rendered.issues.len());
    memory.set_issues(environment, rendered.issues);
    let published = match rendered.candidate {
        Some((candidate, packed)) => {
            compile(links, &candidate).await;
            let publish = Publish { candidate, packed };
            Some(links.store.ask_again(publish, STORE_LIMIT).await?)
        }
        None => None,
    };
    memory.set_settled(environment, true);
    Ok(published)
}

/// Compiles a candidate for the dialects its environment is evaluated in: no request is to wait for that.
async fn compile(links: &ConfigLinks, candidate: &Arc<Candidate>) {
    let cell = links.board.environment(&candidate.environment);
    let dialects = cell.map(|cell| cell.evaluated()).unwrap_or_default();
    if dialects.is_empty() {
        return;
    }
    let made = Arc::clone(candidate);
    let name = &*candidate.environment;
    match blocking(move || made.prepare(&dialects)).await {
        Ok(Ok(())) => {}
        // What cannot be evaluated can be served all the same.
        Ok(Err(error)) => warn!(
            environment = name,
            "{name} cannot be compiled for evaluation: {error}"
        ),
        Err(_) => warn!(
            environment = name,
            "{name} cannot be compiled for evaluation: the compiler panicked"
        ),
    }
}

pub(super) async fn current(
    links: &ConfigLinks,
    environment: &Arc<str>,
) -> Result<Option<Arc<Snapshot>>, JobError> {
    let question = GetSnapshot {
        environment: Arc::clone(environment),
    };
    Ok(links.store.ask_again(question, STORE_LIMIT).await?)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JobError> {
    // The panic itself is logged by the panic hook, with its place.
    let work = move || {
        fail::fail_point!("config_service.blocking");
        work()
    };
    tokio::task::spawn_blocking(work)
        .await
        .or(Err(JobError::Panicked))
}
