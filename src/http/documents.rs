//! Answers that carry configuration: one document of one revision, with the headers that keep caches alive.
//!
//! Everything that a revision fixes is made once per worker and revision; a request then clones header values and
//! `Bytes`, which costs a few reference counts. See `http-caching` in ARCHITECTURE.md for why each header is there.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue, HttpDate},
    },
};
use bytes::Bytes;

use super::{
    credentials::Credential,
    error::ApiError,
    negotiate::{self, Coding, Match},
    scoped::{self, Form},
    state::HttpState,
    times,
};
use crate::{
    actors::Latest,
    model::{Document, Freshness, Snapshot},
    settings,
};

/// The one content type a Wikimedia edge accepts, byte for byte.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// An answer to one caller's secret: a browser may keep it and asks whether it still holds.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
pub(super) const CONFIG_REVISION: HeaderName = HeaderName::from_static("x-config-revision");
const CONFIG_PUBLISHED_AT: HeaderName = HeaderName::from_static("x-config-published-at");
const CONFIG_CHECKED_AT: HeaderName = HeaderName::from_static("x-config-checked-at");
const CONFIG_STALE: HeaderName = HeaderName::from_static("x-config-stale");

/// Header values that the settings fix.
struct Profile {
    fresh: HeaderValue,
    /// A shorter `s-maxage`, so that recovery shows quickly; never 0, or a cache would pass every request on.
    stale: HeaderValue,
    vary: HeaderValue,
    /// With any origin allowed the header is sent to all: a cache may give a browser what a server asked for.
    is_any_origin: bool,
}

impl Profile {
    fn new(settings: &settings::Http) -> Self {
        let cache_control = |s_maxage: Duration| {
            let text = format!(
                "public, max-age=0, must-revalidate, s-maxage={}, stale-while-revalidate={}, stale-if-error={}",
                s_maxage.as_secs(),
                settings.stale_while_revalidate.as_secs(),
                settings.stale_if_error.as_secs()
            );
            HeaderValue::try_from(text).expect("words and decimal numbers are a header value")
        };
        let is_any_origin = settings.cors_origins.iter().any(|origin| origin == "*");
        let vary = if is_any_origin {
            "Accept-Encoding"
        } else {
            "Accept-Encoding, Origin"
        };
        Self {
            fresh: cache_control(settings.s_maxage),
            stale: cache_control(settings.stale_s_maxage),
            vary: HeaderValue::from_static(vary),
            is_any_origin,
        }
    }
}

/// One document of one revision, with every header value that does not depend on the request.
struct Prepared {
    document: Arc<Document>,
    /// In the order of [`Coding::ALL`].
    tags: [HeaderValue; 4],
    last_modified: HeaderValue,
    last_modified_at: SystemTime,
    surrogate_key: HeaderValue,
    revision: HeaderValue,
    published_at: HeaderValue,
}

impl Prepared {
    fn new(snapshot: &Snapshot, document: &Arc<Document>) -> Self {
        let name = &document.name;
        // HTTP dates have whole seconds.
        let seconds = u64::try_from(document.last_modified.unix_timestamp()).unwrap_or(0);
        let last_modified_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let environment = &snapshot.environment;
        let tag = |coding: Coding| value(format!("\"{}{}\"", document.tag, coding.tag_suffix()));
        Self {
            document: Arc::clone(document),
            tags: Coding::ALL.map(tag),
            last_modified: value(HttpDate::from(last_modified_at).to_string()),
            last_modified_at,
            surrogate_key: value(format!("cfg cfg-{environment} cfg-{environment}-{name}")),
            revision: HeaderValue::from(snapshot.revision),
            published_at: value(times::rfc3339(snapshot.published_at)),
        }
    }

    /// The body in the coding that the client likes best, or as it is while the compressed copies are being made.
    fn body(&self, wanted: Coding) -> (Coding, Bytes) {
        match (wanted, self.document.encodings.get()) {
            (Coding::Brotli, Some(encodings)) => (wanted, encodings.brotli.clone()),
            (Coding::Zstd, Some(encodings)) => (wanted, encodings.zstd.clone()),
            (Coding::Gzip, Some(encodings)) => (wanted, encodings.gzip.clone()),
            _ => (Coding::Identity, self.document.body.clone()),
        }
    }

    /// The tag of what the client already has; `None`: it needs the body.
    fn matched(&self, headers: &HeaderMap, coding: Coding) -> Option<&HeaderValue> {
        match negotiate::if_none_match(headers, &self.tags, coding as usize) {
            Match::Tag(at) => self.tags.get(at),
            Match::Any => Some(&self.tags[coding as usize]),
            Match::None => None,
            Match::Absent => {
                let since = headers.get(header::IF_MODIFIED_SINCE)?.to_str().ok()?;
                let since = SystemTime::from(since.parse::<HttpDate>().ok()?);
                (self.last_modified_at <= since).then_some(&self.tags[coding as usize])
            }
        }
    }
}

/// A header value from text of ours; environment names are checked by the settings to be plain words.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("invalid"))
}

/// What one worker has prepared for one environment.
#[derive(Default)]
struct Environment {
    /// Revision of all of `documents`.
    revision: u64,
    documents: HashMap<Arc<str>, Rc<Prepared>>,
    checked_at: Option<(i64, HeaderValue)>,
}

/// One worker's prepared documents.
pub(super) struct Documents {
    profile: Profile,
    environments: RefCell<HashMap<Arc<str>, Environment>>,
}

impl Documents {
    /// Nothing prepared yet.
    pub(super) fn new(settings: &settings::Http) -> Self {
        Self {
            profile: Profile::new(settings),
            environments: RefCell::default(),
        }
    }

    /// A document of a revision as it was prepared, or prepared now.
    fn prepared(&self, snapshot: &Snapshot, document: &Arc<Document>) -> Rc<Prepared> {
        let mut environments = self.environments.borrow_mut();
        if !environments.contains_key(&snapshot.environment) {
            let environment = Arc::clone(&snapshot.environment);
            environments.insert(environment, Environment::default());
        }
        let known = environments
            .get_mut(&snapshot.environment)
            .expect("it was inserted where it was missing");
        if known.revision != snapshot.revision {
            // All of them: one that nobody asks for again would keep the bytes of its revision.
            known.documents.clear();
            known.revision = snapshot.revision;
        }
        if let Some(prepared) = known.documents.get(&document.name) {
            return Rc::clone(prepared);
        }
        let prepared = Rc::new(Prepared::new(snapshot, document));
        let name = Arc::clone(&prepared.document.name);
        known.documents.insert(name, Rc::clone(&prepared));
        prepared
    }

    /// `X-Config-Checked-At`, formatted only when the time has moved.
    fn checked_at(&self, environment: &str, ms: i64) -> Option<HeaderValue> {
        let mut environments = self.environments.borrow_mut();
        let remembered = &mut environments.get_mut(environment)?.checked_at;
        match remembered {
            Some((at, text)) if *at == ms => Some(text.clone()),
            _ => Some(
                remembered
                    .insert((ms, value(times::rfc3339_ms(ms))))
                    .1
                    .clone(),
            ),
        }
    }

    /// 200 with the document, or 304 where the client has it.
    fn respond(
        &self,
        request: &HttpRequest,
        snapshot: &Snapshot,
        document: &Arc<Document>,
        freshness: Freshness,
    ) -> HttpResponse {
        // One of a scope's own is kept with the revision, for all workers, and their number is bounded there.
        let is_shared = snapshot.document(&document.name).is_some();
        let prepared = if is_shared {
            self.prepared(snapshot, document)
        } else {
            Rc::new(Prepared::new(snapshot, document))
        };
        let (coding, body) = prepared.body(negotiate::coding(request.headers()));
        let matched = prepared.matched(request.headers(), coding);
        let tag = matched.unwrap_or(&prepared.tags[coding as usize]).clone();
        let checked_at = freshness
            .checked_at_ms
            .and_then(|ms| self.checked_at(&snapshot.environment, ms));
        if matched.is_some() {
            let mut response = HttpResponse::new(StatusCode::NOT_MODIFIED);
            self.describe(
                response.headers_mut(),
                &prepared,
                tag,
                freshness,
                checked_at,
            );
            return response;
        }
        let mut response = HttpResponse::new(StatusCode::OK).set_body(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        if let Some(encoding) = coding.content_encoding() {
            headers.insert(header::CONTENT_ENCODING, encoding);
        }
        self.describe(headers, &prepared, tag, freshness, checked_at);
        response.map_into_boxed_body()
    }

    /// The headers that 200 and 304 have in common.
    fn describe(
        &self,
        headers: &mut HeaderMap,
        prepared: &Prepared,
        tag: HeaderValue,
        freshness: Freshness,
        checked_at: Option<HeaderValue>,
    ) {
        let profile = &self.profile;
        let (cache_control, stale) = if freshness.is_stale {
            (&profile.stale, "1")
        } else {
            (&profile.fresh, "0")
        };
        headers.insert(header::ETAG, tag);
        headers.insert(header::LAST_MODIFIED, prepared.last_modified.clone());
        headers.insert(header::CACHE_CONTROL, cache_control.clone());
        headers.insert(header::VARY, profile.vary.clone());
        headers.insert(SURROGATE_KEY, prepared.surrogate_key.clone());
        headers.insert(CONFIG_REVISION, prepared.revision.clone());
        headers.insert(CONFIG_PUBLISHED_AT, prepared.published_at.clone());
        headers.insert(CONFIG_STALE, HeaderValue::from_static(stale));
        if let Some(checked_at) = checked_at {
            headers.insert(CONFIG_CHECKED_AT, checked_at);
        }
        if profile.is_any_origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
        }
    }
}

/// A configuration answer and the revision it carries.
pub(super) struct Served {
    /// 200 or 304.
    pub(super) response: HttpResponse,
    /// Revision of the environment.
    pub(super) revision: u64,
}

/// Answers a read of document `name` of `environment` with what the worker's reader has.
pub(super) async fn serve(
    request: &HttpRequest,
    state: &HttpState,
    environment: &str,
    name: &str,
) -> Result<Served, ApiError> {
    let snapshot = latest(state, environment).await?;
    // A revision stored before a route existed does not have its document.
    let document = snapshot.document(name).ok_or(ApiError::NotLoaded)?;
    Ok(respond(request, state, &snapshot, document))
}

/// What a credential sees of its environment, in a document of its scope's own; no cache between may keep it.
pub(super) async fn serve_scoped(
    request: &HttpRequest,
    state: &HttpState,
    credential: &Credential,
    form: Form,
) -> Result<Served, ApiError> {
    let snapshot = latest(state, &credential.environment).await?;
    let document = scoped::document(&snapshot, &credential.visibility, form).await?;
    let mut served = respond(request, state, &snapshot, &document);
    keep_private(&mut served.response);
    Ok(served)
}

/// Keeps an answer to one caller's secret from caches that others use.
pub(super) fn keep_private(response: &mut HttpResponse) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, PRIVATE);
    headers.append(
        header::VARY,
        HeaderValue::from_static("Authorization, X-API-Key, Origin"),
    );
}

/// The newest snapshot of an environment; 404 for one that nobody feeds, 503 before its first load.
pub(super) async fn latest(
    state: &HttpState,
    environment: &str,
) -> Result<Arc<Snapshot>, ApiError> {
    match state.reader.latest(environment).await {
        Latest::Loaded(snapshot) => Ok(snapshot),
        Latest::NeverLoaded => Err(ApiError::NotLoaded),
        Latest::UnknownEnvironment => Err(state.unknown_environment()),
    }
}

fn respond(
    request: &HttpRequest,
    state: &HttpState,
    snapshot: &Snapshot,
    document: &Arc<Document>,
) -> Served {
    let cell = state.reader.board().environment(&snapshot.environment);
    let freshness = cell.map(|cell| cell.freshness()).unwrap_or_default();
    let response = state
        .documents
        .respond(request, snapshot, document, freshness);
    Served {
        response,
        revision: snapshot.revision,
    }
}
