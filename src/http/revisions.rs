//! What was served before: `/admin/environments/{environment}/revisions` and what is below it.
//!
//! The store gives revisions from wherever it can. While the database is away a list says that it is not whole, and a
//! revision that only the database may have is unavailable (503), not unknown (404).

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    rt::task::spawn_blocking,
    web,
};
use serde_json::{Map, Value, json};
use tracing::warn;

use super::{
    changes,
    documents::{CONFIG_REVISION, JSON},
    error::ApiError,
    fields::Fields,
    health::answer,
    negotiate::{self, Match},
    state::{HttpState, Shared},
    times::{rfc3339_ms, rfc3339_or_null},
};
use crate::{
    actors::{
        Latest,
        store::{GetRevision, HistoryError, ListRevisions, RevisionInfo, RevisionPage},
    },
    diff::Configuration,
    model::{
        Document, KeptIssue, Snapshot, SnapshotMeta, SourceVersion, snapshot::SNAPSHOT_DOCUMENT,
    },
};

/// How long the store may take; it gives its database two seconds for each of two questions.
const STORE_LIMIT: Duration = Duration::from_secs(8);
/// Revisions listed unless asked otherwise, and at most.
const LIST_DEFAULT: u64 = 100;
const LIST_MAX: u64 = 1000;

/// The environment in the path, which must be one of ours.
fn environment(request: &HttpRequest, state: &HttpState) -> Result<Arc<str>, ApiError> {
    let name = request.match_info().get("environment").unwrap_or_default();
    let cell = state.reader.board().environment(name);
    cell.map(|cell| Arc::clone(&cell.name))
        .ok_or_else(|| state.unknown_environment())
}

/// A revision number in the path.
fn number(request: &HttpRequest, name: &'static str) -> Result<u64, ApiError> {
    let text = request.match_info().get(name).unwrap_or_default();
    let number = text.parse();
    number.or(Err(ApiError::bad_request(
        name,
        "is not a revision number; use one like 42",
    )))
}

/// One revision from the store. Fails with 404 when there is none, and 503 when nobody can say.
pub(super) async fn stored(
    shared: &Shared,
    environment: &Arc<str>,
    revision: u64,
) -> Result<Arc<Snapshot>, ApiError> {
    let store = &shared.handles.store;
    let question = GetRevision {
        environment: Arc::clone(environment),
        revision,
    };
    match store.ask(question, STORE_LIMIT).await? {
        Ok(Some(snapshot)) => Ok(snapshot),
        Ok(None) => {
            let question = ListRevisions {
                environment: Arc::clone(environment),
                limit: 1,
                before: None,
            };
            let page = store.ask(question, STORE_LIMIT).await?;
            Err(ApiError::UnknownRevision {
                revision,
                range: page.range,
            })
        }
        Err(HistoryError::Unavailable(_)) => Err(ApiError::RevisionUnavailable(revision)),
        Err(HistoryError::Harmed(reason)) => {
            warn!(
                environment = &**environment,
                revision, "revision {revision} of {environment} cannot be read: {reason}"
            );
            Err(ApiError::RevisionHarmed(revision))
        }
    }
}

/// `GET /admin/environments/{environment}/revisions`.
pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let environment = environment(&request, &state)?;
    let mut fields = Fields::from_query(request.query_string())?;
    let limit = fields.limit(LIST_DEFAULT, LIST_MAX)?;
    let before = fields.number("before")?;
    fields.finish("limit, before")?;
    let question = ListRevisions {
        environment: Arc::clone(&environment),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        before,
    };
    let store = &state.shared.handles.store;
    let page = store.ask(question, STORE_LIMIT).await?;
    let current = match state.reader.latest(&environment).await {
        Latest::Loaded(snapshot) => Some(snapshot.revision),
        Latest::NeverLoaded | Latest::UnknownEnvironment => None,
    };
    Ok(answer(StatusCode::OK, &shown(&environment, page, current)))
}

/// The page as it is answered; `error` says why it is not whole.
fn shown(environment: &str, page: RevisionPage, current: Option<u64>) -> Value {
    let last = page.revisions.last().map(|info| info.revision);
    let listed = page.revisions.iter().map(|info| {
        let mut shown = described(info, current == Some(info.revision));
        let issues = info.meta.issues.as_ref();
        let numbers =
            issues.map(|issues| json!({ "errors": issues.errors, "warnings": issues.warnings }));
        shown.insert("issues".to_owned(), numbers.into());
        Value::Object(shown)
    });
    let mut shown = json!({
        "environment": environment,
        "revisions": listed.collect::<Vec<Value>>(),
        "next": last.filter(|_| page.has_more),
    });
    if let Some(error) = page.error {
        shown["error"] = error.into();
    }
    shown
}

/// What is known about a revision. Its issues are for the caller to fill in.
fn described(info: &RevisionInfo, is_current: bool) -> Map<String, Value> {
    let meta = &info.meta;
    let members = [
        ("revision", json!(info.revision)),
        ("hash", json!(info.hash)),
        ("published_at", json!(rfc3339_ms(info.published_at_ms))),
        ("cause", json!(meta.cause)),
        ("author", json!(meta.author)),
        ("reason", json!(meta.reason)),
        ("pinned_from", json!(meta.pinned_from)),
        ("features", json!(meta.features)),
        ("experiments", json!(meta.experiments)),
        ("issues", Value::Null),
        ("size_bytes", json!(info.size_bytes)),
        ("sources", Value::Object(sources(meta))),
        ("current", json!(is_current)),
    ];
    let named = members.into_iter();
    named
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The inputs that a revision was made of; null where an older release did not keep that.
fn sources(meta: &SnapshotMeta) -> Map<String, Value> {
    let version = |id: &String| {
        let version = meta.versions.get(id);
        let shown = json!({
            "digest": version.map(|version| &version.digest),
            "accepted_at": rfc3339_or_null(version.map(|SourceVersion { accepted_at_ms, .. }| *accepted_at_ms)),
        });
        (id.clone(), shown)
    };
    meta.sources.iter().map(version).collect()
}

/// `GET /admin/environments/{environment}/revisions/{revision}`.
pub(super) async fn one(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let environment = environment(&request, &state)?;
    let snapshot = stored(&state.shared, &environment, number(&request, "revision")?).await?;
    let current = state.reader.board().environment(&environment);
    let is_current = current.is_some_and(|cell| cell.revision() == snapshot.revision);
    let issue = |issue: &KeptIssue| {
        json!({
            "severity": issue.severity.as_str(),
            "code": issue.code,
            "source": issue.source,
            "path": issue.path,
            "message": issue.message,
        })
    };
    let issues = snapshot.meta.issues.as_ref().map(|issues| {
        json!({
            "errors": issues.errors,
            "warnings": issues.warnings,
            "items": issues.first.iter().map(issue).collect::<Vec<Value>>(),
        })
    });
    let document = |document: &Arc<Document>| {
        json!({
            "name": &*document.name,
            "size_bytes": document.body.len(),
            "etag": tag(document),
        })
    };
    let documents = snapshot.documents.values().map(document);
    let mut shown = json!({ "environment": &*environment });
    let known = described(&RevisionInfo::from(&*snapshot), is_current);
    for (member, value) in known {
        shown[member] = value;
    }
    shown["issues"] = issues.into();
    shown["documents"] = documents.collect();
    Ok(answer(StatusCode::OK, &shown))
}

/// The entity tag of a document's identity bytes.
fn tag(document: &Document) -> String {
    format!("\"{}\"", document.tag)
}

/// `GET /admin/environments/{environment}/revisions/{revision}/snapshot`: the bytes and the entity tag that
/// `/v1/snapshot/{environment}` had.
pub(super) async fn snapshot(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let environment = environment(&request, &state)?;
    let snapshot = stored(&state.shared, &environment, number(&request, "revision")?).await?;
    let document = &snapshot.documents[SNAPSHOT_DOCUMENT];
    let tag = header::HeaderValue::try_from(tag(document)).or(Err(ApiError::Internal))?;
    let known = negotiate::if_none_match(request.headers(), std::slice::from_ref(&tag), 0);
    let mut response = if matches!(known, Match::Tag(_) | Match::Any) {
        HttpResponse::new(StatusCode::NOT_MODIFIED)
    } else {
        let mut whole = HttpResponse::new(StatusCode::OK).set_body(document.body.clone());
        whole.headers_mut().insert(header::CONTENT_TYPE, JSON);
        whole.map_into_boxed_body()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    headers.insert(CONFIG_REVISION, snapshot.revision.into());
    let no_store = header::HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

/// `GET /admin/environments/{environment}/revisions/{revision}/diff/{other}`.
pub(super) async fn difference(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let environment = environment(&request, &state)?;
    let numbers = (number(&request, "revision")?, number(&request, "other")?);
    let (before, after) = tokio::try_join!(
        stored(&state.shared, &environment, numbers.0),
        stored(&state.shared, &environment, numbers.1),
    )?;
    let compared = spawn_blocking(move || compare(&before, &after)).await;
    let compared = compared.or(Err(ApiError::Internal))??;
    Ok(answer(StatusCode::OK, &compared))
}

fn compare(before: &Snapshot, after: &Snapshot) -> Result<Value, ApiError> {
    let changes = changes::shown(&configuration(before)?, &configuration(after)?);
    Ok(json!({
        "environment": &*before.environment,
        "from": before.revision,
        "to": after.revision,
        "added": changes.added,
        "removed": changes.removed,
        "changed": changes.changed,
        "changes": changes.items,
        "documents": documents(before, after),
    }))
}

fn configuration(snapshot: &Snapshot) -> Result<Configuration, ApiError> {
    let body = &snapshot.documents[SNAPSHOT_DOCUMENT].body;
    let read = serde_json::from_slice(body).ok();
    let read = read.and_then(|document| Configuration::new(document).ok());
    read.ok_or(ApiError::RevisionHarmed(snapshot.revision))
}

/// The documents whose bytes differ, by name; the snapshot differs always, because it shows its revision.
fn documents(before: &Snapshot, after: &Snapshot) -> Vec<Value> {
    let mut names: Vec<&Arc<str>> = before.documents.keys().collect();
    names.extend(after.documents.keys());
    names.sort_unstable();
    names.dedup();
    let differing = names.into_iter().filter_map(|name| {
        let (from, to) = (before.document(name), after.document(name));
        let [from, to] = [from, to].map(|document| document.map(|document| tag(document)));
        (from != to).then(|| json!({ "name": &**name, "from": from, "to": to }))
    });
    differing.collect()
}
