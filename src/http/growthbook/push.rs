//! `POST /proxy/features`: GrowthBook sends a connection's new payload by itself, signed with that connection's key.
//!
//! The body goes through the same funnel as a fetched one, with the same guards. There is no timestamp in the signature,
//! so a push can be replayed; that brings an old payload back at most until the next poll.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header::HeaderValue},
    web,
};
use serde_json::json;

use super::{
    super::{
        error::ApiError,
        extract,
        health::answer,
        state::{HttpState, Shared},
    },
    GrowthbookError, PUSH_LIMIT, keys,
    signature::is_push_signature,
};
use crate::actors::poller::{PushReport, TakePush};

/// `POST /proxy/features`.
pub(in crate::http) async fn push(
    request: HttpRequest,
    state: web::Data<HttpState>,
    payload: web::Payload,
) -> Result<HttpResponse, GrowthbookError> {
    let shared = &state.shared;
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let client_key = header("x-growthbook-api-key")
        .and_then(|value| std::str::from_utf8(value).ok())
        .filter(|value| !value.is_empty())
        .ok_or(GrowthbookError::KeyRequired)?;
    let key = keys::find(&state, client_key)?;
    // Known from a stored snapshot alone: its signing key comes with the next poll, the push may come again.
    let origin = key.origin.as_ref().ok_or(ApiError::NotLoaded)?;
    let (id, connection) = (&*origin.source, &origin.connection);
    let Some(signing_key) = &connection.push_signing_key else {
        return Err(GrowthbookError::MissingSigningKey);
    };
    let source = shared.handles.sources.get(id).ok_or(ApiError::Internal)?;
    let _place = shared.large_bodies.place()?;
    let body = extract::body_up_to(shared, payload, source.max_body_bytes).await?;
    let signature = header("x-growthbook-signature").unwrap_or_default();
    if !is_push_signature(signing_key, &body, signature) {
        shared.metrics.pushed(id, "bad_signature");
        return Err(GrowthbookError::BadSignature);
    }
    let Some((_, poller)) = &source.actors else {
        return Err(ApiError::SourceDisabled(id.to_owned()).into());
    };
    let push = TakePush {
        connection: connection.clone(),
        body,
    };
    let report = poller.ask_again(push, PUSH_LIMIT).await;
    told(shared, id, report.map_err(ApiError::from)?)
}

/// What to tell GrowthBook: after ten answers other than 2xx in a row it stops pushing.
fn told(
    shared: &Shared,
    source: &str,
    report: PushReport,
) -> Result<HttpResponse, GrowthbookError> {
    let outcome = match report {
        PushReport::IgnoredPaused => "ignored_paused",
        PushReport::Taken(outcome) => outcome.as_str(),
        PushReport::Refused(reason) => {
            shared.metrics.pushed(source, "refused");
            return Err(GrowthbookError::Refused(reason));
        }
        PushReport::Failed(reason) => {
            shared.metrics.pushed(source, "failed");
            tracing::warn!(
                source.id = source,
                "a push for {source} was not taken: {reason}"
            );
            return Err(ApiError::TryAgain("the push could not be taken").into());
        }
    };
    shared.metrics.pushed(source, outcome);
    let body = json!({ "message": "Success", "outcome": outcome });
    Ok(answer(StatusCode::OK, &body))
}
