//! The harness of the black-box tests: a lying upstream, a folder that goes away, and the real service in between.
//!
//! A [`Bed`] is what outlives a start of the service: upstream, database, backup. [`Bed::start`] runs the same `App` as
//! production, in this process, on ports of its own; [`TestApp::stop`] ends it in order.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of the harness"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests read their environment and the time"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test's doc is its name, and it fails by panicking"
)]

pub mod blocks;
pub mod databases;
pub mod disk;
pub mod faketime;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod receiver;
pub mod storage;
pub mod trouble;

use std::{collections::BTreeMap, io::Write as _, path::Path, time::Duration};

use bytes::Bytes;
use secrecy::SecretString;
use serde_json::Value;
use stitchd::{
    actors::{Handles, supervisor::Policy},
    app::App,
    cli::demo::upstream::{CLIENT_KEY, SECRET_KEY, Upstream, experiment, many_features},
    http::ROUTES,
    settings::{self, Profile, Settings},
    store::Store,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, time::Instant};

use self::databases::Backend;

/// The environment of the tests' source.
pub const ENVIRONMENT: &str = "production";
/// The tests' source.
pub const SOURCE: &str = "gb";
/// How long anything that should happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Says that something was not tested; written past the test harness, which hides the output of passing tests.
///
/// On CI nothing may be left out.
pub fn skipped(what: &str, why: &str) {
    assert!(std::env::var("CI").is_err(), "{what} must run on CI: {why}");
    let line = format!("skipped: {what}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// What outlives one start of the service.
pub struct Bed {
    pub upstream: Upstream,
    pub dir: TempDir,
    pub database_url: String,
    /// TOML put behind the source's own keys.
    pub source_extra: String,
    /// TOML put before the source.
    pub extra: String,
}

impl Bed {
    /// An upstream with a few features and experiments, and an empty `SQLite` database.
    pub fn new() -> Self {
        let upstream = Upstream::start(0).unwrap();
        upstream.set_features(many_features(5, 3));
        upstream.set_experiments(vec![
            experiment("sticky-header-2026"),
            experiment("search-box-2026"),
        ]);
        upstream.set_rate_limit(1_000_000, Duration::from_mins(1));
        let dir = tempfile::tempdir().unwrap();
        let database_url = format!("sqlite://{}/test.db?mode=rwc", dir.path().display());
        Self {
            upstream,
            dir,
            database_url,
            source_extra: String::new(),
            extra: String::new(),
        }
    }

    /// The same with its history in this database.
    pub fn on(backend: &Backend) -> Self {
        Self {
            database_url: backend.url.clone(),
            ..Self::new()
        }
    }

    /// One GrowthBook source, polled only when a test asks, retrying quickly.
    pub fn toml(&self) -> String {
        let base = self.upstream.base_url();
        let dir = self.dir.path().display();
        let (database, extra, source_extra) = (&self.database_url, &self.extra, &self.source_extra);
        format!(
            r#"
            [server]
            data_bind = "127.0.0.1:0"
            admin_bind = "127.0.0.1:0"
            workers = 2
            shutdown_grace = "2s"
            [database]
            url = "{database}"
            [backup]
            dir = "{dir}/backup"
            {extra}
            [[sources]]
            id = "{SOURCE}"
            environment = "{ENVIRONMENT}"
            api_host = "{base}"
            client_key = "{CLIENT_KEY}"
            rest_host = "{base}"
            secret_key = "{SECRET_KEY}"
            poll.interval = "1h"
            poll.timeout = "1s"
            poll.connect_timeout = "500ms"
            poll.retries = 1
            poll.retry_backoff = "5ms"
            poll.max_body_bytes = 8000000
            poll.streaming = false
            {source_extra}
            "#
        )
    }

    pub fn settings(&self) -> Settings {
        settings::from_toml(&self.toml(), Profile::Test).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts the service on what is there.
    pub async fn start(&self) -> TestApp {
        TestApp::spawn(self.settings()).await
    }

    /// Starts the service and waits for its first revision.
    pub async fn start_loaded(&self) -> TestApp {
        let app = self.start().await;
        app.until_revision(1).await;
        app
    }

    /// Starts the service, waits for the first poll's end, and makes a token of a kind that sees everything.
    pub async fn start_with_token(&self, kind: &str) -> (TestApp, String) {
        let app = self.start_loaded().await;
        app.until_polled().await;
        let (_, secret) = app.token(&serde_json::json!({ "kind": kind })).await;
        (app, secret)
    }

    /// Publishes a revision in which the feature `news` has this value; gives its number.
    pub async fn publish_news(&self, app: &TestApp, value: impl Into<Value>) -> u64 {
        let feature = serde_json::json!({ "defaultValue": value.into() });
        self.upstream.set_feature("news", feature);
        app.poll_until_published().await
    }
}

/// The store that a service with these settings has.
pub fn store(url: &str, dir: &Path) -> Store {
    let database = settings::Database {
        url: Some(SecretString::from(url)),
        ..settings::Database::default()
    };
    let backup = settings::Backup {
        dir: dir.to_owned(),
        generations: 3,
    };
    Store::new(&database, &backup).unwrap()
}

/// The running service.
pub struct TestApp {
    pub data: String,
    pub admin: String,
    pub handles: Handles,
    pub http: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// One answer, read to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

impl TestApp {
    pub async fn spawn(settings: Settings) -> Self {
        Self::spawn_with(settings, Policy::default()).await
    }

    /// [`Self::spawn`] with a patience of its own in the supervision of actors.
    pub async fn spawn_with(settings: Settings, policy: Policy) -> Self {
        let (started, addresses) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let app = App::start_with(settings, policy).await.unwrap();
                let data = app.data_address().await.unwrap();
                started
                    .send((data, app.admin_address(), app.handles().clone()))
                    .unwrap_or_else(|_| panic!("gone"));
                stopped.await.ok();
                app.stop().await;
            });
        });
        let (data, admin, handles) = addresses.await.expect("the service starts");
        Self {
            data: format!("http://{data}"),
            admin: format!("http://{admin}"),
            handles,
            http: client(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Ends the service in order.
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).ok();
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(
            self.http
                .get(format!("{}{path}", self.data))
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub async fn admin_get(&self, path: &str) -> Answer {
        answer(
            self.http
                .get(format!("{}{path}", self.admin))
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub async fn admin_post(&self, path: &str, body: &str) -> Answer {
        let request = self
            .http
            .post(format!("{}{path}", self.admin))
            .body(body.to_owned());
        answer(
            request
                .header("content-type", "application/json")
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub async fn admin_delete(&self, path: &str) -> Answer {
        let request = self.http.delete(format!("{}{path}", self.admin));
        answer(request.send().await.unwrap()).await
    }

    /// Makes a token as this body says, for the tests' environment unless it names another; gives its id and its secret.
    pub async fn token(&self, body: &Value) -> (String, String) {
        let mut body = body.clone();
        let environment = &mut body["environment"];
        if environment.is_null() {
            *environment = ENVIRONMENT.into();
        }
        let made = self.admin_post("/admin/tokens", &body.to_string()).await;
        assert_eq!(made.status, 201, "{made:?}");
        let made = made.json();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("id"), text("secret"))
    }

    /// Forces a poll and gives its report.
    pub async fn poll(&self) -> Value {
        let answer = self
            .admin_post(&format!("/admin/sources/{SOURCE}/poll"), "")
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Polls until another revision is published; gives its number.
    pub async fn poll_until_published(&self) -> u64 {
        let before = self.revision();
        eventually("a poll publishes a revision", async || {
            self.poll().await;
            let revision = self.revision();
            (revision > before).then_some(revision)
        })
        .await
    }

    pub async fn status(&self) -> Value {
        self.admin_get("/admin/status").await.json()
    }

    /// The answer of every route that carries configuration, from the route table.
    pub async fn served(&self) -> BTreeMap<String, Answer> {
        let mut served = BTreeMap::new();
        for path in ROUTES
            .iter()
            .flat_map(|route| (route.probes)(ENVIRONMENT, CLIENT_KEY))
        {
            let answer = self.get(&path).await;
            served.insert(path, answer);
        }
        assert!(served.len() >= 4, "the route table has lost its probes");
        served
    }

    pub fn revision(&self) -> u64 {
        self.handles
            .board
            .environment(ENVIRONMENT)
            .unwrap()
            .revision()
    }

    /// Waits until the source's first poll is accounted for, so that one that a test forces is another.
    pub async fn until_polled(&self) {
        eventually("the first poll has ended", async || {
            let status = self.status().await;
            (!status["sources"][SOURCE]["last_outcome"].is_null()).then_some(())
        })
        .await;
    }

    /// Waits until at least this revision is served.
    pub async fn until_revision(&self, revision: u64) {
        let mut seen = self
            .handles
            .board
            .environment(ENVIRONMENT)
            .unwrap()
            .subscribe();
        let reached = seen.wait_for(|seen| *seen >= revision);
        tokio::time::timeout(PATIENCE, reached)
            .await
            .expect("the revision is published in time")
            .unwrap();
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert!(
            self.thread.is_none(),
            "a test must stop its service, so that its last words are tested too"
        );
    }
}

/// A client without surprises: no proxy, and identity bodies, whose entity tag does not depend on how far compression is.
pub fn client() -> reqwest::Client {
    stitchd::sources::install_tls_provider();
    reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .timeout(Duration::from_mins(1))
        .build()
        .unwrap()
}

pub async fn answer(response: reqwest::Response) -> Answer {
    let header = |name| {
        let value = response.headers().get(name);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    Answer {
        status: response.status().as_u16(),
        etag: header("etag"),
        last_modified: header("last-modified"),
        body: response.bytes().await.unwrap(),
    }
}

/// Asks again and again until the condition holds; fails after [`PATIENCE`].
pub async fn eventually<F, T>(what: &str, mut check: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
