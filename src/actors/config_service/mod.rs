//! Turns what sources deliver into what is served: validate → adapt → stitch → guard, then `Publish`.
//!
//! Owns every source's last accepted input, the issues of the last stitch, and what operators decided. Serves no request and writes no SQL. The
//! funnel is CPU work and runs on a blocking thread, one job at a time in order of arrival, so that two sources of one
//! environment never race; the actor itself only queues jobs and swaps finished values, and answers pings meanwhile.
//!
//! Messages in: [`Ingest`] (`PollerActors`), [`GetIssues`], [`GetFunnelStatus`], [`GetHeld`], [`DecideHeld`], [`SetOverride`],
//! [`RemoveOverride`], [`ListOverrides`], [`SetPin`], [`RemovePin`], [`GetPin`] (control plane). Messages out: `GetSnapshot`,
//! `LoadInputs`, `SaveInput`, `Publish`, `SaveRegisters`, `LoadRegisters`, `GetRevision` to the `StoreActor`.
//!
//! What was accepted lives in [`ConfigMemory`], which outlives the actor. On every start the stored inputs are loaded
//! and each environment is stitched once before any new input is looked at. A job lost to a panic is asked for again by
//! its poller; until a job has ended well its environment counts as unsettled and is stitched again.

mod connections;
mod funnel;
mod held;
mod job;
mod memory;
mod operator;
mod parking;
mod pinned;
mod publish;
mod relay;
mod restore;
mod task;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, MessageResult,
    ResponseActFuture, fut::wrap_future,
};
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::{Instrument as _, debug_span};

use self::operator::{Order, Reply};
pub use self::{
    held::{
        Changed, DecideHeld, Difference, Fate, GetHeld, HeldDecided, HeldError, HeldInput, Items,
        Trip,
    },
    memory::{ConfigMemory, FunnelSource, field_names},
    operator::{
        Decided, GetPin, ListOverrides, OVERRIDES_BYTES_MAX, OVERRIDES_MAX, OrderError, Pin,
        PinStatus, RemoveOverride, RemovePin, SetOverride, SetPin,
    },
};
use super::{MAILBOX, board::Board, poller::Outcome, slot::Slot, store::StoreActor};
use crate::{
    metrics::Metrics,
    model::Issue,
    settings::Connection,
    sources::{PartId, PartOutcome},
};

/// Runs one fetch through the funnel. Sent by a `PollerActor`; may be sent twice.
#[derive(Clone, Message)]
#[rtype(result = "IngestReport")]
pub struct Ingest {
    /// Which source.
    pub source: String,
    /// What each part brought.
    pub parts: Arc<BTreeMap<PartId, PartOutcome>>,
    /// Whether these are all the parts there are: not so while the list of connections cannot be read.
    pub has_all_parts: bool,
    /// Whether the upstream sent this by itself: then it says nothing of parts that are not in it.
    pub is_push: bool,
    /// The source's connections with their keys; `None`: as before.
    pub connections: Option<Arc<Vec<Connection>>>,
    /// Rises with the moment at which this was asked for or arrived: a part never replaces one of a higher number.
    pub sequence: u64,
    /// When it was fetched.
    pub at: OffsetDateTime,
}

/// What became of a fetch.
#[derive(Clone, Debug)]
pub struct IngestReport {
    /// How it ended.
    pub outcome: Outcome,
    /// Revision served after it; `None`: still nothing.
    pub revision: Option<u64>,
    /// Why something was refused, if anything was.
    pub reason: Option<String>,
    /// Kinds of parts that were refused.
    pub refused_parts: Vec<&'static str>,
    /// Parts whose body was accepted, with the validator to send from now on.
    pub accepted: BTreeMap<PartId, Option<String>>,
    /// Parts said to be unchanged of which no body is here: their validators must not be sent again.
    pub lost: Vec<PartId>,
}

impl IngestReport {
    /// The report of a fetch of which nothing arrived.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            revision: None,
            reason: Some(reason.into()),
            refused_parts: Vec::new(),
            accepted: BTreeMap::new(),
            lost: Vec::new(),
        }
    }
}

/// Asks for the issues of an environment's last stitch. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "Vec<Issue>")]
pub struct GetIssues {
    /// Which environment.
    pub environment: String,
}

/// Asks how the funnel is doing. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "FunnelStatus")]
pub struct GetFunnelStatus;

/// How the funnel is doing.
#[derive(Clone, Debug)]
pub struct FunnelStatus {
    /// By environment.
    pub environments: BTreeMap<String, FunnelEnvironment>,
    /// Jobs that wait.
    pub queued: usize,
}

/// One environment's part in it.
#[derive(Clone, Debug, Default)]
pub struct FunnelEnvironment {
    /// Issues of the last stitch.
    pub issues: usize,
    /// Sources of which something is held.
    pub held: usize,
    /// Overrides in force.
    pub overrides: usize,
    /// How its pin is doing, where it has one.
    pub pinned: Option<PinStatus>,
}

/// What the funnel needs of the rest.
#[derive(Clone)]
pub struct ConfigLinks {
    /// Where snapshots and inputs go.
    pub store: Arc<Slot<StoreActor>>,
    /// Source clocks.
    pub board: Arc<Board>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// How often it is looked for decisions that came from elsewhere, and for overrides that end.
const TICK: Duration = Duration::from_secs(1);

/// What one job is about.
enum Work {
    /// Stitch an environment from what is stored.
    Start { environment: Arc<str> },
    /// Take a fetch in.
    Ingest {
        ingest: Ingest,
        reply: oneshot::Sender<IngestReport>,
    },
    /// Carry out what an operator wants.
    Operate { order: Order, reply: Reply },
    /// Take in or discard what guards have parked.
    Decide {
        order: DecideHeld,
        reply: oneshot::Sender<Result<HeldDecided, HeldError>>,
    },
}

/// See the module's first paragraph.
pub struct ConfigServiceActor {
    memory: Arc<ConfigMemory>,
    links: ConfigLinks,
    queue: VecDeque<Work>,
    is_working: bool,
}

impl ConfigServiceActor {
    /// A new incarnation over the same memory.
    pub fn new(memory: Arc<ConfigMemory>, links: ConfigLinks) -> Self {
        Self {
            memory,
            links,
            queue: VecDeque::new(),
            is_working: false,
        }
    }

    fn enqueue(&mut self, work: Work, ctx: &mut Context<Self>) {
        self.queue.push_back(work);
        self.work_on(ctx);
    }

    /// Queues work before the inputs that wait.
    fn enqueue_first(&mut self, work: Work, ctx: &mut Context<Self>) {
        let mut queue = self.queue.iter();
        let place = queue.position(|queued| matches!(queued, Work::Ingest { .. }));
        self.queue.insert(place.unwrap_or(self.queue.len()), work);
        self.work_on(ctx);
    }

    /// Queues a look at every environment that needs one.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        fail::fail_point!("config_service.timer");
        let board = &self.links.board;
        let news = |name: &str| board.environment(name).map_or(0, |cell| cell.decisions());
        for environment in self.memory.due(news) {
            let is_queued = self.queue.iter().any(|work| {
                matches!(work, Work::Operate { order: Order::Refresh { environment: queued }, .. } if *queued == environment)
            });
            if !is_queued {
                let (reply, _nobody) = oneshot::channel();
                let order = Order::Refresh { environment };
                self.enqueue_first(Work::Operate { order, reply }, ctx);
            }
        }
    }

    /// Starts the next job, unless one is under way.
    fn work_on(&mut self, ctx: &mut Context<Self>) {
        if self.is_working {
            return;
        }
        let Some(work) = self.queue.pop_front() else {
            return;
        };
        self.is_working = true;
        let (memory, links) = (Arc::clone(&self.memory), self.links.clone());
        let job = async move {
            fail::fail_point!("config_service.job_future");
            match work {
                Work::Start { environment } => {
                    let span = debug_span!("stitch", environment = &*environment);
                    job::start(&memory, &links, &environment)
                        .instrument(span)
                        .await;
                }
                Work::Ingest { ingest, reply } => {
                    let span = debug_span!("ingest", source.id = %ingest.source);
                    let report = job::ingest(&memory, &links, &ingest).instrument(span).await;
                    // A poller that gave up asks again.
                    drop(reply.send(report));
                }
                Work::Operate { order, reply } => {
                    let decided = operator::carry_out(&memory, &links, order);
                    let decided = decided.instrument(debug_span!("operate")).await;
                    // Whoever gave up looks at what is there.
                    drop(reply.send(decided));
                }
                Work::Decide { order, reply } => {
                    let span = debug_span!("decide", source.id = %order.source);
                    let decided = held::decide(&memory, &links, &order).instrument(span).await;
                    // Whoever gave up sees it in the list.
                    drop(reply.send(decided));
                }
            }
        };
        ctx.spawn(wrap_future::<_, Self>(job).map(|(), this, ctx| {
            this.is_working = false;
            this.work_on(ctx);
        }));
    }
}

impl Actor for ConfigServiceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
        for environment in self.memory.environments() {
            self.enqueue(Work::Start { environment }, ctx);
        }
        ctx.run_interval(TICK, Self::tick);
    }
}

super::lifecycle!(ConfigServiceActor, "config_service");

impl Handler<Ingest> for ConfigServiceActor {
    // Waits for its turn and its job beside other messages, and ends with the actor: the poller then asks the next
    // incarnation.
    type Result = ResponseActFuture<Self, IngestReport>;

    fn handle(&mut self, message: Ingest, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.Ingest");
        let (reply, report) = oneshot::channel();
        self.enqueue(
            Work::Ingest {
                ingest: message,
                reply,
            },
            ctx,
        );
        let report = async move {
            fail::fail_point!("config_service.ingest_future");
            match report.await {
                Ok(report) => report,
                // The actor ends, and this future with it.
                Err(_) => std::future::pending().await,
            }
        };
        Box::pin(wrap_future(report))
    }
}

impl Handler<DecideHeld> for ConfigServiceActor {
    // As `Ingest`: an order is a job like any other.
    type Result = ResponseActFuture<Self, Result<HeldDecided, HeldError>>;

    fn handle(&mut self, order: DecideHeld, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.DecideHeld");
        let (reply, decided) = oneshot::channel();
        self.enqueue(Work::Decide { order, reply }, ctx);
        let decided = async move {
            fail::fail_point!("config_service.decide_future");
            match decided.await {
                Ok(decided) => decided,
                // The actor ends, and this future with it.
                Err(_) => std::future::pending().await,
            }
        };
        Box::pin(wrap_future(decided))
    }
}

impl Handler<GetHeld> for ConfigServiceActor {
    type Result = MessageResult<GetHeld>;

    fn handle(&mut self, message: GetHeld, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.GetHeld");
        MessageResult(self.memory.held(&message.environment))
    }
}

impl Handler<GetIssues> for ConfigServiceActor {
    type Result = MessageResult<GetIssues>;

    fn handle(&mut self, message: GetIssues, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.GetIssues");
        MessageResult(self.memory.issues(&message.environment))
    }
}

impl Handler<GetFunnelStatus> for ConfigServiceActor {
    type Result = MessageResult<GetFunnelStatus>;

    fn handle(&mut self, _: GetFunnelStatus, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.GetFunnelStatus");
        MessageResult(FunnelStatus {
            environments: self.memory.status(),
            queued: self.queue.len(),
        })
    }
}
