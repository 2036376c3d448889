//! Decides when one source is asked for news.
//!
//! Owns the schedule and nothing else: fetching is `ClientActor`'s, meaning is `ConfigServiceActor`'s. At most one poll is
//! in flight and at most one waits: a poll forced during a poll waits for the *next* one, so that it sees what was
//! changed before the call. After a failure the wait doubles up to `failure_backoff_max`; one success resets it. A part
//! that was refused for good is left alone as long, unless somebody asks.
//!
//! Messages in: [`Pause`], [`Resume`], [`ForcePoll`], [`UpstreamChanged`], [`TakePush`], [`PollSoon`],
//! [`GetPollerStatus`]. Messages out: `Fetch`, `Follow`, `Unfollow`, `Open` to the `ClientActor`, `Ingest` to the `ConfigServiceActor`, `SaveSourceState` to the `StoreActor`.
//!
//! Pause, failure streak and validators are kept in [`PollerMemory`], which outlives the actor; the pause is also
//! stored, so that it outlives the process. On restart the schedule starts over with an immediate poll (unless paused);
//! callers that waited for a poll ask the next incarnation.

mod memory;
mod messages;
mod push;
mod schedule;

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler,
    MessageResult, ResponseActFuture, ResponseFuture, SpawnHandle, fut::wrap_future,
};
use tokio::{sync::oneshot, time::Instant};
use tracing::{Instrument as _, debug_span, error, info, warn};

use self::memory::PauseRecord;
pub use self::memory::{PollerMemory, SourceState};
pub use self::messages::{
    ForcePoll, GetPollerStatus, Outcome, Pause, PollReport, PollSoon, PollerStatus, PushReport,
    Resume, RunState, TakePush, UpstreamChanged,
};
use super::{
    MAILBOX, Quit,
    client::{ClientActor, Fetch, Follow, Unfollow},
    config_service::{ConfigServiceActor, Ingest, IngestReport},
    slot::Slot,
    store::{SaveSourceState, StoreActor},
};
use crate::{
    clock,
    metrics::Metrics,
    settings,
    sources::{Asking, FetchError, Fetched, PartOutcome},
};

/// Longest time the funnel may take for one input; a large payload on a slow machine stays far below.
const INGEST_LIMIT: Duration = Duration::from_mins(1);
/// How long storing a pause may hold up its answer; the store goes on trying afterwards.
const SAVE_LIMIT: Duration = Duration::from_secs(1);
/// The time of the last success is stored at most this often; after a crash the age shown is too high by this much.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// The actors a poller talks to.
#[derive(Clone)]
pub struct PollerLinks {
    /// Its client.
    pub client: Arc<Slot<ClientActor>>,
    /// The funnel.
    pub config: Arc<Slot<ConfigServiceActor>>,
    /// Where the pause is stored.
    pub store: Arc<Slot<StoreActor>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// See the module's first paragraph.
pub struct PollerActor {
    id: String,
    settings: Arc<settings::Source>,
    memory: Arc<PollerMemory>,
    links: PollerLinks,
    timer: Option<SpawnHandle>,
    next_poll_ms: Option<i64>,
    poll: Option<PollUnderWay>,
    /// Callers of the poll after this one; not empty: it starts as soon as this one ends.
    next_waiters: Vec<oneshot::Sender<PollReport>>,
    /// News came during a poll: poll again after it.
    is_changed: bool,
    /// Somebody resumed: the next poll asks for refused parts too.
    is_resumed: bool,
}

/// The poll in flight.
struct PollUnderWay {
    started: Instant,
    sequence: u64,
    waiters: Vec<oneshot::Sender<PollReport>>,
    /// The fetch, while it runs and nobody asked for it: a pause may cancel it.
    cancellable: Option<SpawnHandle>,
    fetch_errors: Vec<(&'static str, FetchError)>,
}

impl PollerActor {
    /// A poller over what is remembered of the source.
    pub fn new(
        settings: Arc<settings::Source>,
        memory: Arc<PollerMemory>,
        links: PollerLinks,
    ) -> Self {
        Self {
            id: settings.id.clone(),
            settings,
            memory,
            links,
            timer: None,
            next_poll_ms: None,
            poll: None,
            next_waiters: Vec::new(),
            is_changed: false,
            is_resumed: false,
        }
    }

    fn state(&self) -> RunState {
        if self.memory.is_paused() {
            RunState::Paused
        } else if self.settings.poll.enabled {
            RunState::Running
        } else {
            RunState::Disabled
        }
    }

    fn schedule_poll(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        self.cancel_timer(ctx);
        if self.state() != RunState::Running {
            return;
        }
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        self.next_poll_ms = Some(clock::now_ms().saturating_add(wait_ms));
        self.timer = Some(ctx.run_later(wait, |this, ctx| {
            fail::fail_point!("poller.timer");
            this.timer = None;
            this.start_poll(Vec::new(), ctx);
        }));
    }

    fn cancel_timer(&mut self, ctx: &mut Context<Self>) {
        self.next_poll_ms = None;
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
    }

    /// Starts a poll unless one is in flight; callers then wait for the next one.
    fn start_poll(&mut self, waiters: Vec<oneshot::Sender<PollReport>>, ctx: &mut Context<Self>) {
        if self.poll.is_some() {
            self.next_waiters.extend(waiters);
            return;
        }
        self.cancel_timer(ctx);
        let (client, validators) = (Arc::clone(&self.links.client), self.memory.begin_attempt());
        let sequence = self.memory.next_sequence();
        let limit = schedule::fetch_limit(&self.settings.poll);
        let is_forced = !waiters.is_empty();
        let is_wanted = std::mem::take(&mut self.is_resumed) || is_forced;
        let asking = if is_wanted { Asking::All } else { Asking::Due };
        let fetch = async move {
            fail::fail_point!("poller.fetch_future");
            client.ask_again(Fetch { validators, asking }, limit).await
        };
        let fetch = fetch.instrument(debug_span!("fetch", source.id = %self.id));
        let fetched = wrap_future::<_, Self>(fetch).map(|answer, this, ctx| match answer {
            Ok(Ok(fetched)) => this.on_fetched(fetched, ctx),
            Ok(Err(error)) => this.on_nothing(&error.to_string(), Some(&error), ctx),
            Err(error) => this.on_nothing(&error.to_string(), None, ctx),
        });
        let handle = ctx.spawn(fetched);
        self.poll = Some(PollUnderWay {
            started: Instant::now(),
            sequence,
            waiters,
            cancellable: (!is_forced).then_some(handle),
            fetch_errors: Vec::new(),
        });
    }

    /// Hands what arrived to the funnel.
    fn on_fetched(&mut self, mut fetched: Fetched, ctx: &mut Context<Self>) {
        let errors: Vec<(&'static str, FetchError)> = fetched
            .parts
            .iter()
            .filter_map(|(part, outcome)| match outcome {
                PartOutcome::Failed(error) => Some((part.kind(), error.clone())),
                _ => None,
            })
            .chain(
                fetched
                    .connections_error
                    .take()
                    .map(|error| ("connections", error)),
            )
            .chain(
                fetched
                    .features_error
                    .take()
                    .map(|error| ("features", error)),
            )
            .collect();
        if self.state() == RunState::Running {
            // Repeated after each poll, so that a restarted client follows again.
            self.links.client.tell(Follow {
                targets: std::mem::take(&mut fetched.streams),
            });
        }
        let Some(poll) = &mut self.poll else { return };
        poll.cancellable = None;
        let has_all_parts = errors.iter().all(|(part, _)| *part != "connections");
        poll.fetch_errors = errors;
        let connections = has_all_parts.then_some(fetched.connections);
        let ingest = Ingest {
            source: self.id.clone(),
            has_all_parts,
            is_push: false,
            connections: connections.map(Arc::new),
            sequence: poll.sequence,
            parts: Arc::new(fetched.parts),
            at: clock::now(),
        };
        let config = Arc::clone(&self.links.config);
        let funnel = async move {
            fail::fail_point!("poller.ingest_future");
            config.ask_again(ingest, INGEST_LIMIT).await
        };
        ctx.spawn(
            wrap_future::<_, Self>(funnel).map(|answer, this, ctx| match answer {
                Ok(report) => this.on_ingested(&report, ctx),
                Err(error) => this.on_nothing(&error.to_string(), None, ctx),
            }),
        );
    }

    /// Nothing came of the poll at all.
    fn on_nothing(&mut self, reason: &str, error: Option<&FetchError>, ctx: &mut Context<Self>) {
        if let (Some(poll), Some(error)) = (&mut self.poll, error) {
            poll.fetch_errors.push(("payload", error.clone()));
        }
        self.on_ingested(&IngestReport::failed(reason), ctx);
    }

    fn on_ingested(&mut self, report: &IngestReport, ctx: &mut Context<Self>) {
        let Some(poll) = self.poll.take() else { return };
        let ended = schedule::summarise(report, &poll.fetch_errors, poll.started.elapsed());
        for (part, error) in &poll.fetch_errors {
            self.links.metrics.part_failed(&self.id, part, error.code());
        }
        self.links.metrics.poll_ended(
            &self.id,
            ended.outcome.as_str(),
            ended.duration.as_secs_f64(),
        );
        let is_permanent = poll
            .fetch_errors
            .iter()
            .any(|(_, error)| error.is_permanent());
        let is_whole = ended.failed_parts.is_empty();
        self.log_end(&ended, is_permanent);
        self.memory.end_attempt(&ended, is_permanent, report);
        if is_whole && matches!(ended.outcome, Outcome::Published | Outcome::Unchanged) {
            self.save_success();
        }
        let retry_after = poll
            .fetch_errors
            .iter()
            .filter_map(|(_, error)| error.retry_after())
            .max();
        for waiter in poll.waiters {
            // A caller that gave up is not waiting any more.
            drop(waiter.send(ended.clone()));
        }
        let waiters = std::mem::take(&mut self.next_waiters);
        let is_changed = std::mem::take(&mut self.is_changed) && !self.memory.is_paused();
        if !waiters.is_empty() || is_changed || !report.lost.is_empty() {
            self.start_poll(waiters, ctx);
            return;
        }
        let is_failed = ended.outcome == Outcome::Failed;
        let failing = is_failed.then(|| self.memory.failure_streak());
        let mut errors = poll.fetch_errors.iter();
        let wait = schedule::next_wait(
            &self.settings.poll,
            failing,
            is_permanent && errors.all(|(_, error)| error.is_permanent()),
            retry_after,
            super::random::unit(),
        );
        self.schedule_poll(wait, ctx);
    }

    /// One line when a streak begins, one when it becomes stale, one when it ends; repeats are for debugging.
    fn log_end(&self, ended: &PollReport, is_permanent: bool) {
        let id = &self.id;
        let reason = ended.reason.as_deref().unwrap_or("no reason given");
        let was_well = self.memory.was_well();
        let is_well = ended.failed_parts.is_empty()
            && ended.outcome != Outcome::Failed
            && ended.outcome != Outcome::Held;
        if is_well {
            if !was_well {
                info!(source.id = %id, "source {id} is well again");
            }
            self.memory.set_stale_logged(false);
            return;
        }
        if was_well {
            let outcome = ended.outcome.as_str();
            let advice = if is_permanent {
                "; it will not heal by itself, check the keys"
            } else {
                ""
            };
            warn!(source.id = %id, outcome, "poll of {id} {outcome}: {reason}{advice}; the last good configuration is served");
        } else {
            tracing::debug!(source.id = %id, "poll of {id} {}: {reason}", ended.outcome.as_str());
        }
        if self.memory.clock().is_stale() && self.memory.set_stale_logged(true) {
            error!(source.id = %id, "source {id} is stale: no successful poll for {:.0} s", self.memory.clock().age_seconds().unwrap_or(0.0));
        }
    }

    /// Stores the time of the last success now and then.
    fn save_success(&self) {
        if let Some(state) = self.memory.state_to_save(SAVE_EVERY) {
            self.links.store.tell(SaveSourceState {
                source: self.id.clone(),
                state,
            });
        }
    }

    /// Stores pause and last success; the answer waits for it, within a limit.
    fn save_state(&self) -> impl Future<Output = ()> + 'static {
        let store = Arc::clone(&self.links.store);
        let message = SaveSourceState {
            source: self.id.clone(),
            state: self.memory.source_state(),
        };
        save(store, message)
    }

    fn on_pause(&mut self, message: Pause, ctx: &mut Context<Self>) {
        let is_new = !self.memory.is_paused();
        self.memory.set_paused(Some(PauseRecord {
            by: message.by,
            reason: message.reason,
            at_ms: clock::now_ms(),
        }));
        self.links.metrics.source_paused(&self.id, true);
        self.cancel_timer(ctx);
        self.is_changed = false;
        self.links.client.tell(Unfollow);
        if let Some(fetch) = self.poll.as_mut().and_then(|poll| poll.cancellable.take()) {
            ctx.cancel_future(fetch);
            self.poll = None;
            let waiters = std::mem::take(&mut self.next_waiters);
            if !waiters.is_empty() {
                self.start_poll(waiters, ctx);
            }
        }
        if is_new {
            info!(source.id = %self.id, "source {} is paused", self.id);
        }
    }

    fn on_resume(&mut self, ctx: &mut Context<Self>) {
        if self.memory.is_paused() {
            info!(source.id = %self.id, "source {} is resumed", self.id);
        }
        self.memory.set_paused(None);
        self.links.metrics.source_paused(&self.id, false);
        self.is_resumed = true;
        if self.state() == RunState::Running {
            self.poll_soon(ctx);
        }
    }

    fn on_upstream_changed(&mut self, ctx: &mut Context<Self>) {
        if self.state() == RunState::Running {
            self.poll_soon(ctx);
        }
    }

    fn status(&self) -> PollerStatus {
        self.memory.status(self.state(), self.next_poll_ms)
    }
}

impl Actor for PollerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.links
            .metrics
            .source_paused(&self.id, self.memory.is_paused());
        // Streams of an earlier incarnation report to this one; while paused there must be none.
        if self.state() == RunState::Running {
            self.start_poll(Vec::new(), ctx);
        }
    }
}

super::ping!(PollerActor, "poller");

impl Handler<Quit> for PollerActor {
    type Result = ();

    fn handle(&mut self, _: Quit, ctx: &mut Context<Self>) {
        fail::fail_point!("poller.Quit");
        // Successes are stored now and then only; the next process is to go on from the last. The store quits later.
        if self.memory.clock().last_success_ms().is_some() {
            self.links.store.tell(SaveSourceState {
                source: self.id.clone(),
                state: self.memory.source_state(),
            });
        }
        ctx.stop();
    }
}

impl Handler<Pause> for PollerActor {
    // The state changes at once; only storing it is waited for, beside other messages.
    type Result = ResponseFuture<PollerStatus>;

    fn handle(&mut self, message: Pause, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("poller.Pause");
        self.on_pause(message, ctx);
        let (status, save) = (self.status(), self.save_state());
        Box::pin(async move {
            fail::fail_point!("poller.pause_future");
            save.await;
            status
        })
    }
}

impl Handler<Resume> for PollerActor {
    // As for `Pause`.
    type Result = ResponseFuture<PollerStatus>;

    fn handle(&mut self, _: Resume, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("poller.Resume");
        self.on_resume(ctx);
        let (status, save) = (self.status(), self.save_state());
        Box::pin(async move {
            fail::fail_point!("poller.resume_future");
            save.await;
            status
        })
    }
}

impl Handler<ForcePoll> for PollerActor {
    // Waits for the poll beside other messages, and ends with the actor: the caller then asks the next incarnation.
    type Result = ResponseActFuture<Self, PollReport>;

    fn handle(&mut self, _: ForcePoll, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("poller.ForcePoll");
        let (waiter, report) = oneshot::channel();
        self.start_poll(vec![waiter], ctx);
        let report = async move {
            fail::fail_point!("poller.force_poll_future");
            match report.await {
                Ok(report) => report,
                // The actor ends, and this future with it.
                Err(_) => std::future::pending().await,
            }
        };
        Box::pin(wrap_future(report))
    }
}

impl Handler<UpstreamChanged> for PollerActor {
    type Result = ();

    fn handle(&mut self, _: UpstreamChanged, ctx: &mut Context<Self>) {
        fail::fail_point!("poller.UpstreamChanged");
        self.on_upstream_changed(ctx);
    }
}

impl Handler<GetPollerStatus> for PollerActor {
    type Result = MessageResult<GetPollerStatus>;

    fn handle(&mut self, _: GetPollerStatus, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("poller.GetPollerStatus");
        MessageResult(self.status())
    }
}

/// Has the store keep a source's pause and last success.
async fn save(store: Arc<Slot<StoreActor>>, message: SaveSourceState) {
    let id = message.source.clone();
    if let Err(error) = store.ask_again(message, SAVE_LIMIT).await {
        warn!(source.id = %id, "the pause of {id} is not stored yet: {error}");
    }
}
