//! One job of the funnel: gather what it needs, have it computed ([`task`]), keep and publish what came of it.

use std::{sync::Arc, time::Duration};

use tracing::warn;

use super::{
    ConfigLinks, ConfigMemory, Ingest, IngestReport, funnel,
    memory::FunnelSource,
    operator,
    publish::publish,
    restore::restore_inputs,
    task::{self, Done, Task},
};
use crate::{
    actors::{
        poller::Outcome,
        slot::AskError,
        store::{GetSnapshot, SaveInput},
    },
    clock,
    model::{Cause, Snapshot},
    pipeline::Refusal,
};

/// How long the store may take for one question; publishing itself waits 250 ms at most.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(10);

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
    let rendered =
        blocking(move || funnel::render(&name, &sources, live.as_deref(), now, &cause)).await;
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
    if let Err(error) = operator::restore(memory, links, &source.environment).await {
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
        live: memory.live(environment, served),
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
    let is_skipped = memory.is_pinned(environment)
        && done
            .rendered
            .as_ref()
            .is_some_and(|rendered| rendered.candidate.is_some());
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
    // What it brought is there, and served when the pin is taken back.
    reasons.extend(is_skipped.then(|| "pinned".to_owned()));
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
