//! Getting, checking and giving up the connection to the database.
//!
//! The pools are built here rather than by `sea_orm::Database::connect`, which records its options, password included, in a
//! tracing span. A first plain connection is tried before a pool is made: a pool waits and retries on "connection refused",
//! and a start must not.

use std::{
    fmt, fs,
    future::Future,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sea_orm::{
    DatabaseConnection, DbErr, RuntimeErr, SqlxMySqlConnector, SqlxPostgresConnector,
    SqlxSqliteConnector,
    sqlx::{
        self, ConnectOptions as _, Connection as _,
        mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions},
        postgres::{PgConnectOptions, PgDatabaseError, PgPoolOptions},
        sqlite::{
            SqliteConnectOptions, SqliteError, SqliteJournalMode, SqlitePoolOptions,
            SqliteSynchronous,
        },
    },
};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, timeout},
};

use super::{Outage, StoreError};
use crate::settings;

/// How long a statement may take, beside the time for the bytes it carries.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Slowest line that a large statement is given time for.
const SLOWEST_BYTES_PER_SEC: u64 = 1 << 20;

/// How long migrations may take, another replica's included.
const MIGRATE_TIMEOUT: Duration = Duration::from_mins(1);

/// How long `SQLite` waits for another process's transaction.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a statement takes beside its largest value: the other columns and the protocol's own bytes.
const PACKET_MARGIN_BYTES: u64 = 8 * 1024;

/// `packet_limit` where no server has stated one.
const NO_PACKET_LIMIT: u64 = u64::MAX;

/// Which migrations to run.
#[derive(Clone, Copy)]
pub(super) enum Migrate {
    Up,
    Down,
}

enum Target {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
}

/// Device and inode.
type FileId = (u64, u64);

/// The way to the database, and the connection while there is one.
pub(super) struct Connector {
    target: Target,
    connect_timeout: Duration,
    max_connections: u32,
    migrate_on_start: bool,
    /// `max_allowed_packet` of the server, read by each new connection.
    packet_limit: Arc<AtomicU64>,
    /// How often another file was found in place of the one that was open.
    replaced: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<DatabaseConnection>,
    /// The file behind it, or behind the one before, on `SQLite`.
    file: Option<FileId>,
    /// Whether every migration was seen to be applied.
    is_migrated: bool,
    /// When connecting last failed, and how.
    outage: Option<(Instant, Outage)>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.kind())
    }
}

impl Connector {
    pub(super) fn new(settings: &settings::Database) -> Result<Self, StoreError> {
        Ok(Self {
            target: Target::parse(settings.url())?,
            connect_timeout: settings.connect_timeout,
            max_connections: settings.max_connections.max(1),
            migrate_on_start: settings.migrate_on_start,
            packet_limit: Arc::new(AtomicU64::new(NO_PACKET_LIMIT)),
            replaced: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.target {
            Target::Sqlite(_) => "sqlite",
            Target::Postgres(_) => "postgres",
            Target::MySql(_) => "mysql",
        }
    }

    /// Longest time that [`Self::ready`] takes to find out that nobody is there, and a statement after it to fail.
    pub(super) fn patience(&self) -> Duration {
        self.connect_timeout + STATEMENT_TIMEOUT
    }

    /// See [`super::Database::times_replaced`].
    pub(super) fn times_replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// A connection to a database whose schema is up to date, made and migrated when there is none.
    pub(super) async fn ready(&self) -> Result<DatabaseConnection, StoreError> {
        let mut state = self.lock().await?;
        let done = self.prepare(&mut state).await;
        done.inspect_err(|error| state.failed(error))
    }

    /// Migrates whatever the settings say; returns the names of the migrations that ran.
    pub(super) async fn migrate(&self, direction: Migrate) -> Result<Vec<String>, StoreError> {
        let mut state = self.lock().await?;
        state.is_migrated = false;
        let done = match self.connected(&mut state).await {
            Ok(connection) => self.migrate_on(&connection, direction).await,
            Err(error) => Err(error),
        };
        done.inspect_err(|error| state.failed(error))
    }

    /// Every migration and its state.
    pub(super) async fn migrations(&self) -> Result<Vec<(String, migration::State)>, StoreError> {
        let mut state = self.lock().await?;
        let done = match self.connected(&mut state).await {
            Ok(connection) => self.limited(0, migration::status(&connection)).await,
            Err(error) => Err(error),
        };
        done.inspect_err(|error| state.failed(error))
    }

    /// Waits for a statement that carries `bytes`, but not for ever.
    pub(super) async fn limited<T>(
        &self,
        bytes: usize,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, StoreError> {
        let transfer = Duration::from_secs(bytes as u64 / SLOWEST_BYTES_PER_SEC);
        let limit = STATEMENT_TIMEOUT + transfer;
        match timeout(limit, work).await {
            Ok(done) => done.map_err(|error| self.classify(error, bytes)),
            Err(_elapsed) => Err(StoreError::timed_out(limit)),
        }
    }

    /// Refuses what the server would refuse by closing the connection.
    pub(super) fn check_packet(&self, bytes: usize) -> Result<(), StoreError> {
        let size_bytes = bytes as u64 + PACKET_MARGIN_BYTES;
        let limit_bytes = self.packet_limit.load(Ordering::Relaxed);
        if size_bytes > limit_bytes {
            return Err(StoreError::PacketTooLarge {
                size_bytes,
                limit_bytes,
            });
        }
        Ok(())
    }

    /// Takes note of a failed statement, so that the next call looks at the database afresh.
    pub(super) fn noticed(&self, error: &StoreError) {
        // Whoever holds the lock is connecting afresh already.
        if let Ok(mut state) = self.state.try_lock() {
            state.give_up(error);
        }
    }

    /// Closes the connection in an orderly way; the next call opens another.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let connection = self.lock().await?.connection.take();
        match connection {
            Some(connection) => self.limited(0, connection.close()).await,
            None => Ok(()),
        }
    }

    /// The state. Fails as the one before failed when the lock was held by somebody who could not connect: callers that
    /// queue up while the database is away would otherwise each wait for a time-out of their own, one after another.
    async fn lock(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let asked = Instant::now();
        let state = match timeout(self.patience(), self.state.lock()).await {
            Ok(state) => state,
            Err(_elapsed) => return Err(StoreError::timed_out(self.patience())),
        };
        if let Some((_, outage)) = state.outage.as_ref().filter(|(at, _)| *at > asked) {
            let source = outage.clone();
            return Err(StoreError::Unavailable { source });
        }
        Ok(state)
    }

    async fn prepare(&self, state: &mut State) -> Result<DatabaseConnection, StoreError> {
        let connection = self.connected(state).await?;
        if !state.is_migrated {
            let pending = self.limited(0, migration::pending(&connection)).await?;
            if !pending.is_empty() {
                if !self.migrate_on_start {
                    let pending = pending.len();
                    return Err(StoreError::SchemaBehind { pending });
                }
                self.migrate_on(&connection, Migrate::Up).await?;
            }
            state.is_migrated = true;
        }
        Ok(connection)
    }

    async fn connected(&self, state: &mut State) -> Result<DatabaseConnection, StoreError> {
        if let Some(connection) = &state.connection {
            // A deleted file takes writes as before, and nobody will ever read them.
            if self.target.file() == state.file {
                return Ok(connection.clone());
            }
            self.replaced.fetch_add(1, Ordering::Relaxed);
            state.file = None;
            return Err(StoreError::Unavailable {
                source: Outage::FileReplaced,
            });
        }
        let connection = self.connect(self.max_connections).await?;
        let before = std::mem::replace(&mut state.file, self.target.file());
        if before.is_some() && before != state.file {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
        state.connection = Some(connection.clone());
        Ok(connection)
    }

    async fn connect(&self, size: u32) -> Result<DatabaseConnection, StoreError> {
        match timeout(self.connect_timeout, self.open(size)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                let error = DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)));
                Err(self.classify(error, 0))
            }
            Err(_elapsed) => Err(StoreError::timed_out(self.connect_timeout)),
        }
    }

    async fn open(&self, size: u32) -> Result<DatabaseConnection, sqlx::Error> {
        match &self.target {
            Target::Sqlite(options) => {
                // One connection for good: a second writer would only wait, and `:memory:` is one database per connection.
                let pool = SqlitePoolOptions::new()
                    .max_connections(1)
                    .acquire_timeout(STATEMENT_TIMEOUT)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .connect_with((**options).clone());
                Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.await?))
            }
            Target::Postgres(options) => {
                options.connect().await?.close().await?;
                let pool = PgPoolOptions::new()
                    .max_connections(size)
                    .acquire_timeout(self.connect_timeout)
                    .connect_with((**options).clone());
                Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool.await?))
            }
            Target::MySql(options) => {
                options.connect().await?.close().await?;
                let packet_limit = Arc::clone(&self.packet_limit);
                let pool = MySqlPoolOptions::new()
                    .max_connections(size)
                    .acquire_timeout(self.connect_timeout)
                    .after_connect(move |connection, _| {
                        let packet_limit = Arc::clone(&packet_limit);
                        Box::pin(async move {
                            let question = "SELECT CAST(@@max_allowed_packet AS UNSIGNED)";
                            let limit: u64 =
                                sqlx::query_scalar(question).fetch_one(connection).await?;
                            packet_limit.store(limit, Ordering::Relaxed);
                            Ok(())
                        })
                    })
                    .connect_with((**options).clone());
                Ok(SqlxMySqlConnector::from_sqlx_mysql_pool(pool.await?))
            }
        }
    }

    /// Runs migrations where their lock holds: on a pool of one connection.
    async fn migrate_on(
        &self,
        connection: &DatabaseConnection,
        direction: Migrate,
    ) -> Result<Vec<String>, StoreError> {
        let single = match &self.target {
            Target::Sqlite(_) => connection.clone(),
            Target::Postgres(_) | Target::MySql(_) => self.connect(1).await?,
        };
        let work = async {
            match direction {
                Migrate::Up => migration::up(&single).await,
                Migrate::Down => migration::down(&single).await,
            }
        };
        let done = match timeout(MIGRATE_TIMEOUT, work).await {
            Ok(done) => done.map_err(|error| self.classify(error, 0))?,
            Err(_elapsed) => return Err(StoreError::timed_out(MIGRATE_TIMEOUT)),
        };
        if !matches!(self.target, Target::Sqlite(_)) {
            self.limited(0, single.close()).await?;
        }
        Ok(done)
    }

    fn classify(&self, error: DbErr, bytes: usize) -> StoreError {
        match verdict(&error) {
            Verdict::TooLarge => StoreError::PacketTooLarge {
                size_bytes: bytes as u64 + PACKET_MARGIN_BYTES,
                limit_bytes: match self.packet_limit.load(Ordering::Relaxed) {
                    NO_PACKET_LIMIT => 0,
                    limit => limit,
                },
            },
            Verdict::Away => StoreError::Unavailable {
                source: Outage::Failed(error),
            },
            Verdict::Refused => StoreError::Refused {
                source: Box::new(error),
            },
        }
    }
}

impl State {
    /// Remembers a failure of whoever held the lock.
    fn failed(&mut self, error: &StoreError) {
        if let StoreError::Unavailable { source } = error {
            self.outage = Some((Instant::now(), source.clone()));
        }
        self.give_up(error);
    }

    fn give_up(&mut self, error: &StoreError) {
        match error {
            StoreError::Unavailable { .. } => {
                // Dropped, not closed: closing waits for the statements in flight, which may be the ones that hang.
                self.connection = None;
                self.is_migrated = false;
            }
            // Perhaps the tables are gone.
            StoreError::Refused { .. } => self.is_migrated = false,
            _ => {}
        }
    }
}

enum Verdict {
    Away,
    TooLarge,
    Refused,
}

fn verdict(error: &DbErr) -> Verdict {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return match error {
            DbErr::Conn(_) | DbErr::ConnectionAcquire(_) => Verdict::Away,
            _ => Verdict::Refused,
        };
    };
    let sqlx::Error::Database(error) = &**error else {
        return match &**error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Verdict::Away,
            _ => Verdict::Refused,
        };
    };
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        return match error.number() {
            // ER_NET_PACKET_TOO_LARGE.
            1153 => Verdict::TooLarge,
            // Too many connections, shutting down, lock wait time-out, deadlock, query interrupted.
            1040 | 1053 | 1205 | 1213 | 1317 => Verdict::Away,
            _ => Verdict::Refused,
        };
    }
    let code = error.code().unwrap_or_default();
    let is_away = if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        // Connection exceptions, lack of resources, transaction rolled back, operator intervention (PostgreSQL, appendix A).
        ["08", "40", "53", "55", "57"]
            .iter()
            .any(|class| code.starts_with(class))
    } else if error.try_downcast_ref::<SqliteError>().is_some() {
        // SQLITE_BUSY and SQLITE_LOCKED; the low byte is the primary code.
        matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(5 | 6))
    } else {
        false
    };
    if is_away {
        Verdict::Away
    } else {
        Verdict::Refused
    }
}

impl Target {
    /// The file that is at the path of an `SQLite` database now.
    fn file(&self) -> Option<FileId> {
        let Self::Sqlite(options) = self else {
            return None;
        };
        let metadata = fs::metadata(options.get_filename()).ok()?;
        Some((metadata.dev(), metadata.ino()))
    }

    fn parse(url: &str) -> Result<Self, StoreError> {
        let unusable = |error: sqlx::Error| StoreError::Url {
            problem: error.to_string(),
        };
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "sqlite" => {
                let options: SqliteConnectOptions = url.parse().map_err(unusable)?;
                // In WAL mode a commit under NORMAL survives the end of the process, by SIGKILL too; only a power cut may
                // take the last ones, and those are in the backup, which is fsynced.
                let options = options
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Normal)
                    .busy_timeout(SQLITE_BUSY_TIMEOUT)
                    .disable_statement_logging();
                Ok(Self::Sqlite(Box::new(options)))
            }
            "postgres" | "postgresql" => {
                let options: PgConnectOptions = url.parse().map_err(unusable)?;
                let options = options
                    .application_name("stitchd")
                    .disable_statement_logging();
                Ok(Self::Postgres(Box::new(options)))
            }
            "mysql" | "mariadb" => {
                let options: MySqlConnectOptions = url.parse().map_err(unusable)?;
                Ok(Self::MySql(Box::new(options.disable_statement_logging())))
            }
            _ => Err(StoreError::Url {
                problem: "it does not begin with sqlite://, postgres:// or mysql://".to_owned(),
            }),
        }
    }
}
