//! Writing down what operators did, and reading it back: `/admin/audit`.

use std::{borrow::Cow, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{
    auth::Caller,
    error::ApiError,
    fields::Fields,
    health::answer,
    state::{HttpState, Shared},
    times,
};
use crate::{
    actors::store::{Audit, AuditFilter, AuditLine, AuditPage, AuditRecord, ListAudit},
    clock,
};

/// How long an answer waits for its audit entry; after that the entry is written behind its back.
const ANSWER_LIMIT: Duration = Duration::from_millis(250);
/// How long the store is given to take an entry, a restart of the store included.
const STORE_LIMIT: Duration = Duration::from_secs(10);
/// How long the store may take to list entries; it gives its database two seconds.
const LIST_LIMIT: Duration = Duration::from_secs(3);
/// Entries listed unless asked otherwise, and at most.
const LIST_DEFAULT: u64 = 100;
const LIST_MAX: u64 = 1000;

/// Writes down a control action.
pub(super) async fn record(shared: &Arc<Shared>, caller: &Caller, action: &str, note: Note<'_>) {
    caller.set_recorded();
    let entry = AuditRecord {
        at_ms: clock::now_ms(),
        actor: caller.name.clone(),
        role: caller.role.as_str().to_owned(),
        action: action.to_owned(),
        target: note.target.to_owned(),
        reason: note.reason.map(str::to_owned),
        result: note.result,
    };
    let writing = actix_web::rt::spawn(write(Arc::clone(shared), entry));
    // Past the limit the task goes on by itself.
    if let Ok(Err(error)) = timeout(ANSWER_LIMIT, writing).await {
        warn!("writing an audit entry failed: {error}");
    }
}

/// What was done to what, why, and how it ended.
pub(super) struct Note<'a> {
    /// Source id; `*` where an action on all was refused.
    pub(super) target: &'a str,
    /// The operator's words.
    pub(super) reason: Option<&'a str>,
    /// `ok`, an outcome, or `failed: …`.
    pub(super) result: String,
}

/// Writes down a control action that was refused before it began.
pub(super) async fn refused(
    shared: &Arc<Shared>,
    caller: &Caller,
    action: &str,
    target: &str,
    error: &ApiError,
) {
    let result = format!("failed: {}", error.code());
    record(
        shared,
        caller,
        action,
        Note {
            target,
            reason: None,
            result,
        },
    )
    .await;
}

/// Writes down a control action of which nothing else is known than that it was carried out.
pub(super) async fn done(shared: &Arc<Shared>, caller: &Caller, action: &str, target: &str) {
    let note = Note {
        target,
        reason: None,
        result: "ok".to_owned(),
    };
    record(shared, caller, action, note).await;
}

/// Writes down that somebody unknown wanted to do something, behind the answer's back.
///
/// Of many only [`Strangers::IN_A_MINUTE`] get an entry; the next one says how many did not. Anybody who reaches the port
/// could fill the audit otherwise.
pub(super) fn stranger(shared: &Arc<Shared>, action: &str, target: &str, error: &ApiError) {
    let Some(left_out) = shared.strangers.admit() else {
        return;
    };
    let mut result = format!("failed: {}", error.code());
    if left_out > 0 {
        result = format!("{result}, and {left_out} others before");
    }
    let entry = AuditRecord {
        at_ms: clock::now_ms(),
        actor: "unknown".to_owned(),
        role: "none".to_owned(),
        action: action.to_owned(),
        target: target.to_owned(),
        reason: None,
        result,
    };
    drop(actix_web::rt::spawn(write(Arc::clone(shared), entry)));
}

/// How many strangers were written down lately.
#[derive(Default)]
pub(super) struct Strangers(Mutex<Minute>);

#[derive(Default)]
struct Minute {
    began: Option<Instant>,
    admitted: u32,
    left_out: u64,
}

impl Strangers {
    /// Entries about strangers in a minute, at most.
    const IN_A_MINUTE: u32 = 60;

    /// Whether there is room for an entry, and how many got none since the last one.
    fn admit(&self) -> Option<u64> {
        let mut minute = self.0.lock();
        let now = Instant::now();
        let is_over = |began: Instant| now.duration_since(began) >= Duration::from_mins(1);
        if minute.began.is_none_or(is_over) {
            (minute.began, minute.admitted) = (Some(now), 0);
        }
        if minute.admitted >= Self::IN_A_MINUTE {
            minute.left_out += 1;
            return None;
        }
        minute.admitted += 1;
        Some(std::mem::take(&mut minute.left_out))
    }
}

async fn write(shared: Arc<Shared>, entry: AuditRecord) {
    let (action, target, actor) = (
        entry.action.clone(),
        entry.target.clone(),
        entry.actor.clone(),
    );
    if let Err(error) = shared
        .handles
        .store
        .ask_again(Audit::new(entry), STORE_LIMIT)
        .await
    {
        shared.metrics.audit_dropped();
        warn!(
            action,
            target, actor, "lost the audit entry of {action} on `{target}` by {actor}: {error}"
        );
    }
}

/// `GET /admin/audit`.
pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let mut fields = Fields::from_query(request.query_string())?;
    let limit = fields.limit(LIST_DEFAULT, LIST_MAX)?;
    let before = fields.number("before")?;
    let mut text = |name| Ok::<_, ApiError>(fields.text(name)?.map(Cow::into_owned));
    let filter = AuditFilter {
        actor: text("actor")?,
        action: text("action")?,
        target: text("target")?,
    };
    fields.finish("limit, before, actor, action, target")?;
    let question = ListAudit {
        limit,
        before: before.map(|id| i64::try_from(id).unwrap_or(i64::MAX)),
        filter,
    };
    let page = state.shared.handles.store.ask(question, LIST_LIMIT).await?;
    Ok(answer(StatusCode::OK, &shown(page)))
}

/// The page as it is answered; `error` says why only entries not yet written are there.
fn shown(page: AuditPage) -> Value {
    let entry = |AuditLine { id, record }: AuditLine| {
        json!({
            "id": id,
            "at": times::rfc3339_ms(record.at_ms),
            "actor": record.actor,
            "role": record.role,
            "action": record.action,
            "target": record.target,
            "reason": record.reason,
            "result": record.result,
        })
    };
    let entries: Vec<Value> = page.lines.into_iter().map(entry).collect();
    match page.database_error {
        None => json!({ "entries": entries }),
        Some(error) => json!({ "entries": entries, "error": error }),
    }
}

/// Longest target taken from a path, in bytes.
const TARGET_BYTES_MAX: usize = 128;

/// The beginning of a name from outside that may be anything.
pub(super) fn bounded(target: &str) -> &str {
    &target[..target.floor_char_boundary(TARGET_BYTES_MAX)]
}
