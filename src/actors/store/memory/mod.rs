//! What the store knows without asking a disk: what is current, and what is still to be written where.
//!
//! One lock, held for moments and never across an await.

mod health;
mod inputs;
mod registers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use self::health::HalfHealth;
pub(super) use self::registers::UnwrittenRegisters;
use super::{
    AuditLine, StoreStatus, StoredEnvironment,
    audit_queue::AuditQueue,
    history::Remembered,
    waiting::{Waiting, WaitingRevision},
};
use crate::{
    model::Snapshot,
    store::{EnvironmentState, PackedInput, RevisionInfo, RevisionRow, StoredState},
};

/// Something with two copies to write.
#[derive(Clone)]
pub(super) struct TwoCopies<T> {
    pub(super) value: T,
    pub(super) in_database: bool,
    pub(super) in_backup: bool,
}

impl<T> TwoCopies<T> {
    pub(super) fn unwritten(value: T) -> Self {
        Self {
            value,
            in_database: false,
            in_backup: false,
        }
    }

    fn missing(&self) -> usize {
        usize::from(!self.in_database) + usize::from(!self.in_backup)
    }
}

/// The snapshot served, with its packed form for as long as a copy is missing.
pub(super) struct Current {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) copies: TwoCopies<Bytes>,
    /// Whether older revisions beyond the retention were deleted since.
    is_pruned: bool,
}

/// Which half of the store a report is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    Database,
    Backup,
}

#[derive(Default)]
struct Inner {
    current: BTreeMap<Arc<str>, Current>,
    /// Highest number ever seen or given out.
    highest: BTreeMap<Arc<str>, u64>,
    inputs: BTreeMap<String, TwoCopies<Arc<PackedInput>>>,
    states: BTreeMap<String, TwoCopies<StoredState>>,
    registers: BTreeMap<Arc<str>, TwoCopies<EnvironmentState>>,
    /// Replaced before the database had them.
    waiting: Waiting,
    audit: AuditQueue,
    database: HalfHealth,
    backup: HalfHealth,
    /// What the backup was to give to the database could not be read.
    is_backup_unreadable: bool,
    /// The database was never read: what it holds is still to be taken in.
    is_database_unread: bool,
    /// How often another file took its place so far.
    database_replaced: u64,
}

impl Inner {
    fn protected(&self, environment: &str) -> BTreeSet<u64> {
        let known = self.registers.get(environment);
        let pinned = known.and_then(|known| known.value.registers.pinned());
        pinned.into_iter().collect()
    }
}

/// Shared by all incarnations of the `StoreActor`; clones share it too.
#[derive(Clone, Default)]
pub struct StoreMemory {
    inner: Arc<Mutex<Inner>>,
}

impl StoreMemory {
    /// Takes in a snapshot read at start.
    pub(super) fn restore(
        &self,
        snapshot: Snapshot,
        packed: Bytes,
        in_database: bool,
        in_backup: bool,
    ) {
        let environment = Arc::clone(&snapshot.environment);
        let copies = TwoCopies {
            value: packed,
            in_database,
            in_backup,
        };
        let current = Current {
            snapshot: Arc::new(snapshot),
            copies,
            is_pruned: false,
        };
        self.inner.lock().current.insert(environment, current);
    }

    /// A number that must not be given out again.
    pub(super) fn raise_highest(&self, environment: &Arc<str>, revision: u64) {
        let mut inner = self.inner.lock();
        let highest = inner.highest.entry(Arc::clone(environment)).or_default();
        *highest = (*highest).max(revision);
    }

    pub(super) fn highest(&self, environment: &str) -> u64 {
        self.inner
            .lock()
            .highest
            .get(environment)
            .copied()
            .unwrap_or(0)
    }

    pub(super) fn current(&self, environment: &str) -> Option<Arc<Snapshot>> {
        self.inner
            .lock()
            .current
            .get(environment)
            .map(|current| Arc::clone(&current.snapshot))
    }

    pub(super) fn all_current(&self) -> Vec<Arc<Snapshot>> {
        self.inner
            .lock()
            .current
            .values()
            .map(|current| Arc::clone(&current.snapshot))
            .collect()
    }

    /// Replaces the current snapshot; the old one waits on if the database does not have it yet.
    pub(super) fn set_current(
        &self,
        snapshot: Arc<Snapshot>,
        copies: TwoCopies<Bytes>,
        old: Option<WaitingRevision>,
    ) {
        let mut inner = self.inner.lock();
        let environment = Arc::clone(&snapshot.environment);
        inner
            .highest
            .insert(Arc::clone(&environment), snapshot.revision);
        inner.current.insert(
            environment,
            Current {
                snapshot,
                copies,
                is_pruned: false,
            },
        );
        if let Some(old) = old {
            inner.waiting.add(old);
        }
    }

    /// What is to be written of the current snapshots: `(snapshot, packed, to database, to backup)`.
    pub(super) fn unwritten_snapshots(&self) -> Vec<(Arc<Snapshot>, TwoCopies<Bytes>)> {
        let inner = self.inner.lock();
        let unwritten = inner
            .current
            .values()
            .filter(|current| current.copies.missing() > 0);
        unwritten
            .map(|current| (Arc::clone(&current.snapshot), current.copies.clone()))
            .collect()
    }

    /// The packed current snapshot, when the database lacks it.
    pub(super) fn unwritten_in_database(
        &self,
        environment: &str,
    ) -> Option<(Arc<Snapshot>, TwoCopies<Bytes>)> {
        let inner = self.inner.lock();
        let current = inner
            .current
            .get(environment)
            .filter(|current| !current.copies.in_database)?;
        Some((Arc::clone(&current.snapshot), current.copies.clone()))
    }

    pub(super) fn snapshot_written(&self, environment: &str, revision: u64, half: Half) {
        let mut inner = self.inner.lock();
        let Some(current) = inner
            .current
            .get_mut(environment)
            .filter(|c| c.snapshot.revision == revision)
        else {
            return;
        };
        match half {
            Half::Database => current.copies.in_database = true,
            Half::Backup => current.copies.in_backup = true,
        }
        if current.copies.missing() == 0 {
            // Both have it: the packed bytes are not needed in memory any more.
            current.copies.value = Bytes::new();
        }
    }

    /// Current snapshots since which the history was not cut yet.
    pub(super) fn unpruned(&self) -> Vec<Arc<Snapshot>> {
        let inner = self.inner.lock();
        let is_unpruned = |current: &&Current| current.copies.in_database && !current.is_pruned;
        inner
            .current
            .values()
            .filter(is_unpruned)
            .map(|current| Arc::clone(&current.snapshot))
            .collect()
    }

    pub(super) fn set_pruned(&self, snapshot: &Snapshot) {
        let mut inner = self.inner.lock();
        if let Some(current) = inner.current.get_mut(&snapshot.environment) {
            current.is_pruned |= current.snapshot.revision == snapshot.revision;
        }
    }

    /// Revisions that must not be deleted: what a pin names must stay.
    pub(super) fn protected(&self, environment: &str) -> BTreeSet<u64> {
        self.inner.lock().protected(environment)
    }

    pub(super) fn is_durable(&self, environment: &str) -> bool {
        let inner = self.inner.lock();
        inner
            .current
            .get(environment)
            .is_some_and(|current| current.copies.missing() < 2)
    }

    /// A revision found in the backup: whether the database has it is still to be asked.
    pub(super) fn add_waiting(&self, waiting: WaitingRevision) {
        self.inner.lock().waiting.add(waiting);
    }

    /// Drops what waits beyond the bounds, and gives it.
    pub(super) fn shed_waiting(&self, generations: usize) -> Vec<WaitingRevision> {
        self.inner.lock().waiting.shed(generations)
    }

    /// The oldest revision that the database may lack.
    pub(super) fn first_waiting(&self) -> Option<WaitingRevision> {
        self.inner.lock().waiting.first()
    }

    /// Takes a revision off; one more in the history means one to be cut off its end.
    pub(super) fn waiting_written(&self, waiting: &WaitingRevision) {
        let mut inner = self.inner.lock();
        inner.waiting.remove(&waiting.environment, waiting.revision);
        if let Some(current) = inner.current.get_mut(&waiting.environment) {
            current.is_pruned = false;
        }
    }

    /// Replaced revisions that no half has.
    pub(super) fn waiting_rows(&self) -> Vec<RevisionRow> {
        self.inner.lock().waiting.rows()
    }

    pub(super) fn waiting_in_backup(&self, row: &RevisionRow) {
        self.inner.lock().waiting.set_in_backup(row);
    }

    /// A replaced revision that no half has.
    pub(super) fn waiting_row(&self, environment: &str, revision: u64) -> Option<RevisionRow> {
        let inner = self.inner.lock();
        let mut rows = inner.waiting.rows().into_iter();
        rows.find(|row| row.revision == revision && row.environment == environment)
    }

    /// What is known of an environment's revisions without asking anybody.
    pub(super) fn remembered(&self, environment: &str) -> Remembered {
        let inner = self.inner.lock();
        let mut known = inner.waiting.remembered(environment);
        if let Some(current) = inner.current.get(environment) {
            let info = RevisionInfo::from(&*current.snapshot);
            known.revisions.insert(info.revision, info);
        }
        known
    }

    /// Asks, whenever it is called, for the numbers whose files must stay: the database lacks them, or they are protected.
    pub(super) fn lacking(&self, environment: &str) -> impl Fn() -> BTreeSet<u64> + Send + 'static {
        let (inner, environment) = (Arc::clone(&self.inner), environment.to_owned());
        move || {
            let inner = inner.lock();
            let mut numbers = inner.waiting.numbers(&environment);
            numbers.extend(inner.protected(&environment));
            let current = inner.current.get(environment.as_str());
            numbers.extend(
                current
                    .filter(|current| !current.copies.in_database)
                    .map(|current| current.snapshot.revision),
            );
            numbers
        }
    }

    /// Looks at the audit's queue, or changes it.
    pub(super) fn audit<T>(&self, work: impl FnOnce(&mut AuditQueue) -> T) -> T {
        work(&mut self.inner.lock().audit)
    }

    /// Lines known without the database, newest first; all recent ones, or only those not written yet.
    pub(super) fn audit_lines(&self, only_unwritten: bool) -> Vec<AuditLine> {
        self.inner.lock().audit.lines(only_unwritten)
    }

    /// The database was not read at start.
    pub(super) fn set_database_unread(&self, is_unread: bool) {
        self.inner.lock().is_database_unread = is_unread;
    }

    pub(super) fn is_database_unread(&self) -> bool {
        self.inner.lock().is_database_unread
    }

    /// Number of writes still to be made.
    pub(super) fn pending(&self) -> usize {
        let inner = self.inner.lock();
        let snapshots: usize = inner
            .current
            .values()
            .map(|current| current.copies.missing())
            .sum();
        let inputs: usize = inner.inputs.values().map(TwoCopies::missing).sum();
        let states: usize = inner.states.values().map(TwoCopies::missing).sum();
        let registers: usize = inner.registers.values().map(TwoCopies::missing).sum();
        let unpruned = inner
            .current
            .values()
            .filter(|current| !current.is_pruned)
            .count();
        snapshots + inputs + states + registers + unpruned + inner.waiting.len() + inner.audit.len()
    }

    pub(super) fn has_pending(&self) -> bool {
        self.pending() > 0
            || self.is_database_unread()
            || !self.is_well(Half::Database)
            || !self.is_well(Half::Backup)
            || self.audit(|queue| !queue.is_restored() || queue.has_surplus_file())
    }

    pub(super) fn status(&self) -> StoreStatus {
        let pending = self.pending();
        let inner = self.inner.lock();
        let environment = |(name, current): (&Arc<str>, &Current)| StoredEnvironment {
            name: name.to_string(),
            is_durable: current.copies.missing() < 2,
        };
        StoreStatus {
            database_up: inner.database.error.is_none(),
            database_error: inner.database.error.clone(),
            backup_up: inner.backup.error.is_none(),
            backup_error: inner.backup.error.clone(),
            pending,
            queued_audit: inner.audit.len(),
            environments: inner.current.iter().map(environment).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::PIN;

    #[test]
    fn the_file_of_a_pinned_revision_stays_until_it_is_not_pinned_any_more() {
        let (memory, name) = (StoreMemory::default(), Arc::from("production"));
        let kept = memory.lacking(&name);
        assert!(kept().is_empty());
        let say = |value| memory.set_registers(&name, &[(PIN.to_owned(), value)], &[]);
        say(Some(json!({"revision": 2})));
        assert_eq!(kept(), BTreeSet::from([2]));
        assert_eq!(memory.protected(&name), BTreeSet::from([2]));
        assert!(memory.lacking("staging")().is_empty());
        say(None);
        assert_eq!(kept(), BTreeSet::new());
    }
}
