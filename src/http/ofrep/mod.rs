//! OpenFeature remote evaluation (OFREP 0.3): `/ofrep/v1/evaluate/flags` and what belongs to it.
//!
//! Both operations take the same body, and lenient clients none at all. Failures of a request have the protocol's shape;
//! what is no fault of the caller, and what is wrong with a token, is a problem document, which clients tell by its status.
//!
//! **The entity tag** of all flags is of the configuration, the credential, the context and the address of the event
//! stream, and known before anything is evaluated. `flagConfigEtag` and `flagConfigLastModified` come with a refetch that an
//! event caused: where they name another configuration than ours the answer is never 304, whatever `If-None-Match` says,
//! since this replica may be the one that is behind.

pub(super) mod events;
mod request;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, rt::task::spawn_blocking, web};
use serde_json::{Value, json};

use self::request::{Failure, Question};
use super::{
    credentials, error::ApiError, evaluation::LIGHT_BYTES_MAX, fields::decode_path, flags::Flagged,
    state::HttpState,
};
use crate::{clock, eval::Context};

/// `POST /ofrep/v1/evaluate/flags`.
pub(super) async fn all(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let credential = credentials::needed(&state, &request)?;
    let question = match Question::read(&state, payload).await? {
        Ok(question) => question,
        Err(failure) => return Ok(failure.respond(None)),
    };
    let flagged = Flagged::of(&state, credential).await?;
    let address = events::address(&flagged.credential, clock::now_ms());
    let tag = flagged.tag("ofrep", &question.attributes, &[address.as_bytes()]);
    if !is_elsewhere(&request, &flagged, &tag)
        && let Some(response) = flagged.known(request.headers(), &tag)
    {
        return Ok(response);
    }
    let is_light = question.bytes <= LIGHT_BYTES_MAX;
    let work = move || {
        let body = write_all(&flagged, &question, &address)?;
        Ok::<_, ApiError>((flagged, body))
    };
    let (flagged, body) = if is_light {
        work()?
    } else {
        spawn_blocking(work).await.or(Err(ApiError::Internal))??
    };
    Ok(flagged.respond(StatusCode::OK, Some(&tag), body))
}

fn write_all(flagged: &Flagged, question: &Question, address: &str) -> Result<Vec<u8>, ApiError> {
    /// Of one flag, to ask for memory once.
    const FLAG_BYTES: usize = 128;
    let (environment, visible) = (flagged.environment()?, flagged.visible()?);
    let mut body = Vec::with_capacity((visible.len() + 2) * FLAG_BYTES);
    body.extend_from_slice(b"{\"flags\":[");
    environment.write_ofrep(&Context::new(question.attributes()), visible, &mut body);
    let tail = json!({
        "metadata": {
            "environment": &*flagged.snapshot.environment,
            "revision": flagged.snapshot.revision,
        },
        "eventStreams": [{"type": "sse", "endpoint": {"requestUri": address}}],
    });
    body.extend_from_slice(b"],");
    body.extend_from_slice(&tail.to_string().as_bytes()[1..]);
    Ok(body)
}

/// Whether an event told the caller of another configuration than the one that is answered here.
fn is_elsewhere(
    request: &HttpRequest,
    flagged: &Flagged,
    tag: &actix_web::http::header::HeaderValue,
) -> bool {
    let query = url::form_urlencoded::parse(request.query_string().as_bytes());
    let ours = flagged.config_tag();
    let published = flagged.snapshot.published_at.unix_timestamp();
    let mut named = query.filter(|(_, value)| !value.is_empty());
    named.any(|(name, value)| match &*name {
        "flagConfigEtag" => *value != *ours && value.as_bytes() != tag.as_bytes(),
        // Seconds; a date is taken as news, which costs one evaluation.
        "flagConfigLastModified" => value.parse::<i64>().map_or(true, |at| at > published),
        _ => false,
    })
}

/// `POST /ofrep/v1/evaluate/flags/{key}`.
pub(super) async fn one(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let credential = credentials::needed(&state, &request)?;
    let path = request.match_info().get("key").unwrap_or_default();
    let Some(key) = decode_path(path) else {
        let failure = Failure::parse("the key in the path is not UTF-8");
        return Ok(failure.respond(Some(path)));
    };
    let question = match Question::read(&state, payload).await? {
        Ok(question) => question,
        Err(failure) => return Ok(failure.respond(Some(&key))),
    };
    let flagged = Flagged::of(&state, credential).await?;
    let environment = flagged.environment()?;
    let Some(at) = environment.flags().find(&key, flagged.visible()?) else {
        return Ok(flagged.respond(StatusCode::NOT_FOUND, None, not_found(&key)));
    };
    let name = Value::from(&*flagged.snapshot.environment);
    let revision = flagged.snapshot.revision;
    let metadata = format!(",\"revision\":{revision},\"environment\":{name}");
    let mut body = Vec::new();
    let context = Context::new(question.attributes());
    let is_answered = environment.write_ofrep_one(&context, at, &metadata, &mut body);
    let status = if is_answered {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    Ok(flagged.respond(status, None, body))
}

fn not_found(key: &str) -> Vec<u8> {
    let body = json!({
        "key": key,
        "errorCode": "FLAG_NOT_FOUND",
        "errorDetails": "no flag of this key may be seen with this token",
    });
    body.to_string().into_bytes()
}
