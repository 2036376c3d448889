//! Throw-away databases: one on `SQLite`, and one on each server that is named in the environment.
//!
//! `STITCHD_TEST_POSTGRES` and `STITCHD_TEST_MARIADB` hold the URL of a server on which databases may be made, for example
//! `postgres://postgres@127.0.0.1:5432/postgres` and `mysql://root@127.0.0.1:3306/test`. A server that is not named is
//! skipped, with a line that says so; where `CI` is `true` it fails the test.

use std::{collections::BTreeSet, env, future::Future, io::Write as _, sync::Mutex, thread};

use sea_orm::{ConnectionTrait as _, Database, DbErr};
use tempfile::TempDir;

/// An empty database of its own, gone when dropped.
pub(crate) struct Backend {
    /// `sqlite`, `postgres` or `mariadb`.
    pub(crate) name: &'static str,
    /// For `database.url`.
    pub(crate) url: String,
    made: Made,
}

enum Made {
    /// The folder goes by its own drop.
    InFolder {
        _folder: TempDir,
    },
    OnServer {
        server: String,
        database: String,
    },
}

/// A fresh database on everything that is at hand.
pub(crate) fn backends() -> Vec<Backend> {
    let postgres = on_server("postgres", "STITCHD_TEST_POSTGRES");
    let mariadb = on_server("mariadb", "STITCHD_TEST_MARIADB");
    let others = [postgres, mariadb].into_iter().flatten();
    [sqlite()].into_iter().chain(others).collect()
}

/// Runs a scenario on a fresh database of everything that is at hand, at the same time.
#[allow(dead_code, reason = "not every test binary has scenarios")]
pub(crate) async fn on_each(scenario: impl AsyncFn(Backend)) {
    let scenario = &scenario;
    let runs = backends().into_iter().map(|backend| scenario(backend));
    futures_util::future::join_all(runs).await;
}

/// A fresh `SQLite` file.
pub(crate) fn sqlite() -> Backend {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stitchd.db");
    Backend {
        name: "sqlite",
        url: format!("sqlite://{}?mode=rwc", file.display()),
        made: Made::InFolder { _folder: folder },
    }
}

/// A fresh database on the server that `variable` names, or `None` and a line on stderr.
pub(crate) fn on_server(name: &'static str, variable: &str) -> Option<Backend> {
    let Ok(server) = env::var(variable) else {
        assert!(
            env::var("CI").as_deref() != Ok("true"),
            "{variable} is not set, and CI leaves no database out"
        );
        say_skipped(name, variable);
        return None;
    };
    let database = format!("stitchd_test_{}", uuid::Uuid::new_v4().simple());
    on_a_thread(execute(
        server.clone(),
        format!("CREATE DATABASE {database}"),
    ))
    .unwrap_or_else(|error| panic!("{variable} names no usable server: {error}"));
    Some(Backend {
        name,
        url: with_database(&server, &database),
        made: Made::OnServer { server, database },
    })
}

impl Drop for Backend {
    fn drop(&mut self) {
        let Made::OnServer { server, database } = &self.made else {
            return;
        };
        // A store that is still open must not keep it alive.
        let force = if self.name == "postgres" {
            " WITH (FORCE)"
        } else {
            ""
        };
        let sql = format!("DROP DATABASE IF EXISTS {database}{force}");
        if let Err(error) = on_a_thread(execute(server.clone(), sql)) {
            let line = format!("left behind: {database}: {error}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }
}

/// Says once per test binary that a server is left out.
fn say_skipped(name: &'static str, variable: &str) {
    static SAID: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap().insert(name) {
        // The macros are captured by the test harness; nobody would see it.
        let line = format!("skipped: {name}, because {variable} is not set\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

/// Runs one statement on a connection of its own.
pub(crate) async fn execute(url: String, sql: String) -> Result<(), DbErr> {
    let connection = Database::connect(url).await?;
    connection.execute_unprepared(&sql).await?;
    connection.close().await
}

/// Works from inside any runtime, and from a drop.
fn on_a_thread<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work)
    };
    thread::spawn(run).join().unwrap()
}

fn with_database(server: &str, database: &str) -> String {
    let (address, options) = match server.split_once('?') {
        Some((address, options)) => (address, format!("?{options}")),
        None => (server, String::new()),
    };
    let scheme_end = address.find("://").map_or(0, |at| at + 3);
    let host_end = address[scheme_end..]
        .find('/')
        .map_or(address.len(), |at| scheme_end + at);
    format!("{}/{database}{options}", &address[..host_end])
}
