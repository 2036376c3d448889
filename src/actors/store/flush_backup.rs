//! Writing to the backup: what it lacks, and what is to be in one of the halves before it is answered.

use std::{future::Future, time::Duration};

use futures_util::future::{self, FutureExt as _};
use tokio::time::{sleep, timeout};

use super::{StoreContext, memory::Half, publish::row_of};
use crate::store::{RevisionRow, StoreError};

/// How long the backup is waited for before the database is asked as well. A disk that is well takes less.
const HEAD_START: Duration = Duration::from_millis(250);

/// How long inputs and states wait for their first durable copy. Longer than a revision: without its input none is durable,
/// and nobody reads it yet.
const FIRST_COPY_LIMIT: Duration = Duration::from_secs(1);

/// The disk does not answer: the rest of the pass would fare no better.
struct Hangs;

impl StoreContext {
    /// Writes everything that the backup lacks; what fails is left for the next time.
    ///
    /// The backup is well again when nothing has failed meanwhile and nothing is left: on a full disk there is room for
    /// something small now and then.
    pub(super) async fn flush_to_backup(&self) {
        let failures = self.memory.failures(Half::Backup);
        let lacked = self.memory.lacks_in_backup();
        if self.write_to_backup().await.is_err() {
            return;
        }
        if !lacked && !self.memory.is_well(Half::Backup) {
            let probed = self.store.backup().probe().await;
            drop(self.check_backup(&probed));
        }
        let has_failed = self.memory.failures(Half::Backup) > failures;
        if !has_failed && !self.memory.is_backup_unreadable() && !self.memory.lacks_in_backup() {
            self.report(Half::Backup, Ok(()));
        }
    }

    /// Inputs first: a start would undo a revision that was stored without them.
    async fn write_to_backup(&self) -> Result<(), Hangs> {
        self.check_backup(&self.restore_audit().await)?;
        let backup = self.store.backup();
        for input in self.memory.unwritten_inputs() {
            if !input.in_backup && self.check_backup(&backup.write_input(&input.value).await)? {
                self.memory.input_written(&input.value, Half::Backup);
            }
        }
        for row in self.memory.waiting_rows() {
            if self.row_to_backup(&row).await? {
                self.memory.waiting_in_backup(&row);
            }
        }
        for (snapshot, copies) in self.memory.unwritten_snapshots() {
            if copies.in_backup {
                continue;
            }
            let (name, revision) = (&snapshot.environment, snapshot.revision);
            if self.row_to_backup(&row_of(&snapshot, copies.value)).await? {
                self.memory.snapshot_written(name, revision, Half::Backup);
            }
        }
        for state in self.memory.unwritten_states() {
            if !state.in_backup && self.check_backup(&backup.write_state(&state.value).await)? {
                self.memory.state_written(&state.value, Half::Backup);
            }
        }
        for unwritten in self.memory.unwritten_registers() {
            if !unwritten.in_backup {
                self.check_backup(&self.registers_to_backup(&unwritten).await)?;
            }
        }
        if !self.memory.is_well(Half::Database) {
            self.check_backup(&self.audit_to_backup().await)?;
        }
        self.check_backup(&self.remove_surplus_audit().await)?;
        Ok(())
    }

    async fn row_to_backup(&self, row: &RevisionRow) -> Result<bool, Hangs> {
        let lacking = self.memory.lacking(&row.environment);
        let backup = self.store.backup();
        self.check_backup(&backup.write_snapshot_beside(row, lacking).await)
    }

    /// Whether a write succeeded.
    fn check_backup(&self, written: &Result<(), StoreError>) -> Result<bool, Hangs> {
        let Err(failure) = written else {
            return Ok(true);
        };
        self.report(Half::Backup, Err(failure));
        if failure.is_slow_disk() {
            return Err(Hangs);
        }
        Ok(false)
    }

    /// Waits, within a limit, until one of the halves has something; `written` is told which.
    ///
    /// The database is asked as well when the backup is not quick: a disk that hangs must not keep it from there, too.
    pub(super) async fn write_to_either(
        &self,
        to_backup: impl Future<Output = Result<(), StoreError>>,
        to_database: impl Future<Output = Result<(), StoreError>>,
        written: impl Fn(Half),
    ) -> bool {
        let ended = |half, done: Result<(), StoreError>| match done {
            Ok(()) => {
                written(half);
                Ok(())
            }
            Err(failure) => {
                self.report(half, Err(&failure));
                Err(())
            }
        };
        let to_backup = async { ended(Half::Backup, to_backup.await) };
        let to_database = async {
            if !self.memory.is_well(Half::Database) {
                return Err(());
            }
            if self.memory.is_well(Half::Backup) {
                sleep(HEAD_START).await;
            }
            ended(Half::Database, to_database.await)
        };
        let either = future::select_ok([to_backup.boxed_local(), to_database.boxed_local()]);
        matches!(timeout(FIRST_COPY_LIMIT, either).await, Ok(Ok(_)))
    }

    /// States alone: a pause must be durable before it is acknowledged.
    pub(super) async fn write_states(&self) {
        let (backup, database) = (self.store.backup(), self.store.database());
        for state in self.memory.unwritten_states() {
            if state.in_backup || state.in_database {
                continue;
            }
            let to_backup = backup.write_state(&state.value);
            let to_database = database.upsert_state(&state.value);
            let written = |half| self.memory.state_written(&state.value, half);
            self.write_to_either(to_backup, to_database, written).await;
        }
    }
}
