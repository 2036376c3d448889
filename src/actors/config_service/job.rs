//! One job of the funnel: gather what it needs, have it computed ([`task`]), keep and publish what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tracing::{info, warn};

use super::{
    ConfigLinks, ConfigMemory, Ingest, IngestReport, connections,
    funnel::{self, Rendered},
    memory::FunnelSource,
    operator,
    parking::{Arrival, Change, News},
    publish::publish,
    restore::restore_inputs,
    task::{self, Approval, Done, Task},
};
use crate::{
    actors::{
        poller::Outcome,
        slot::AskError,
        store::{GetSnapshot, SaveInput},
    },
    clock,
    model::{Cause, Issue, Snapshot},
    pipeline::{
        admission,
        guard::{Guard, Trip},
    },
};

/// How long the store may take for one question; publishing itself waits 250 ms at most.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(10);

/// Most unsafe edits named in a log line; the revision's issues have more.
const WARNINGS_LOGGED_MAX: usize = 5;

/// Stitches an environment from what is stored, before anything new is looked at.
pub(super) async fn start(memory: &Arc<ConfigMemory>, links: &ConfigLinks, environment: &Arc<str>) {
    memory.set_settled(environment, false);
    let restored = async {
        restore_inputs(memory, links).await?;
        operator::restore(memory, links, environment).await?;
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
    let live = memory.live(environment, served.as_ref());
    let sources = memory.of_environment(environment);
    if sources.iter().all(|(_, accepted)| accepted.is_none())
        || task::missing(&sources, live.as_deref()).is_some()
    {
        return;
    }
    let name = Arc::clone(environment);
    // Made "at" the moment of what is served, so that an unchanged stitch stays unchanged.
    let (now, cause) = (clock::now(), Cause::of("start"));
    // What was judged as it is read now is served, whatever is pinned or was served before a crash.
    let are_reread = task::are_reread(&sources, live.as_deref());
    let rendered =
        blocking(move || funnel::render(&name, &sources, live.as_deref(), now, &cause)).await;
    match rendered {
        // The stored inputs are read otherwise than when they were judged: that is not to empty anybody.
        Ok(Rendered {
            emptied: Some(trip),
            ..
        }) if are_reread => {
            warn!(
                environment = &**environment,
                "{environment} stays as stored: {}", trip.message
            );
            hold_reread(memory, links, environment, served.as_ref(), &trip);
        }
        Ok(rendered) => {
            if let Err(error) = publish(memory, links, environment, rendered).await {
                warn!(
                    environment = &**environment,
                    "{environment} could not be published at start: {error}"
                );
            }
        }
        Err(lost) => warn!(
            environment = &**environment,
            "{environment} was not stitched at start: {lost}"
        ),
    }
}

/// Parks the stored inputs that are read otherwise now, because of a view that they would empty.
fn hold_reread(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
    served: Option<&Arc<Snapshot>>,
    trip: &Trip,
) {
    let live = memory.live(environment, served);
    for (source, accepted) in memory.of_environment(environment) {
        let accepted =
            accepted.filter(|accepted| task::is_reread(&source, accepted, live.as_deref()));
        let Some(accepted) = accepted else {
            continue;
        };
        let arrival = Arrival {
            at: clock::now(),
            sequence: 0,
            connections: None,
        };
        let news = task::emptied(&accepted.input, trip.clone());
        let nothing = BTreeSet::new();
        let change = memory
            .parking
            .update(&source.id, &nothing, Some(news), arrival);
        if matches!(change, Change::Parked) {
            links.metrics.guard_tripped(&source.id, trip.guard.as_str());
        }
        note_held(memory, links, &source);
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
    if let Err(error) = operator::restore(memory, links, &source.environment).await {
        return IngestReport::failed(error.to_string());
    }
    let served = match current(links, &source.environment).await {
        Ok(served) => served,
        Err(error) => return IngestReport::failed(error.to_string()),
    };
    let mut report = match run(memory, links, &source, ingest, served.as_ref(), None).await {
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

/// Runs one ingest through the funnel; with an approval guards are not asked.
pub(super) async fn run(
    memory: &Arc<ConfigMemory>,
    links: &ConfigLinks,
    source: &Arc<FunnelSource>,
    ingest: &Ingest,
    served: Option<&Arc<Snapshot>>,
    approval: Option<Approval>,
) -> Result<IngestReport, JobError> {
    let environment = &source.environment;
    let was_settled = memory.is_settled(environment);
    memory.set_settled(environment, false);
    let is_approved = approval.is_some();
    let task = Task {
        was_settled,
        approval,
        ..task_of(memory, source, ingest, served)
    };
    let mut done = blocking(move || task.run()).await?;
    let keeps_connections = done.parked.as_ref().is_some_and(News::keeps_connections);
    if let Some(connections) = ingest.connections.as_ref().filter(|_| !keeps_connections) {
        // Before what they brought is published, so that no key is unknown whose document is there.
        links
            .board
            .client_keys()
            .set_discovered(&source.id, connections);
    }
    keep(memory, links, source, &done).await?;
    if let Some(accepted) = &done.accepted {
        connections::keep(memory, links, source, accepted).await?;
    }
    memory.set_sequence(&source.id, done.intake.accepted.keys(), ingest.sequence);
    let is_skipped = memory.is_pinned(environment)
        && done
            .rendered
            .as_ref()
            .is_some_and(|rendered| rendered.candidate.is_some());
    if !is_approved {
        let accepted = done.intake.accepted.keys();
        memory.parking.clear_approved(&source.id, accepted);
    }
    let mut objections = objections(&done);
    let is_held = !objections.is_empty();
    park(memory, links, source, ingest, &mut done);
    let published = if let Some(rendered) = done.rendered {
        publish(memory, links, environment, rendered).await?
    } else {
        memory.set_settled(environment, was_settled && done.waiting_for.is_none());
        None
    };
    let refused = done.intake.refused.iter();
    objections.extend(refused.map(|(part, refusal)| {
        let reason = format!("{part}: {}: {refusal}", refusal.code());
        (*part, reason)
    }));
    let outcome = match published {
        Some(published) if published.is_new => Outcome::Published,
        _ if is_held => Outcome::Held,
        _ if done.waiting_for.is_some() || !done.intake.has_arrived => Outcome::Failed,
        _ => Outcome::Unchanged,
    };
    let mut refused_parts: Vec<&'static str> = objections.iter().map(|(part, _)| *part).collect();
    refused_parts.dedup();
    let reasons: Vec<String> = objections
        .into_iter()
        .map(|(_, reason)| reason)
        .chain(done.waiting_for)
        // What it brought is there, and served when the pin is taken back.
        .chain(is_skipped.then(|| "pinned".to_owned()))
        .collect();
    Ok(IngestReport {
        outcome,
        revision: published.map(|published| published.revision),
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        refused_parts,
        accepted: done.intake.accepted,
        lost: done.intake.lost,
    })
}

/// What an ingest is to be computed from, in a settled environment and without an approval.
fn task_of(
    memory: &ConfigMemory,
    source: &Arc<FunnelSource>,
    ingest: &Ingest,
    served: Option<&Arc<Snapshot>>,
) -> Task {
    Task {
        source: Arc::clone(source),
        sources: memory.of_environment(&source.environment),
        parts: memory.not_older(ingest),
        connections: ingest.connections.clone(),
        has_all_parts: ingest.has_all_parts,
        is_push: ingest.is_push,
        at: ingest.at,
        live: memory.live(&source.environment, served),
        was_settled: true,
        approved: memory.parking.approved(&source.id),
        standing: memory.parking.standing(&source.id),
        approval: None,
    }
}

/// What guards say of an ingest: the kind of part, and the part with the guard and its words.
fn objections(done: &Done) -> Vec<(&'static str, String)> {
    let say = |part: &'static str, trip: &Trip| {
        let reason = format!("{part}: {}: {}", trip.guard.as_str(), trip.message);
        (part, reason)
    };
    let parked = done.parked.iter().flat_map(|parked| &parked.trips);
    parked.map(|(part, trip)| say(part.kind(), trip)).collect()
}

/// Keeps what guards have left over, and tells once.
fn park(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    source: &FunnelSource,
    ingest: &Ingest,
    done: &mut Done,
) {
    let id = &source.id;
    let arrival = Arrival {
        at: ingest.at,
        sequence: ingest.sequence,
        connections: ingest.connections.clone(),
    };
    log_warnings(id, &done.warnings);
    let words: Vec<String> = objections(done)
        .into_iter()
        .map(|(_, words)| words)
        .collect();
    let guards: BTreeSet<Guard> = done
        .parked
        .as_ref()
        .map(|parked| admission::guards(&parked.trips))
        .unwrap_or_default();
    let news = done.parked.take();
    match memory.parking.update(id, &done.intake.good, news, arrival) {
        Change::None => {}
        Change::Parked => {
            for guard in guards {
                links.metrics.guard_tripped(id, guard.as_str());
            }
            let words = words.join("; ");
            warn!(source.id = %id, "an input of {id} is held: {words}; everything else goes on being published");
        }
        Change::Ended if done.is_auto_accepted => {
            info!(source.id = %id, "the held input of {id} came often enough and was accepted");
        }
        Change::Ended => info!(source.id = %id, "nothing of {id} is held any more"),
    }
    note_held(memory, links, source);
}

/// One line on what is taken although guards have something to tell of it.
fn log_warnings(source: &str, warnings: &[Issue]) {
    if warnings.is_empty() {
        return;
    }
    let first: Vec<String> = warnings
        .iter()
        .take(WARNINGS_LOGGED_MAX)
        .map(|issue| format!("`{}`: {}", issue.path, issue.message))
        .collect();
    let edits = warnings.len();
    warn!(source.id = %source, edits, "an input of {source} moves units of running experiments: {}", first.join("; "));
}

/// Tells everybody who may ask whether something of a source is held.
pub(super) fn note_held(memory: &ConfigMemory, links: &ConfigLinks, source: &FunnelSource) {
    let is_held = memory.parking.is_waiting(&source.id);
    memory.set_held(&source.id, is_held);
    links.metrics.held_input(&source.id, is_held);
    if let Some(clock) = links.board.source(&source.id) {
        clock.set_held(is_held);
    }
}

/// Takes in what operators discarded, before this start or at another replica.
pub(super) fn note_discarded(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
    registers: &BTreeMap<String, Value>,
) {
    for (source, _) in memory.of_environment(environment) {
        memory.parking.restore_discarded(&source.id, registers);
        note_held(memory, links, &source);
    }
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
