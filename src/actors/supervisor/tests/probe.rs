//! The actor that dies on demand, and the tree it lives in.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use actix::{
    ActorContext as _, Handler, Message, ResponseActFuture, ResponseFuture,
    fut::{ActorFutureExt as _, wrap_future},
};
use actix_rt::Arbiter;

use super::*;

/// How long anything that should happen may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a blocked thread stays blocked: far longer than the watchdog needs.
const BLOCKED: Duration = Duration::from_millis(1500);

/// Quick, and patient enough for a busy machine.
pub(super) fn policy() -> Policy {
    Policy {
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        calm: Duration::from_mins(1),
        restarts_max: 100,
        window: Duration::from_mins(1),
        ping_every: Duration::from_millis(20),
        ping_limit: Duration::from_millis(150),
        pings_missed_max: 2,
    }
}

/// How an actor is struck.
#[derive(Clone, Copy, Debug)]
pub(super) enum Blow {
    Panic,
    PanicInSpawn,
    PanicInTimer,
    PanicInActFuture,
    Stop,
    StopArbiter,
    Wait,
    Block,
}

#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) struct Strike(pub(super) Blow);

/// Answered with the number of the incarnation.
#[derive(Clone, Copy, Message)]
#[rtype(result = "usize")]
pub(super) struct Hello;

/// Answered never.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) struct Forever;

/// Answered by a plain future that panics.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub(super) struct PanicBeside;

/// What outlives the incarnations of a [`Probe`].
#[derive(Default)]
pub(super) struct State {
    made: AtomicUsize,
    alive: AtomicUsize,
    factory_panics: AtomicUsize,
    started_panics: AtomicUsize,
    started_blocks: AtomicUsize,
    quit_panics: AtomicUsize,
    /// Incarnations that were asked to quit and answered.
    pub(super) quits: AtomicUsize,
    ticks: Mutex<BTreeMap<usize, usize>>,
}

/// Takes one off; `false` when nothing is left.
fn take(counter: &AtomicUsize) -> bool {
    let one_less = |left: usize| left.checked_sub(1);
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
        .is_ok()
}

impl State {
    pub(super) fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    pub(super) fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    pub(super) fn ticks_of(&self, number: usize) -> usize {
        self.ticks.lock().get(&number).copied().unwrap_or(0)
    }

    /// The next starts panic: first in the factory, then in `started`.
    pub(super) fn fail_starts(&self, in_factory: usize, in_started: usize) {
        self.factory_panics.store(in_factory, Ordering::SeqCst);
        self.started_panics.store(in_started, Ordering::SeqCst);
    }

    pub(super) fn block_starts(&self, times: usize) {
        self.started_blocks.store(times, Ordering::SeqCst);
    }

    pub(super) fn fail_quits(&self, times: usize) {
        self.quit_panics.store(times, Ordering::SeqCst);
    }
}

pub(super) struct Probe {
    number: usize,
    state: Arc<State>,
}

impl Probe {
    pub(super) fn new(state: Arc<State>) -> Self {
        let number = state.made.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(!take(&state.factory_panics), "boom");
        state.alive.fetch_add(1, Ordering::SeqCst);
        Self { number, state }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.state.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        assert!(!take(&self.state.started_panics), "boom");
        if take(&self.state.started_blocks) {
            block();
        }
        ctx.run_interval(Duration::from_millis(2), |this, _| {
            *this.state.ticks.lock().entry(this.number).or_default() += 1;
        });
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a blocked thread is what is tested"
)]
fn block() {
    std::thread::sleep(BLOCKED);
}

fn boom() {
    panic!("boom");
}

impl Handler<Ping> for Probe {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Context<Self>) {}
}

impl Handler<Quit> for Probe {
    type Result = ();

    fn handle(&mut self, _: Quit, ctx: &mut Context<Self>) {
        assert!(!take(&self.state.quit_panics), "boom");
        self.state.quits.fetch_add(1, Ordering::SeqCst);
        ctx.stop();
    }
}

impl Handler<Hello> for Probe {
    type Result = usize;

    fn handle(&mut self, _: Hello, _: &mut Context<Self>) -> usize {
        self.number
    }
}

impl Handler<Forever> for Probe {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Forever, _: &mut Context<Self>) -> Self::Result {
        Box::pin(wrap_future(std::future::pending()))
    }
}

impl Handler<PanicBeside> for Probe {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: PanicBeside, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async { boom() })
    }
}

impl Handler<Strike> for Probe {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Strike(blow): Strike, ctx: &mut Context<Self>) -> Self::Result {
        let done = || Box::pin(wrap_future::<_, Self>(std::future::ready(())));
        match blow {
            Blow::Panic => boom(),
            Blow::PanicInSpawn => {
                ctx.spawn(wrap_future(async { boom() }));
            }
            Blow::PanicInTimer => {
                ctx.run_later(Duration::from_millis(1), |_, _| boom());
            }
            Blow::PanicInActFuture => return Box::pin(done().map(|(), _, _| boom())),
            Blow::Stop => ctx.stop(),
            Blow::StopArbiter => {
                Arbiter::current().stop();
            }
            Blow::Wait => ctx.wait(wrap_future(std::future::pending())),
            Blow::Block => block(),
        }
        done()
    }
}

impl Handler<Strike> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: Strike, _: &mut Context<Self>) {
        boom();
    }
}

/// A tree of two probes under a supervisor of their own.
pub(super) struct Rig {
    pub(super) state: Arc<State>,
    pub(super) slot: Arc<Slot<Probe>>,
    pub(super) neighbour: Arc<Slot<Probe>>,
    pub(super) neighbours: Arc<State>,
    pub(super) supervisor: Arc<Slot<SupervisorActor>>,
    pub(super) tree: Arc<Tree>,
    quit: watch::Sender<bool>,
    running: Option<JoinHandle<()>>,
}

impl Rig {
    /// Everything made, nothing started.
    pub(super) fn prepare(policy: Policy) -> Self {
        let mut tree = Tree::new(Arc::default(), policy);
        let mut add = |name| {
            let (state, slot) = (Arc::new(State::default()), Slot::new("probe", name));
            let made_from = Arc::clone(&state);
            tree.add(&slot, move || Probe::new(Arc::clone(&made_from)));
            (state, slot)
        };
        let (state, slot) = add("");
        let (neighbours, neighbour) = add("neighbour");
        Self {
            state,
            slot,
            neighbour,
            neighbours,
            supervisor: Slot::new("supervisor", ""),
            tree: Arc::new(tree),
            quit: watch::Sender::new(false),
            running: None,
        }
    }

    pub(super) fn run(mut self) -> Self {
        let quit = self.quit.subscribe();
        let supervisor = Arc::clone(&self.supervisor);
        self.running = Some(supervise_supervisor(supervisor, &self.tree, quit));
        self
    }

    /// Everything running.
    pub(super) async fn start(policy: Policy) -> Self {
        let rig = Self::prepare(policy).run();
        assert!(rig.slot.wait_up(PATIENCE).await);
        assert!(rig.neighbour.wait_up(PATIENCE).await);
        assert!(rig.supervisor.wait_up(PATIENCE).await);
        rig
    }

    /// Loses the loop of one child.
    pub(super) fn abort_loop(&self, child: usize) {
        let running = self.tree.children[child].running.lock();
        running.as_ref().unwrap().abort();
    }

    /// Stops as the service does; gives how long it took.
    pub(super) async fn stop(mut self) -> Duration {
        let since = Instant::now();
        self.quit.send_replace(true);
        if let Some(running) = self.running.take() {
            timeout(PATIENCE, running).await.unwrap().unwrap();
        }
        self.tree.stop(PATIENCE).await;
        let took = since.elapsed();
        assert!(took < PATIENCE, "an actor did not end: {took:?}");
        for member in [
            &*self.slot as &dyn Member,
            &*self.neighbour,
            &*self.supervisor,
        ] {
            assert!(!member.status().is_up, "{:?}", member.status());
        }
        let limit = Duration::from_mins(10);
        let answer = self.slot.ask_again(Hello, limit).await;
        assert!(answer.is_err(), "ended for good, and said so at once");
        took
    }
}

/// Strikes; what that is answered depends on how the actor ends, and nobody waits for a blocked one.
pub(super) async fn strike<A: Actor<Context = Context<A>> + Handler<Strike>>(
    slot: &Slot<A>,
    blow: Blow,
) where
    Context<A>: ToEnvelope<A, Strike>,
{
    match slot.ask(Strike(blow), Duration::from_millis(20)).await {
        Ok(()) | Err(_) => {}
    }
}

/// Looks again and again until the condition holds.
pub(super) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
