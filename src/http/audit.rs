//! Writing down what operators did, and reading it back: `/admin/audit`.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::warn;

use super::{
    auth::Caller,
    error::ApiError,
    extract,
    health::answer,
    state::{HttpState, Shared},
    times,
};
use crate::{
    actors::store::{Audit, AuditLine, AuditPage, AuditRecord, ListAudit},
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

async fn write(shared: Arc<Shared>, entry: AuditRecord) {
    let (action, target, actor) = (
        entry.action.clone(),
        entry.target.clone(),
        entry.actor.clone(),
    );
    if let Err(error) = shared
        .handles
        .store
        .ask_again(Audit { entry }, STORE_LIMIT)
        .await
    {
        shared.metrics.audit_dropped();
        warn!(
            action,
            target, actor, "lost the audit entry of {action} on `{target}` by {actor}: {error}"
        );
    }
}

#[derive(Deserialize)]
struct Query {
    limit: Option<u64>,
    before: Option<i64>,
}

/// `GET /admin/audit`.
pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let query: Query = extract::query(request.query_string())?;
    let limit = query.limit.unwrap_or(LIST_DEFAULT);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(ApiError::bad_request(
            "limit",
            format!("use 1 to {LIST_MAX}"),
        ));
    }
    let question = ListAudit {
        limit,
        before: query.before,
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
