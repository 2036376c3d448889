//! How HTTP handlers reach configuration: a memory of the `StoreActor`'s last answer, one per worker.
//!
//! A handler asks the reader; the reader asks the `StoreActor` only when the environment's revision counter has moved
//! past what it remembers, one question at a time, with a time limit. While the store is down or restarting the reader
//! answers from memory: a read never fails for want of an actor. Not an actor itself; it lives on its worker's thread.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{
    board::{Board, EnvironmentCell},
    slot::Slot,
    store::{GetSnapshot, StoreActor},
};
use crate::{metrics::Metrics, model::Snapshot};

/// How long one question may take before the remembered answer is used instead.
const ASK_LIMIT: Duration = Duration::from_millis(200);

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

    /// Asks the store, unless another request of this worker has just done so.
    async fn ask(&self, cell: &EnvironmentCell) -> Latest {
        let _one_at_a_time = self.0.asking.lock().await;
        let remembered = self.remembered(&cell.name);
        let is_current = remembered
            .as_ref()
            .is_some_and(|s| s.revision >= cell.revision());
        if let (false, Some(store)) = (is_current, &self.0.store) {
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
                Err(_) => self.0.metrics.reader_fallback(),
            }
        }
        remembered.map_or(Latest::NeverLoaded, Latest::Loaded)
    }
}
