//! Revisions that were served and replaced before the database had them: its history is to have them too.
//!
//! Where the backup has such a revision, its file is kept until the database has it, and only its number is kept here.
//! What is on disk at a start waits as well, until it is known that the database has it. The bounds here bound the
//! disk and the memory of a long outage; what is dropped was replaced long since, the oldest first.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use super::history::Remembered;
use crate::store::RevisionRow;

/// Most revisions that wait, beyond the generations that the backup keeps anyway: as many as the history keeps by default.
const REVISIONS_MAX: usize = 500;
/// Most bytes that wait, packed.
const BYTES_MAX: u64 = 512 << 20;
/// Most revisions that wait in memory, because the backup cannot be written either.
const ROWS_MAX: usize = 64;
/// Most bytes that wait in memory, packed.
const ROWS_BYTES_MAX: u64 = 64 << 20;

/// A revision that the database may lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitingRevision {
    pub(super) environment: Arc<str>,
    pub(super) revision: u64,
    /// Packed size.
    pub(super) bytes: u64,
    /// The revision itself; `None`: the backup has it.
    pub(super) row: Option<RevisionRow>,
}

impl WaitingRevision {
    fn is(&self, environment: &str, revision: u64) -> bool {
        self.revision == revision && &*self.environment == environment
    }
}

/// All of them, oldest first.
#[derive(Default)]
pub(super) struct Waiting {
    revisions: VecDeque<WaitingRevision>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.revisions.len()
    }

    /// Adds one, unless it waits already.
    pub(super) fn add(&mut self, added: WaitingRevision) {
        let mut there = self.revisions.iter();
        if !there.any(|one| one.is(&added.environment, added.revision)) {
            self.revisions.push_back(added);
        }
    }

    /// Drops the oldest until the bounds hold; gives what was dropped. `generations`: what the backup keeps anyway.
    pub(super) fn shed(&mut self, generations: usize) -> Vec<WaitingRevision> {
        let mut dropped = Vec::new();
        let in_memory = |one: &&WaitingRevision| one.row.is_some();
        loop {
            let bytes: u64 = self.revisions.iter().map(|one| one.bytes).sum();
            let rows = self.revisions.iter().filter(in_memory);
            let (number, row_bytes) = rows.fold((0, 0), |(number, bytes), one| {
                (number + 1, bytes + one.bytes)
            });
            let is_over = self.revisions.len() > REVISIONS_MAX + generations || bytes > BYTES_MAX;
            let oldest = if is_over {
                Some(0)
            } else if number > ROWS_MAX || row_bytes > ROWS_BYTES_MAX {
                self.revisions.iter().position(|one| one.row.is_some())
            } else {
                None
            };
            match oldest.and_then(|index| self.revisions.remove(index)) {
                Some(one) => dropped.push(one),
                None => return dropped,
            }
        }
    }

    pub(super) fn first(&self) -> Option<WaitingRevision> {
        self.revisions.front().cloned()
    }

    /// Those that no half of the store has.
    pub(super) fn rows(&self) -> Vec<RevisionRow> {
        let rows = self.revisions.iter().filter_map(|one| one.row.clone());
        rows.collect()
    }

    /// Whether any of them is in memory alone.
    pub(super) fn has_rows(&self) -> bool {
        self.revisions.iter().any(|one| one.row.is_some())
    }

    /// What is known of an environment's revisions.
    pub(super) fn remembered(&self, environment: &str) -> Remembered {
        let mut known = Remembered::default();
        let of_it = |one: &&WaitingRevision| &*one.environment == environment;
        for one in self.revisions.iter().filter(of_it) {
            match &one.row {
                Some(row) => {
                    known.revisions.insert(one.revision, row.into());
                }
                None => {
                    known.on_disk.insert(one.revision);
                }
            }
        }
        known
    }

    /// The backup has it now: it is not needed in memory any more.
    pub(super) fn set_in_backup(&mut self, row: &RevisionRow) {
        let mut revisions = self.revisions.iter_mut();
        if let Some(one) = revisions.find(|one| one.row.as_ref() == Some(row)) {
            one.row = None;
        }
    }

    /// Takes one off: the database has it, or never will.
    pub(super) fn remove(&mut self, environment: &str, revision: u64) {
        self.revisions.retain(|one| !one.is(environment, revision));
    }

    /// Numbers whose files must stay.
    pub(super) fn numbers(&self, environment: &str) -> BTreeSet<u64> {
        let revisions = self.revisions.iter();
        revisions
            .filter(|one| &*one.environment == environment)
            .map(|one| one.revision)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SnapshotMeta;

    fn row(revision: u64) -> RevisionRow {
        RevisionRow {
            environment: "production".to_owned(),
            revision,
            hash: String::new(),
            meta: SnapshotMeta::default(),
            size_bytes: 0,
            published_at_ms: 0,
            body: bytes::Bytes::new(),
        }
    }

    fn waiting(revisions: impl Iterator<Item = u64>, bytes: u64, is_on_disk: bool) -> Waiting {
        let mut waiting = Waiting::default();
        for revision in revisions {
            waiting.add(WaitingRevision {
                environment: "production".into(),
                revision,
                bytes,
                row: (!is_on_disk).then(|| row(revision)),
            });
        }
        waiting
    }

    fn shed(waiting: &mut Waiting) -> Vec<u64> {
        let dropped = waiting.shed(3).into_iter();
        dropped.map(|one| one.revision).collect()
    }

    #[test]
    fn what_is_on_disk_is_bounded_by_number_and_bytes_the_oldest_goes_first() {
        let mut many = waiting(1..=505, 1, true);
        assert_eq!(shed(&mut many), [1, 2]);
        assert_eq!(many.len(), 503);
        let mut large = waiting(1..=5, BYTES_MAX / 4, true);
        assert_eq!(shed(&mut large), [1]);
        assert_eq!(large.numbers("production"), BTreeSet::from([2, 3, 4, 5]));
        assert!(large.numbers("staging").is_empty());
    }

    #[test]
    fn what_is_in_memory_alone_has_narrower_bounds() {
        let mut many = waiting(1..=70, 1, false);
        many.add(WaitingRevision {
            row: None,
            ..waiting(0..=0, 1, true).first().unwrap()
        });
        many.revisions.rotate_right(1);
        assert_eq!(shed(&mut many), [1, 2, 3, 4, 5, 6]);
        let mut large = waiting(1..=5, ROWS_BYTES_MAX / 4, false);
        assert_eq!(shed(&mut large), [1]);
        // Written to the backup meanwhile: the wider bounds count.
        for row in large.rows() {
            large.set_in_backup(&row);
        }
        assert!(large.rows().is_empty());
        assert_eq!(large.len(), 4);
    }

    #[test]
    fn a_revision_waits_once_and_until_it_is_taken_off() {
        let mut waiting = waiting([1, 2, 1].into_iter(), 1, true);
        assert_eq!(waiting.len(), 2);
        waiting.remove("staging", 1);
        waiting.remove("production", 1);
        assert_eq!(waiting.first().unwrap().revision, 2);
    }
}
