//! What handlers share: with all workers, and within one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{http::header::HeaderValue, rt::task::spawn_blocking};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    audit::Strangers, auth::Auth, consumers::Consumers, credentials::Lookups, documents::Documents,
    error::ApiError, growthbook::webhook::Webhooks, health::StoreMemory, limits::Limits,
    replay::Replays,
};
use crate::{
    actors::{Handles, SnapshotReader},
    eval::{Dialect, Environment},
    metrics::Metrics,
    model::Snapshot,
    settings::{self, Settings},
};

/// What both planes and all workers share; made once.
pub struct Shared {
    pub(super) handles: Handles,
    pub(super) metrics: Arc<Metrics>,
    pub(super) server: settings::Server,
    pub(super) http: settings::Http,
    pub(super) evaluation: settings::Evaluation,
    /// Held while a snapshot is compiled.
    compiling: Mutex<()>,
    pub(super) auth: Auth,
    pub(super) limits: Limits,
    pub(super) consumers: Consumers,
    pub(super) streams: StreamLimit,
    pub(super) large_bodies: LargeBodies,
    pub(super) webhooks: Webhooks,
    pub(super) store_memory: StoreMemory,
    pub(super) replays: Replays,
    pub(super) strangers: Strangers,
    is_stopping: AtomicBool,
    end: CancellationToken,
    request_ids: RequestIds,
}

impl Shared {
    /// Everything the HTTP layer needs, from the settings and the running actors.
    pub fn new(settings: &Settings, handles: Handles, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            auth: Auth::new(&settings.admin),
            limits: Limits::new(&settings.rate_limit),
            consumers: Consumers::default(),
            streams: StreamLimit::new(settings.server.max_streams, Arc::clone(&metrics)),
            large_bodies: LargeBodies::default(),
            webhooks: Webhooks::default(),
            store_memory: StoreMemory::default(),
            replays: Replays::default(),
            strangers: Strangers::default(),
            server: settings.server.clone(),
            http: settings.http.clone(),
            evaluation: settings.evaluation.clone(),
            compiling: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            end: CancellationToken::new(),
            request_ids: RequestIds::new(),
            handles,
            metrics,
        })
    }

    /// First step of a stop: `/readyz` answers 503 from now on, everything else goes on; each answer is the last on its
    /// connection.
    pub fn begin_stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Second step of a stop: open event streams end, new ones end at once, workers stop following revisions.
    ///
    /// To be called before the servers are stopped, which would otherwise wait for the streams.
    pub fn end_streams(&self) {
        self.end.cancel();
    }

    /// Whether a stop has begun.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Fires when streams are to end.
    pub(super) fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// A fresh request id.
    pub(super) fn request_id(&self) -> HeaderValue {
        self.request_ids.next()
    }
}

/// What the handlers of one worker share. Not `Send`: made on the worker's own thread.
pub struct HttpState {
    pub(super) shared: Arc<Shared>,
    pub(super) reader: SnapshotReader,
    pub(super) documents: Documents,
    pub(super) lookups: Lookups,
}

impl HttpState {
    /// The state of one worker.
    pub fn new(shared: Arc<Shared>) -> Self {
        let handles = &shared.handles;
        let (board, store) = (Arc::clone(&handles.board), Arc::clone(&handles.store));
        let reader = SnapshotReader::new(board, store, Arc::clone(&shared.metrics));
        Self::with_reader(shared, reader)
    }

    /// The state of one worker with a given reader; for benchmarks and tests of handlers.
    pub fn with_reader(shared: Arc<Shared>, reader: SnapshotReader) -> Self {
        let documents = Documents::new(&shared.http);
        let lookups = Lookups::new(&shared.metrics);
        Self {
            shared,
            reader,
            documents,
            lookups,
        }
    }

    /// Keeps the worker's memory of `reader` up to date until streams end.
    ///
    /// Without this a worker that was never asked would have nothing to answer from while the store restarts.
    pub(super) async fn follow(self: Arc<Self>, environment: String) {
        /// Pause after the store did not have, or did not say, what was announced.
        const RETRY: Duration = Duration::from_millis(500);
        let Some(cell) = self.reader.board().environment(&environment).cloned() else {
            return;
        };
        let mut changed = cell.subscribe();
        while !self.shared.end.is_cancelled() {
            let announced = *changed.borrow_and_update();
            let is_behind = match self.reader.latest(&environment).await {
                crate::actors::Latest::Loaded(snapshot) => snapshot.revision < announced,
                _ => announced > 0,
            };
            tokio::select! {
                () = self.shared.end.cancelled() => return,
                () = tokio::time::sleep(RETRY), if is_behind => {}
                change = changed.changed() => if change.is_err() { return },
            }
        }
    }

    /// The snapshot as compiled for a dialect. On first use it is compiled, on a blocking thread and by one at a time.
    ///
    /// Fails with 500 when the snapshot cannot be compiled, which no published one does.
    pub(super) async fn compiled<'s>(
        &self,
        snapshot: &'s Arc<Snapshot>,
        dialect: Dialect,
    ) -> Result<&'s Environment, ApiError> {
        if let Some(compiled) = snapshot.evaluator(dialect) {
            return Ok(compiled);
        }
        // Others wait here, where it costs no thread.
        let one_at_a_time = self.shared.compiling.lock().await;
        if snapshot.evaluator(dialect).is_none() {
            let to_compile = Arc::clone(snapshot);
            let compiling = spawn_blocking(move || to_compile.prepare(&[dialect]));
            if let Ok(Err(error)) = compiling.await {
                let name = &*snapshot.environment;
                error!(
                    environment = name,
                    "{name} cannot be compiled for evaluation: {error}"
                );
            }
        }
        drop(one_at_a_time);
        snapshot.evaluator(dialect).ok_or(ApiError::Internal)
    }

    /// 404 with the environments that exist.
    pub(super) fn unknown_environment(&self) -> ApiError {
        let known = self
            .reader
            .board()
            .environments()
            .map(|cell| cell.name.to_string())
            .collect();
        ApiError::UnknownEnvironment { known }
    }

    /// Revision of each environment; `None`: never loaded.
    pub(super) fn revisions(&self) -> BTreeMap<String, Option<u64>> {
        let revision = |revision| Some(revision).filter(|revision| *revision > 0);
        let cells = self.reader.board().environments();
        cells
            .map(|cell| (cell.name.to_string(), revision(cell.revision())))
            .collect()
    }
}

/// Counts open event streams and refuses those above the limit.
pub(super) struct StreamLimit {
    open: Arc<AtomicUsize>,
    max: usize,
    metrics: Arc<Metrics>,
}

/// One open event stream; gives its place back when dropped.
pub(super) struct StreamPermit {
    open: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl StreamLimit {
    fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            open: Arc::default(),
            max,
            metrics,
        }
    }

    /// A place for one stream; counts the refusal where there is none.
    pub(super) fn acquire(&self) -> Result<StreamPermit, ApiError> {
        let below = |open: usize| (open < self.max).then_some(open + 1);
        if self
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .is_err()
        {
            self.metrics.stream_refused();
            return Err(ApiError::TooManyStreams);
        }
        self.metrics.streams().inc();
        Ok(StreamPermit {
            open: Arc::clone(&self.open),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Event streams open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.streams().dec();
    }
}

/// How many large bodies are read at once: pushes and webhooks of all sources.
///
/// A body is read before its signature can be checked, so without a bound anybody could have us hold thousands.
pub(super) struct LargeBodies(Semaphore);

impl LargeBodies {
    const MAX: usize = 8;

    /// A place to read a body in; GrowthBook asks again where there is none.
    pub(super) fn place(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let full = ApiError::TryAgain("too many pushes at once");
        self.0.try_acquire().or(Err(full))
    }
}

impl Default for LargeBodies {
    fn default() -> Self {
        Self(Semaphore::new(Self::MAX))
    }
}

/// Makes request ids: a prefix per process, so that replicas differ, and a counter.
struct RequestIds {
    prefix: String,
    last: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        let mut prefix = uuid::Uuid::new_v4().simple().to_string();
        prefix.truncate(12);
        Self {
            prefix,
            last: AtomicU64::new(0),
        }
    }

    fn next(&self) -> HeaderValue {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{}-{number:x}", self.prefix))
            .expect("hexadecimal is a header value")
    }
}
