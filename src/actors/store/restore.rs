//! Taking in what the store holds: at start, and again when a database that was away then answers for the first time.

use std::sync::Arc;

use tracing::{info, warn};

use super::{
    memory::{Half, StoreMemory},
    waiting::WaitingRevision,
};
use crate::store::{Loaded, LoadedEnvironment, Side};

impl StoreMemory {
    /// The memory of a process that has just read its store.
    pub fn restored(loaded: Loaded) -> Self {
        let memory = Self::default();
        absorb(&memory, loaded);
        memory
    }
}

/// Takes in whatever is not known yet; what is served stays, however old.
///
/// Gives the environments of which operators' decisions are news.
pub(super) fn absorb(memory: &StoreMemory, loaded: Loaded) -> Vec<Arc<str>> {
    for note in &loaded.notes {
        warn!("{note}");
    }
    memory.set_database_unread(loaded.database_failure.is_some());
    for (half, name, failure) in [
        (Half::Database, "database", &loaded.database_failure),
        (Half::Backup, "backup", &loaded.backup_failure),
    ] {
        // That a half is well again is the flush's to find out, and to log.
        if let Some(failure) = failure {
            warn!("the {name} cannot be read: {}", failure.explain());
            memory.set_health(half, Some(failure.explain()));
        }
    }
    for (name, environment) in loaded.environments {
        absorb_environment(memory, &name.into(), environment);
    }
    for (_, input) in loaded.inputs {
        memory.restore_input(
            input.packed,
            input.database == Side::InStep,
            input.backup == Side::InStep,
        );
    }
    for (_, state) in loaded.states {
        memory.restore_state(
            state.state,
            state.database == Side::InStep,
            state.backup == Side::InStep,
        );
    }
    let mut decided = Vec::new();
    for (name, found) in loaded.registers {
        let name = name.into();
        let (in_database, in_backup) =
            (found.database == Side::InStep, found.backup == Side::InStep);
        if memory.restore_registers(&name, found.state, in_database, in_backup) {
            decided.push(name);
        }
    }
    decided
}

fn absorb_environment(memory: &StoreMemory, name: &Arc<str>, found: LoadedEnvironment) {
    memory.raise_highest(name, found.highest);
    // The one that becomes current is written like any current one.
    let is_current = |revision: u64| {
        let stored = found.current.as_ref();
        stored.is_some_and(|stored| stored.revision == revision && !found.is_diverged)
    };
    for generation in &found.generations {
        if !is_current(generation.revision) {
            memory.add_waiting(WaitingRevision {
                environment: Arc::clone(name),
                revision: generation.revision,
                bytes: generation.bytes,
                row: None,
            });
        }
    }
    let Some(stored) = found.current.filter(|_| memory.current(name).is_none()) else {
        return;
    };
    if found.is_diverged {
        // Two contents were served under this number. A fresh one ends that.
        let revision = found.highest + 1;
        warn!(
            environment = &**name,
            revision,
            "revision {} of {name} exists twice; serving it as {revision}",
            stored.revision
        );
        memory.raise_highest(name, revision);
        memory.restore(
            stored.candidate.at_revision(revision),
            stored.packed,
            false,
            false,
        );
        return;
    }
    let (in_database, in_backup) = (found.database == Side::InStep, found.backup == Side::InStep);
    let revision = stored.revision;
    memory.restore(
        stored.candidate.at_revision(revision),
        stored.packed,
        in_database,
        in_backup,
    );
    info!(
        environment = &**name,
        revision, "restored revision {revision} of {name}"
    );
}
