//! `POST /api/eval/{client_key}`: a remote-evaluation connection's payload, decided for one user.
//!
//! What the payload alone decides was compiled before, once per document and dialect; a request is evaluation and
//! copying ([`Remote::answer`]). Sticky buckets are read before and written behind it, where the settings name a store;
//! a store that is late is done without.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderName, HeaderValue},
    web,
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    super::{error::ApiError, state::HttpState},
    GrowthbookError,
    keys::{self, SdkKey},
    offer_stream,
};
use crate::{
    actors::{ClientKey, Latest, STICKY_BYTES_MAX, StickyLink},
    eval::{Dialect, Remote, RemoteRequest, StickyBuckets, StickyDocument, sticky_key},
    model::{Document, Snapshot},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CONFIG_REVISION: HeaderName = HeaderName::from_static("x-config-revision");
const CONFIG_STALE: HeaderName = HeaderName::from_static("x-config-stale");

#[derive(Deserialize)]
struct Query {
    dialect: Option<String>,
}

/// `POST /api/eval/{client_key}`.
pub(in crate::http) async fn evaluate(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, GrowthbookError> {
    let key = match keys::of_path(&request, &state)? {
        SdkKey::Connection(key) if key.is_remote_eval => key,
        SdkKey::Connection(_) | SdkKey::Token(_) => {
            return Err(GrowthbookError::RemoteEvalRequired);
        }
    };
    let dialect = dialect(&request, &key)?;
    let body = body(&state, payload).await?;
    let asked = RemoteRequest::parse(&body)
        .map_err(|error| GrowthbookError::InvalidInput(error.to_string()))?;
    let (snapshot, document) = document(&state, &key).await?;
    let remote = compiled(&document, dialect).await?;
    let sticky = match &state.shared.handles.sticky {
        Some(link) if remote.has_experiments() => buckets(link, &remote, &asked).await,
        _ => None,
    };
    let answer = remote.answer(&asked, sticky.as_ref());
    if let (Some(link), Some(sticky)) = (&state.shared.handles.sticky, sticky) {
        keep(link, sticky);
    }
    Ok(respond(&state, &snapshot, answer.into()))
}

/// The dialect that a request asks for; else the connection's; else the one of GrowthBook Proxy.
fn dialect(request: &HttpRequest, key: &ClientKey) -> Result<Dialect, GrowthbookError> {
    let own = key.dialect.unwrap_or(Dialect::Legacy);
    if request.query_string().is_empty() {
        return Ok(own);
    }
    let query: Query = super::super::extract::query(request.query_string())?;
    let Some(word) = query.dialect else {
        return Ok(own);
    };
    Dialect::from_word(&word).ok_or_else(|| {
        let reason = "`dialect`: use `strict` or `legacy`".to_owned();
        GrowthbookError::InvalidInput(reason)
    })
}

/// The request's body: at most `server.max_request_bytes`, and within `server.request_timeout`.
async fn body(state: &HttpState, payload: web::Payload) -> Result<Bytes, GrowthbookError> {
    let server = &state.shared.server;
    let limit = server.max_request_bytes;
    match timeout(server.request_timeout, payload.to_bytes_limited(limit)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(_))) => Err(GrowthbookError::InvalidInput(
            "the body was cut off".to_owned(),
        )),
        Ok(Err(_)) => Err(GrowthbookError::BodyTooLarge(limit)),
        Err(_) => Err(ApiError::BodyTimeout.into()),
    }
}

/// The connection's document in what is served now.
async fn document(
    state: &HttpState,
    key: &ClientKey,
) -> Result<(Arc<Snapshot>, Arc<Document>), GrowthbookError> {
    match state.reader.latest(&key.environment).await {
        Latest::Loaded(snapshot) => {
            let document = snapshot
                .document(&key.document)
                .ok_or(ApiError::NotLoaded)?;
            let document = Arc::clone(document);
            Ok((snapshot, document))
        }
        Latest::NeverLoaded => Err(ApiError::NotLoaded.into()),
        Latest::UnknownEnvironment => Err(state.unknown_environment().into()),
    }
}

/// The document ready to evaluate. The first request after a start waits for it, on no worker's thread; later revisions
/// are compiled before they are published.
async fn compiled(
    document: &Arc<Document>,
    dialect: Dialect,
) -> Result<Arc<Remote>, GrowthbookError> {
    let compile = || async {
        let document = Arc::clone(document);
        match web::block(move || document.compile(dialect)).await {
            Ok(Ok(compiled)) => Ok(compiled),
            Ok(Err(error)) => {
                tracing::error!("a stored document is not JSON: {error}");
                Err(ApiError::Internal)
            }
            Err(error) => {
                tracing::error!("a document was not compiled: {error}");
                Err(ApiError::Internal)
            }
        }
    };
    let compiled = document.remotes.of(dialect).get_or_try_init(compile).await;
    Ok(compiled.cloned()?)
}

/// What the user's units were given before; `None` where that is not to be had in time.
async fn buckets(
    link: &StickyLink,
    remote: &Remote,
    asked: &RemoteRequest<'_>,
) -> Option<StickyBuckets> {
    let units = remote.sticky_units(asked);
    if units.is_empty() {
        return None;
    }
    let keys = units.iter().map(|(name, value)| sticky_key(name, value));
    let documents = link.read(keys.collect()).await?;
    let parsed = documents.iter().filter_map(|document| {
        let value = serde_json::from_str(document).ok()?;
        StickyDocument::from_value(&value)
    });
    Some(StickyBuckets::new(parsed))
}

/// Keeps what was given for the first time.
fn keep(link: &StickyLink, sticky: StickyBuckets) {
    let changed = sticky
        .into_documents()
        .into_iter()
        .filter(|document| document.is_changed)
        .map(|document| (document.key(), document.to_value().to_string()))
        .filter(|(_, text)| text.len() <= STICKY_BYTES_MAX);
    link.write(changed.collect());
}

fn respond(state: &HttpState, snapshot: &Snapshot, answer: Bytes) -> HttpResponse {
    let cell = state.reader.board().environment(&snapshot.environment);
    let is_stale = cell.is_some_and(|cell| cell.freshness().is_stale);
    let mut response = HttpResponse::new(actix_web::http::StatusCode::OK).set_body(answer);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(CONFIG_REVISION, HeaderValue::from(snapshot.revision));
    let said = if is_stale { "1" } else { "0" };
    headers.insert(CONFIG_STALE, HeaderValue::from_static(said));
    offer_stream(headers);
    response.map_into_boxed_body()
}
