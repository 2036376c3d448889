//! The publishing order: number, one durable copy, current, announce; the other copy follows.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use super::{
    Published, StoreContext,
    memory::{Half, TwoCopies},
    waiting::WaitingRevision,
};
use crate::{
    clock,
    model::{Candidate, Snapshot},
    store::{Inserted, PackedInput, RevisionRow, packed},
    views::encodings::encodings,
};

/// How long a revision waits for its first durable copy before it is served without one.
const DURABLE_LIMIT: Duration = Duration::from_millis(250);
/// The database's part of that time; the rest is for the backup.
const DATABASE_LIMIT: Duration = Duration::from_millis(150);
impl StoreContext {
    /// Makes a candidate current. Never fails: without database and backup it is served all the same.
    pub(super) async fn publish(&self, candidate: Arc<Candidate>, packed: Bytes) -> Published {
        let _one_at_a_time = self.publishing.lock().await;
        let environment = Arc::clone(&candidate.environment);
        if let Some(current) = self
            .memory
            .current(&environment)
            .filter(|current| current.hash == candidate.hash)
        {
            return Published {
                revision: current.revision,
                is_new: false,
            };
        }
        let revision = self.publish_anew(candidate, packed).await;
        Published {
            revision,
            is_new: true,
        }
    }

    /// Gives the candidate a number and serves it under that, whatever is served now.
    async fn publish_anew(&self, candidate: Arc<Candidate>, packed: Bytes) -> u64 {
        let started = Instant::now();
        let (revision, copies) = self.store_first_copy(&candidate, packed, started).await;
        let made = Arc::clone(&candidate);
        let cell = self.board.environment(&candidate.environment);
        let evaluated = cell.map(|cell| cell.evaluated()).unwrap_or_default();
        let flagged = cell.map(|cell| cell.flagged()).unwrap_or_default();
        let number = move || {
            // Nothing to do, unless this content was read back from storage to get another number.
            if let Err(error) = made.prepare(&evaluated) {
                debug!("{} cannot be compiled: {error}", made.environment);
            }
            made.prepare_flags(&flagged);
            made.at_revision(revision)
        };
        let snapshot = match tokio::task::spawn_blocking(number).await {
            Ok(snapshot) => snapshot,
            // Only at the end of the process are blocking tasks refused.
            Err(_) => candidate.at_revision(revision),
        };
        self.make_current(snapshot, copies);
        self.metrics.published(started.elapsed().as_secs_f64());
        let meta = &candidate.meta;
        info!(
            environment = &*candidate.environment,
            revision,
            features = meta.features,
            experiments = meta.experiments,
            cause = meta.cause,
            "published revision {revision} of {} with {} features and {} experiments",
            candidate.environment,
            meta.features,
            meta.experiments
        );
        revision
    }

    /// Allots a number and waits, within the limit, for one durable copy under it.
    ///
    /// A revision is stored after the inputs it was made of: a start stitches those, and would undo it.
    async fn store_first_copy(
        &self,
        candidate: &Candidate,
        packed: Bytes,
        started: Instant,
    ) -> (u64, TwoCopies<Bytes>) {
        let mut revision = self.memory.highest(&candidate.environment) + 1;
        let mut copies = TwoCopies::unwritten(packed.clone());
        if self.memory.has_unsaved_input(&candidate.meta.sources) {
            not_durable(&candidate.environment, revision);
            return (revision, copies);
        }
        while self.memory.is_well(Half::Database) {
            let row = RevisionRow::new(candidate, revision, packed.clone());
            let insert = self.store.database().insert_revision(&row);
            let inserted = timeout_at(started + DATABASE_LIMIT, insert).await;
            // Whose number is taken has to look who has it.
            if matches!(&inserted, Ok(Ok(inserted)) if *inserted != Inserted::New) {
                self.metrics.database_read("revisions");
            }
            match inserted {
                Ok(Ok(Inserted::New | Inserted::AlreadyThere)) => {
                    copies.in_database = true;
                    return (revision, copies);
                }
                Ok(Ok(Inserted::Elsewhere { highest })) => {
                    copies.in_database = true;
                    return (highest, copies);
                }
                Ok(Ok(Inserted::Taken { highest })) => revision = highest.max(revision) + 1,
                Ok(Err(failure)) => self.report(Half::Database, Err(&failure)),
                // Too slow for a reader to wait for; the flush finds out whether it got through.
                Err(_) => break,
            }
        }
        let row = RevisionRow::new(candidate, revision, packed);
        let lacking = self.memory.lacking(&candidate.environment);
        let backup = self.store.backup().write_snapshot_beside(&row, lacking);
        match timeout_at(started + DURABLE_LIMIT, backup).await {
            Ok(Ok(())) => copies.in_backup = true,
            Ok(Err(failure)) => self.report(Half::Backup, Err(&failure)),
            Err(_) => {}
        }
        if !copies.in_backup {
            not_durable(&candidate.environment, revision);
        }
        (revision, copies)
    }

    /// Waits, within the limit, for one durable copy of an input.
    ///
    /// A start stitches what is stored: a snapshot whose input had been lost would be replaced by older content.
    pub(super) async fn write_first_copy(&self, input: &PackedInput) {
        let to_backup = self.store.backup().write_input(input);
        let to_database = self.store.database().upsert_input(input);
        let written = |half| self.memory.input_written(input, half);
        if !self.write_to_either(to_backup, to_database, written).await {
            debug!("the input of {} is not durable yet", input.source);
        }
    }

    /// Swaps the snapshot in, then announces it; compression follows off the request path.
    fn make_current(&self, snapshot: Snapshot, copies: TwoCopies<Bytes>) {
        let snapshot = Arc::new(snapshot);
        let environment = Arc::clone(&snapshot.environment);
        let replaced = self.memory.unwritten_in_database(&environment);
        let old = replaced.map(|(old, copies)| WaitingRevision {
            environment: Arc::clone(&environment),
            revision: old.revision,
            bytes: copies.value.len() as u64,
            row: (!copies.in_backup).then(|| row_of(&old, copies.value)),
        });
        self.memory.set_current(Arc::clone(&snapshot), copies, old);
        self.shed_waiting();
        self.announce(&snapshot);
    }

    /// Keeps what waits for the database within its bounds.
    fn shed_waiting(&self) {
        let generations = self.store.backup().generations();
        for dropped in self.memory.shed_waiting(generations) {
            let (name, revision) = (&*dropped.environment, dropped.revision);
            self.metrics.revision_lost();
            warn!(
                environment = name,
                revision,
                "revision {revision} of {name} will be missing from the history: too many wait for the database"
            );
        }
    }

    pub(super) fn announce(&self, snapshot: &Arc<Snapshot>) {
        let environment = &snapshot.environment;
        self.metrics.snapshot_served(
            environment,
            snapshot.revision,
            self.memory.is_durable(environment),
        );
        let keys = self.board.client_keys();
        if !keys.is_complete() {
            keys.restore(snapshot);
        }
        if let Some(cell) = self.board.environment(environment) {
            cell.announce(snapshot.revision);
        }
        let snapshot = Arc::clone(snapshot);
        tokio::task::spawn_blocking(move || compress(&snapshot));
    }

    /// Serves the current content of an environment under a higher number, because its own turned out to be taken.
    pub(super) async fn renumber(
        &self,
        environment: &Arc<str>,
        revision: u64,
        packed: Bytes,
        highest: u64,
    ) {
        let _one_at_a_time = self.publishing.lock().await;
        self.memory.raise_highest(environment, highest);
        let is_current = self
            .memory
            .current(environment)
            .is_some_and(|current| current.revision == revision);
        if !is_current {
            return;
        }
        let name = environment.to_string();
        let unpacked = {
            let packed = packed.clone();
            tokio::task::spawn_blocking(move || packed::unpack_candidate(&name, &packed)).await
        };
        match unpacked {
            Ok(Ok(candidate)) => {
                self.publish_anew(Arc::new(candidate), packed).await;
            }
            Ok(Err(failure)) => error!(
                environment = &**environment,
                "cannot renumber {environment}: {}",
                failure.explain()
            ),
            Err(_) => {}
        }
    }
}

fn not_durable(name: &str, revision: u64) {
    error!(
        environment = name,
        revision, "revision {revision} of {name} is served without a durable copy"
    );
}

/// The database row of a snapshot that was published before the database took it.
pub(super) fn row_of(snapshot: &Snapshot, packed: Bytes) -> RevisionRow {
    RevisionRow {
        environment: snapshot.environment.to_string(),
        revision: snapshot.revision,
        hash: snapshot.hash.clone(),
        meta: snapshot.meta.clone(),
        size_bytes: snapshot.size_bytes(),
        published_at_ms: clock::to_ms(snapshot.published_at),
        body: packed,
    }
}

/// Makes the compressed bodies of every document that has none yet.
fn compress(snapshot: &Snapshot) {
    fail::fail_point!("store.compress");
    for document in snapshot.documents.values() {
        // A document that did not change is shared with the last revision, bodies included.
        if document.encodings.get().is_none() {
            drop(document.encodings.set(encodings(&document.body)));
        }
    }
}
