//! What a poller must not forget when it dies: pause, failure streak, validators, times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Outcome, PollReport, PollerStatus, RunState};
use crate::{
    actors::{board::SourceClock, config_service::IngestReport},
    clock,
    sources::Validators,
};

/// Who paused a source, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRecord {
    /// Who.
    pub by: String,
    /// Why, if said.
    pub reason: Option<String>,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
}

/// What is stored of a source beside its input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// The pause, while there is one.
    pub paused: Option<PauseRecord>,
    /// Unix milliseconds of the last successful check.
    pub last_success_ms: Option<i64>,
}

#[derive(Default)]
struct Remembered {
    paused: Option<PauseRecord>,
    failure_streak: u32,
    is_permanent: bool,
    is_ill: bool,
    is_stale_logged: bool,
    last_attempt_ms: Option<i64>,
    last_error: Option<String>,
    last_outcome: Option<Outcome>,
    validators: Validators,
    saved_at: Option<Instant>,
}

/// Shared by all incarnations of one source's poller; locked for moments only.
pub struct PollerMemory {
    clock: Arc<SourceClock>,
    sequence: AtomicU64,
    remembered: Mutex<Remembered>,
}

impl PollerMemory {
    /// Starts from what was stored.
    pub fn new(clock: Arc<SourceClock>, stored: SourceState) -> Self {
        if let Some(ms) = stored.last_success_ms {
            clock.set_last_success_ms(ms);
        }
        let remembered = Remembered {
            paused: stored.paused,
            ..Remembered::default()
        };
        Self {
            clock,
            sequence: AtomicU64::new(0),
            remembered: Mutex::new(remembered),
        }
    }

    pub(super) fn clock(&self) -> &SourceClock {
        &self.clock
    }

    pub(super) fn is_paused(&self) -> bool {
        self.remembered.lock().paused.is_some()
    }

    pub(super) fn set_paused(&self, paused: Option<PauseRecord>) {
        self.remembered.lock().paused = paused;
    }

    /// A number above all given out before: for a poll when it begins, for a push when it arrives.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A poll begins; gives the validators to send.
    pub(super) fn begin_attempt(&self) -> Validators {
        let mut remembered = self.remembered.lock();
        remembered.last_attempt_ms = Some(clock::now_ms());
        remembered.validators.clone()
    }

    pub(super) fn end_attempt(
        &self,
        ended: &PollReport,
        is_permanent: bool,
        report: &IngestReport,
    ) {
        let mut remembered = self.remembered.lock();
        let is_failed = ended.outcome == Outcome::Failed;
        remembered.failure_streak = if is_failed {
            remembered.failure_streak.saturating_add(1)
        } else {
            0
        };
        remembered.is_permanent = is_permanent;
        remembered.last_outcome = Some(ended.outcome);
        remembered.is_ill =
            is_failed || ended.outcome == Outcome::Held || !ended.failed_parts.is_empty();
        remembered.last_error = if remembered.is_ill {
            ended.reason.clone()
        } else {
            None
        };
        for part in &report.lost {
            remembered.validators.remove(part);
        }
        // A refused body leaves the validator of the accepted one in place.
        for (part, validator) in &report.accepted {
            match validator {
                Some(validator) => remembered
                    .validators
                    .insert(part.clone(), validator.clone()),
                None => remembered.validators.remove(part),
            };
        }
    }

    pub(super) fn failure_streak(&self) -> u32 {
        self.remembered.lock().failure_streak
    }

    /// Whether the last poll was a success, or there was none.
    pub(super) fn was_well(&self) -> bool {
        !self.remembered.lock().is_ill
    }

    /// Remembers whether staleness was logged; `true` when that is new.
    pub(super) fn set_stale_logged(&self, is_logged: bool) -> bool {
        std::mem::replace(&mut self.remembered.lock().is_stale_logged, is_logged) != is_logged
    }

    /// What is to be stored now.
    pub(super) fn source_state(&self) -> SourceState {
        let paused = self.remembered.lock().paused.clone();
        SourceState {
            paused,
            last_success_ms: self.clock.last_success_ms(),
        }
    }

    /// The same, unless it was given out less than `every` ago.
    pub(super) fn state_to_save(&self, every: Duration) -> Option<SourceState> {
        {
            let mut remembered = self.remembered.lock();
            if remembered.saved_at.is_some_and(|at| at.elapsed() < every) {
                return None;
            }
            remembered.saved_at = Some(Instant::now());
        }
        Some(self.source_state())
    }

    pub(super) fn status(&self, state: RunState, next_poll_ms: Option<i64>) -> PollerStatus {
        let remembered = self.remembered.lock();
        let paused = remembered.paused.as_ref();
        PollerStatus {
            state,
            last_attempt_ms: remembered.last_attempt_ms,
            last_success_ms: self.clock.last_success_ms(),
            last_error: remembered.last_error.clone(),
            next_poll_ms,
            failure_streak: remembered.failure_streak,
            is_permanent: remembered.is_permanent,
            last_outcome: remembered.last_outcome,
            paused_by: paused.map(|paused| paused.by.clone()),
            pause_reason: paused.and_then(|paused| paused.reason.clone()),
            paused_at_ms: paused.map(|paused| paused.at_ms),
        }
    }
}
