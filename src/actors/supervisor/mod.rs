//! Keeps every actor running.
//!
//! actix's own supervisor does not survive a panic, so each actor runs as a task on an arbiter of its own whose end is
//! reported as a value (see ARCHITECTURE.md). `child` has the loop for one actor: start a new instance, publish it
//! once it has answered, watch it, withdraw it first when it ends, wait, start the next. The [`SupervisorActor`] looks
//! after the [`Tree`] of those loops: it starts them in order and starts a loop again should one be lost; the tree stops
//! them in reverse. It is itself run by such a loop. It makes no business decision and keeps no state that a restart
//! could lose.
//!
//! Messages in: `Ping`, `Quit`. Messages out: `Ping` and `Quit` to every child.

mod child;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use actix::{Actor, AsyncContext as _, Context, dev::ToEnvelope};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{error, warn};

pub use self::child::Supervised;
use self::child::{Factory, Supervision};
use super::slot::{Ping, Quit, Slot};
use crate::metrics::Metrics;

/// How often the supervisor looks whether a loop was lost.
const LOOP_CHECK: Duration = Duration::from_millis(500);
/// What an actor gets to end in even if those before it have used up the time.
const STOP_LEAST: Duration = Duration::from_millis(100);

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
            window: Duration::from_mins(1),
            ping_every: Duration::from_secs(1),
            ping_limit: Duration::from_secs(1),
            pings_missed_max: 3,
        }
    }
}

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
                let supervision = Supervision::new(slot, make, policy, quit, Arc::clone(&metrics));
                runtime.spawn(supervision.run())
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

    /// Ends every actor in reverse order of its start.
    ///
    /// The first child, which all others hand their last things to, has `limit` for itself; the others share one.
    pub async fn stop(&self, limit: Duration) {
        let shared = Instant::now() + limit;
        for (index, child) in self.children.iter().enumerate().rev() {
            child.quit.send_replace(true);
            let left = match index {
                0 => limit,
                _ => shared.saturating_duration_since(Instant::now()),
            };
            let running = child.running.lock().take();
            if let Some(task) = running
                && timeout(left.max(STOP_LEAST), task).await.is_err()
            {
                warn!(actor = child.name, "{} did not end in time", child.name);
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
            this.is_starting = false;
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
    tree.runtime
        .spawn(keep_supervising(slot, Arc::clone(tree), quit))
}

/// The supervisor sees to the loops of all others; its own is seen to here.
async fn keep_supervising(
    slot: Arc<Slot<SupervisorActor>>,
    tree: Arc<Tree>,
    quit: watch::Receiver<bool>,
) {
    let shared = Arc::clone(&tree);
    let make: Factory<SupervisorActor> =
        Arc::new(move || SupervisorActor::new(Arc::clone(&shared)));
    loop {
        let supervision = Supervision::new(
            Arc::clone(&slot),
            Arc::clone(&make),
            tree.policy,
            quit.clone(),
            Arc::clone(&tree.metrics),
        );
        if tree.runtime.spawn(supervision.run()).await.is_ok() {
            return;
        }
        error!("supervision of the supervisor was lost; starting it again");
        sleep(LOOP_CHECK).await;
    }
}

/// The message of a panic, where it has one.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown".to_owned())
}
