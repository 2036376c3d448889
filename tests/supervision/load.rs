//! Readers that never rest and never forgive.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use stitchd::{actors::board::EnvironmentCell, cli::demo::upstream::CLIENT_KEY, http::ROUTES};
use tokio::{task::JoinHandle, time::Instant};

use crate::support::{ENVIRONMENT, TestApp, client};

/// Readers at work.
const READERS: usize = 4;
/// How long a worker may answer from memory while the store is away, with room for a busy machine.
const LAG_MAX: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Seen {
    failures: Mutex<Vec<String>>,
    /// Bytes of each path by revision: the same for everybody, for ever.
    bodies: Mutex<BTreeMap<(String, u64), Bytes>>,
    reads: AtomicUsize,
    is_over: AtomicBool,
}

/// Requests to every data route, again and again, until told to end.
pub(crate) struct Load {
    seen: Arc<Seen>,
    readers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(app: &TestApp) -> Self {
        let seen = Arc::new(Seen::default());
        let cell = app.handles.board.environment(ENVIRONMENT).unwrap();
        let readers = (0..READERS).map(|number| {
            let reader = Reader {
                base: app.data.clone(),
                http: client(),
                cell: Arc::clone(cell),
                seen: Arc::clone(&seen),
                announced: VecDeque::new(),
                tags: BTreeMap::new(),
            };
            tokio::spawn(reader.run(number))
        });
        Self {
            readers: readers.collect(),
            seen,
        }
    }

    /// Fails if any read has failed so far.
    #[track_caller]
    pub(crate) fn check(&self, what: &str) {
        let failures = self.seen.failures.lock();
        assert!(failures.is_empty(), "{what}: {failures:#?}");
        for reader in &self.readers {
            assert!(!reader.is_finished(), "{what}: a reader has died");
        }
    }

    pub(crate) fn reads(&self) -> usize {
        self.seen.reads.load(Ordering::Relaxed)
    }

    pub(crate) async fn end(self, what: &str) {
        self.check(what);
        self.seen.is_over.store(true, Ordering::Relaxed);
        for reader in self.readers {
            reader.await.unwrap();
        }
        let failures = self.seen.failures.lock();
        assert!(failures.is_empty(), "{what}: {failures:#?}");
    }
}

struct Reader {
    base: String,
    http: reqwest::Client,
    cell: Arc<EnvironmentCell>,
    seen: Arc<Seen>,
    /// When which revision was current.
    announced: VecDeque<(Instant, u64)>,
    tags: BTreeMap<String, (String, u64)>,
}

impl Reader {
    async fn run(mut self, number: usize) {
        let paths: Vec<String> = ROUTES
            .iter()
            .flat_map(|route| (route.probes)(ENVIRONMENT, CLIENT_KEY))
            .collect();
        assert!(paths.len() >= 4, "the route table has lost its probes");
        for round in number.. {
            if self.seen.is_over.load(Ordering::Relaxed) {
                return;
            }
            let path = &paths[round % paths.len()];
            if let Err(failure) = self.read(path, round % 3 == 0).await {
                self.seen.failures.lock().push(format!("{path}: {failure}"));
            }
            self.seen.reads.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn read(&mut self, path: &str, is_conditional: bool) -> Result<(), String> {
        let oldest = self.oldest();
        let mut request = self.http.get(format!("{}{path}", self.base));
        let known = self.tags.get(path).filter(|_| is_conditional).cloned();
        if let Some((tag, _)) = &known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response
            .bytes()
            .await
            .map_err(|error| format!("{error:?}"))?;
        let header = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned).ok_or(format!("no `{name}`"))
        };
        match (status, known) {
            (304, Some((sent, _))) if header(ETAG.as_str())? == sent => return Ok(()),
            (200, _) => {}
            (other, known) => return Err(format!("{other} for {known:?}: {body:?}")),
        }
        let revision: u64 = header("x-config-revision")?.parse().unwrap();
        if revision < oldest {
            return Err(format!("revision {revision}, long after {oldest}"));
        }
        self.tags
            .insert(path.to_owned(), (header(ETAG.as_str())?, revision));
        let key = (path.to_owned(), revision);
        let mut bodies = self.seen.bodies.lock();
        let first = bodies.entry(key).or_insert_with(|| body.clone());
        if *first == body {
            Ok(())
        } else {
            Err(format!("two bodies for revision {revision}"))
        }
    }

    /// The oldest revision that may still be served.
    fn oldest(&mut self) -> u64 {
        let now = Instant::now();
        self.announced.push_back((now, self.cell.revision()));
        let is_old = |entry: &(Instant, u64)| now.duration_since(entry.0) > LAG_MAX;
        while self.announced.get(1).is_some_and(is_old) {
            self.announced.pop_front();
        }
        self.announced
            .front()
            .filter(|entry| is_old(entry))
            .map_or(1, |(_, revision)| *revision)
    }
}
