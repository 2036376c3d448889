//! What is served: the bytes of every route, as one revision of one environment.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::{Evaluators, IssueSummary, SourceVersion, Views, remotes::Remotes};
use crate::eval::{Dialect, Environment, Remote};

/// Name of the document behind `/v1/snapshot/{environment}`, whose bytes begin with the revision.
pub const SNAPSHOT_DOCUMENT: &str = "snapshot";

/// First part of the name of a connection's document, which its SDKs read; the client key follows.
pub const FEATURES_PREFIX: &str = "features/";

/// First part of the name of a remote-evaluation connection's document, which no SDK may see; the client key follows.
pub const EVAL_PREFIX: &str = "eval/";

/// Name of the document of the connection with this client key.
pub fn connection_document(client_key: &str, is_remote_eval: bool) -> Arc<str> {
    let prefix = if is_remote_eval {
        EVAL_PREFIX
    } else {
        FEATURES_PREFIX
    };
    [prefix, client_key].concat().into()
}

/// The client key in the name of a connection's document, and whether it is for remote evaluation.
pub fn connection_of(document: &str) -> Option<(&str, bool)> {
    let features = document.strip_prefix(FEATURES_PREFIX);
    features
        .map(|key| (key, false))
        .or_else(|| Some((document.strip_prefix(EVAL_PREFIX)?, true)))
}

/// Compressed copies of a document; made after publishing, off the request path.
#[derive(Clone, Debug)]
pub struct Encodings {
    /// gzip.
    pub gzip: Bytes,
    /// Brotli, quality at most 5.
    pub brotli: Bytes,
    /// Zstandard.
    pub zstd: Bytes,
}

/// One route's answer: identity bytes and what depends on them alone.
pub struct Document {
    /// `snapshot`, `varnish`, `mediawiki`, `analytics`, `features/sdk-…`, `eval/sdk-…`.
    pub name: Arc<str>,
    /// Identity bytes.
    pub body: Bytes,
    /// First 32 hex digits of the SHA-256 of `body`: the opaque part of the entity tag, without quotes.
    pub tag: String,
    /// When these very bytes were first published.
    pub last_modified: OffsetDateTime,
    /// Names of the items shown: experiments of a consumer's view, features of a connection, sorted.
    pub members: Vec<String>,
    /// What the bytes mean, as a hash, where they may differ without meaning anything else (a connection's document).
    pub content: Option<String>,
    /// Compressed copies, once they are ready.
    pub encodings: OnceLock<Encodings>,
    line: OnceLock<Bytes>,
    /// Ready to be evaluated, where that was asked for (a remote-evaluation connection's document).
    pub remotes: Remotes,
}

impl Document {
    /// Takes the bytes of a route and computes their tag.
    pub fn new(
        name: impl Into<Arc<str>>,
        body: Bytes,
        last_modified: OffsetDateTime,
        members: Vec<String>,
    ) -> Self {
        let mut tag = hex(&Sha256::digest(&body));
        tag.truncate(32);
        Self {
            name: name.into(),
            body,
            tag,
            last_modified,
            members,
            content: None,
            encodings: OnceLock::new(),
            line: OnceLock::new(),
            remotes: Remotes::default(),
        }
    }

    /// Compiles a connection's payload. Takes milliseconds for a large one: not for an actor's or a worker's thread.
    pub fn compile(&self, dialect: Dialect) -> Result<Arc<Remote>, serde_json::Error> {
        let payload = serde_json::from_slice(&self.body)?;
        Ok(Arc::new(Remote::new(&payload, dialect)))
    }

    /// Compiles for the dialects that the document before was evaluated in, so that no request waits for it.
    pub fn compile_like(&self, earlier: &Self) {
        for dialect in earlier.remotes.dialects() {
            if let Ok(compiled) = self.compile(dialect) {
                // Nobody else has this document yet; were it so, theirs is as good.
                drop(self.remotes.of(dialect).set(compiled));
            }
        }
    }

    /// The same JSON on one line, as an event needs it; shared with `body` where that has no line breaks.
    ///
    /// JSON has line breaks as white space between tokens alone.
    pub fn line(&self) -> &Bytes {
        let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
        self.line.get_or_init(|| {
            if !self.body.iter().any(is_break) {
                return self.body.clone();
            }
            let bytes = self.body.iter().copied();
            bytes.filter(|byte| !is_break(byte)).collect()
        })
    }

    /// Says what the bytes mean.
    #[must_use]
    pub fn with_content(mut self, content: Option<String>) -> Self {
        self.content = content;
        self
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Document({}, {} bytes, {})",
            self.name,
            self.body.len(),
            self.tag
        )
    }
}

/// What is known about a revision beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SnapshotMeta {
    /// Sources that contributed.
    pub sources: Vec<String>,
    /// Number of features.
    pub features: usize,
    /// Number of experiments (in the snapshot, not in a consumer's view).
    pub experiments: usize,
    /// What made it: `poll growthbook-prod`, `start`.
    pub cause: String,
    /// Name of the token of the operator who wanted it.
    pub author: Option<String>,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// The revision whose content it has, where it is a pin.
    pub pinned_from: Option<u64>,
    /// The inputs that it was made of, by source; those that are not known are not there.
    pub versions: BTreeMap<String, SourceVersion>,
    /// What was wrong with it; `None`: older releases did not keep that.
    pub issues: Option<IssueSummary>,
}

/// A stitched environment with all its bytes, before it has a revision number.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Environment name.
    pub environment: Arc<str>,
    /// Hex SHA-256 over everything served; equal hash means nothing to publish.
    pub hash: String,
    /// The snapshot document from `"features":` to the closing brace; the revision goes before it.
    pub snapshot_tail: Bytes,
    /// The documents that do not show the revision, sorted by name.
    pub documents: Vec<Arc<Document>>,
    /// What is known about it.
    pub meta: SnapshotMeta,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Its compiled forms, where they were wanted before it had a number.
    pub evaluators: Evaluators,
    /// The same before operators' overrides; `None` where none changed anything.
    pub base: Option<Arc<Candidate>>,
}

impl Candidate {
    /// A document by name; `None` for a name it does not have, the snapshot's included.
    pub fn document(&self, name: &str) -> Option<&Arc<Document>> {
        self.documents
            .iter()
            .find(|document| *document.name == *name)
    }

    /// Compiles it for these dialects. Takes some tenths of a second: for a blocking thread.
    ///
    /// Fails when the tail is not that of a snapshot document.
    pub fn prepare(&self, dialects: &[Dialect]) -> Result<(), serde_json::Error> {
        dialects
            .iter()
            .try_for_each(|dialect| self.evaluators.prepare(*dialect, &self.snapshot_tail))
    }

    /// Renders the answers of flags and toggles for these dialects, which must have been prepared. For a blocking thread.
    pub fn prepare_flags(&self, dialects: &[Dialect]) {
        for environment in dialects
            .iter()
            .filter_map(|dialect| self.evaluators.get(*dialect))
        {
            environment.flags();
        }
    }

    /// Hash over everything served: the snapshot's tail, and each document's name and bytes or what those mean.
    pub fn content_hash(snapshot_tail: &[u8], documents: &[Arc<Document>]) -> String {
        let mut hash = Sha256::new();
        hash.update((snapshot_tail.len() as u64).to_le_bytes());
        hash.update(snapshot_tail);
        for document in documents {
            hash.update(document.name.as_bytes());
            let content = document.content.as_ref().map(String::as_bytes);
            let content = content.unwrap_or(&document.body);
            hash.update((content.len() as u64).to_le_bytes());
            hash.update(content);
        }
        hex(&hash.finalize())
    }

    /// Identity bytes of all documents, the beginning of the snapshot's, which shows the revision, not counted.
    pub fn size_bytes(&self) -> u64 {
        let bodies = self.documents.iter().map(|document| document.body.len());
        (self.snapshot_tail.len() + bodies.sum::<usize>()) as u64
    }

    /// Gives the candidate its number. Copies the snapshot's bytes once: not for an actor's thread.
    pub fn at_revision(&self, revision: u64) -> Snapshot {
        let mut body = Vec::with_capacity(self.snapshot_tail.len() + self.environment.len() + 48);
        let environment =
            serde_json::to_string(&*self.environment).expect("a string always serialises");
        body.extend_from_slice(
            format!("{{\"environment\":{environment},\"revision\":{revision},").as_bytes(),
        );
        let tail_start = body.len();
        body.extend_from_slice(&self.snapshot_tail);
        let identity = format!(
            "\"environment\":{environment},\"config_version\":{revision},\"revision\":{revision}"
        );
        let body = Bytes::from(body);
        let snapshot = Document::new(SNAPSHOT_DOCUMENT, body, self.created_at, Vec::new());
        let documents = self.documents.iter().cloned().chain([Arc::new(snapshot)]);
        Snapshot {
            environment: Arc::clone(&self.environment),
            revision,
            hash: self.hash.clone(),
            tail_start,
            identity: identity.into(),
            evaluators: self.evaluators.clone(),
            views: Views::default(),
            documents: documents
                .map(|document| (Arc::clone(&document.name), document))
                .collect(),
            meta: self.meta.clone(),
            published_at: self.created_at,
            base: self.base.clone(),
        }
    }
}

/// One published revision of one environment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Environment name.
    pub environment: Arc<str>,
    /// Rises by publishing only; never reused.
    pub revision: u64,
    /// Hex SHA-256 over everything served but the revision.
    pub hash: String,
    /// Where in the snapshot document the part behind the revision begins.
    tail_start: usize,
    identity: Box<str>,
    evaluators: Evaluators,
    /// What callers see who may not see all of it.
    pub(super) views: Views,
    /// Documents by name.
    pub documents: BTreeMap<Arc<str>, Arc<Document>>,
    /// What is known about it.
    pub meta: SnapshotMeta,
    /// When it was published.
    pub published_at: OffsetDateTime,
    /// The same before operators' overrides; `None` where none changed anything.
    pub base: Option<Arc<Candidate>>,
}

impl Snapshot {
    /// A document by name; `None` for a name this revision does not have.
    pub fn document(&self, name: &str) -> Option<&Arc<Document>> {
        self.documents.get(name)
    }

    /// What sources delivered: its content without operators' overrides. Shares its bytes.
    pub fn content(&self) -> Arc<Candidate> {
        if let Some(base) = &self.base {
            return Arc::clone(base);
        }
        let documents = self.documents.values();
        Arc::new(Candidate {
            environment: Arc::clone(&self.environment),
            hash: self.hash.clone(),
            snapshot_tail: self.tail(),
            documents: documents
                .filter(|document| *document.name != *SNAPSHOT_DOCUMENT)
                .cloned()
                .collect(),
            meta: self.meta.clone(),
            created_at: self.published_at,
            evaluators: self.evaluators.clone(),
            base: None,
        })
    }

    /// See [`Candidate::size_bytes`].
    pub fn size_bytes(&self) -> u64 {
        let bodies = self.documents.values().map(|document| document.body.len());
        (bodies.sum::<usize>() - self.tail_start) as u64
    }

    /// `"environment":…,"config_version":…,"revision":…`, as every evaluated answer has it.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// What it decides in a dialect; `None`: not compiled, see [`Snapshot::prepare`].
    pub fn evaluator(&self, dialect: Dialect) -> Option<&Environment> {
        self.evaluators.get(dialect)
    }

    /// Compiles it for these dialects, each once however often it is asked for.
    ///
    /// Takes some tenths of a second for a large configuration: for a blocking thread. Fails when the snapshot document is
    /// not one.
    pub fn prepare(&self, dialects: &[Dialect]) -> Result<(), serde_json::Error> {
        let tail = self.tail();
        dialects
            .iter()
            .try_for_each(|dialect| self.evaluators.prepare(*dialect, &tail))
    }

    /// The snapshot document behind the revision number: what a [`Candidate`] had as its tail.
    pub fn tail(&self) -> Bytes {
        self.documents[SNAPSHOT_DOCUMENT]
            .body
            .slice(self.tail_start..)
    }
}

/// How old an environment's configuration is, and from when on that is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Freshness {
    /// Unix milliseconds of the last successful check of the source checked longest ago; `None`: never.
    pub checked_at_ms: Option<i64>,
    /// Whether any source is older than its `stale_after`.
    pub is_stale: bool,
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
}
