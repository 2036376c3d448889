//! How the halves of the store are doing.

use std::sync::Arc;

use super::{Half, Inner, StoreMemory, TwoCopies, WaitingRevision};

/// Health of one half.
#[derive(Default)]
pub(super) struct HalfHealth {
    /// `None` when well.
    pub(super) error: Option<String>,
    /// How often it has failed.
    failures: u64,
}

impl Inner {
    fn health(&mut self, half: Half) -> &mut HalfHealth {
        match half {
            Half::Database => &mut self.database,
            Half::Backup => &mut self.backup,
        }
    }
}

impl Inner {
    fn all_lacking_in_database(&mut self) {
        let inputs = self.inputs.values_mut().map(|one| &mut one.in_database);
        let states = self.states.values_mut().map(|one| &mut one.in_database);
        let registers = self.registers.values_mut().map(|one| &mut one.in_database);
        for is_there in inputs.chain(states).chain(registers) {
            *is_there = false;
        }
        let from_backup = |environment: &Arc<str>, revision| WaitingRevision {
            environment: Arc::clone(environment),
            revision,
            bytes: 0,
            row: None,
        };
        for (environment, known) in &self.registers {
            if let Some(revision) = known.value.registers.pinned() {
                self.waiting.add(from_backup(environment, revision));
            }
        }
        for (environment, current) in &mut self.current {
            if current.copies.value.is_empty() {
                let revision = current.snapshot.revision;
                self.waiting.add(from_backup(environment, revision));
            } else {
                current.copies.in_database = false;
            }
        }
    }
}

impl StoreMemory {
    /// Notes how a half fared; `true` when that changed.
    pub(in crate::actors::store) fn set_health(&self, half: Half, error: Option<String>) -> bool {
        let mut inner = self.inner.lock();
        let health = inner.health(half);
        let is_change = health.error.is_some() != error.is_some();
        health.failures += u64::from(error.is_some());
        health.error = error;
        is_change
    }

    pub(in crate::actors::store) fn is_well(&self, half: Half) -> bool {
        self.inner.lock().health(half).error.is_none()
    }

    /// How often a half has failed so far.
    pub(in crate::actors::store) fn failures(&self, half: Half) -> u64 {
        self.inner.lock().health(half).failures
    }

    /// Takes note of how often the database was replaced by another one; `true` when that is news.
    ///
    /// Then everything that is kept here is to be written to it. Revisions come from the backup where they are here no more.
    pub(in crate::actors::store) fn database_replaced(&self, times: u64) -> bool {
        let mut inner = self.inner.lock();
        let is_news = std::mem::replace(&mut inner.database_replaced, times) != times;
        if is_news {
            inner.all_lacking_in_database();
        }
        is_news
    }

    /// A file of the backup that is wanted could not be read, or can be again.
    pub(in crate::actors::store) fn set_backup_unreadable(&self, is_unreadable: bool) {
        self.inner.lock().is_backup_unreadable = is_unreadable;
    }

    pub(in crate::actors::store) fn is_backup_unreadable(&self) -> bool {
        self.inner.lock().is_backup_unreadable
    }

    /// Whether anything is still to be written to the backup.
    pub(in crate::actors::store) fn lacks_in_backup(&self) -> bool {
        fn lacks<T>(copies: &TwoCopies<T>) -> bool {
            !copies.in_backup
        }
        let inner = self.inner.lock();
        inner.current.values().any(|one| lacks(&one.copies))
            || inner.inputs.values().any(lacks)
            || inner.states.values().any(lacks)
            || inner.registers.values().any(lacks)
            || inner.waiting.has_rows()
    }
}
