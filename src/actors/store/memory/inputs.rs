//! Sources' accepted inputs and states, and which copies of them are still to be written.

use std::sync::Arc;

use super::{Half, StoreMemory, TwoCopies};
use crate::{
    actors::poller::SourceState,
    clock,
    store::{PackedInput, StoredState},
};

impl StoreMemory {
    /// Takes in an input read from the store, unless one is there that is as new.
    pub(in crate::actors::store) fn restore_input(
        &self,
        input: PackedInput,
        in_database: bool,
        in_backup: bool,
    ) {
        let mut inner = self.inner.lock();
        let old = inner
            .inputs
            .get(&input.source)
            .map(|old| old.value.accepted_at_ms);
        if old.is_none_or(|old| old < input.accepted_at_ms) {
            let copies = TwoCopies {
                value: Arc::new(input),
                in_database,
                in_backup,
            };
            inner.inputs.insert(copies.value.source.clone(), copies);
        }
    }

    /// Takes in a state read from the store, unless one is there: that is what this process knows.
    pub(in crate::actors::store) fn restore_state(
        &self,
        state: StoredState,
        in_database: bool,
        in_backup: bool,
    ) {
        let mut inner = self.inner.lock();
        let name = state.source.clone();
        inner.states.entry(name).or_insert(TwoCopies {
            value: state,
            in_database,
            in_backup,
        });
    }

    /// Whether an input of one of these sources has no copy at all.
    pub(in crate::actors::store) fn has_unsaved_input(&self, sources: &[String]) -> bool {
        let inner = self.inner.lock();
        let mut inputs = sources.iter().filter_map(|id| inner.inputs.get(id));
        inputs.any(|input| input.missing() == 2)
    }

    /// Keeps an input in place of the source's older one, and gives it as it is kept.
    ///
    /// A start takes the later of what database and backup have, so its time is later than that of the input before, even
    /// if the clock was set back.
    pub(in crate::actors::store) fn set_input(&self, input: Arc<PackedInput>) -> Arc<PackedInput> {
        let mut inner = self.inner.lock();
        let old = inner.inputs.get(&input.source);
        let accepted_at_ms = later(
            input.accepted_at_ms,
            old.map(|old| old.value.accepted_at_ms),
        );
        let input = if accepted_at_ms == input.accepted_at_ms {
            input
        } else {
            Arc::new(PackedInput {
                accepted_at_ms,
                ..(*input).clone()
            })
        };
        let copies = TwoCopies::unwritten(Arc::clone(&input));
        inner.inputs.insert(input.source.clone(), copies);
        input
    }

    pub(in crate::actors::store) fn inputs(&self) -> Vec<Arc<PackedInput>> {
        self.inner
            .lock()
            .inputs
            .values()
            .map(|input| Arc::clone(&input.value))
            .collect()
    }

    pub(in crate::actors::store) fn unwritten_inputs(&self) -> Vec<TwoCopies<Arc<PackedInput>>> {
        self.inner
            .lock()
            .inputs
            .values()
            .filter(|input| input.missing() > 0)
            .cloned()
            .collect()
    }

    pub(in crate::actors::store) fn input_written(&self, input: &PackedInput, half: Half) {
        let mut inner = self.inner.lock();
        let same = |kept: &&mut TwoCopies<Arc<PackedInput>>| kept.value.digest == input.digest;
        if let Some(kept) = inner.inputs.get_mut(&input.source).filter(same) {
            match half {
                Half::Database => kept.in_database = true,
                Half::Backup => kept.in_backup = true,
            }
        }
    }

    pub(in crate::actors::store) fn set_state(&self, source: &str, state: &SourceState) {
        let mut inner = self.inner.lock();
        let old = inner.states.get(source);
        let stored = StoredState {
            source: source.to_owned(),
            // As for inputs.
            updated_at_ms: later(clock::now_ms(), old.map(|old| old.value.updated_at_ms)),
            body: serde_json::to_string(state).expect("a state has string keys only"),
        };
        let copies = TwoCopies::unwritten(stored);
        inner.states.insert(source.to_owned(), copies);
    }

    /// A source's state as read at start; the default when there is none.
    pub fn source_state(&self, source: &str) -> SourceState {
        let inner = self.inner.lock();
        let body = inner
            .states
            .get(source)
            .map(|state| state.value.body.as_str());
        body.and_then(|body| serde_json::from_str(body).ok())
            .unwrap_or_default()
    }

    pub(in crate::actors::store) fn unwritten_states(&self) -> Vec<TwoCopies<StoredState>> {
        self.inner
            .lock()
            .states
            .values()
            .filter(|state| state.missing() > 0)
            .cloned()
            .collect()
    }

    pub(in crate::actors::store) fn state_written(&self, state: &StoredState, half: Half) {
        let mut inner = self.inner.lock();
        if let Some(kept) = inner
            .states
            .get_mut(&state.source)
            .filter(|kept| kept.value == *state)
        {
            match half {
                Half::Database => kept.in_database = true,
                Half::Backup => kept.in_backup = true,
            }
        }
    }
}

/// A time that is later than an older one, whatever the clock says.
fn later(now_ms: i64, old_ms: Option<i64>) -> i64 {
    old_ms.map_or(now_ms, |old_ms| now_ms.max(old_ms.saturating_add(1)))
}
