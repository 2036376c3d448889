//! The composition root: builds and starts everything in order, stops it in reverse.
//!
//! Order of a start: admin port (a port that is taken ends the start before anything runs) → stored state, from
//! whichever of database and backup answers → actors, supervised → data port. Order of a stop: readiness off, every
//! answer the last on its connection → event streams ended → doors shut to newcomers → servers stopped, requests in
//! flight finished → actors in reverse, the store last, flushed.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::dev::{Server, ServerHandle};
use anyhow::Context as _;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    actors::{
        Board, ClientSlot, Handles, Member, PollerSlot, Slot, SourceHandles, StickyLink,
        announcer::{AnnouncerActor, AnnouncerLinks, AnnouncerMemory},
        client::ClientActor,
        config_service::{ConfigLinks, ConfigMemory, ConfigServiceActor},
        poller::{PollerActor, PollerLinks, PollerMemory},
        sticky::StickyActor,
        store::{StoreActor, StoreContext, StoreMemory},
        supervisor::{Policy, SupervisorActor, Tree, supervise_supervisor},
        tokens::{TokenActor, TokenContext},
    },
    http::{Door, Shared, admin_server, data_server, paths_of},
    metrics::Metrics,
    settings::{Settings, Source, SourceKind},
    store::{StickyStore, Store},
};

/// Connections that the kernel holds while all workers are busy.
const BACKLOG: i32 = 2048;

/// Share of the grace in which a stop still answers everybody: clients see that they have to go, and go.
const FAREWELL_SHARE: u32 = 8;

/// How long a start waits for the database to say which tokens there are; the backup counts until it does.
const TOKENS_LIMIT: Duration = Duration::from_millis(500);

/// How long a start waits for its actors; they take milliseconds.
const START_LIMIT: Duration = Duration::from_secs(1);

/// A running service.
pub struct App {
    handles: Handles,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
    tree: Arc<Tree>,
    supervisor: Supervisor,
    admin: RunningServer,
    /// Opens late with `server.refuse_until_loaded`.
    data: watch::Receiver<Option<RunningServer>>,
    grace: Duration,
}

struct Supervisor {
    quit: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct RunningServer {
    address: SocketAddr,
    handle: ServerHandle,
    door: Arc<Door>,
}

impl App {
    /// Starts the service; to be called within an actix `System`.
    ///
    /// Fails when a port is taken or a setting cannot be used; a database or an upstream that is away fails nothing.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        Self::start_with(settings, Policy::default()).await
    }

    /// [`Self::start`] with a patience of its own in the supervision of actors.
    pub async fn start_with(settings: Settings, policy: Policy) -> anyhow::Result<Self> {
        let settings = with_override_file(settings);
        crate::sources::install_tls_provider();
        let admin_listener =
            bind(settings.server.admin_bind).context("failed to open `server.admin_bind`")?;
        let store = Store::new(&settings.database, &settings.backup)?;
        let board = Board::new(&settings);
        let metrics = Arc::new(Metrics::default());
        let environments: Vec<String> = board
            .environments()
            .map(|cell| cell.name.to_string())
            .collect();
        let loaded = store.load(&environments).await?;
        let is_database_away = loaded.database_failure.is_some();
        let memory = StoreMemory::restored(loaded);
        let sticky = store.sticky_buckets(&settings.sticky_buckets)?;
        let tokens = TokenContext::load(store.clone(), Arc::clone(&board), Arc::clone(&metrics));
        let tokens = tokens.await?;
        let (mut handles, mut tree) = build(&settings, policy, &board, &metrics, store, memory);
        add_tokens(&mut handles, &mut tree, &tokens);
        if let Some(sticky) = sticky {
            add_sticky(&mut handles, &mut tree, &settings, sticky, &metrics);
        }
        if let Some(memory) = AnnouncerMemory::new(&settings, &board, &metrics) {
            add_announcer(&mut handles, &mut tree, &settings, memory);
        }
        let tree = Arc::new(tree);
        let supervisor = start_supervisor(&handles, &tree);
        until_up(&handles).await;
        if !is_database_away {
            tokens.until_asked(TOKENS_LIMIT).await;
        }
        let shared = Shared::new(&settings, handles.clone(), Arc::clone(&metrics));
        let admin = start_admin(&shared, admin_listener)?;
        let data = start_data(&settings, &shared, &board)?;
        for source in settings
            .sources
            .iter()
            .filter(|source| !source.enabled || !source.poll.enabled)
        {
            let what = if source.enabled {
                "is not polled (`poll.enabled = false`)"
            } else {
                "is disabled"
            };
            info!(source.id = %source.id, "source {} {what}", source.id);
        }
        let grace = settings.server.shutdown_grace;
        Ok(Self {
            handles,
            metrics,
            shared,
            tree,
            supervisor,
            admin,
            data,
            grace,
        })
    }

    /// Address of the admin plane.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }

    /// Address of the data plane, once it is open.
    pub async fn data_address(&self) -> Option<SocketAddr> {
        let mut data = self.data.clone();
        let port = data.wait_for(Option::is_some).await.ok()?;
        port.as_ref().map(|port| port.address)
    }

    /// What the HTTP layer may reach; for tests.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// All metrics; for tests.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Stops in order, within `server.shutdown_grace` and the time the store needs to flush.
    pub async fn stop(self) {
        info!("stopping");
        self.shared.begin_stop();
        self.shared.end_streams();
        let farewell = self.grace / FAREWELL_SHARE;
        sleep(farewell / 2).await;
        let data = self.data.borrow().clone();
        for server in data.iter().chain([&self.admin]) {
            server.door.shut();
        }
        // Whoever is in by now has the other half to be taken up.
        sleep(farewell / 2).await;
        let stop_servers = async {
            if let Some(data) = data {
                data.handle.stop(true).await;
            }
            self.admin.handle.stop(true).await;
        };
        if timeout(self.grace.saturating_sub(farewell), stop_servers)
            .await
            .is_err()
        {
            warn!("some requests did not end within {:?}", self.grace);
        }
        // The supervisor first: it would start again what ends.
        self.supervisor.quit.send_replace(true);
        if timeout(Duration::from_secs(1), self.supervisor.task)
            .await
            .is_err()
        {
            warn!("the supervisor did not end in time");
        }
        self.tree.stop(self.grace.max(Duration::from_secs(1))).await;
        info!("stopped");
    }
}

/// In override mode one file per environment stands for all sources, and no source is contacted.
fn with_override_file(mut settings: Settings) -> Settings {
    let Some(path) = settings.override_file() else {
        return settings;
    };
    let mut environments = settings.environments();
    environments.push(settings.server.default_environment.clone());
    environments.sort_unstable();
    environments.dedup();
    warn!(
        "every source is replaced by the override file {}",
        path.display()
    );
    settings.sources = environments
        .into_iter()
        .map(|environment| Source {
            id: format!("override-{environment}"),
            kind: SourceKind::File,
            environment,
            path: path.clone(),
            allow_empty: true,
            is_override: true,
            ..Source::default()
        })
        .collect();
    settings
}

/// Makes the slots and says how each actor is made; starts nothing.
fn build(
    settings: &Settings,
    policy: Policy,
    board: &Arc<Board>,
    metrics: &Arc<Metrics>,
    store: Store,
    memory: StoreMemory,
) -> (Handles, Tree) {
    let mut tree = Tree::new(Arc::clone(metrics), policy);
    let mut members: Vec<Arc<dyn Member>> = Vec::new();
    let states: BTreeMap<&str, _> = settings
        .sources
        .iter()
        .map(|source| (source.id.as_str(), memory.source_state(&source.id)))
        .collect();

    let store_slot = Slot::<StoreActor>::new("store", "");
    let context = StoreContext::new(
        store,
        memory,
        Arc::clone(board),
        Arc::clone(metrics),
        settings.database.clone(),
    );
    tree.add(&store_slot, move || StoreActor::new(Arc::clone(&context)));
    members.push(Arc::clone(&store_slot) as Arc<dyn Member>);

    let config_slot = Slot::<ConfigServiceActor>::new("config_service", "");
    let config_memory = ConfigMemory::new(settings);
    let links = ConfigLinks {
        store: Arc::clone(&store_slot),
        board: Arc::clone(board),
        metrics: Arc::clone(metrics),
    };
    tree.add(&config_slot, move || {
        ConfigServiceActor::new(Arc::clone(&config_memory), links.clone())
    });
    members.push(Arc::clone(&config_slot) as Arc<dyn Member>);

    let mut sources = BTreeMap::new();
    for source in &settings.sources {
        let mut handles = source_handles(source);
        let clock = board
            .source(&source.id)
            .cloned()
            .expect("the board has a clock for every source");
        let poller_memory = Arc::new(PollerMemory::new(clock, states[source.id.as_str()].clone()));
        if source.enabled {
            let links = PollerLinks {
                client: Slot::<ClientActor>::new("client", &source.id),
                config: Arc::clone(&config_slot),
                store: Arc::clone(&store_slot),
                metrics: Arc::clone(metrics),
            };
            let (client, poller) = add_source(&mut tree, source, poller_memory, links);
            members.push(Arc::clone(&client) as Arc<dyn Member>);
            members.push(Arc::clone(&poller) as Arc<dyn Member>);
            handles.actors = Some((client, poller));
        }
        sources.insert(source.id.clone(), handles);
    }
    let handles = Handles {
        board: Arc::clone(board),
        store: store_slot,
        config: config_slot,
        supervisor: Slot::<SupervisorActor>::new("supervisor", ""),
        sticky: None,
        tokens: Slot::<TokenActor>::new("token", ""),
        announcer: None,
        sources: Arc::new(sources),
        members: Arc::new(Vec::new()),
    };
    members.push(Arc::clone(&handles.supervisor) as Arc<dyn Member>);
    (
        Handles {
            members: Arc::new(members),
            ..handles
        },
        tree,
    )
}

/// What the HTTP layer knows of a source for which nothing runs.
fn source_handles(source: &Source) -> SourceHandles {
    SourceHandles {
        environment: source.environment.clone(),
        max_body_bytes: source.poll.max_body_bytes,
        webhook_secret: source.webhook_secret.clone(),
        actors: None,
    }
}

/// Adds a source's client and poller to the tree.
fn add_source(
    tree: &mut Tree,
    source: &Source,
    memory: Arc<PollerMemory>,
    links: PollerLinks,
) -> (ClientSlot, PollerSlot) {
    let client = Arc::clone(&links.client);
    let poller = Slot::<PollerActor>::new("poller", &source.id);
    let (made_from, to_poller) = (source.clone(), Arc::clone(&poller));
    tree.add(&client, move || {
        ClientActor::new(&made_from, Arc::clone(&to_poller))
    });
    let made_from = Arc::new(source.clone());
    tree.add(&poller, move || {
        PollerActor::new(Arc::clone(&made_from), Arc::clone(&memory), links.clone())
    });
    (client, poller)
}

/// Adds the actor that makes and keeps tokens.
fn add_tokens(handles: &mut Handles, tree: &mut Tree, context: &Arc<TokenContext>) {
    let slot = Arc::clone(&handles.tokens);
    let context = Arc::clone(context);
    tree.add(&slot, move || TokenActor::new(Arc::clone(&context)));
    add_member(handles, slot);
}

/// Adds the actor that keeps sticky buckets, and the link to it.
fn add_sticky(
    handles: &mut Handles,
    tree: &mut Tree,
    settings: &Settings,
    store: StickyStore,
    metrics: &Arc<Metrics>,
) {
    let slot = Slot::<StickyActor>::new("sticky", "");
    let timeout = settings.sticky_buckets.timeout;
    let link = StickyLink::new(Arc::clone(&slot), timeout, Arc::clone(metrics));
    let told = link.clone();
    tree.add(&slot, move || StickyActor::new(store.clone(), &told));
    add_member(handles, slot);
    handles.sticky = Some(link);
}

/// Adds the actor that tells caches and receivers of webhooks; the last one, so that it is the first to stop.
fn add_announcer(
    handles: &mut Handles,
    tree: &mut Tree,
    settings: &Settings,
    memory: Arc<AnnouncerMemory>,
) {
    let slot = Slot::<AnnouncerActor>::new("announcer", "");
    let links = AnnouncerLinks {
        store: Arc::clone(&handles.store),
        board: Arc::clone(&handles.board),
        paths_of,
        default_environment: settings.server.default_environment.as_str().into(),
    };
    tree.add(&slot, move || {
        AnnouncerActor::new(Arc::clone(&memory), links.clone())
    });
    handles.announcer = Some(Arc::clone(&slot));
    add_member(handles, slot);
}

fn add_member(handles: &mut Handles, member: Arc<dyn Member>) {
    let members = handles.members.iter().cloned();
    handles.members = Arc::new(members.chain([member]).collect());
}

fn start_supervisor(handles: &Handles, tree: &Arc<Tree>) -> Supervisor {
    let quit = watch::Sender::new(false);
    let task = supervise_supervisor(Arc::clone(&handles.supervisor), tree, quit.subscribe());
    Supervisor { quit, task }
}

/// Waits a moment for every actor, so that the first request already finds them; one that is slow delays nothing more.
async fn until_up(handles: &Handles) {
    let all_up = async {
        while !handles.members.iter().all(|member| member.status().is_up) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(START_LIMIT, all_up).await.is_err() {
        warn!("some actors are not up yet; serving without waiting for them");
    }
}

fn start_admin(shared: &Arc<Shared>, listener: TcpListener) -> anyhow::Result<RunningServer> {
    let running = run(listener, "admin", |listener| admin_server(shared, listener))?;
    info!("control, health and metrics on http://{}", running.address);
    Ok(running)
}

/// Opens the data port now, or with the first snapshot when the settings say so.
fn start_data(
    settings: &Settings,
    shared: &Arc<Shared>,
    board: &Arc<Board>,
) -> anyhow::Result<watch::Receiver<Option<RunningServer>>> {
    let opened = watch::Sender::new(None);
    let receiver = opened.subscribe();
    let (bind_to, shared) = (settings.server.data_bind, Arc::clone(shared));
    let open = move || -> anyhow::Result<()> {
        let listener = bind(bind_to).context("failed to open `server.data_bind`")?;
        let running = run(listener, "data", |listener| data_server(&shared, listener))?;
        info!("data on http://{}", running.address);
        opened.send_replace(Some(running));
        Ok(())
    };
    let is_loaded = board.environments().any(|cell| cell.revision() > 0);
    if is_loaded || !settings.server.refuse_until_loaded {
        open()?;
        return Ok(receiver);
    }
    let mut revisions: Vec<_> = board.environments().map(|cell| cell.subscribe()).collect();
    actix_rt::spawn(async move {
        let loaded = revisions
            .iter_mut()
            .map(|revision| Box::pin(revision.wait_for(|revision| *revision > 0)));
        let (first, _, _) = futures_util::future::select_all(loaded).await;
        if first.is_ok()
            && let Err(error) = open()
        {
            tracing::error!("the data port cannot be opened: {error:#}");
        }
    });
    Ok(receiver)
}

fn run(
    listener: TcpListener,
    plane: &'static str,
    serve: impl FnOnce(TcpListener) -> std::io::Result<Server>,
) -> anyhow::Result<RunningServer> {
    let address = listener.local_addr()?;
    let door = Arc::new(Door::of(&listener)?);
    let server = serve(listener)?;
    let handle = server.handle();
    actix_rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!("the {plane} server ended: {error}");
        }
    });
    Ok(RunningServer {
        address,
        handle,
        door,
    })
}

/// Binds a listener that a restart can bind again at once.
fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || -> std::io::Result<TcpListener> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().with_context(|| format!("{address} cannot be bound"))
}
