//! Keeps sticky buckets for remote evaluation.
//!
//! Owns the store of sticky buckets and nothing else: what documents mean is the evaluator's business. An actor of its
//! own, because requests wait for it and the `StoreActor` must not be late for anybody.
//!
//! Messages in: [`ReadBuckets`], [`WriteBuckets`], both from the HTTP layer through a [`StickyLink`]. Messages out: none.
//! At most `IN_FLIGHT_MAX` run at once; more are refused. A failure is a value in the answer. A restart forgets
//! nothing: there is no state. At a stop, writes under way are finished by the store's own threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};
use tracing::{debug, info, warn};

use super::slot::Slot;
use crate::{
    metrics::Metrics,
    store::{KeyedDocument, StickyStore},
};

/// Reads and writes at once. A healthy store answers within a millisecond: this many wait only for one that is not.
const IN_FLIGHT_MAX: usize = 256;

/// Mailbox: what may wait for the actor's thread itself, which only hands over.
const MAILBOX: usize = 1_024;

/// Bytes of the longest document that is worth keeping. One experiment takes about 40.
pub const STICKY_BYTES_MAX: usize = 65_536;

/// How often documents that are too old are deleted, by whichever write comes next.
const EXPIRE_EVERY: Duration = Duration::from_hours(1);

/// How long nobody asks after a failure, so that requests do not each wait for a store that is away.
const QUIET: Duration = Duration::from_secs(1);

/// Asks for the documents of some units; those without one are left out.
#[derive(Message)]
#[rtype(result = "Result<Vec<String>, Unavailable>")]
pub struct ReadBuckets {
    /// `<attribute>||<value>` each.
    pub keys: Vec<String>,
}

/// Keeps documents. Left without waiting; a failure is counted and logged.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteBuckets {
    /// What is to be kept, by key.
    pub documents: Vec<KeyedDocument>,
}

/// Sticky buckets cannot be had now; the text says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

/// See the module's first paragraph.
pub struct StickyActor {
    store: StickyStore,
    in_flight: Arc<Semaphore>,
    health: Arc<Health>,
    /// When documents that are too old were last deleted; `None`: not since the start.
    expired_at: Option<Instant>,
}

impl StickyActor {
    /// An actor for a store; `link` is where its failures are told.
    pub fn new(store: StickyStore, link: &StickyLink) -> Self {
        Self {
            store,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            health: Arc::clone(&link.health),
            expired_at: None,
        }
    }

    /// Whether it is time to delete what is too old; says so once.
    fn expiry_is_due(&mut self) -> bool {
        let is_due = self
            .expired_at
            .is_none_or(|at| at.elapsed() >= EXPIRE_EVERY);
        if is_due {
            self.expired_at = Some(Instant::now());
        }
        is_due
    }
}

impl Actor for StickyActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

super::lifecycle!(StickyActor, "sticky");

impl Handler<ReadBuckets> for StickyActor {
    // Runs beside other messages: the store may be slow.
    type Result = ResponseFuture<Result<Vec<String>, Unavailable>>;

    fn handle(&mut self, message: ReadBuckets, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("sticky.ReadBuckets");
        let (store, in_flight) = (self.store.clone(), Arc::clone(&self.in_flight));
        Box::pin(async move {
            fail::fail_point!("sticky.read_future");
            let Ok(_permit) = in_flight.try_acquire() else {
                return Err(Unavailable("too many questions are waiting".to_owned()));
            };
            let read = store.read(message.keys).await;
            read.map_err(|error| Unavailable(error.explain()))
        })
    }
}

impl Handler<WriteBuckets> for StickyActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: WriteBuckets, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("sticky.WriteBuckets");
        let (store, in_flight) = (self.store.clone(), Arc::clone(&self.in_flight));
        let health = Arc::clone(&self.health);
        let expires = self.expiry_is_due();
        Box::pin(async move {
            fail::fail_point!("sticky.write_future");
            let count = message.documents.len();
            let written = match in_flight.try_acquire() {
                Ok(_permit) => store.write(message.documents).await,
                Err(_) => return health.lost(count),
            };
            match written {
                Ok(()) => health.metrics.sticky("written", count),
                Err(error) => {
                    health.failed(&error.explain());
                    return health.lost(count);
                }
            }
            if expires {
                match store.expire().await {
                    Ok(0) => {}
                    Ok(count) => info!(documents = count, "deleted {count} old sticky buckets"),
                    Err(error) => debug!("old sticky buckets stay: {}", error.explain()),
                }
            }
        })
    }
}

/// Whether the store answers, as requests find it.
struct Health {
    metrics: Arc<Metrics>,
    is_failing: AtomicBool,
    /// Until then nobody asks.
    quiet_until: Mutex<Option<Instant>>,
}

impl Health {
    fn failed(&self, why: &str) {
        *self.quiet_until.lock() = Some(Instant::now() + QUIET);
        if self.is_failing.swap(true, Ordering::Relaxed) {
            debug!("sticky buckets are still not to be had: {why}");
        } else {
            warn!("sticky buckets are not to be had, evaluating without: {why}");
        }
    }

    fn answered(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            info!("sticky buckets are to be had again");
        }
    }

    fn lost(&self, count: usize) {
        self.metrics.sticky("lost", count);
    }

    fn is_quiet(&self) -> bool {
        if !self.is_failing.load(Ordering::Relaxed) {
            return false;
        }
        self.quiet_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }
}

/// How requests reach sticky buckets: within a time limit, or not at all. Clones share what is known of the store.
#[derive(Clone)]
pub struct StickyLink {
    slot: Arc<Slot<StickyActor>>,
    timeout: Duration,
    health: Arc<Health>,
}

impl StickyLink {
    /// A link to an actor; `timeout` is what one request may wait.
    pub fn new(slot: Arc<Slot<StickyActor>>, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            slot,
            timeout,
            health: Arc::new(Health {
                metrics,
                is_failing: AtomicBool::new(false),
                quiet_until: Mutex::new(None),
            }),
        }
    }

    /// Where the actor is found.
    pub fn slot(&self) -> &Arc<Slot<StickyActor>> {
        &self.slot
    }

    /// The documents of some units; `None`: not to be had in time, so evaluate without. Counts and logs by itself.
    pub async fn read(&self, keys: Vec<String>) -> Option<Vec<String>> {
        let health = &self.health;
        if health.is_quiet() {
            health.metrics.sticky("unavailable", 1);
            return None;
        }
        let why = match self.slot.ask(ReadBuckets { keys }, self.timeout).await {
            Ok(Ok(documents)) => {
                health.answered();
                health.metrics.sticky("read", 1);
                return Some(documents);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        health.failed(&why);
        health.metrics.sticky("unavailable", 1);
        None
    }

    /// Keeps documents, without waiting for it.
    pub fn write(&self, documents: Vec<KeyedDocument>) {
        let count = documents.len();
        if count > 0 && !self.slot.tell(WriteBuckets { documents }) {
            self.health.lost(count);
        }
    }
}
