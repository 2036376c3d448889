//! Audit lines between the control plane, which waits for a moment only, and the database.
//!
//! What the database does not take at once is written to the backup, where the next process finds it.

use std::collections::{HashSet, VecDeque};

use super::{AuditLine, AuditRecord};
use crate::store::AuditEntry;

/// Lines kept for a database that is away.
const WAITING_MAX: usize = 10_000;
/// Lines listed from memory while the database is away.
const RECENT_MAX: usize = 200;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    Waits,
    /// There is no room for it.
    Dropped {
        /// There was room for the line before it.
        is_first: bool,
    },
}

/// The lines not written yet, and the last ones whether written or not.
#[derive(Default)]
pub(super) struct AuditQueue {
    waiting: VecDeque<Waiting>,
    /// Newest first, with their ids.
    recent: VecDeque<(String, AuditRecord)>,
    is_dropping: bool,
    /// What an earlier process left in the backup was taken in.
    is_restored: bool,
    /// There may be a file of lines in the backup.
    has_file: bool,
}

struct Waiting {
    entry: AuditEntry,
    in_backup: bool,
}

impl AuditQueue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Queues a line. The same one may come twice.
    pub(super) fn queue(&mut self, uid: &str, record: AuditRecord) -> Queued {
        if self.recent.iter().any(|(known, _)| known == uid) {
            return Queued::Waits;
        }
        self.recent.push_front((uid.to_owned(), record.clone()));
        self.recent.truncate(RECENT_MAX);
        if self.waiting.len() >= WAITING_MAX {
            let is_first = !self.is_dropping;
            self.is_dropping = true;
            return Queued::Dropped { is_first };
        }
        self.is_dropping = false;
        let entry = AuditEntry {
            uid: uid.to_owned(),
            at_ms: record.at_ms,
            actor: record.actor,
            role: record.role,
            action: record.action,
            target: record.target,
            reason: record.reason,
            result: record.result,
        };
        self.waiting.push_back(Waiting {
            entry,
            in_backup: false,
        });
        Queued::Waits
    }

    /// Takes in what an earlier process left in the backup; it is older than what is here.
    pub(super) fn restore(&mut self, entries: Vec<AuditEntry>) {
        // Even without an entry that can be read.
        self.has_file = true;
        self.is_restored = true;
        for entry in entries.into_iter().rev() {
            if self.recent.len() < RECENT_MAX {
                let record = super::audit::record(entry.clone());
                self.recent.push_back((entry.uid.clone(), record));
            }
            self.waiting.push_front(Waiting {
                entry,
                in_backup: true,
            });
        }
    }

    pub(super) fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// Whether the backup has a file that nobody needs any more.
    pub(super) fn has_surplus_file(&self) -> bool {
        self.has_file && self.is_restored && self.waiting.is_empty()
    }

    pub(super) fn file_removed(&mut self) {
        self.has_file = false;
    }

    /// Lines that are in neither half; they are about to be written to the backup.
    pub(super) fn unsaved(&mut self) -> Vec<AuditEntry> {
        let unsaved = self.waiting.iter().filter(|one| !one.in_backup);
        let unsaved: Vec<_> = unsaved.map(|one| one.entry.clone()).collect();
        self.has_file |= !unsaved.is_empty();
        unsaved
    }

    pub(super) fn saved(&mut self, saved: &[AuditEntry]) {
        let saved: HashSet<&str> = saved.iter().map(|entry| entry.uid.as_str()).collect();
        for one in &mut self.waiting {
            one.in_backup |= saved.contains(one.entry.uid.as_str());
        }
    }

    pub(super) fn first(&self, number: usize) -> Vec<AuditEntry> {
        let first = self.waiting.iter().take(number);
        first.map(|one| one.entry.clone()).collect()
    }

    pub(super) fn remove(&mut self, written: &[AuditEntry]) {
        for entry in written {
            let is_it = |first: &mut Waiting| first.entry.uid == entry.uid;
            drop(self.waiting.pop_front_if(is_it));
        }
    }

    /// Newest first; all recent ones, or only those not written yet.
    pub(super) fn lines(&self, only_unwritten: bool) -> Vec<AuditLine> {
        let number = if only_unwritten {
            self.waiting.len()
        } else {
            RECENT_MAX
        };
        let recent = self.recent.iter().take(number);
        recent
            .map(|(_, record)| AuditLine {
                id: None,
                record: record.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queue: &mut AuditQueue, uid: &str) -> Queued {
        let record = AuditRecord {
            at_ms: 0,
            actor: "otto".to_owned(),
            role: "operator".to_owned(),
            action: "source.pause".to_owned(),
            target: uid.to_owned(),
            reason: None,
            result: "ok".to_owned(),
        };
        queue.queue(uid, record)
    }

    fn uids(entries: &[AuditEntry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.uid.as_str()).collect()
    }

    #[test]
    fn a_full_queue_drops_and_says_so_once_until_there_is_room_again() {
        let mut lines = AuditQueue::default();
        for number in 0..WAITING_MAX {
            assert_eq!(queue(&mut lines, &number.to_string()), Queued::Waits);
        }
        let dropped = |is_first| Queued::Dropped { is_first };
        assert_eq!(queue(&mut lines, "a"), dropped(true));
        assert_eq!(queue(&mut lines, "b"), dropped(false));
        let written = lines.first(1);
        lines.remove(&written);
        assert_eq!(queue(&mut lines, "c"), Queued::Waits);
        assert_eq!(queue(&mut lines, "d"), dropped(true));
    }

    #[test]
    fn what_was_restored_is_older_and_needs_no_second_copy() {
        let mut earlier = AuditQueue::default();
        queue(&mut earlier, "1");
        queue(&mut earlier, "2");
        let mut lines = AuditQueue::default();
        queue(&mut lines, "3");
        queue(&mut lines, "3");
        assert!(!lines.is_restored());
        lines.restore(earlier.unsaved());
        assert_eq!(uids(&lines.first(10)), ["1", "2", "3"]);
        let listed = lines.lines(true).into_iter();
        let listed: Vec<_> = listed.map(|line| line.record.target).collect();
        assert_eq!(listed, ["3", "2", "1"]);
        let unsaved = lines.unsaved();
        assert_eq!(uids(&unsaved), ["3"]);
        lines.saved(&unsaved);
        assert!(lines.unsaved().is_empty());
        assert!(!lines.has_surplus_file());
        lines.remove(&lines.first(10));
        assert!(lines.has_surplus_file());
        lines.file_removed();
        assert!(!lines.has_surplus_file());
    }
}
