//! The sections of the settings, apart from sources.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

/// Listeners and process-wide behaviour.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address for SDKs, caches and consumers.
    pub data_bind: SocketAddr,
    /// Address for control, health and metrics.
    pub admin_bind: SocketAddr,
    /// HTTP worker threads of the data plane; 0 means one per core.
    pub workers: usize,
    /// How long a stop may take.
    #[serde(with = "humantime_serde")]
    pub shutdown_grace: Duration,
    /// Environment meant where a URL names none.
    pub default_environment: String,
    /// Whether our own read routes ask for a server key.
    pub data_auth: DataAuth,
    /// Whether the data port stays closed until there is something to serve.
    pub refuse_until_loaded: bool,
    /// Connections each data worker holds at once, streams included.
    pub max_connections: usize,
    /// How long a client may take to send its request head.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long an idle connection is kept.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// Largest request body, in bytes.
    pub max_request_bytes: usize,
    /// Event streams held open at once over all workers; further ones are answered 503.
    pub max_streams: usize,
    /// How long a peer may leave data untaken before its connection is ended; never read from settings.
    ///
    /// Shorter only in tests: a minute is what a phone in a tunnel may need.
    #[serde(skip)]
    pub blocked_limit: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            data_bind: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_bind: SocketAddr::from(([127, 0, 0, 1], 8081)),
            workers: 0,
            shutdown_grace: Duration::from_secs(10),
            default_environment: "production".to_owned(),
            data_auth: DataAuth::Open,
            refuse_until_loaded: false,
            max_connections: 25_000,
            request_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            max_request_bytes: 1_048_576,
            max_streams: 20_000,
            blocked_limit: Duration::from_mins(1),
        }
    }
}

/// Whether our own read routes ask for a server key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataAuth {
    /// Anybody who reaches the port may read.
    Open,
    /// A server key is needed.
    Required,
}

/// Who may use the control plane.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Bearer tokens. None: loopback callers only.
    pub tokens: Vec<AdminToken>,
}

/// A bearer token for the control plane.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminToken {
    /// Who it is, for the audit.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The token itself.
    #[serde(default)]
    pub secret: Option<SecretString>,
    /// File that holds the token.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

/// What a caller of the control plane may do; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read.
    Viewer,
    /// Pause, resume, poll.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// The word used in settings and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// The SQL database.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite://…`, `postgres://…` or `mysql://…`; may hold a password, so it is kept secret.
    pub url: Option<SecretString>,
    /// File that holds the URL.
    pub url_file: Option<PathBuf>,
    /// Whether pending migrations are applied at start.
    pub migrate_on_start: bool,
    /// Revisions kept per environment; older ones are deleted.
    pub keep_revisions: u64,
    /// How long to wait for a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Connections in the pool (PostgreSQL and MariaDB; `SQLite` uses one).
    pub max_connections: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            migrate_on_start: true,
            keep_revisions: 500,
            connect_timeout: Duration::from_secs(2),
            max_connections: 4,
        }
    }
}

impl Database {
    /// What `url` means when neither it nor `url_file` is given.
    pub const DEFAULT_URL: &'static str = "sqlite://stitchd.db?mode=rwc";

    /// The URL to connect to, password included.
    pub fn url(&self) -> &str {
        use secrecy::ExposeSecret as _;
        self.url
            .as_ref()
            .map_or(Self::DEFAULT_URL, |url| url.expose_secret())
    }
}

/// The disk backup.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    /// Folder, made when missing.
    pub dir: PathBuf,
    /// Copies kept of each file; a corrupt one falls back to an older one.
    pub generations: usize,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("backup"),
            generations: 3,
        }
    }
}

/// Evaluation defaults, limits and the override file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evaluation {
    /// Dialect where nothing more special names one.
    pub dialect: Dialect,
    /// Units that one batch of decisions may have.
    pub max_batch_units: usize,
    /// Decisions that one batch may ask for: units × experiments; one that is explained counts as ten.
    pub max_decisions: usize,
    /// A JSON object flag → value that replaces every source; empty: none. Refused in production.
    pub override_file: PathBuf,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            dialect: Dialect::Strict,
            max_batch_units: 10_000,
            max_decisions: 100_000,
            override_file: PathBuf::new(),
        }
    }
}

/// GrowthBook's two ways to compare values of different types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// SDK spec 0.12: no coercion.
    #[default]
    Strict,
    /// SDK spec 0.8: JavaScript's coercion.
    Legacy,
}

impl Dialect {
    /// The word used in settings and calls.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Legacy => "legacy",
        }
    }
}

/// Limits on what one change may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guards {
    /// Share of features or of running experiments that one change may remove.
    pub max_removed_share: f64,
    /// Removals below this number never trip.
    pub max_removed_min: u64,
    /// Growth in bytes, as a factor.
    pub max_growth: f64,
    /// Below this size growth is not looked at.
    pub growth_floor_bytes: u64,
    /// Share of sample units whose variation may change.
    pub max_changed_units_share: f64,
    /// Identical repeats after which a parked input is accepted; 0: only an operator accepts.
    pub auto_accept_after_polls: u32,
    /// What is done when the split of a running experiment changes without a new phase.
    pub weights_changed: Reaction,
    /// What is done when the units of a running experiment are hashed otherwise without a new phase.
    pub hash_changed: Reaction,
    /// What is done when running experiments come to share a part of a namespace.
    pub namespace_overlap: Reaction,
}

/// What is done about an unsafe edit of a running experiment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reaction {
    /// Served, with an issue.
    #[default]
    Warn,
    /// Parked until somebody approves it.
    Hold,
    /// Served, and nobody is told.
    Ignore,
}

impl Guards {
    /// The same with what a source has of its own.
    #[must_use]
    pub fn with(&self, own: &super::SourceGuards) -> Self {
        let removed_min = own.max_removed_min;
        let floor = own.growth_floor_bytes;
        let units = own.max_changed_units_share;
        let polls = own.auto_accept_after_polls;
        Self {
            max_removed_share: own.max_removed_share.unwrap_or(self.max_removed_share),
            max_removed_min: removed_min.unwrap_or(self.max_removed_min),
            max_growth: own.max_growth.unwrap_or(self.max_growth),
            growth_floor_bytes: floor.unwrap_or(self.growth_floor_bytes),
            max_changed_units_share: units.unwrap_or(self.max_changed_units_share),
            auto_accept_after_polls: polls.unwrap_or(self.auto_accept_after_polls),
            weights_changed: own.weights_changed.unwrap_or(self.weights_changed),
            hash_changed: own.hash_changed.unwrap_or(self.hash_changed),
            namespace_overlap: own.namespace_overlap.unwrap_or(self.namespace_overlap),
        }
    }
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            max_removed_share: 0.3,
            max_removed_min: 3,
            max_growth: 2.0,
            growth_floor_bytes: 65_536,
            max_changed_units_share: 0.05,
            auto_accept_after_polls: 0,
            weights_changed: Reaction::Warn,
            hash_changed: Reaction::Warn,
            namespace_overlap: Reaction::Warn,
        }
    }
}

/// Cache headers and CORS of the data plane.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// How long a shared cache may serve without asking.
    #[serde(with = "humantime_serde")]
    pub s_maxage: Duration,
    /// The same while the configuration is stale, so that recovery shows quickly.
    #[serde(with = "humantime_serde")]
    pub stale_s_maxage: Duration,
    /// How long a cache may serve an old copy while it fetches a new one.
    #[serde(with = "humantime_serde")]
    pub stale_while_revalidate: Duration,
    /// How long a cache may serve an old copy when we do not answer.
    #[serde(with = "humantime_serde")]
    pub stale_if_error: Duration,
    /// Origins that browsers may read from; `*` means any.
    pub cors_origins: Vec<String>,
    /// How often an idle event stream gets a comment to keep it open.
    #[serde(with = "humantime_serde")]
    pub stream_keepalive: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            s_maxage: Duration::from_secs(10),
            stale_s_maxage: Duration::from_secs(5),
            stale_while_revalidate: Duration::from_hours(24),
            stale_if_error: Duration::from_hours(7 * 24),
            cors_origins: vec!["*".to_owned()],
            stream_keepalive: Duration::from_secs(15),
        }
    }
}

/// Logs and traces.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// How a log line looks.
    pub log_format: LogFormat,
    /// `tracing` filter directives, for example `info,stitchd::actors=debug`.
    pub log_filter: String,
    /// Base URL of an OTLP/HTTP collector; empty: no traces.
    pub otlp_endpoint: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Pretty,
            log_filter: "info,actix_server=warn,sea_orm_migration=warn".to_owned(),
            otlp_endpoint: String::new(),
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For collectors: one JSON object a line.
    Json,
}
