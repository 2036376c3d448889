//! Keeps every actor running.
//!
//! actix's own supervisor does not survive a panic, so each actor runs as a task on an arbiter of its own whose end is
//! reported as a value (see ARCHITECTURE.md). `supervise` is the loop for one actor: start a new instance, publish it
//! once it has answered, watch it, withdraw it first when it ends, wait, start the next. The [`SupervisorActor`] owns
//! the list of those loops: it starts them in order, starts a loop again should one be lost, and stops them in reverse.
//! It is itself run by `supervise`. It makes no business decision and keeps no state that a restart could lose.
//!
//! Messages in: `Ping`, `Quit`. Messages out: `Ping` and `Quit` to every child.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix::{Actor, Addr, AsyncContext as _, Context, Handler, dev::ToEnvelope};
use actix_rt::Arbiter;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    random,
    slot::{Health, Ping, Quit, Slot},
};
use crate::metrics::Metrics;

/// How often the supervisor looks whether a loop was lost.
const LOOP_CHECK: Duration = Duration::from_millis(500);
/// Guards against an actor that hangs in its last words; each actor limits its own far below.
const QUIT_LIMIT: Duration = Duration::from_secs(30);

/// How patient the supervision of one actor is.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Wait before the first restart; doubled each time.
    pub backoff_first: Duration,
    /// Longest wait before a restart, and the wait past the restart limit.
    pub backoff_max: Duration,
    /// Up this long: earlier restarts are forgotten.
    pub calm: Duration,
    /// More restarts than this within `window` make the actor degraded.
    pub restarts_max: usize,
    /// See `restarts_max`.
    pub window: Duration,
    /// Time between two watchdog pings.
    pub ping_every: Duration,
    /// How long a ping may take; longer than any legal handler.
    pub ping_limit: Duration,
    /// So many pings missed in a row mean that the actor hangs.
    pub pings_missed_max: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_millis(10),
            backoff_max: Duration::from_secs(10),
            calm: Duration::from_secs(30),
            restarts_max: 10,
            window: Duration::from_secs(60),
            ping_every: Duration::from_secs(1),
            ping_limit: Duration::from_secs(1),
            pings_missed_max: 3,
        }
    }
}

/// How an incarnation ended.
enum Exit {
    Stopped,
    Panicked(String),
    ArbiterGone,
    Hung,
    NeverCameUp,
    /// In order, because it was told to.
    Quit,
}

impl Exit {
    /// Label of `stitchd_actor_restarts_total`.
    fn cause(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Panicked(_) => "panic",
            Self::ArbiterGone => "arbiter_gone",
            Self::Hung => "hung",
            Self::NeverCameUp => "never_came_up",
            Self::Quit => "quit",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Panicked(text) => format!("panicked: {text}"),
            Self::Stopped => "stopped by itself".to_owned(),
            Self::ArbiterGone => "its thread ended".to_owned(),
            Self::Hung => "stopped answering".to_owned(),
            Self::NeverCameUp => "did not answer after its start".to_owned(),
            Self::Quit => "ended in order".to_owned(),
        }
    }
}

/// What every supervised actor can do.
pub trait Supervised: Actor<Context = Context<Self>> + Handler<Ping> + Handler<Quit> {}
impl<A: Actor<Context = Context<A>> + Handler<Ping> + Handler<Quit>> Supervised for A {}

type Factory<A> = Arc<dyn Fn() -> A + Send + Sync>;

/// One actor's supervision: everything its loop needs, and how to stop it.
struct Child {
    name: String,
    spawn: Box<dyn Fn(watch::Receiver<bool>) -> JoinHandle<()> + Send + Sync>,
    is_up: Box<dyn Fn() -> bool + Send + Sync>,
    quit: watch::Sender<bool>,
    running: Mutex<Option<JoinHandle<()>>>,
}

/// The list of all children; made before any of them runs, shared by all incarnations of the supervisor.
pub struct Tree {
    runtime: Handle,
    metrics: Arc<Metrics>,
    policy: Policy,
    children: Vec<Child>,
}

impl Tree {
    /// An empty tree whose loops will run on the calling runtime.
    pub fn new(metrics: Arc<Metrics>, policy: Policy) -> Self {
        Self {
            runtime: Handle::current(),
            metrics,
            policy,
            children: Vec::new(),
        }
    }

    /// Adds an actor; children start in this order and stop in reverse.
    pub fn add<A: Supervised>(
        &mut self,
        slot: &Arc<Slot<A>>,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) where
        Context<A>: ToEnvelope<A, Ping> + ToEnvelope<A, Quit>,
    {
        let (runtime, metrics, policy) =
            (self.runtime.clone(), Arc::clone(&self.metrics), self.policy);
        let make: Factory<A> = Arc::new(make);
        let for_loop = Arc::clone(slot);
        let for_health = Arc::clone(slot);
        self.children.push(Child {
            name: slot.name().to_owned(),
            spawn: Box::new(move |quit| {
                let (slot, make) = (Arc::clone(&for_loop), Arc::clone(&make));
                runtime.spawn(supervise(slot, make, policy, quit, Arc::clone(&metrics)))
            }),
            is_up: Box::new(move || for_health.is_up()),
            quit: watch::Sender::new(false),
            running: Mutex::new(None),
        });
    }

    /// Starts every loop that is not running, in order; each child gets a moment to come up before the next.
    async fn start_missing(&self) {
        for child in &self.children {
            let is_new = {
                let mut running = child.running.lock();
                let is_lost = running.as_ref().is_none_or(JoinHandle::is_finished);
                let is_wanted = !*child.quit.borrow();
                if is_lost && is_wanted {
                    if running.is_some() {
                        error!(
                            actor = child.name,
                            "supervision of {} was lost; starting it again", child.name
                        );
                    }
                    *running = Some((child.spawn)(child.quit.subscribe()));
                }
                is_lost && is_wanted
            };
            let deadline = Instant::now() + Duration::from_secs(2);
            while is_new && !(child.is_up)() && Instant::now() < deadline {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Ends every actor in reverse order of its start; each gets at most `limit`.
    pub async fn stop(&self, limit: Duration) {
        for child in self.children.iter().rev() {
            child.quit.send_replace(true);
            let running = child.running.lock().take();
            if let Some(task) = running
                && timeout(limit, task).await.is_err()
            {
                warn!(
                    actor = child.name,
                    "{} did not end within {limit:?}", child.name
                );
            }
        }
    }
}

/// Owns the loops of all other actors.
pub struct SupervisorActor {
    tree: Arc<Tree>,
    is_starting: bool,
}

impl SupervisorActor {
    /// A new incarnation over the same tree.
    pub fn new(tree: Arc<Tree>) -> Self {
        Self {
            tree,
            is_starting: false,
        }
    }

    fn check_loops(&mut self, ctx: &mut Context<Self>) {
        fail::fail_point!("supervisor.timer");
        if self.is_starting {
            return;
        }
        self.is_starting = true;
        let tree = Arc::clone(&self.tree);
        let start = async move {
            fail::fail_point!("supervisor.start_missing");
            tree.start_missing().await;
        };
        let start = actix::fut::wrap_future::<_, Self>(start);
        ctx.spawn(actix::ActorFutureExt::map(start, |(), this, _| {
            this.is_starting = false
        }));
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.check_loops(ctx);
        ctx.run_interval(LOOP_CHECK, Self::check_loops);
    }
}

super::lifecycle!(SupervisorActor, "supervisor");

/// Runs the supervisor itself; ends when `quit` turns true.
pub fn supervise_supervisor(
    slot: Arc<Slot<SupervisorActor>>,
    tree: &Arc<Tree>,
    quit: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let shared = Arc::clone(tree);
    let make: Factory<SupervisorActor> =
        Arc::new(move || SupervisorActor::new(Arc::clone(&shared)));
    tree.runtime.spawn(supervise(
        slot,
        make,
        tree.policy,
        quit,
        Arc::clone(&tree.metrics),
    ))
}

/// The loop of one actor; ends only when `quit` turns true.
async fn supervise<A: Supervised>(
    slot: Arc<Slot<A>>,
    make: Factory<A>,
    policy: Policy,
    mut quit: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
) where
    Context<A>: ToEnvelope<A, Ping> + ToEnvelope<A, Quit>,
{
    let mut arbiter: Option<Arbiter> = None;
    let mut history = History::default();
    loop {
        let exit = run_once(
            &slot,
            &make,
            policy,
            &mut quit,
            &mut arbiter,
            &metrics,
            &mut history,
        )
        .await;
        let is_over = matches!(exit, Exit::Quit);
        slot.withdraw(if is_over { Health::Ended } else { Health::Down });
        metrics.actor_up(slot.name(), false);
        if is_over || matches!(exit, Exit::Hung | Exit::ArbiterGone | Exit::NeverCameUp) {
            // A blocked thread cannot be ended from outside: it is abandoned and ends when it unblocks.
            if let Some(arbiter) = arbiter.take() {
                arbiter.stop();
            }
        }
        if is_over {
            return;
        }
        slot.record_exit(exit.cause(), exit.text());
        metrics.actor_restarted(slot.name(), exit.cause());
        let is_degraded = history.add(Instant::now(), policy);
        slot.set_degraded(is_degraded);
        let wait = if is_degraded {
            policy.backoff_max
        } else {
            history.backoff(policy)
        };
        let name = slot.name();
        if is_degraded {
            error!(
                actor = name,
                "actor {name} {}; past the restart limit, next try in {wait:?}",
                exit.text()
            );
        } else {
            warn!(
                actor = name,
                "actor {name} {}; restarting in {wait:?}",
                exit.text()
            );
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = wanted_to_quit(&mut quit) => {
                slot.withdraw(Health::Ended);
                return;
            }
        }
    }
}

/// Restarts of one actor, to tell bad luck from a loop.
#[derive(Default)]
struct History {
    recent: VecDeque<Instant>,
    streak: u32,
}

impl History {
    /// Notes a restart; `true` when there were too many.
    fn add(&mut self, now: Instant, policy: Policy) -> bool {
        self.recent.push_back(now);
        while self
            .recent
            .front()
            .is_some_and(|at| now.duration_since(*at) > policy.window)
        {
            self.recent.pop_front();
        }
        self.streak = self.streak.saturating_add(1);
        self.recent.len() > policy.restarts_max
    }

    /// Half fixed, half random, so that actors that died together do not return together.
    fn backoff(&self, policy: Policy) -> Duration {
        let doubled = policy
            .backoff_first
            .saturating_mul(1 << (self.streak - 1).min(20));
        let longest = doubled.min(policy.backoff_max);
        longest / 2 + longest.mul_f64(random::unit() / 2.0)
    }
}

/// One incarnation, from its start to its end.
async fn run_once<A: Supervised>(
    slot: &Arc<Slot<A>>,
    make: &Factory<A>,
    policy: Policy,
    quit: &mut watch::Receiver<bool>,
    arbiter: &mut Option<Arbiter>,
    metrics: &Metrics,
    history: &mut History,
) -> Exit
where
    Context<A>: ToEnvelope<A, Ping> + ToEnvelope<A, Quit>,
{
    let (up, mut down) = launch(arbiter.get_or_insert_with(Arbiter::new), Arc::clone(make));
    let first_ping = async {
        let address = up.await.ok()?;
        let is_answering = address
            .send(Ping)
            .timeout(policy.ping_limit * 5)
            .await
            .is_ok();
        is_answering.then_some(address)
    };
    let address = match first_ping.await {
        Some(address) => address,
        // The exact cause is known if the actor has already ended.
        None => return down.try_recv().unwrap_or(Exit::NeverCameUp),
    };
    slot.publish(address.clone());
    metrics.actor_up(slot.name(), true);
    if history.streak > 0 {
        info!(actor = slot.name(), "actor {} is back", slot.name());
    }
    let up_since = Instant::now();
    let exit = tokio::select! {
        biased;
        exit = &mut down => exit.unwrap_or(Exit::ArbiterGone),
        () = wanted_to_quit(quit) => {
            slot.withdraw(Health::Down);
            if let Err(error) = address.send(Quit).timeout(QUIT_LIMIT).await {
                debug!(actor = slot.name(), "actor {} did not say goodbye: {error}", slot.name());
            }
            Exit::Quit
        }
        () = watchdog(&address, policy) => Exit::Hung,
    };
    if up_since.elapsed() > policy.calm {
        *history = History::default();
        slot.set_degraded(false);
    }
    exit
}

async fn wanted_to_quit(quit: &mut watch::Receiver<bool>) {
    if quit.wait_for(|quit| *quit).await.is_err() {
        // The sender lives in the tree, which this loop's owner holds; without it nobody could ask.
        std::future::pending::<()>().await;
    }
}

/// Returns when the actor has missed too many pings in a row.
async fn watchdog<A: Supervised>(address: &Addr<A>, policy: Policy)
where
    Context<A>: ToEnvelope<A, Ping>,
{
    let mut missed = 0;
    while missed < policy.pings_missed_max {
        sleep(policy.ping_every).await;
        let answer = address.send(Ping).timeout(policy.ping_limit).await;
        missed = if matches!(answer, Err(actix::MailboxError::Timeout)) {
            missed + 1
        } else {
            0
        };
    }
}

/// Starts a new instance on `arbiter`; the first channel brings its address, the second how it ended.
fn launch<A: Supervised>(
    arbiter: &Arbiter,
    make: Factory<A>,
) -> (oneshot::Receiver<Addr<A>>, oneshot::Receiver<Exit>) {
    let (up_sender, up) = oneshot::channel();
    let (down_sender, down) = oneshot::channel();
    let is_spawned = arbiter.spawn(async move {
        let task = actix_rt::spawn(async move {
            let context = Context::new();
            let actor = make();
            // Nobody waits any more only if the loop itself was lost; then the next loop starts its own instance.
            drop(up_sender.send(context.address()));
            context.into_future(actor).await;
        });
        let exit = match task.await {
            Ok(()) => Exit::Stopped,
            Err(error) if error.is_panic() => Exit::Panicked(panic_text(&*error.into_panic())),
            Err(_) => Exit::ArbiterGone,
        };
        drop(down_sender.send(exit));
    });
    if !is_spawned {
        // Both senders are dropped with the future: the caller sees a child that never came up on a dead arbiter.
        warn!("an arbiter had ended before its actor was started");
    }
    (up, down)
}

/// The message of a panic, where it has one.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown".to_owned())
}
