//! What guards keep from being published, and what operators decide about it.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::StatusCode, web};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    audit::{self, Note},
    auth::Caller,
    control::detached,
    error::ApiError,
    extract,
    health::answer,
    state::{HttpState, Shared},
    times::rfc3339_ms,
};
use crate::actors::config_service::{
    Changed, DecideHeld, Difference, Fate, GetHeld, HeldDecided, HeldError, HeldInput, Items, Trip,
};

/// How long the list may take.
const LIST_LIMIT: Duration = Duration::from_secs(2);
/// How long a decision may take: it waits its turn in the funnel, and approving publishes.
const DECIDE_LIMIT: Duration = Duration::from_secs(30);
/// Longest reason taken, in characters.
const REASON_CHARS_MAX: usize = 1000;

/// Names in the audit.
pub(super) const APPROVE: &str = "environment.held.approve";
pub(super) const DISCARD: &str = "environment.held.discard";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    reason: String,
    digest: Option<String>,
}

/// `GET /admin/environments/{environment}/held`.
pub(super) async fn list(
    state: web::Data<HttpState>,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let environment = name.into_inner();
    if state.reader.board().environment(&environment).is_none() {
        return Err(state.unknown_environment());
    }
    let question = GetHeld {
        environment: environment.clone(),
    };
    let held = state
        .shared
        .handles
        .config
        .ask(question, LIST_LIMIT)
        .await?;
    let held: Vec<Value> = held.iter().map(shown).collect();
    let body = json!({ "environment": environment, "held": held });
    Ok(answer(StatusCode::OK, &body))
}

/// `POST /admin/environments/{environment}/held/{source}/approve` and `…/discard`.
pub(super) fn decide(fate: Fate) -> actix_web::Route {
    web::route().to(
        move |state: web::Data<HttpState>,
              caller: Caller,
              path: web::Path<(String, String)>,
              payload: web::Payload| async move {
            let (environment, source) = path.into_inner();
            if state.reader.board().environment(&environment).is_none() {
                return Err(state.unknown_environment());
            }
            let shared = Arc::clone(&state.shared);
            let Body { reason, digest } = extract::optional_json(&shared, payload).await?;
            check_reason(&reason)?;
            let order = DecideHeld {
                id: Uuid::new_v4().to_string(),
                environment,
                source,
                fate,
                digest,
                by: caller.name.clone(),
                reason,
            };
            detached(carry_out(shared, caller, order)).await?
        },
    )
}

fn check_reason(reason: &str) -> Result<(), ApiError> {
    let problem = if reason.trim().is_empty() {
        "is missing; say why".to_owned()
    } else if reason.chars().count() > REASON_CHARS_MAX {
        format!("is longer than {REASON_CHARS_MAX} characters")
    } else {
        return Ok(());
    };
    Err(ApiError::bad_request("reason", problem))
}

/// Asks the funnel and writes down what came of it.
async fn carry_out(
    shared: Arc<Shared>,
    caller: Caller,
    order: DecideHeld,
) -> Result<HttpResponse, ApiError> {
    let action = match order.fate {
        Fate::Approve => APPROVE,
        Fate::Discard => DISCARD,
    };
    let target = format!("{}/{}", order.environment, audit::bounded(&order.source));
    let (source, reason) = (order.source.clone(), order.reason.clone());
    let config = &shared.handles.config;
    let done = match config.ask_again(order, DECIDE_LIMIT).await {
        Ok(Ok(decided)) => Ok(decided),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(ApiError::from(error)),
    };
    let result = match &done {
        Ok(decided) => decided.outcome.to_owned(),
        Err(error) => format!("failed: {}", error.code()),
    };
    let note = Note {
        target: &target,
        reason: Some(&reason),
        result,
    };
    audit::record(&shared, &caller, action, note).await;
    let HeldDecided { outcome, revision } = done?;
    let body = json!({ "source": source, "outcome": outcome, "revision": revision });
    Ok(answer(StatusCode::OK, &body))
}

impl From<HeldError> for ApiError {
    fn from(error: HeldError) -> Self {
        match error {
            HeldError::NotHeld { held } => Self::NotHeld { held },
            HeldError::Changed { digest } => Self::HeldChanged { digest },
            HeldError::Refused(reason) => Self::HeldRefused(reason),
            // Why is in the log; what is held stays held.
            HeldError::Failed(_) => Self::TryAgain("the held input could not be taken in"),
        }
    }
}

fn shown(held: &HeldInput) -> Value {
    json!({
        "source": held.source,
        "parts": held.parts,
        "digest": held.digest,
        "reasons": held.reasons.iter().map(reason).collect::<Vec<_>>(),
        "diff": difference(&held.difference),
        "first_seen": rfc3339_ms(held.first_seen_ms),
        "last_seen": rfc3339_ms(held.last_seen_ms),
        "repeats": held.repeats,
        "discarded": held.is_discarded,
        "auto_accept_after": held.auto_accept_after,
    })
}

fn reason(trip: &Trip) -> Value {
    json!({
        "guard": trip.guard.as_str(),
        "subject": trip.subject,
        "message": trip.message,
        "before": trip.before,
        "after": trip.after,
        "limit": trip.limit,
    })
}

fn difference(difference: &Difference) -> Value {
    json!({
        "features": items(&difference.features),
        "experiments": items(&difference.experiments),
        "auto_experiments": items(&difference.auto_experiments),
        "saved_groups": items(&difference.saved_groups),
        "contextual_bandits": items(&difference.contextual_bandits),
    })
}

/// Lists are cut; `omitted` says by how much.
fn items(items: &Items) -> Value {
    let [added, removed, changed] = items.omitted;
    json!({
        "added": items.added,
        "removed": items.removed,
        "changed": items.changed.iter().map(item).collect::<Vec<_>>(),
        "omitted": { "added": added, "removed": removed, "changed": changed },
    })
}

fn item(changed: &Changed) -> Value {
    let fields = changed.fields.iter();
    let fields: Vec<Value> = fields
        .map(|field| json!({ "path": field.path, "from": field.before, "to": field.after }))
        .collect();
    json!({ "key": changed.key, "fields": fields })
}
