//! From live content to what is served: compiled, packed, published.

use std::sync::Arc;

use tracing::warn;

use super::{
    ConfigLinks, ConfigMemory,
    funnel::Rendered,
    job::{JobError, STORE_LIMIT, blocking},
};
use crate::{
    actors::store::{Publish, Published},
    model::Candidate,
    store::packed,
};

/// Publishes what was stitched, unless it is what was stitched before; `None` then.
pub(super) async fn publish(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
    rendered: Rendered,
) -> Result<Option<Published>, JobError> {
    links.metrics.issues(environment, rendered.issues.len());
    memory.set_issues(environment, rendered.issues);
    let published = match rendered.candidate {
        Some(candidate) => Some(serve(links, candidate).await?),
        None => None,
    };
    memory.set_settled(environment, true);
    Ok(published)
}

/// Makes a candidate the current snapshot.
async fn serve(links: &ConfigLinks, candidate: Arc<Candidate>) -> Result<Published, JobError> {
    compile(links, &candidate).await;
    let made = Arc::clone(&candidate);
    let packed = blocking(move || packed::pack_candidate(&made)).await?;
    let publish = Publish { candidate, packed };
    Ok(links.store.ask_again(publish, STORE_LIMIT).await?)
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
