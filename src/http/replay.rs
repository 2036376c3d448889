//! Revisions of the past that somebody decides against: a few are kept compiled.

use std::{collections::VecDeque, sync::Arc};

use actix_web::rt::task::spawn_blocking;
use tokio::sync::Mutex;
use tracing::error;

use super::{error::ApiError, revisions, state::Shared};
use crate::{eval::Dialect, model::Snapshot};

/// Revisions kept: who compares two asks for both in turn. Each may take as much memory as what is served.
const KEPT_MAX: usize = 2;

/// The revisions that were asked for last, newest question first. One is read and compiled at a time.
#[derive(Default)]
pub(super) struct Replays(Mutex<VecDeque<Arc<Snapshot>>>);

impl Replays {
    /// The revision, compiled for a dialect.
    pub(super) async fn compiled(
        &self,
        shared: &Shared,
        environment: &Arc<str>,
        revision: u64,
        dialect: Dialect,
    ) -> Result<Arc<Snapshot>, ApiError> {
        let mut kept = self.0.lock().await;
        let is_it =
            |one: &Arc<Snapshot>| one.revision == revision && one.environment == *environment;
        let snapshot = match kept.iter().position(is_it).and_then(|at| kept.remove(at)) {
            Some(snapshot) => snapshot,
            None => revisions::stored(shared, environment, revision).await?,
        };
        if snapshot.evaluator(dialect).is_none() {
            let to_compile = Arc::clone(&snapshot);
            let compiling = spawn_blocking(move || to_compile.prepare(&[dialect])).await;
            if let Ok(Err(error)) = compiling {
                error!(
                    environment = &**environment,
                    revision, "revision {revision} of {environment} cannot be compiled: {error}"
                );
            }
        }
        if snapshot.evaluator(dialect).is_none() {
            return Err(ApiError::Internal);
        }
        kept.push_front(Arc::clone(&snapshot));
        kept.truncate(KEPT_MAX);
        Ok(snapshot)
    }
}
