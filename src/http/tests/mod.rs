//! Handlers, headers and access rules, without actors: the store's slot is empty and readers know one snapshot.

mod admin;
mod data;
mod edges;
mod growthbook;
mod wire;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_web::{App, body::to_bytes, http::header::HeaderMap, test as at, web};
use bytes::Bytes;
use serde_json::Value;
use time::macros::datetime;

use super::{HttpState, Plane, ROUTES, Shared, configure, cors};
use crate::{
    actors::{Board, Handles, Member, Slot, SnapshotReader, SourceHandles},
    metrics::Metrics,
    model::{Candidate, Document, Encodings, Evaluators, Snapshot, SnapshotMeta},
    settings::{Connection, Connections, Settings, Source},
};

/// Paths of two documents.
const SNAPSHOT: &str = "/v1/snapshot/production";
const VARNISH: &str = "/api/v1/experiments?authority=varnish&format=config";

/// A connection of `main`, and its remote-evaluation sister.
const CLIENT_KEY: &str = "sdk-main";
const REMOTE_KEY: &str = "sdk-remote";
const FEATURES: &str = "/api/features/sdk-main";

/// When the test documents were first published.
const PUBLISHED: time::OffsetDateTime = datetime!(2026-11-20 10:00:00.25 UTC);

/// A snapshot with every document of the data plane.
pub(super) fn snapshot(environment: &str, revision: u64) -> Snapshot {
    let document = |name: &str, body: &'static str| {
        Arc::new(Document::new(
            name,
            Bytes::from_static(body.as_bytes()),
            PUBLISHED,
            Vec::new(),
        ))
    };
    let documents = vec![
        document("varnish", r#"{"sticky-header":{}}"#),
        document("mediawiki", r#"[{"name":"sticky-header"}]"#),
        document("analytics", r#"[{"name":"sticky-header","source":"main"}]"#),
        document("features/sdk-main", r#"{"status":200,"features":{}}"#),
        document(
            "eval/sdk-remote",
            r#"{"status":200,"features":{"secret":{}}}"#,
        ),
    ];
    let candidate = Candidate {
        environment: environment.into(),
        hash: "cafe".to_owned(),
        snapshot_tail: Bytes::from_static(br#""features":{}}"#),
        documents,
        meta: SnapshotMeta {
            features: 3,
            experiments: 1,
            ..SnapshotMeta::default()
        },
        created_at: PUBLISHED,
        evaluators: Evaluators::default(),
        base: None,
    };
    candidate.at_revision(revision)
}

/// Gives a document compressed copies that tests can tell apart.
fn compress(snapshot: &Snapshot, name: &str) {
    let copy = Bytes::from_static;
    let encodings = Encodings {
        gzip: copy(b"gzip bytes"),
        brotli: copy(b"br bytes"),
        zstd: copy(b"zstd bytes"),
    };
    snapshot
        .document(name)
        .unwrap()
        .encodings
        .set(encodings)
        .unwrap();
}

/// Everything a plane needs.
pub(super) struct Rig {
    pub(super) shared: Arc<Shared>,
    pub(super) snapshot: Option<Snapshot>,
}

impl Rig {
    /// Environment `production`, fed by `main` (enabled) and `off` (disabled), at revision 7.
    pub(super) fn loaded() -> Self {
        Self::new(&settings(), Some(snapshot("production", 7)))
    }

    /// The same before the first load.
    pub(super) fn never_loaded() -> Self {
        Self::new(&settings(), None)
    }

    fn new(settings: &Settings, snapshot: Option<Snapshot>) -> Self {
        let (board, metrics) = (Board::new(settings), Arc::new(Metrics::default()));
        let (store, config) = (Slot::new("store", ""), Slot::new("config", ""));
        let members: Vec<Arc<dyn Member>> = vec![Arc::clone(&store) as _, Arc::clone(&config) as _];
        let sources: BTreeMap<String, SourceHandles> =
            settings.sources.iter().map(source_handles).collect();
        if let Some(snapshot) = &snapshot {
            board
                .environment(&snapshot.environment)
                .unwrap()
                .announce(snapshot.revision);
        }
        let (sources, members) = (Arc::new(sources), Arc::new(members));
        let handles = Handles {
            sticky: None,
            tokens: Slot::new("token", ""),
            announcer: None,
            board,
            store,
            config,
            supervisor: Slot::new("supervisor", ""),
            sources,
            members,
        };
        Self {
            shared: Shared::new(settings, handles, metrics),
            snapshot,
        }
    }

    /// The same rig with another snapshot in its readers.
    pub(super) fn clone_with(&self, snapshot: Snapshot) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            snapshot: Some(snapshot),
        }
    }

    /// The state of a worker.
    pub(super) fn state(&self) -> HttpState {
        let (board, metrics) = (
            Arc::clone(&self.shared.handles.board),
            Arc::clone(&self.shared.metrics),
        );
        match &self.snapshot {
            Some(snapshot) => {
                let reader = SnapshotReader::fixed(board, metrics, snapshot.clone());
                HttpState::with_reader(Arc::clone(&self.shared), reader)
            }
            None => HttpState::new(Arc::clone(&self.shared)),
        }
    }

    /// Sends one request to a plane and takes the answer apart.
    async fn send(&self, plane: Plane, request: at::TestRequest) -> Answer {
        let state = web::Data::new(self.state());
        let app = App::new().wrap(cors(&self.shared));
        let app =
            at::init_service(app.configure(|config| configure(config, plane, state, ROUTES))).await;
        let response = at::call_service(&app, request.to_request()).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = to_bytes(response.into_body())
            .await
            .unwrap_or_else(|_| panic!("the body cannot be read"));
        Answer {
            status,
            headers,
            body,
        }
    }

    async fn get(&self, uri: &str) -> Answer {
        self.send(Plane::Data, at::TestRequest::get().uri(uri))
            .await
    }

    async fn get_with(&self, uri: &str, name: &'static str, value: &str) -> Answer {
        self.send(
            Plane::Data,
            at::TestRequest::get().uri(uri).insert_header((name, value)),
        )
        .await
    }
}

fn settings() -> Settings {
    let source = |id: &str, enabled| Source {
        id: id.to_owned(),
        enabled,
        ..Source::default()
    };
    let connection = |key: &str, remote_eval| Connection {
        key: key.to_owned(),
        remote_eval,
        ..Connection::default()
    };
    let list = vec![connection(CLIENT_KEY, false), connection(REMOTE_KEY, true)];
    let main = Source {
        connections: Connections::List(list),
        ..source("main", true)
    };
    let mut settings = Settings {
        sources: vec![main, source("off", false)],
        ..Settings::default()
    };
    settings.http.stream_keepalive = Duration::from_millis(20);
    settings.server.max_streams = 2;
    settings.server.max_request_bytes = 64;
    settings
}

fn source_handles(source: &Source) -> (String, SourceHandles) {
    let slots = || {
        (
            Slot::new("client", &source.id),
            Slot::new("poller", &source.id),
        )
    };
    let handles = SourceHandles {
        environment: source.environment.clone(),
        max_body_bytes: 64,
        webhook_secret: None,
        actors: source.enabled.then(slots),
    };
    (source.id.clone(), handles)
}

/// An answer, taken apart.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A problem document that no cache keeps; gives its code.
    fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["status"], self.status);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        problem["code"].as_str().unwrap().to_owned()
    }
}
