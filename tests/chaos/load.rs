//! Readers that never rest.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reqwest::header::{ETAG, HeaderMap, IF_NONE_MATCH};
use serde_json::{Value, json};
use stitchd::{cli::demo::upstream::CLIENT_KEY, http::ROUTES};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    seen::{Life, Read, Seen},
    streams,
    support::{ENVIRONMENT, client},
    upstream::SEALED_KEY,
};

const DECIDE: &str = "/v1/decide";
const READERS: usize = 3;
/// Followers of each kind of stream.
pub(crate) const FOLLOWERS: usize = 2;
/// Units that decisions are asked for; few, so that the same answer is seen twice.
const UNITS: usize = 5;
/// Between two reads of one reader: leaves half a core to the service.
const REST: Duration = Duration::from_millis(4);

/// All readers and followers; they end when dropped.
pub(crate) struct Load {
    tasks: Vec<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Load {
    /// Reads from wherever the service is at the moment.
    pub(crate) fn start(at: &watch::Sender<Option<Life>>, seen: &Arc<Seen>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let readers = (0..READERS).map(|number| {
            let reader = Reader {
                http: client(),
                seen: Arc::clone(seen),
                tags: HashMap::new(),
            };
            tokio::spawn(reader.run(number, at.subscribe(), Arc::clone(&is_over)))
        });
        let mut tasks: Vec<JoinHandle<()>> = readers.collect();
        for number in 0..FOLLOWERS {
            let (at_revisions, at_features) = (at.subscribe(), at.subscribe());
            let revisions = streams::follow_revisions(at_revisions, Arc::clone(seen), number);
            let features = streams::follow_features(at_features, Arc::clone(seen), number);
            tasks.push(tokio::spawn(revisions));
            tasks.push(tokio::spawn(features));
        }
        Self { tasks, is_over }
    }

    /// Fails when a reader has died: its silence would look like success.
    pub(crate) fn check(&self) {
        assert!(
            !self.tasks.iter().any(JoinHandle::is_finished),
            "a reader has died"
        );
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Every document that carries configuration.
pub(crate) fn documents() -> Vec<String> {
    let probes = |route: &stitchd::http::Route| (route.probes)(ENVIRONMENT, CLIENT_KEY);
    let mut paths: Vec<String> = ROUTES.iter().flat_map(probes).collect();
    assert!(paths.len() >= 5, "the route table has lost its probes");
    paths.push(format!("/api/features/{SEALED_KEY}"));
    paths
}

pub(crate) fn snapshot_path() -> String {
    format!("/v1/snapshot/{ENVIRONMENT}")
}

pub(crate) fn analytics_path() -> String {
    format!("/api/v1/experiments?format=analytics&environment={ENVIRONMENT}")
}

/// The counter in a snapshot or a payload.
pub(crate) fn counter_in(body: &[u8]) -> Option<u64> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["features"]["counter"]["defaultValue"].as_u64()
}

/// What every snapshot has, whatever the upstream says.
fn check_snapshot(body: &Bytes) -> Result<(), String> {
    let snapshot: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let features = &snapshot["features"];
    let is_whole = features["counter"]["defaultValue"].is_u64()
        && features["steady"]["defaultValue"] == "good"
        && features["split"]["rules"][0]["variations"] == json!(["a", "b"]);
    is_whole
        .then_some(())
        .ok_or_else(|| format!("not all of the features are there: {features}"))
}

struct Reader {
    http: reqwest::Client,
    seen: Arc<Seen>,
    /// By path.
    tags: HashMap<String, String>,
}

impl Reader {
    async fn run(
        mut self,
        number: usize,
        mut at: watch::Receiver<Option<Life>>,
        is_over: Arc<AtomicBool>,
    ) {
        let decisions = (0..UNITS).map(|unit| {
            format!("{DECIDE}?user_key=unit-{unit}&env={ENVIRONMENT}&experiments=split")
        });
        let paths: Vec<String> = documents().into_iter().chain(decisions).collect();
        for round in number.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let Ok(life) = at.wait_for(Option::is_some).await.map(|life| life.clone()) else {
                return;
            };
            let (path, life) = (&paths[round % paths.len()], life.unwrap());
            let is_conditional = (round / paths.len()) % 2 == 1;
            self.read(&life, path, is_conditional).await;
            tokio::time::sleep(REST).await;
        }
    }

    async fn read(&mut self, life: &Life, path: &str, is_conditional: bool) {
        let mut request = self.http.get(format!("{}{path}", life.data));
        let known = self.tags.get(path).filter(|_| is_conditional).cloned();
        if let Some(tag) = &known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let answered = async {
            let answer = request.send().await?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        };
        match answered.await {
            Ok((status, headers, body)) => {
                if let Err(failure) = self.check(life, path, status, &headers, &body, known) {
                    self.seen.fail(format!("{path}: {failure}"));
                }
            }
            // Whoever stops in order refuses connections, and answers what it has accepted.
            Err(error) if life.is_killed() || error.is_connect() => {
                self.seen.cut(life, &format!("{path}: {error:?}"));
            }
            Err(error) => self.seen.fail(format!("{path}: {error:?}")),
        }
    }

    fn check(
        &mut self,
        life: &Life,
        path: &str,
        status: u16,
        headers: &HeaderMap,
        body: &Bytes,
        sent: Option<String>,
    ) -> Result<(), String> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let tag = header(ETAG.as_str());
        match (status, sent) {
            (200, _) => {}
            (304, Some(sent)) if tag == Some(sent.as_str()) => {}
            (status, sent) => return Err(format!("{status} for {sent:?}: {body:?}")),
        }
        let revision = header("x-config-revision").and_then(|text| text.parse().ok());
        let revision = revision.ok_or("no revision is named")?;
        if let Some(tag) = tag {
            self.tags.insert(path.to_owned(), tag.to_owned());
        }
        let is_snapshot = status == 200 && path == snapshot_path();
        if is_snapshot {
            check_snapshot(body)?;
        }
        if status == 200 && path.starts_with(DECIDE) {
            let answer: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            self.seen.note_assignments(path, &answer["assignments"]);
        }
        let read = Read {
            path,
            revision,
            etag: tag,
            body: (status == 200).then_some(&body[..]),
            counter: is_snapshot.then(|| counter_in(body)).flatten(),
        };
        self.seen.note(life, &read);
        Ok(())
    }
}
