//! How a target does: what it took last, what it refused, and one line in the log when that changes.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{debug, info, warn};

use super::TargetStatus;
use crate::{clock, metrics::Metrics, notify::NotifyError};

#[derive(Default)]
struct State {
    last_success_ms: Option<i64>,
    last_error: Option<String>,
    is_failing: bool,
}

/// What is known of one target; outlives the actor's incarnations.
pub(super) struct Health {
    /// `cache` or `webhook`.
    kind: &'static str,
    /// Its address without credentials and query.
    shown: String,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

impl Health {
    pub(super) fn new(kind: &'static str, shown: String, metrics: Arc<Metrics>) -> Self {
        metrics.publish_queued(&shown, 0);
        Self {
            kind,
            shown,
            metrics,
            state: Mutex::default(),
        }
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Something arrived.
    pub(super) fn succeeded(&self) {
        self.state.lock().last_success_ms = Some(clock::now_ms());
    }

    /// Everything that was under way has arrived.
    pub(super) fn is_well(&self) {
        let mut state = self.state.lock();
        state.last_error = None;
        let was_failing = std::mem::take(&mut state.is_failing);
        drop(state);
        self.metrics.publish_target_up(&self.shown, true);
        if was_failing {
            let (kind, target) = (self.kind, &self.shown);
            info!(target.url = target, "{kind} {target} is told again");
        }
    }

    /// Something was given up.
    pub(super) fn failed(&self, error: &NotifyError) {
        let text = error.to_string();
        let mut state = self.state.lock();
        state.last_error = Some(text.clone());
        let was_failing = std::mem::replace(&mut state.is_failing, true);
        drop(state);
        self.metrics.publish_target_up(&self.shown, false);
        let (kind, target) = (self.kind, &self.shown);
        if was_failing {
            debug!(
                target.url = target,
                "{kind} {target} still cannot be told: {text}"
            );
        } else {
            warn!(
                target.url = target,
                "{kind} {target} cannot be told of a new revision: {text}"
            );
        }
    }

    pub(super) fn status(&self, queued: usize) -> TargetStatus {
        let state = self.state.lock();
        TargetStatus {
            kind: self.kind,
            url: self.shown.clone(),
            last_success_ms: state.last_success_ms,
            last_error: state.last_error.clone(),
            queued,
        }
    }
}
