//! The loop that keeps one actor running, and the watch over one incarnation of it.
//!
//! Runs on the runtime of the tree, the actor on an arbiter of its own. Too simple to panic; should it be lost all the
//! same, its incarnation is ended with it, so that the loop started in its place is alone.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix::{Actor, Addr, AsyncContext as _, Context, Handler, MailboxError, dev::ToEnvelope};
use actix_rt::Arbiter;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    super::{
        random,
        slot::{Health, Ping, Quit, Slot},
    },
    Policy, panic_text,
};
use crate::metrics::Metrics;

/// Guards against an actor that hangs in its last words; each actor limits its own far below.
const QUIT_LIMIT: Duration = Duration::from_secs(30);
/// How often an actor that dies of its last words is brought back to say them.
const LAST_TRIES: u32 = 3;
/// A start may take this many times the limit of a ping.
const START_PINGS: u32 = 5;

/// How an incarnation ended.
#[derive(Debug, PartialEq, Eq)]
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

    /// Whether the arbiter can take the next incarnation.
    fn spares_arbiter(&self) -> bool {
        matches!(self, Self::Stopped | Self::Panicked(_))
    }
}

/// What every supervised actor can do.
pub trait Supervised: Actor<Context = Context<Self>> + Handler<Ping> + Handler<Quit> {}
impl<A: Actor<Context = Context<A>> + Handler<Ping> + Handler<Quit>> Supervised for A {}

pub(super) type Factory<A> = Arc<dyn Fn() -> A + Send + Sync>;

/// Everything the loop of one actor needs.
pub(super) struct Supervision<A: Supervised> {
    slot: Arc<Slot<A>>,
    make: Factory<A>,
    policy: Policy,
    quit: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    arbiter: Option<Arbiter>,
    history: History,
}

impl<A: Supervised> Drop for Supervision<A> {
    /// Only a loop that was lost still has an arbiter here: its incarnation must not go on beside the next loop's.
    fn drop(&mut self) {
        if self.arbiter.is_some() {
            self.slot.withdraw(Health::Down);
            self.metrics.actor_up(self.slot.name(), false);
            self.abandon_arbiter();
        }
    }
}

impl<A: Supervised> Supervision<A> {
    /// A blocked thread cannot be ended from outside: it is abandoned, and ends when it unblocks.
    fn abandon_arbiter(&mut self) {
        if let Some(arbiter) = self.arbiter.take() {
            arbiter.stop();
        }
    }
}

impl<A: Supervised> Supervision<A>
where
    Context<A>: ToEnvelope<A, Ping> + ToEnvelope<A, Quit>,
{
    pub(super) fn new(
        slot: Arc<Slot<A>>,
        make: Factory<A>,
        policy: Policy,
        quit: watch::Receiver<bool>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            slot,
            make,
            policy,
            quit,
            metrics,
            arbiter: None,
            history: History::default(),
        }
    }

    /// Ends only when `quit` turns true.
    pub(super) async fn run(mut self) {
        let mut last_tries = 0;
        loop {
            fail::fail_point!("supervisor.loop");
            let exit = self.run_once().await;
            let is_quitting = *self.quit.borrow();
            last_tries += u32::from(is_quitting);
            let is_over = exit == Exit::Quit || last_tries > LAST_TRIES;
            self.slot
                .withdraw(if is_over { Health::Ended } else { Health::Down });
            if exit == Exit::Hung {
                self.slot.give_up();
            }
            self.metrics.actor_up(self.slot.name(), false);
            if is_over || !exit.spares_arbiter() {
                self.abandon_arbiter();
            }
            if exit != Exit::Quit {
                let wait = self.note_restart(&exit);
                // When told to quit it comes back once more at once: it may have something left to save.
                if !is_quitting {
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = wanted_to_quit(&mut self.quit) => {}
                    }
                }
            }
            if is_over {
                return;
            }
        }
    }

    /// Counts and logs an end that nobody asked for; the time to wait before the next start.
    fn note_restart(&mut self, exit: &Exit) -> Duration {
        let (name, text) = (self.slot.name(), exit.text());
        self.metrics.actor_restarted(name, exit.cause());
        let is_degraded = self.history.add(Instant::now(), self.policy);
        self.slot
            .record_exit(exit.cause(), text.clone(), is_degraded);
        let wait = self.history.backoff(self.policy);
        if is_degraded {
            error!(
                actor = name,
                "actor {name} {text}; past the restart limit, next try in {wait:?}"
            );
        } else {
            warn!(actor = name, "actor {name} {text}; restarting in {wait:?}");
        }
        wait
    }

    /// One incarnation, from its start to its end.
    async fn run_once(&mut self) -> Exit {
        let arbiter = match self.arbiter.take().map_or_else(Arbiter::try_new, Ok) {
            Ok(arbiter) => self.arbiter.insert(arbiter),
            Err(failure) => {
                let name = self.slot.name();
                error!(actor = name, "no thread could be had for {name}: {failure}");
                return Exit::NeverCameUp;
            }
        };
        let (up, mut down) = launch(arbiter, Arc::clone(&self.make));
        let start = async {
            let address = up.await.ok()?;
            address.send(Ping).await.ok().map(|()| address)
        };
        let start_limit = self.policy.ping_limit.saturating_mul(START_PINGS);
        let address = match timeout(start_limit, start).await {
            Ok(Some(address)) => address,
            // It has ended, and says how in a moment.
            Ok(None) => return ended(&mut down, self.policy).await,
            Err(_) => return Exit::NeverCameUp,
        };
        self.slot.publish(address.clone());
        self.metrics.actor_up(self.slot.name(), true);
        if self.history.streak > 0 {
            info!(
                actor = self.slot.name(),
                "actor {} is back",
                self.slot.name()
            );
        }
        self.watch(&address, &mut down).await
    }

    /// Waits for the end of a published incarnation.
    async fn watch(&mut self, address: &Addr<A>, down: &mut oneshot::Receiver<Exit>) -> Exit {
        let hangs = watchdog(address, self.policy);
        tokio::pin!(hangs);
        let calm = sleep(self.policy.calm);
        tokio::pin!(calm);
        let mut is_calm = false;
        loop {
            tokio::select! {
                biased;
                exit = &mut *down => return exit.unwrap_or(Exit::ArbiterGone),
                () = wanted_to_quit(&mut self.quit) => break,
                () = &mut hangs => return Exit::Hung,
                () = &mut calm, if !is_calm => {
                    is_calm = true;
                    self.history = History::default();
                    self.slot.set_calm();
                }
            }
        }
        self.slot.withdraw(Health::Down);
        match address.send(Quit).timeout(QUIT_LIMIT).await {
            // It died of its last words, or just before them.
            Err(MailboxError::Closed) => ended(down, self.policy).await,
            Err(MailboxError::Timeout) => {
                debug!(
                    actor = self.slot.name(),
                    "actor {} did not say goodbye",
                    self.slot.name()
                );
                Exit::Quit
            }
            Ok(()) => Exit::Quit,
        }
    }
}

/// Restarts of one actor, to tell bad luck from a loop.
#[derive(Default)]
struct History {
    recent: VecDeque<Instant>,
    streak: u32,
    /// Past the limit; until it was calm for once, however rare the restarts have become by waiting longest.
    is_degraded: bool,
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
        self.is_degraded |= self.recent.len() > policy.restarts_max;
        self.is_degraded
    }

    /// Half fixed, half random, so that actors that died together do not return together.
    fn backoff(&self, policy: Policy) -> Duration {
        if self.is_degraded {
            return policy.backoff_max;
        }
        let doubled = policy
            .backoff_first
            .saturating_mul(1 << (self.streak.saturating_sub(1)).min(20));
        let longest = doubled.min(policy.backoff_max);
        longest / 2 + longest.mul_f64(random::unit() / 2.0)
    }
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
        missed = if matches!(answer, Err(MailboxError::Timeout)) {
            missed + 1
        } else {
            0
        };
    }
}

/// How an incarnation that does not take messages any more has ended; its arbiter tells right after the fact.
async fn ended(down: &mut oneshot::Receiver<Exit>, policy: Policy) -> Exit {
    match timeout(policy.ping_limit, down).await {
        Ok(exit) => exit.unwrap_or(Exit::ArbiterGone),
        Err(_) => Exit::NeverCameUp,
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
        // Both senders are dropped with the future: the caller sees that the arbiter is gone.
        warn!("an arbiter had ended before its actor was started");
    }
    (up, down)
}
