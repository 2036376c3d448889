//! Keeps what is served: the current snapshot per environment in memory, its history in SQL, a backup on disk.
//!
//! Also keeps each source's last accepted input, its pause, and the audit. Parses no upstream format and computes
//! nothing heavy: packing, hashing and compressing happen elsewhere.
//!
//! Messages in: [`GetSnapshot`] (HTTP workers), [`GetStored`] (`AnnouncerActor`), [`Publish`], [`SaveInput`],
//! [`LoadInputs`], [`SaveRegisters`], [`LoadRegisters`] (`ConfigServiceActor`), [`SaveSourceState`] (`PollerActor`),
//! [`Audit`], [`ListAudit`], [`GetStoreStatus`], [`GetRevision`], [`ListRevisions`] (control plane). Messages out: none.
//!
//! What is kept in memory lives in [`StoreMemory`], which outlives the actor, so that a restart loses nothing even when
//! neither database nor backup can be written. What could not be written is written by the flushes, one for each half, which
//! a timer starts again for ever. `Quit` flushes once more before it answers.

mod audit;
mod audit_queue;
mod flush;
mod flush_backup;
mod history;
mod memory;
mod publish;
mod registers;
mod restore;
mod waiting;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message,
    MessageResult, ResponseActFuture, ResponseFuture, fut::wrap_future,
};
use bytes::Bytes;
use tracing::{Instrument as _, debug_span};

use self::memory::Half;
pub use self::{
    audit::{Audit, AuditLine, AuditPage, AuditRecord, ListAudit},
    history::{GetRevision, HistoryError, ListRevisions, RevisionPage},
    memory::StoreMemory,
    registers::{LoadRegisters, SaveRegisters},
};
use super::{Quit, board::Board, poller::SourceState};
pub use crate::store::{AuditFilter, RevisionInfo};
use crate::{
    metrics::Metrics,
    model::{Candidate, Snapshot},
    settings,
    store::{PackedInput, Store},
};

/// Room for every HTTP worker asking at once after each revision, many times over.
const MAILBOX: usize = 1024;
/// How often unwritten things are tried again.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How long the last flush may take when the service stops.
const LAST_FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Asks for the latest snapshot. Sent by the workers' snapshot readers when the revision has moved.
#[derive(Clone, Message)]
#[rtype(result = "Option<Arc<Snapshot>>")]
pub struct GetSnapshot {
    /// Which environment.
    pub environment: Arc<str>,
}

/// Asks for the latest snapshot and whether it would survive a crash. Sent by the `AnnouncerActor`.
#[derive(Clone, Message)]
#[rtype(result = "Option<Stored>")]
pub struct GetStored {
    /// Which environment.
    pub environment: Arc<str>,
}

/// The latest snapshot and where it is.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What is served.
    pub snapshot: Arc<Snapshot>,
    /// In at least one of database and backup.
    pub is_durable: bool,
}

/// Makes a candidate the current snapshot. Sent by the `ConfigServiceActor`; may be sent twice.
#[derive(Clone, Message)]
#[rtype(result = "Published")]
pub struct Publish {
    /// What to serve.
    pub candidate: Arc<Candidate>,
    /// The same, packed for database and backup.
    pub packed: Bytes,
}

/// How a publish ended; it cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The revision that has this content.
    pub revision: u64,
    /// `false` when the current snapshot already had it.
    pub is_new: bool,
}

/// Keeps a source's accepted input. Sent by the `ConfigServiceActor`; answered when one copy is durable or a moment has
/// passed, so that no snapshot outlives a crash without the input it was made of.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct SaveInput {
    /// The input.
    pub input: Arc<PackedInput>,
}

/// Asks for every source's last accepted input. Sent by the `ConfigServiceActor` when it starts.
#[derive(Clone, Message)]
#[rtype(result = "Vec<Arc<PackedInput>>")]
pub struct LoadInputs;

/// Keeps a source's pause and last success. Sent by the `PollerActor`; answered when one copy is durable or a moment
/// has passed.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct SaveSourceState {
    /// Which source.
    pub source: String,
    /// What to keep.
    pub state: SourceState,
}

/// Asks how storage is doing. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "StoreStatus")]
pub struct GetStoreStatus;

/// How storage is doing.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// Whether the last database call succeeded.
    pub database_up: bool,
    /// Why not.
    pub database_error: Option<String>,
    /// Whether the backup takes, in time, all that is to be written to it.
    pub backup_up: bool,
    /// Why not.
    pub backup_error: Option<String>,
    /// Writes still to be made.
    pub pending: usize,
    /// Audit lines still to be written.
    pub queued_audit: usize,
    /// Per environment with a snapshot.
    pub environments: Vec<StoredEnvironment>,
}

/// How an environment's snapshot is stored.
#[derive(Clone, Debug)]
pub struct StoredEnvironment {
    /// Environment name.
    pub name: String,
    /// In at least one of database and backup.
    pub is_durable: bool,
}

/// Everything that outlives one incarnation.
pub struct StoreContext {
    /// Database and backup.
    pub store: Store,
    /// What is current and what is still to be written.
    pub memory: StoreMemory,
    /// Where revisions are announced.
    pub board: Arc<Board>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Retention.
    pub settings: settings::Database,
    /// One publish at a time.
    publishing: tokio::sync::Mutex<()>,
    /// One flush to the database at a time: the last one must not close it under another.
    flushing: tokio::sync::Mutex<()>,
    auditing: audit::Turns,
}

impl StoreContext {
    /// Announces what was loaded; to be made before any actor runs.
    pub fn new(
        store: Store,
        memory: StoreMemory,
        board: Arc<Board>,
        metrics: Arc<Metrics>,
        settings: settings::Database,
    ) -> Arc<Self> {
        let context = Self {
            store,
            memory,
            board,
            metrics,
            settings,
            publishing: tokio::sync::Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
            auditing: audit::Turns::default(),
        };
        for environment in context.board.environments() {
            context.metrics.environment_known(&environment.name);
        }
        context.announce_loaded();
        Arc::new(context)
    }
}

/// See the module's first paragraph.
pub struct StoreActor {
    context: Arc<StoreContext>,
    /// Halves to which is being written what they lack. Neither waits for the other.
    flushing: BTreeSet<Half>,
    is_looking: bool,
}

impl StoreActor {
    /// A new incarnation over the same memory.
    pub fn new(context: Arc<StoreContext>) -> Self {
        Self {
            context,
            flushing: BTreeSet::new(),
            is_looking: false,
        }
    }

    /// Writes what is unwritten, and looks for what other replicas wrote.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        fail::fail_point!("store.timer");
        self.flush(ctx);
        if self.is_looking {
            return;
        }
        self.is_looking = true;
        let context = Arc::clone(&self.context);
        let look = async move {
            fail::fail_point!("store.look_future");
            context.look_for_registers().await;
        };
        ctx.spawn(wrap_future::<_, Self>(look).map(|(), this, _| this.is_looking = false));
    }

    /// Writes what is unwritten to either half, unless that is under way.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.context.look_for_replacement();
        if !self.context.memory.has_pending() {
            return;
        }
        for half in [Half::Backup, Half::Database] {
            if !self.flushing.insert(half) {
                continue;
            }
            let context = Arc::clone(&self.context);
            let flush = async move {
                fail::fail_point!("store.flush_future");
                context.flush(half).await;
            };
            let flush = wrap_future::<_, Self>(flush);
            ctx.spawn(flush.map(move |(), this, _| {
                this.flushing.remove(&half);
            }));
        }
    }
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.flush(ctx);
        ctx.run_interval(FLUSH_EVERY, Self::tick);
    }
}

super::ping!(StoreActor, "store");

impl Handler<Quit> for StoreActor {
    // Other messages may still come while the last things are written; then the actor stops itself.
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Quit, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.Quit");
        let context = Arc::clone(&self.context);
        let last = async move {
            fail::fail_point!("store.quit_future");
            context.finish(LAST_FLUSH_LIMIT).await;
        };
        Box::pin(wrap_future::<_, Self>(last).map(|(), _, ctx| ctx.stop()))
    }
}

impl Handler<GetSnapshot> for StoreActor {
    type Result = MessageResult<GetSnapshot>;

    fn handle(&mut self, message: GetSnapshot, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.GetSnapshot");
        MessageResult(self.context.memory.current(&message.environment))
    }
}

impl Handler<GetStored> for StoreActor {
    type Result = MessageResult<GetStored>;

    fn handle(&mut self, message: GetStored, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.GetStored");
        let memory = &self.context.memory;
        let is_durable = memory.is_durable(&message.environment);
        let snapshot = memory.current(&message.environment);
        MessageResult(snapshot.map(|snapshot| Stored {
            snapshot,
            is_durable,
        }))
    }
}

impl Handler<Publish> for StoreActor {
    // Waits for the disk; reads must not wait for it. `StoreContext::publish` lets one publish in at a time.
    type Result = ResponseActFuture<Self, Published>;

    fn handle(&mut self, message: Publish, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.Publish");
        let context = Arc::clone(&self.context);
        let publish = async move {
            fail::fail_point!("store.publish_future");
            context.publish(message.candidate, message.packed).await
        };
        let publish = wrap_future::<_, Self>(publish.instrument(debug_span!("publish")));
        Box::pin(publish.map(|published, this, ctx| {
            this.flush(ctx);
            published
        }))
    }
}

impl Handler<SaveInput> for StoreActor {
    // The answer waits for one durable copy, beside other messages; the flush writes the other.
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, message: SaveInput, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.SaveInput");
        let input = self.context.memory.set_input(message.input);
        let context = Arc::clone(&self.context);
        let save = async move {
            fail::fail_point!("store.save_input_future");
            context.write_first_copy(&input).await;
        };
        Box::pin(wrap_future::<_, Self>(save).map(|(), this, ctx| this.flush(ctx)))
    }
}

impl Handler<LoadInputs> for StoreActor {
    type Result = MessageResult<LoadInputs>;

    fn handle(&mut self, _: LoadInputs, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.LoadInputs");
        MessageResult(self.context.memory.inputs())
    }
}

impl Handler<SaveSourceState> for StoreActor {
    // The answer waits for one durable copy, beside other messages.
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: SaveSourceState, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.SaveSourceState");
        self.context
            .memory
            .set_state(&message.source, &message.state);
        self.flush(ctx);
        let context = Arc::clone(&self.context);
        Box::pin(async move {
            fail::fail_point!("store.save_state_future");
            context.write_states().await;
        })
    }
}

impl Handler<GetStoreStatus> for StoreActor {
    type Result = MessageResult<GetStoreStatus>;

    fn handle(&mut self, _: GetStoreStatus, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.GetStoreStatus");
        MessageResult(self.context.memory.status())
    }
}
