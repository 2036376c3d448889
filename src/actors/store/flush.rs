//! Writing what is still unwritten, and noticing when database or backup fail and recover.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{StoreContext, memory::Half, publish::row_of, restore, waiting::WaitingRevision};
use crate::store::{Inserted, Outage, RevisionRow, StoreError};

/// More revisions than there will ever be.
const KEEP_ALL: u64 = u32::MAX as u64;

/// How long an orderly end of the connections may take; on `SQLite` it writes the log back.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How long the last flush may wait for a backup that has failed already: it may hang.
const LAST_BACKUP_LIMIT: Duration = Duration::from_secs(1);

/// The database is away or refuses: the rest of the flush would fare no better.
struct Away;

/// What is to be done about a revision that waits.
enum Row {
    Insert(Box<RevisionRow>),
    /// The database has it, or never will.
    Done,
    /// The disk did not give it.
    Later,
}

impl StoreContext {
    /// Announces what was restored at start, so that readers find it.
    pub(super) fn announce_loaded(&self) {
        for snapshot in self.memory.all_current() {
            self.announce(&snapshot);
        }
    }

    /// Writes everything that a half lacks; what fails is left for the next time.
    pub(super) async fn flush(&self, half: Half) {
        match half {
            Half::Database => {
                let one_at_a_time = self.flushing.lock().await;
                self.flush_and_report().await;
                drop(one_at_a_time);
            }
            Half::Backup => self.flush_to_backup().await,
        }
        self.metrics.store_pending(self.memory.pending());
        for snapshot in self.memory.all_current() {
            let is_durable = self.memory.is_durable(&snapshot.environment);
            self.metrics
                .snapshot_served(&snapshot.environment, snapshot.revision, is_durable);
        }
    }

    /// Has everything written again to a database that was made anew, whoever found that out.
    pub(super) fn look_for_replacement(&self) {
        let times = self.store.database().times_replaced();
        if self.memory.database_replaced(times) {
            let source = Outage::FileReplaced;
            self.report(Half::Database, Err(&StoreError::Unavailable { source }));
        }
    }

    async fn flush_and_report(&self) {
        if self.flush_to_database().await.is_ok() {
            self.report(Half::Database, Ok(()));
        }
    }

    /// The last flush of this process, and an orderly close.
    pub(super) async fn finish(&self, limit: Duration) {
        let patience = if self.memory.is_well(Half::Backup) {
            limit
        } else {
            LAST_BACKUP_LIMIT
        };
        let to_backup = timeout(patience, self.flush_to_backup());
        let to_database = async {
            let under_way = self.flushing.try_lock();
            let is_alone = under_way.is_ok();
            let one_at_a_time = match under_way {
                Ok(guard) => guard,
                Err(_) => self.flushing.lock().await,
            };
            // What has just been found to be away is not waited for a second time.
            if is_alone || self.memory.is_well(Half::Database) {
                self.flush_and_report().await;
            }
            drop(one_at_a_time);
        };
        let (_, in_database) = tokio::join!(to_backup, timeout(limit, to_database));
        if in_database.is_err() || self.memory.pending() > 0 {
            warn!(
                pending = self.memory.pending(),
                "stopping with writes still to be made"
            );
        }
        // Nothing is written any more: a connection that hangs may as well be dropped.
        let closed = timeout(CLOSE_LIMIT, self.store.database().close()).await;
        if let Ok(Err(failure)) = closed {
            debug!("the database was not closed: {}", failure.explain());
        }
    }

    async fn flush_to_database(&self) -> Result<(), Away> {
        let database = self.store.database();
        if self.memory.is_database_unread() {
            self.take_in_database().await?;
        } else if !self.memory.is_well(Half::Database) {
            self.check(database.ping().await)?;
        }
        let mut too_large = None;
        for input in self.memory.unwritten_inputs() {
            if !input.in_database {
                let written = database.upsert_input(&input.value).await;
                if self.check_size(written, &mut too_large)?.is_some() {
                    self.memory.input_written(&input.value, Half::Database);
                }
            }
        }
        self.flush_waiting().await?;
        for (snapshot, copies) in self.memory.unwritten_snapshots() {
            if !copies.in_database {
                let inserted = database
                    .insert_revision(&row_of(&snapshot, copies.value.clone()))
                    .await;
                match self.check_size(inserted, &mut too_large)? {
                    Some(Inserted::New | Inserted::AlreadyThere) => {
                        self.memory.snapshot_written(
                            &snapshot.environment,
                            snapshot.revision,
                            Half::Database,
                        );
                    }
                    Some(taken) => {
                        let used = match taken {
                            Inserted::Elsewhere { highest } => highest.saturating_sub(1),
                            Inserted::Taken { highest } => highest,
                            Inserted::New | Inserted::AlreadyThere => snapshot.revision,
                        };
                        let (name, revision) = (&snapshot.environment, snapshot.revision);
                        self.renumber(name, revision, copies.value, used).await;
                    }
                    None => {}
                }
            }
        }
        for snapshot in self.memory.unpruned() {
            let name = &snapshot.environment;
            let protected = self.memory.protected(name);
            let keep = self.settings.keep_revisions;
            self.check(database.prune_revisions(name, keep, &protected).await)?;
            self.memory.set_pruned(&snapshot);
        }
        for state in self.memory.unwritten_states() {
            if !state.in_database {
                self.check(database.upsert_state(&state.value).await)?;
                self.memory.state_written(&state.value, Half::Database);
            }
        }
        let written = self.flush_registers_to_database().await;
        self.check_size(written, &mut too_large)?;
        self.check(self.audit_to_database().await)?;
        self.check(too_large.map_or(Ok(()), Err))
    }

    /// Brings into the history what was replaced before the database had it, in this process or one that was killed.
    async fn flush_waiting(&self) -> Result<(), Away> {
        while let Some(waiting) = self.memory.first_waiting() {
            match self.waiting_row(&waiting).await? {
                Row::Insert(row) => {
                    let inserted = self.store.database().insert_revision(&row).await;
                    // A number that somebody else has taken meanwhile stays theirs; this one was replaced long since.
                    match self.check_size(inserted, &mut None)? {
                        Some(inserted) => debug!("{row:?} waited for the history: {inserted:?}"),
                        // It stays out of the history for good.
                        None => self.metrics.revision_lost(),
                    }
                }
                Row::Done => {}
                Row::Later => return Ok(()),
            }
            self.memory.waiting_written(&waiting);
        }
        self.memory.set_backup_unreadable(false);
        Ok(())
    }

    async fn waiting_row(&self, waiting: &WaitingRevision) -> Result<Row, Away> {
        if let Some(row) = &waiting.row {
            return Ok(Row::Insert(Box::new(row.clone())));
        }
        let (name, revision) = (&*waiting.environment, waiting.revision);
        let is_protected = self.memory.protected(name).contains(&revision);
        let keep = if is_protected {
            KEEP_ALL
        } else {
            self.settings.keep_revisions
        };
        let asked = self
            .store
            .database()
            .lacks_revision(name, revision, keep)
            .await;
        if !self.check(asked)? {
            return Ok(Row::Done);
        }
        match self.store.backup().read_snapshot(name, revision).await {
            Ok(row) => {
                info!(
                    environment = name,
                    revision,
                    "revision {revision} of {name} comes into the history from the backup"
                );
                Ok(Row::Insert(Box::new(row)))
            }
            Err(failure) if failure.is_lasting() => {
                warn!(
                    environment = name,
                    revision,
                    "revision {revision} of {name} will be missing from the history: {}",
                    failure.explain()
                );
                self.metrics.revision_lost();
                Ok(Row::Done)
            }
            Err(failure) => {
                self.memory.set_backup_unreadable(true);
                self.report(Half::Backup, Err(&failure));
                Ok(Row::Later)
            }
        }
    }

    /// The database was away at start: as soon as it answers, what it has and we do not is taken in.
    async fn take_in_database(&self) -> Result<(), Away> {
        self.check(self.store.database().ping().await)?;
        let environments: Vec<String> = self
            .board
            .environments()
            .map(|cell| cell.name.to_string())
            .collect();
        let mut loaded = self.check(self.store.load(&environments).await)?;
        if let Some(failure) = loaded.database_failure.take() {
            self.report(Half::Database, Err(&failure));
            return Err(Away);
        }
        let _one_at_a_time = self.publishing.lock().await;
        let decided = restore::absorb(&self.memory, loaded);
        self.announce_loaded();
        for environment in decided {
            if let Some(cell) = self.board.environment(&environment) {
                cell.note_decision();
            }
        }
        Ok(())
    }

    /// Like [`Self::check`], but what is too large for the database does not keep the rest from it.
    fn check_size<T>(
        &self,
        result: Result<T, StoreError>,
        too_large: &mut Option<StoreError>,
    ) -> Result<Option<T>, Away> {
        match result {
            Err(failure @ StoreError::PacketTooLarge { .. }) => {
                *too_large = Some(failure);
                Ok(None)
            }
            other => self.check(other).map(Some),
        }
    }

    fn check<T>(&self, result: Result<T, StoreError>) -> Result<T, Away> {
        result.map_err(|failure| {
            self.report(Half::Database, Err(&failure));
            Away
        })
    }

    /// Notes how a half fared: one line when it goes wrong, one when it recovers.
    pub(super) fn report(&self, half: Half, result: Result<(), &StoreError>) {
        let name = match half {
            Half::Database => "database",
            Half::Backup => "backup",
        };
        let is_change = self
            .memory
            .set_health(half, result.err().map(StoreError::explain));
        match half {
            Half::Database => self.metrics.database_up(result.is_ok()),
            Half::Backup => self.metrics.backup_up(result.is_ok()),
        }
        match result {
            Ok(()) if is_change => info!("the {name} is back"),
            Err(failure) if is_change => {
                warn!(
                    "the {name} failed, what it lacks is written later: {}",
                    failure.explain()
                );
            }
            _ => {}
        }
    }
}
