//! Audit lines between the control plane, which does not wait, and the database.

use std::collections::VecDeque;

use super::{AuditLine, AuditRecord};
use crate::store::AuditEntry;

/// Lines kept for a database that is away.
const WAITING_MAX: usize = 10_000;
/// Lines listed from memory while the database is away.
const RECENT_MAX: usize = 200;

/// The lines not written yet, and the last ones whether written or not.
#[derive(Default)]
pub(super) struct AuditQueue {
    waiting: VecDeque<AuditEntry>,
    /// Newest first.
    recent: VecDeque<AuditRecord>,
}

impl AuditQueue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// `false` when the queue is full.
    pub(super) fn queue(&mut self, record: AuditRecord) -> bool {
        self.recent.push_front(record.clone());
        self.recent.truncate(RECENT_MAX);
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.waiting.push_back(AuditEntry {
            uid: uuid::Uuid::new_v4().to_string(),
            at_ms: record.at_ms,
            actor: record.actor,
            role: record.role,
            action: record.action,
            target: record.target,
            reason: record.reason,
            result: record.result,
        });
        true
    }

    pub(super) fn first(&self, number: usize) -> Vec<AuditEntry> {
        self.waiting.iter().take(number).cloned().collect()
    }

    pub(super) fn remove(&mut self, written: &[AuditEntry]) {
        for entry in written {
            drop(self.waiting.pop_front_if(|first| first.uid == entry.uid));
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
            .map(|record| AuditLine {
                id: None,
                record: record.clone(),
            })
            .collect()
    }
}
