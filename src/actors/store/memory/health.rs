//! How the halves of the store are doing.

use super::{Half, Inner, StoreMemory, TwoCopies};

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
