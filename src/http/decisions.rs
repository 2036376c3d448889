//! What overrides and pins have in common: whom they ask, what they write down, how they fail.

use std::{sync::Arc, time::Duration};

use actix::{Handler, Message, dev::ToEnvelope};
use actix_web::HttpRequest;
use serde::Deserialize;

use super::{
    audit::{self, Note},
    auth::Caller,
    control::REASON_CHARS_MAX,
    error::ApiError,
    extract,
    state::{HttpState, Shared},
};
use crate::actors::config_service::{ConfigServiceActor, Decided, OrderError};

/// How long a decision may take, its store included; usually some milliseconds.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// The environment of a path.
pub(super) fn environment(state: &HttpState, name: &str) -> Result<Arc<str>, ApiError> {
    let cell = state.reader.board().environment(name);
    cell.map(|cell| Arc::clone(&cell.name))
        .ok_or_else(|| state.unknown_environment())
}

#[derive(Default, Deserialize)]
struct ReasonQuery {
    reason: Option<String>,
}

/// What the body says as the reason, else the query: many clients send no body with a `DELETE`.
pub(super) fn said(
    request: &HttpRequest,
    body: Option<String>,
) -> Result<Option<String>, ApiError> {
    if body.is_some() {
        return Ok(body);
    }
    let ReasonQuery { reason } = extract::query(request.query_string())?;
    Ok(reason)
}

/// The reason that a decision needs.
pub(super) fn reason(said: Option<String>) -> Result<String, ApiError> {
    let said = said.map(|reason| reason.trim().to_owned());
    let said = said.filter(|reason| !reason.is_empty());
    let reason = said.ok_or_else(|| ApiError::bad_request("reason", "say why, for the audit"))?;
    if reason.chars().count() > REASON_CHARS_MAX {
        let message = format!("is longer than {REASON_CHARS_MAX} characters");
        return Err(ApiError::bad_request("reason", message));
    }
    Ok(reason)
}

/// A decision on its way.
pub(super) struct Decision {
    /// Name in the audit.
    pub(super) action: &'static str,
    /// What it is about.
    pub(super) target: String,
    /// Why.
    pub(super) reason: Option<String>,
}

impl Decision {
    /// Asks for it, and writes down what came of it.
    pub(super) async fn carry_out<M>(
        self,
        shared: &Arc<Shared>,
        caller: &Caller,
        message: M,
    ) -> Result<Decided, ApiError>
    where
        M: Message<Result = Result<Decided, OrderError>> + Clone + Send + 'static,
        ConfigServiceActor: Handler<M>,
        <ConfigServiceActor as actix::Actor>::Context: ToEnvelope<ConfigServiceActor, M>,
    {
        let asked = shared.handles.config.ask_again(message, LIMIT).await;
        let done = asked
            .map_err(ApiError::from)
            .and_then(|done| done.map_err(failure));
        let result = match &done {
            Ok(done) if done.is_durable => format!("revision {}", done.revision),
            Ok(done) => format!("revision {}, not durable", done.revision),
            Err(error) => format!("failed: {}", error.code()),
        };
        let note = Note {
            target: &self.target,
            reason: self.reason.as_deref(),
            result,
        };
        audit::record(shared, caller, self.action, note).await;
        done
    }
}

/// How a decision that was not taken is answered.
fn failure(error: OrderError) -> ApiError {
    let message = error.to_string();
    let missing = |code, near| ApiError::Missing {
        code,
        message: message.clone(),
        near,
    };
    match error {
        OrderError::NotLoaded => ApiError::NotLoaded,
        OrderError::UnknownTarget { kind, near } => {
            let code = match kind {
                "feature" => "unknown_feature",
                _ => "unknown_experiment",
            };
            missing(code, near)
        }
        OrderError::WrongType { .. } | OrderError::TooDeep(_) => {
            ApiError::bad_request("value", message)
        }
        OrderError::TooMany(_) => ApiError::Conflict {
            code: "too_many_overrides",
            message,
        },
        OrderError::UnknownOverride => missing("unknown_override", Vec::new()),
        OrderError::UnknownRevision => missing("unknown_revision", Vec::new()),
        OrderError::NotPinned => ApiError::Conflict {
            code: "not_pinned",
            message,
        },
        // It may name hosts; the log has it.
        OrderError::Unavailable(reason) => {
            tracing::warn!("a decision could not be taken: {reason}");
            ApiError::TryAgain("the decision could not be taken now; look whether it is in force")
        }
    }
}
