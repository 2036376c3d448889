//! What operators did: a line for each action, kept in the database, and in the backup until the database has it.

use std::{sync::Arc, time::Duration};

use actix::{Context, Handler, Message, ResponseFuture};
use tokio::{sync::Mutex, time::timeout};
use tracing::{debug, warn};

use super::{
    AuditFilter, StoreActor, StoreContext,
    audit_queue::{AuditQueue, Queued},
    memory::{Half, StoreMemory},
};
use crate::store::{AuditEntry, StoreError};

/// Lines written at once.
const BATCH: usize = 200;
/// How long a line waits for the database before it is written to the backup. Who was told of an action by then is told
/// after a quarter of a second, whatever becomes of its line.
const DATABASE_LIMIT: Duration = Duration::from_millis(150);
/// How long a listing may wait for the database.
const LIST_LIMIT: Duration = Duration::from_secs(2);

/// Keeps a line of the audit. Sent by the control plane after each action; may be sent twice. Answered when database or
/// backup has it, or has failed.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct Audit {
    /// Tells it from every other line.
    uid: String,
    entry: AuditRecord,
}

impl Audit {
    /// Of a new line.
    pub fn new(entry: AuditRecord) -> Self {
        let uid = uuid::Uuid::new_v4().to_string();
        Self { uid, entry }
    }
}

/// Who did what, when, why, with which result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Token name.
    pub actor: String,
    /// Role it acted with.
    pub role: String,
    /// `source.pause`.
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// Why, if said.
    pub reason: Option<String>,
    /// `ok`, or why not.
    pub result: String,
}

impl AuditRecord {
    /// Whether it is one of those that are asked for.
    fn fits(&self, filter: &AuditFilter) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
        fits(&filter.actor, &self.actor)
            && fits(&filter.action, &self.action)
            && fits(&filter.target, &self.target)
    }
}

/// A line of the audit as listed.
#[derive(Clone, Debug)]
pub struct AuditLine {
    /// Database id; `None`: not written yet.
    pub id: Option<i64>,
    /// The line.
    pub record: AuditRecord,
}

/// Asks for the audit, newest first. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "AuditPage")]
pub struct ListAudit {
    /// At most so many.
    pub limit: u64,
    /// Only those with a smaller id.
    pub before: Option<i64>,
    /// Only those that fit.
    pub filter: AuditFilter,
}

/// A page of the audit.
#[derive(Clone, Debug)]
pub struct AuditPage {
    /// Newest first.
    pub lines: Vec<AuditLine>,
    /// Why only recent lines from memory are listed, when the database did not answer.
    pub database_error: Option<String>,
}

/// One writer at a time for each half: the database has lines in their order, and no line is added to a file that goes.
#[derive(Default)]
pub(super) struct Turns {
    database: Mutex<()>,
    backup: Mutex<()>,
}

impl StoreContext {
    /// Queues a line and waits for a copy of it, the database's if that is quick.
    async fn keep_audit(&self, message: Audit) {
        let Audit { uid, entry } = message;
        if let Queued::Dropped { is_first } = self.memory.audit(|queue| queue.queue(&uid, entry)) {
            self.metrics.audit_dropped();
            if is_first {
                warn!("audit entries are lost from now on: too many wait for the database");
            }
            return;
        }
        if self.memory.is_well(Half::Database) {
            match timeout(DATABASE_LIMIT, self.audit_to_database()).await {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => self.report(Half::Database, Err(&failure)),
                Err(_) => debug!("the database is slow to take an audit entry"),
            }
        }
        if let Err(failure) = self.audit_to_backup().await {
            self.report(Half::Backup, Err(&failure));
        }
    }

    /// Writes all lines that wait, in their order.
    pub(super) async fn audit_to_database(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.auditing.database.lock().await;
        loop {
            let entries = self.memory.audit(|queue| queue.first(BATCH));
            if entries.is_empty() {
                return Ok(());
            }
            self.store.database().append_audit(&entries).await?;
            self.memory.audit(|queue| queue.remove(&entries));
        }
    }

    /// Writes the lines that are in neither half.
    pub(super) async fn audit_to_backup(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.auditing.backup.lock().await;
        let entries = self.memory.audit(AuditQueue::unsaved);
        if !entries.is_empty() {
            self.store.backup().append_audit(entries.clone()).await?;
            self.memory.audit(|queue| queue.saved(&entries));
        }
        Ok(())
    }

    /// Takes in, once, what an earlier process could not write to the database.
    pub(super) async fn restore_audit(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.auditing.backup.lock().await;
        if self.memory.audit(|queue| queue.is_restored()) {
            return Ok(());
        }
        let found = self.store.backup().load_audit().await?;
        for note in &found.notes {
            warn!("{note}");
        }
        self.memory.audit(|queue| queue.restore(found.value));
        Ok(())
    }

    /// Removes the backup's lines when the database has them all.
    pub(super) async fn remove_surplus_audit(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.auditing.backup.lock().await;
        if self.memory.audit(|queue| queue.has_surplus_file()) {
            self.store.backup().remove_audit().await?;
            self.memory.audit(AuditQueue::file_removed);
        }
        Ok(())
    }

    /// Lists the audit; lines that are not written yet come first.
    async fn list_audit(&self, question: &ListAudit) -> AuditPage {
        let (database, filter) = (self.store.database(), question.filter.clone());
        let listing = database.list_audit(question.limit, question.before, filter);
        let listed = timeout(LIST_LIMIT, listing).await;
        let listed = match listed {
            Ok(Ok(entries)) => Ok(entries),
            Ok(Err(failure)) => Err(failure.explain()),
            Err(_) => Err("the database did not answer in time".to_owned()),
        };
        page(&self.memory, listed, question)
    }
}

fn page(
    memory: &StoreMemory,
    listed: Result<Vec<(i64, AuditEntry)>, String>,
    question: &ListAudit,
) -> AuditPage {
    let mut lines = if question.before.is_none() {
        memory.audit_lines(listed.is_ok())
    } else {
        Vec::new()
    };
    lines.retain(|line| line.record.fits(&question.filter));
    let database_error = match listed {
        Ok(entries) => {
            lines.extend(entries.into_iter().map(|(id, entry)| AuditLine {
                id: Some(id),
                record: record(entry),
            }));
            None
        }
        Err(error) => Some(error),
    };
    lines.truncate(usize::try_from(question.limit).unwrap_or(usize::MAX));
    AuditPage {
        lines,
        database_error,
    }
}

pub(super) fn record(entry: AuditEntry) -> AuditRecord {
    AuditRecord {
        at_ms: entry.at_ms,
        actor: entry.actor,
        role: entry.role,
        action: entry.action,
        target: entry.target,
        reason: entry.reason,
        result: entry.result,
    }
}

impl Handler<Audit> for StoreActor {
    // Waits for database or disk beside other messages.
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: Audit, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.Audit");
        let context = Arc::clone(&self.context);
        Box::pin(async move {
            fail::fail_point!("store.audit_future");
            context.keep_audit(message).await;
        })
    }
}

impl Handler<ListAudit> for StoreActor {
    // Waits for the database beside other messages.
    type Result = ResponseFuture<AuditPage>;

    fn handle(&mut self, message: ListAudit, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.ListAudit");
        let context = Arc::clone(&self.context);
        Box::pin(async move {
            fail::fail_point!("store.list_audit_future");
            context.list_audit(&message).await
        })
    }
}
