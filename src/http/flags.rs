//! What protocols have in common that answer flag by flag: the snapshot of a credential, what of it may be seen, entity
//! tags that are known before anything is evaluated, headers.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    rt::task::spawn_blocking,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{
    credentials::Credential,
    documents::{CONFIG_REVISION, JSON},
    error::ApiError,
    negotiate::{self, Match},
    state::HttpState,
};
use crate::{
    actors::Latest,
    eval::{Dialect, Environment, flags::UNIT_ATTRIBUTE},
    model::{CanonicalJson, Snapshot, View, snapshot::hex},
};

const CONFIG_STALE: HeaderName = HeaderName::from_static("x-config-stale");
/// One user's answer: a browser may keep it, and asks whether it still holds; nobody between may.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");
/// A browser that changes its secret must not be answered from what it kept.
const VARY: HeaderValue = HeaderValue::from_static("Authorization, X-API-Key, Origin");
/// Characters of an entity tag.
const TAG_CHARS: usize = 32;

/// A snapshot, ready to answer a credential's questions.
pub(super) struct Flagged {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) credential: Credential,
    dialect: Dialect,
    view: Arc<View>,
    is_stale: bool,
}

impl Flagged {
    /// Finds the snapshot and has it compiled and its answers rendered, which only the first caller waits for.
    ///
    /// Fails with 503 before the first load.
    pub(super) async fn of(state: &HttpState, credential: Credential) -> Result<Self, ApiError> {
        let board = state.reader.board();
        let cell = board.environment(&credential.environment);
        // A token may outlive its environment's last source.
        let cell = cell.ok_or(ApiError::NotLoaded)?;
        let Latest::Loaded(snapshot) = state.reader.latest(&credential.environment).await else {
            return Err(ApiError::NotLoaded);
        };
        let dialect = credential.dialect.unwrap_or(cell.dialect);
        cell.note_flags(dialect);
        if !state.compiled(&snapshot, dialect).await?.has_flags() {
            let rendered = Arc::clone(&snapshot);
            let rendering = spawn_blocking(move || {
                rendered
                    .evaluator(dialect)
                    .map(|environment| environment.flags().all().len())
            });
            rendering.await.or(Err(ApiError::Internal))?;
        }
        Ok(Self {
            view: snapshot.view(&credential.visibility),
            is_stale: cell.freshness().is_stale,
            snapshot,
            credential,
            dialect,
        })
    }

    /// What it decides.
    pub(super) fn environment(&self) -> Result<&Environment, ApiError> {
        self.snapshot
            .evaluator(self.dialect)
            .ok_or(ApiError::Internal)
    }

    /// Positions of the flags that may be seen.
    pub(super) fn visible(&self) -> Result<&[u32], ApiError> {
        let flags = self.environment()?.flags();
        let visibility = &self.credential.visibility;
        Ok(self.snapshot.visible(&self.view, visibility, flags))
    }

    /// The entity tag of an answer, with its quotes: of the configuration, of who may see what of it, of the user, and of
    /// whatever else the answer depends on. The same on every replica.
    pub(super) fn tag(&self, protocol: &str, attributes: &Value, other: &[&[u8]]) -> HeaderValue {
        let seed = self.view.seed(|| {
            let visibility = format!("{:?}", self.credential.visibility);
            // Another release may spell an answer otherwise.
            let release = env!("CARGO_PKG_VERSION");
            let mut hash = Sha256::new();
            for part in [&self.snapshot.hash, &visibility, release] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            hash.update(self.snapshot.revision.to_le_bytes());
            hash.finalize().into()
        });
        let mut hash = Sha256::new();
        hash.update(seed);
        hash.update(protocol);
        hash.update(self.dialect.as_str());
        for part in other {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(CanonicalJson::from_value(attributes).as_str());
        let mut tag = hex(&hash.finalize()[..TAG_CHARS / 2]);
        tag.insert(0, '"');
        tag.push('"');
        HeaderValue::try_from(tag).expect("hexadecimal digits in quotes are a header value")
    }

    /// Tag of the configuration alone, whoever asks: what event streams name.
    pub(super) fn config_tag(&self) -> String {
        config_tag(&self.snapshot)
    }

    /// 304 where the client has the answer already.
    pub(super) fn known(&self, headers: &HeaderMap, tag: &HeaderValue) -> Option<HttpResponse> {
        let tags = std::slice::from_ref(tag);
        match negotiate::if_none_match(headers, tags, 0) {
            Match::Tag(_) | Match::Any => {
                let mut response = HttpResponse::new(StatusCode::NOT_MODIFIED);
                self.describe(response.headers_mut(), Some(tag));
                Some(response)
            }
            Match::None | Match::Absent => None,
        }
    }

    /// An answer with a body.
    pub(super) fn respond(
        &self,
        status: StatusCode,
        tag: Option<&HeaderValue>,
        body: Vec<u8>,
    ) -> HttpResponse {
        let mut response = HttpResponse::new(status).set_body(Bytes::from(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        self.describe(headers, tag);
        response.map_into_boxed_body()
    }

    fn describe(&self, headers: &mut HeaderMap, tag: Option<&HeaderValue>) {
        if let Some(tag) = tag {
            headers.insert(header::ETAG, tag.clone());
        }
        let stale = if self.is_stale { "1" } else { "0" };
        headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        headers.insert(header::VARY, VARY);
        headers.insert(CONFIG_REVISION, HeaderValue::from(self.snapshot.revision));
        headers.insert(CONFIG_STALE, HeaderValue::from_static(stale));
    }
}

/// Tag of a snapshot.
pub(super) fn config_tag(snapshot: &Snapshot) -> String {
    let tag = snapshot.document(crate::model::snapshot::SNAPSHOT_DOCUMENT);
    tag.map(|document| format!("\"{}\"", document.tag))
        .unwrap_or_default()
}

/// Gives a user the attribute by which rules split unless they name another, where the context has none of its own.
pub(super) fn set_unit(attributes: &mut Map<String, Value>, unit: &str) {
    let is_missing = attributes.get(UNIT_ATTRIBUTE).is_none_or(Value::is_null);
    if is_missing && !unit.is_empty() {
        attributes.insert(UNIT_ATTRIBUTE.to_owned(), unit.into());
    }
}
