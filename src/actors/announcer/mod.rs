//! Tells the outside of new revisions: caches are purged, receivers of webhooks are sent one.
//!
//! Owns what each of `publish.purge_targets` and `publish.webhooks` is still to be told, and nothing that anybody waits for:
//! publishing goes on whatever becomes of this actor. A revision is told of once it is served and durable: one that a
//! restart might take back is kept until it is stored.
//!
//! Messages in: [`GetTargets`] (status page), and each move of a revision on the board. Messages out: `GetStored` to the
//! `StoreActor`. What is waiting lives in [`AnnouncerMemory`], which outlives the actor: after a restart of the actor what
//! was under way is done again. After a restart of the process nothing is known of what was told before, so the first
//! revision that differs from the one that was loaded has every path purged, once. `Quit` leaves what is under way a
//! moment.

mod cache;
mod changes;
mod health;
mod receiver;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message,
    MessageResult, ResponseActFuture, StreamHandler, fut::wrap_future,
};
use futures_util::stream::unfold;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::warn;

pub use self::changes::PathsOf;
use self::{
    cache::Cache,
    changes::{Seen, message},
    receiver::Receiver,
};
use super::{
    MAILBOX, Quit,
    board::{Board, EnvironmentCell},
    random,
    slot::Slot,
    store::{GetStored, StoreActor},
};
use crate::{
    metrics::Metrics,
    model::Snapshot,
    notify::{Messenger, NotifyError},
    settings::Settings,
};

/// How long the store may take to say what is served; its next incarnation may answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long a revision that is not durable yet is left alone. The store tries each second.
const AGAIN: Duration = Duration::from_millis(250);
/// What is under way when the service stops has this long to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Asks how the targets do. Sent by the status page.
#[derive(Clone, Message)]
#[rtype(result = "Vec<TargetStatus>")]
pub struct GetTargets;

/// How one target does.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// `cache` or `webhook`.
    pub kind: &'static str,
    /// Its address without credentials and query.
    pub url: String,
    /// Unix milliseconds of the last path or webhook that it took; `None`: none yet.
    pub last_success_ms: Option<i64>,
    /// Why it was not told last; `None`: it was, or there was nothing to tell.
    pub last_error: Option<String>,
    /// Paths or webhooks that wait for it.
    pub queued: usize,
}

/// A wait before another try: between nothing and `base` doubled `doublings` times.
fn backoff(base: Duration, doublings: u32) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(doublings))
        .mul_f64(random::unit())
}

/// Whoever is told.
enum Target {
    Cache(Cache),
    Receiver(Receiver),
}

impl Target {
    fn has_news(&self) -> bool {
        match self {
            Self::Cache(cache) => cache.has_news(),
            Self::Receiver(receiver) => receiver.has_news(),
        }
    }

    /// A new incarnation of the actor begins.
    fn resume(&self) {
        if let Self::Cache(cache) = self {
            cache.resume();
        }
    }

    async fn work(&self, messenger: &Messenger) {
        match self {
            Self::Cache(cache) => cache.work(messenger).await,
            Self::Receiver(receiver) => receiver.work(messenger).await,
        }
    }

    /// Nothing can be sent to it at all.
    fn failed(&self, error: &NotifyError) {
        match self {
            Self::Cache(cache) => cache.failed(error),
            Self::Receiver(receiver) => receiver.failed(error),
        }
    }

    fn status(&self) -> TargetStatus {
        match self {
            Self::Cache(cache) => cache.status(),
            Self::Receiver(receiver) => receiver.status(),
        }
    }
}

/// What outlives one incarnation: the targets with what waits for them, and what they were told of.
pub struct AnnouncerMemory {
    targets: Vec<Arc<Target>>,
    /// By environment: the last revision that was told of.
    seen: Mutex<BTreeMap<Arc<str>, Seen>>,
    /// Revisions that were there when the process started.
    loaded: BTreeMap<Arc<str>, u64>,
}

impl AnnouncerMemory {
    /// To be made when stored revisions are announced and before any actor runs; `None`: the settings name nobody.
    pub fn new(settings: &Settings, board: &Board, metrics: &Arc<Metrics>) -> Option<Arc<Self>> {
        let publish = &settings.publish;
        let caches = publish.purge_targets.iter();
        let caches = caches.filter_map(|target| Cache::new(target, metrics));
        let receivers = publish.webhooks.iter();
        let receivers = receivers.filter_map(|target| Receiver::new(target, metrics));
        let targets: Vec<_> = caches
            .map(Target::Cache)
            .chain(receivers.map(Target::Receiver))
            .map(Arc::new)
            .collect();
        let loaded = board.environments();
        let loaded = loaded.map(|cell| (Arc::clone(&cell.name), cell.revision()));
        (!targets.is_empty()).then(|| {
            Arc::new(Self {
                targets,
                seen: Mutex::default(),
                loaded: loaded.collect(),
            })
        })
    }

    /// Leaves with each target what it is to be told of a revision, unless that was done.
    fn take_in(&self, snapshot: &Snapshot, links: &AnnouncerLinks) {
        let name = &snapshot.environment;
        let now = Seen::of(snapshot);
        let mut seen = self.seen.lock();
        let earlier = seen.get(name);
        let told = earlier.map_or_else(
            // Whoever ran before may have told of it or not; the next one says all.
            || self.loaded.get(name).copied().unwrap_or_default(),
            |earlier| earlier.revision,
        );
        if now.revision <= told {
            return;
        }
        let is_default = **name == *links.default_environment;
        let changed = now.changed_since(earlier);
        let paths = changed
            .iter()
            .flat_map(|document| (links.paths_of)(document, name, is_default));
        let mut paths: Vec<String> = paths.collect();
        paths.sort_unstable();
        let message = Arc::new(message(snapshot, &paths));
        for target in &self.targets {
            match &**target {
                Target::Cache(cache) => cache.add(&paths),
                Target::Receiver(receiver) => receiver.add(&message),
            }
        }
        seen.insert(Arc::clone(name), now);
    }

    /// Takes in what an environment serves, as soon as that is durable.
    async fn look(&self, links: &AnnouncerLinks, cell: &EnvironmentCell) {
        loop {
            let question = GetStored {
                environment: Arc::clone(&cell.name),
            };
            match links.store.ask_again(question, ASK_LIMIT).await {
                Ok(Some(stored)) if stored.is_durable => {
                    self.take_in(&stored.snapshot, links);
                    if stored.snapshot.revision >= cell.revision() {
                        return;
                    }
                }
                Ok(Some(_)) | Err(_) => sleep(AGAIN).await,
                // The board has a number only after the store has the snapshot.
                Ok(None) => return,
            }
        }
    }
}

/// Whom the actor asks, and what it must know to say what has changed.
#[derive(Clone)]
pub struct AnnouncerLinks {
    /// The store.
    pub store: Arc<Slot<StoreActor>>,
    /// Where revisions move.
    pub board: Arc<Board>,
    /// Under which paths a document is answered.
    pub paths_of: PathsOf,
    /// Environment meant where a URL names none.
    pub default_environment: Arc<str>,
}

/// See the module's first paragraph.
pub struct AnnouncerActor {
    memory: Arc<AnnouncerMemory>,
    links: AnnouncerLinks,
    /// Made with each incarnation: its connections belong to the thread.
    messenger: Option<Messenger>,
    /// Environments that are being looked at.
    looking: BTreeSet<Arc<str>>,
    /// Targets that are being told, by position.
    busy: BTreeSet<usize>,
    /// How much is under way.
    under_way: watch::Sender<usize>,
}

impl AnnouncerActor {
    /// A new incarnation over the same memory.
    pub fn new(memory: Arc<AnnouncerMemory>, links: AnnouncerLinks) -> Self {
        Self {
            memory,
            links,
            messenger: None,
            looking: BTreeSet::new(),
            busy: BTreeSet::new(),
            under_way: watch::Sender::new(0),
        }
    }

    fn look(&mut self, cell: Arc<EnvironmentCell>, ctx: &mut Context<Self>) {
        if cell.revision() == 0 || !self.looking.insert(Arc::clone(&cell.name)) {
            return;
        }
        let (memory, links) = (Arc::clone(&self.memory), self.links.clone());
        let look = async move {
            fail::fail_point!("announcer.look_future");
            memory.look(&links, &cell).await;
            cell
        };
        self.under_way.send_modify(|number| *number += 1);
        ctx.spawn(wrap_future::<_, Self>(look).map(|cell, this, ctx| {
            this.looking.remove(&cell.name);
            this.deliver(ctx);
            this.under_way.send_modify(|number| *number -= 1);
        }));
    }

    /// Begins to tell every target that there is news for, unless that is under way.
    fn deliver(&mut self, ctx: &mut Context<Self>) {
        let Some(messenger) = self.messenger.clone() else {
            return;
        };
        for (position, target) in self.memory.targets.iter().enumerate() {
            if !target.has_news() || !self.busy.insert(position) {
                continue;
            }
            let (target, messenger) = (Arc::clone(target), messenger.clone());
            let work = async move {
                fail::fail_point!("announcer.deliver_future");
                target.work(&messenger).await;
            };
            self.under_way.send_modify(|number| *number += 1);
            ctx.spawn(wrap_future::<_, Self>(work).map(
                move |(), this, ctx: &mut Context<Self>| {
                    this.busy.remove(&position);
                    this.deliver(ctx);
                    this.under_way.send_modify(|number| *number -= 1);
                },
            ));
        }
    }
}

/// The next move of an environment's revision.
async fn next_move(
    (cell, mut revisions): (Arc<EnvironmentCell>, watch::Receiver<u64>),
) -> Option<(
    Arc<EnvironmentCell>,
    (Arc<EnvironmentCell>, watch::Receiver<u64>),
)> {
    revisions.changed().await.ok()?;
    Some((Arc::clone(&cell), (cell, revisions)))
}

impl Actor for AnnouncerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
        let messenger = Messenger::new();
        for target in &self.memory.targets {
            match &messenger {
                Ok(_) => target.resume(),
                Err(error) => target.failed(error),
            }
        }
        self.messenger = messenger.ok();
        self.deliver(ctx);
        for cell in self.links.board.environments() {
            let mut revisions = cell.subscribe();
            // What is served now is looked at as well.
            revisions.mark_changed();
            ctx.add_stream(unfold((Arc::clone(cell), revisions), next_move));
        }
    }
}

super::ping!(AnnouncerActor, "announcer");

impl StreamHandler<Arc<EnvironmentCell>> for AnnouncerActor {
    fn handle(&mut self, cell: Arc<EnvironmentCell>, ctx: &mut Context<Self>) {
        fail::fail_point!("announcer.revision");
        self.look(cell, ctx);
    }

    /// The board outlives the actor, so that no stream ends; were it so, the others go on.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Quit> for AnnouncerActor {
    // What is under way goes on meanwhile; then the actor stops itself.
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Quit, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("announcer.Quit");
        let mut under_way = self.under_way.subscribe();
        let last = async move {
            fail::fail_point!("announcer.quit_future");
            let idle = under_way.wait_for(|number| *number == 0);
            timeout(LAST_WORDS, idle).await.is_ok()
        };
        Box::pin(wrap_future::<_, Self>(last).map(|is_idle, _, ctx| {
            if !is_idle {
                warn!("stopping before every cache and receiver was told of the last revision");
            }
            ctx.stop();
        }))
    }
}

impl Handler<GetTargets> for AnnouncerActor {
    type Result = MessageResult<GetTargets>;

    fn handle(&mut self, _: GetTargets, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("announcer.GetTargets");
        let targets = self.memory.targets.iter();
        MessageResult(targets.map(|target| target.status()).collect())
    }
}
