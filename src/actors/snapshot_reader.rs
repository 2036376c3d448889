//! How HTTP handlers reach configuration: a memory of the `StoreActor`'s last answer, one per worker.
//!
//! A handler asks the reader; the reader asks the `StoreActor` only when the environment's revision counter has moved
//! past what it remembers, one question at a time, with a time limit. While the store is down or restarting the reader
//! answers from memory: a read never fails for want of an actor. Not an actor itself; it lives on its worker's thread.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use super::{
    board::{Board, EnvironmentCell},
    slot::Slot,
    store::{GetSnapshot, StoreActor},
};
use crate::{metrics::Metrics, model::Snapshot};

/// How long one question may take before the remembered answer is used instead.
const ASK_LIMIT: Duration = Duration::from_millis(200);
/// How long nobody asks after a question without an answer, so that requests do not queue up to wait one by one.
const QUIET: Duration = Duration::from_millis(100);

/// What a reader found.
#[derive(Clone, Debug)]
pub enum Latest {
    /// The latest snapshot.
    Loaded(Arc<Snapshot>),
    /// The environment exists, but nothing was ever loaded for it.
    NeverLoaded,
    /// No source feeds an environment of that name.
    UnknownEnvironment,
}

/// One worker's memory of the latest snapshots.
#[derive(Clone)]
pub struct SnapshotReader(Rc<Inner>);

struct Inner {
    board: Arc<Board>,
    store: Option<Arc<Slot<StoreActor>>>,
    metrics: Arc<Metrics>,
    memory: RefCell<HashMap<Arc<str>, Arc<Snapshot>>>,
    asking: Mutex<()>,
    /// When the last question failed, and how often the store had been started by then.
    unanswered: Cell<Option<(Instant, u64)>>,
}

impl SnapshotReader {
    /// A reader with an empty memory.
    pub fn new(board: Arc<Board>, store: Arc<Slot<StoreActor>>, metrics: Arc<Metrics>) -> Self {
        Self::build(board, Some(store), metrics, HashMap::new())
    }

    /// A reader that only ever knows `snapshot`; for tests of handlers.
    pub fn fixed(board: Arc<Board>, metrics: Arc<Metrics>, snapshot: Snapshot) -> Self {
        let memory = HashMap::from([(Arc::clone(&snapshot.environment), Arc::new(snapshot))]);
        Self::build(board, None, metrics, memory)
    }

    fn build(
        board: Arc<Board>,
        store: Option<Arc<Slot<StoreActor>>>,
        metrics: Arc<Metrics>,
        memory: HashMap<Arc<str>, Arc<Snapshot>>,
    ) -> Self {
        let memory = RefCell::new(memory);
        Self(Rc::new(Inner {
            board,
            store,
            metrics,
            memory,
            asking: Mutex::new(()),
            unanswered: Cell::new(None),
        }))
    }

    /// The board, for freshness and for following changes.
    pub fn board(&self) -> &Arc<Board> {
        &self.0.board
    }

    /// The latest snapshot of `environment`; never waits longer than a fraction of a second.
    pub async fn latest(&self, environment: &str) -> Latest {
        let Some(cell) = self.0.board.environment(environment) else {
            return Latest::UnknownEnvironment;
        };
        let revision = cell.revision();
        match self.remembered(environment) {
            // `>=`: the store may have answered with a newer one than the counter showed.
            Some(snapshot) if snapshot.revision >= revision => Latest::Loaded(snapshot),
            None if revision == 0 => Latest::NeverLoaded,
            _ => self.ask(cell).await,
        }
    }

    fn remembered(&self, environment: &str) -> Option<Arc<Snapshot>> {
        self.0.memory.borrow().get(environment).cloned()
    }

    /// Whether a question has just failed, and the store was not started anew since.
    fn is_quiet(&self, store: &Slot<StoreActor>) -> bool {
        self.0
            .unanswered
            .get()
            .is_some_and(|(at, starts)| at.elapsed() < QUIET && starts == store.starts())
    }

    /// Asks the store, unless another request of this worker has just done so.
    async fn ask(&self, cell: &EnvironmentCell) -> Latest {
        let _one_at_a_time = self.0.asking.lock().await;
        let remembered = self.remembered(&cell.name);
        let is_current = remembered
            .as_ref()
            .is_some_and(|s| s.revision >= cell.revision());
        let store = self.0.store.as_ref().filter(|store| !self.is_quiet(store));
        if let (false, Some(store)) = (is_current, store) {
            let question = GetSnapshot {
                environment: Arc::clone(&cell.name),
            };
            match store.ask_again(question, ASK_LIMIT).await {
                Ok(Some(snapshot)) => {
                    self.0
                        .memory
                        .borrow_mut()
                        .insert(Arc::clone(&cell.name), Arc::clone(&snapshot));
                    return Latest::Loaded(snapshot);
                }
                Ok(None) => {}
                Err(_) => {
                    let failed = (Instant::now(), store.starts());
                    self.0.unanswered.set(Some(failed));
                }
            }
        }
        if !is_current && self.0.store.is_some() {
            self.0.metrics.reader_fallback();
        }
        remembered.map_or(Latest::NeverLoaded, Latest::Loaded)
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::{
        model::{Candidate, Evaluators, SnapshotMeta},
        settings::Settings,
    };

    fn snapshot(environment: &Arc<str>) -> Snapshot {
        let candidate = Candidate {
            environment: Arc::clone(environment),
            hash: String::new(),
            snapshot_tail: "\"features\":{}}".into(),
            documents: Vec::new(),
            meta: SnapshotMeta::default(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            evaluators: Evaluators::default(),
            base: None,
        };
        candidate.at_revision(1)
    }

    #[tokio::test]
    async fn requests_do_not_wait_one_by_one_for_a_store_that_is_down() {
        let board = Board::new(&Settings::default());
        let cell = Arc::clone(board.environments().next().unwrap());
        let memory = HashMap::from([(Arc::clone(&cell.name), Arc::new(snapshot(&cell.name)))]);
        let reader =
            SnapshotReader::build(board, Some(Slot::new("store", "")), Arc::default(), memory);
        cell.announce(2);
        let since = Instant::now();
        let reads = (0..100).map(|_| reader.latest(&cell.name));
        for latest in futures_util::future::join_all(reads).await {
            assert!(matches!(latest, Latest::Loaded(snapshot) if snapshot.revision == 1));
        }
        let took = since.elapsed();
        assert!(took < Duration::from_secs(5), "100 reads took {took:?}");
    }
}
