//! What the funnel takes back from the store before it looks at anything new.

use std::sync::Arc;

use time::OffsetDateTime;
use tracing::{info, warn};

use super::{
    ConfigLinks, ConfigMemory, connections, funnel,
    job::{JobError, STORE_LIMIT, blocking, current},
    memory::{Accepted, FunnelSource},
};
use crate::{
    actors::store::LoadInputs,
    clock,
    model::{Snapshot, SourceVersion},
    pipeline::input::SourceInput,
};

/// Loads the stored inputs of sources that have none here.
pub(super) async fn restore_inputs(
    memory: &Arc<ConfigMemory>,
    links: &ConfigLinks,
) -> Result<(), JobError> {
    let environments = memory.environments();
    let sources = environments
        .iter()
        .flat_map(|environment| memory.of_environment(environment));
    if sources.into_iter().all(|(_, accepted)| accepted.is_some()) {
        return Ok(());
    }
    for stored in links.store.ask_again(LoadInputs, STORE_LIMIT).await? {
        if !memory.lacks_input(&stored.source) || memory.is_unreadable(&stored.digest) {
            continue;
        }
        let Some(source) = memory.source(&stored.source) else {
            continue;
        };
        let (for_task, packed) = (Arc::clone(&source), Arc::clone(&stored));
        let read = blocking(move || {
            let stored = packed.unpack().map_err(|error| vec![error.explain()])?;
            let (input, notes) =
                SourceInput::from_bytes(&for_task.id, &stored.body, &for_task.fields);
            if input == SourceInput::default() {
                Err(notes)
            } else {
                Ok((input, notes))
            }
        });
        match read.await? {
            Ok((input, notes)) => {
                let served = current(links, &source.environment).await?;
                let checked_at =
                    restored_check(links, &source, served.as_deref(), stored.accepted_at_ms);
                memory.set_accepted(
                    &source.id,
                    Accepted {
                        input: Arc::new(input),
                        version: SourceVersion {
                            digest: stored.digest.clone(),
                            accepted_at_ms: stored.accepted_at_ms,
                        },
                        checked_at,
                        connections: connections::restore(memory, links, &source).await?,
                        is_lost: !notes.is_empty(),
                    },
                );
                info!(source.id = %source.id, "restored the last accepted input of {}", source.id);
                for note in notes {
                    warn!(source.id = %source.id, "a part of the stored input of {} is refused: {note}", source.id);
                }
            }
            Err(notes) if memory.note_unreadable(&stored.digest) => {
                warn!(source.id = %source.id, "the stored input of {} cannot be read: {}", source.id, notes.join("; "));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// The moment that time-dependent views were last counted from.
///
/// The stored time of the last success may lag behind by a few seconds; what is served was made no later than it was
/// published, so the later of the two never brings back what had already fallen off.
fn restored_check(
    links: &ConfigLinks,
    source: &FunnelSource,
    served: Option<&Snapshot>,
    accepted_at_ms: i64,
) -> OffsetDateTime {
    let last_success = links
        .board
        .source(&source.id)
        .and_then(|clock| clock.last_success_ms());
    let stored = clock::from_ms(last_success.unwrap_or(accepted_at_ms).max(accepted_at_ms));
    let served = served.filter(|served| funnel::contributes(Some(&served.content()), &source.id));
    served.map_or(stored, |served| stored.max(served.published_at))
}
