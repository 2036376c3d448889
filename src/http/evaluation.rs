//! What all evaluated answers have in common: whose attributes, which snapshot in which dialect, which headers.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue},
    },
    web,
};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{
    auth, credentials, documents::latest, error::ApiError, fields::Fields, state::HttpState,
};
use crate::{
    eval::Dialect,
    model::{Snapshot, Visibility},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// One unit's answer is nobody else's, and the unit is in the address.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CONFIG_REVISION: HeaderName = HeaderName::from_static("x-config-revision");
const CONFIG_STALE: HeaderName = HeaderName::from_static("x-config-stale");

/// More bytes than these are worked through on a blocking thread.
pub(super) const LIGHT_BYTES_MAX: usize = 16 * 1024;

/// The fields of a request: of its body if it is a POST, else of its query.
pub(super) async fn fields<'q>(
    request: &'q HttpRequest,
    payload: web::Payload,
    state: &HttpState,
) -> Result<Fields<'q>, ApiError> {
    if request.method() != Method::POST {
        return Fields::from_query(request.query_string());
    }
    if !request.query_string().is_empty() {
        let reason = "a POST has its parameters in the body; send them there";
        return Err(ApiError::bad_request("query", reason));
    }
    Fields::from_body(&state.shared, payload).await
}

/// Takes out `dialect`.
pub(super) fn dialect(fields: &mut Fields<'_>) -> Result<Option<Dialect>, ApiError> {
    let Some(word) = fields.text("dialect")? else {
        return Ok(None);
    };
    match Dialect::from_word(&word) {
        Some(dialect) => Ok(Some(dialect)),
        None => Err(fields.wrong("dialect", "use `strict` or `legacy`")),
    }
}

/// A unit's attributes: the context, with the unit's own id as `id` unless the context has one.
pub(super) fn attributes(
    user_key: &str,
    context: Option<Map<String, Value>>,
) -> Map<String, Value> {
    let mut attributes = context.unwrap_or_default();
    if !user_key.is_empty() && attributes.get("id").is_none_or(Value::is_null) {
        attributes.insert("id".to_owned(), user_key.into());
    }
    attributes
}

/// A snapshot to evaluate, and in which dialect.
pub(super) struct Subject {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) dialect: Dialect,
    /// Which part of it the caller may see; `None`: all.
    pub(super) visibility: Option<Visibility>,
    /// Whether any of its sources was checked too long ago.
    pub(super) is_stale: bool,
}

/// Finds the snapshot of an environment, the default one if none is named, and has it compiled.
///
/// Fails with 404 for an environment that nobody feeds, 503 before its first load, 401 or 403 where the caller needs a server
/// token and has none for it. A token's environment is the default one for its owner.
pub(super) async fn subject(
    state: &HttpState,
    request: &HttpRequest,
    environment: Option<&str>,
    dialect: Option<Dialect>,
) -> Result<Subject, ApiError> {
    let credential = credentials::server(state, request)?;
    let default = match &credential {
        Some(credential) => &credential.environment,
        None => state.shared.server.default_environment.as_str(),
    };
    let environment = environment.unwrap_or(default);
    credentials::must_be_of(credential.as_ref(), environment)?;
    let Some(cell) = state.reader.board().environment(environment) else {
        return Err(state.unknown_environment());
    };
    let snapshot = latest(state, environment).await?;
    let own = credential
        .as_ref()
        .and_then(|credential| credential.dialect);
    let dialect = dialect.or(own).unwrap_or(cell.dialect);
    let partial = credential.filter(|credential| !credential.sees_all());
    cell.note_evaluated(dialect);
    state.compiled(&snapshot, dialect).await?;
    Ok(Subject {
        snapshot,
        dialect,
        visibility: partial.map(|credential| credential.visibility),
        is_stale: cell.freshness().is_stale,
    })
}

/// A revision of the past to evaluate, compiled; of the default environment if none is named.
///
/// Fails with 401 or 403 for a caller who may not look back, 404 for an environment or a revision that is not there.
pub(super) async fn past(
    state: &HttpState,
    request: &HttpRequest,
    environment: Option<&str>,
    dialect: Option<Dialect>,
    revision: u64,
) -> Result<Subject, ApiError> {
    auth::may_look_back(state, request)?;
    let default = &state.shared.server.default_environment;
    let environment = environment.unwrap_or(default);
    let Some(cell) = state.reader.board().environment(environment) else {
        return Err(state.unknown_environment());
    };
    let dialect = dialect.unwrap_or(cell.dialect);
    let replays = &state.shared.replays;
    let snapshot = replays.compiled(&state.shared, &cell.name, revision, dialect);
    Ok(Subject {
        snapshot: snapshot.await?,
        dialect,
        visibility: None,
        is_stale: false,
    })
}

/// 200 with an evaluated body.
pub(super) fn respond(subject: &Subject, body: Vec<u8>) -> HttpResponse {
    let mut response = HttpResponse::new(StatusCode::OK).set_body(Bytes::from(body));
    let headers = response.headers_mut();
    // Made anew: a value that all workers share costs more than writing some digits.
    let revision = HeaderValue::from(subject.snapshot.revision);
    let stale = if subject.is_stale { "1" } else { "0" };
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CONFIG_REVISION, revision);
    headers.insert(CONFIG_STALE, HeaderValue::from_static(stale));
    response.map_into_boxed_body()
}
