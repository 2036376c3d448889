//! Serving what was served before: `/admin/environments/{environment}/pin`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, rt::task::spawn_blocking, web};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    auth::Caller,
    changes,
    control::detached,
    decisions::{self, Decision, LIMIT},
    error::ApiError,
    extract,
    health::answer,
    state::{HttpState, Shared},
    times::rfc3339_ms,
};
use crate::{
    actors::config_service::{GetPin, Pin, PinStatus, RemovePin, SetPin},
    clock,
    diff::Configuration,
    model::Candidate,
};

/// Names in the audit.
pub(super) const PIN: &str = "environment.pin";
pub(super) const UNPIN: &str = "environment.unpin";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinBody {
    revision: Option<u64>,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnpinBody {
    reason: Option<String>,
}

/// `POST …/pin`.
pub(super) async fn pin(
    state: web::Data<HttpState>,
    caller: Caller,
    name: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let environment = decisions::environment(&state, &name)?;
    let shared = Arc::clone(&state.shared);
    let body: PinBody = extract::optional_json(&shared, payload).await?;
    let revision = body.revision.filter(|revision| *revision > 0);
    let revision = revision.ok_or_else(|| {
        ApiError::bad_request("revision", "say the number of the revision to serve")
    })?;
    let pin = Pin {
        revision,
        reason: decisions::reason(body.reason)?,
        by: caller.name.clone(),
        at_ms: clock::now_ms(),
    };
    detached(pin_it(shared, caller, environment, pin)).await?
}

async fn pin_it(
    shared: Arc<Shared>,
    caller: Caller,
    environment: Arc<str>,
    pin: Pin,
) -> Result<HttpResponse, ApiError> {
    let pinned_from = pin.revision;
    let decision = Decision {
        action: PIN,
        target: format!("{environment} {pinned_from}"),
        reason: Some(pin.reason.clone()),
    };
    let message = SetPin {
        environment: Arc::clone(&environment),
        pin,
    };
    let done = decision.carry_out(&shared, &caller, message).await?;
    let body = json!({
        "environment": environment,
        "revision": done.revision,
        "pinned_from": pinned_from,
        "durable": done.is_durable,
    });
    Ok(answer(StatusCode::OK, &body))
}

/// `DELETE …/pin`.
pub(super) async fn unpin(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    name: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let environment = decisions::environment(&state, &name)?;
    let shared = Arc::clone(&state.shared);
    let UnpinBody { reason } = extract::optional_json(&shared, payload).await?;
    let reason = decisions::reason(decisions::said(&request, reason)?)?;
    detached(unpin_it(shared, caller, environment, reason)).await?
}

async fn unpin_it(
    shared: Arc<Shared>,
    caller: Caller,
    environment: Arc<str>,
    reason: String,
) -> Result<HttpResponse, ApiError> {
    let decision = Decision {
        action: UNPIN,
        target: environment.to_string(),
        reason: Some(reason.clone()),
    };
    let message = RemovePin {
        environment: Arc::clone(&environment),
        by: caller.name.clone(),
        reason,
    };
    let done = decision.carry_out(&shared, &caller, message).await?;
    let body = json!({
        "environment": environment,
        "revision": done.revision,
        "durable": done.is_durable,
    });
    Ok(answer(StatusCode::OK, &body))
}

/// `GET …/pin`.
pub(super) async fn show(
    state: web::Data<HttpState>,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let environment = decisions::environment(&state, &name)?;
    let question = GetPin {
        environment: Arc::clone(&environment),
    };
    let status = state
        .shared
        .handles
        .config
        .ask_again(question, LIMIT)
        .await?;
    let mut pinned = status.as_ref().map_or(Value::Bool(false), shown);
    if let Some(status) = status.filter(|status| status.differs) {
        let difference = spawn_blocking(move || difference(&status)).await;
        pinned["diff"] = difference.or(Err(ApiError::Internal))?;
    }
    let body = json!({ "environment": environment, "pinned": pinned });
    Ok(answer(StatusCode::OK, &body))
}

/// What the end of the pin would change; `null` while one of the sides is not there.
fn difference(status: &PinStatus) -> Value {
    let read = |side: &Option<Arc<Candidate>>| {
        let tail = &side.as_ref()?.snapshot_tail;
        let document = [b"{", &tail[..]].concat();
        Configuration::new(serde_json::from_slice(&document).ok()?).ok()
    };
    let (Some(before), Some(after)) = (read(&status.content), read(&status.live)) else {
        return Value::Null;
    };
    let changes = changes::shown(&before, &after);
    json!({
        "added": changes.added,
        "removed": changes.removed,
        "changed": changes.changed,
        "changes": changes.items,
    })
}

/// A pin as it is answered, here and in the status.
pub(super) fn shown(status: &PinStatus) -> Value {
    let pin = &status.pin;
    json!({
        "revision": pin.revision,
        "reason": pin.reason,
        "by": pin.by,
        "at": rfc3339_ms(pin.at_ms),
        "skipped": status.skipped,
        "differs": status.differs,
        "error": status.lost,
    })
}
