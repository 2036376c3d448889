//! A database that is away, hangs, or comes back.

use std::{net::SocketAddr, time::Duration};

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use stitchd::store::{Inserted, Side, Store, StoreError};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use crate::{
    SOON, backup_settings, database_settings,
    databases::{Backend, on_server, sqlite},
    row, store,
};

/// `database.connect_timeout` as it is by default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

const SCHEMES: [&str; 3] = ["postgres", "mysql", "mariadb"];

/// An address where nothing listens.
async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

fn url(scheme: &str, address: SocketAddr) -> String {
    format!("{scheme}://someone:hunter2@{address}/stitchd")
}

fn is_unavailable(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { .. }) && error.is_retryable()
}

#[tokio::test]
async fn a_refused_connection_is_noticed_at_once() {
    let address = closed_port().await;
    for scheme in SCHEMES {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&url(scheme, address), dir.path());
        let started = Instant::now();
        let error = store.database().ping().await.unwrap_err();
        assert!(is_unavailable(&error), "{}", error.explain());
        let loaded = store.load(&["production".to_owned()]).await.unwrap();
        assert!(loaded.database_failure.is_some());
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_silent_server_holds_up_neither_a_start_nor_a_write_for_long() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let checks = SCHEMES.map(|scheme| check_silent(url(scheme, address)));
    futures_util::future::join_all(checks).await;
}

async fn check_silent(url: String) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&url, dir.path());
    let asked = ["production".to_owned()];

    let started = Instant::now();
    let loaded = store.load(&asked).await.unwrap();
    assert!(is_unavailable(&loaded.database_failure.unwrap()));
    assert_eq!(loaded.environments["production"].database, Side::Unknown);
    let waited = started.elapsed();
    assert!(waited < CONNECT_TIMEOUT + SOON, "{waited:?}");

    store.backup().write_snapshot(&row(4, "a")).await.unwrap();
    let started = Instant::now();
    let loaded = store.load(&asked).await.unwrap();
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert!(is_unavailable(&loaded.database_failure.unwrap()));
    let found = &loaded.environments["production"];
    assert_eq!(found.current.as_ref().unwrap().revision, 4);
    assert_eq!(
        (found.database, found.backup),
        (Side::Unknown, Side::InStep)
    );

    // Eight callers wait together, not one after another; the load before may still be trying.
    let started = Instant::now();
    let calls = (0..8).map(|_| store.database().highest_revision("production"));
    for answer in futures_util::future::join_all(calls).await {
        assert!(is_unavailable(&answer.unwrap_err()));
    }
    let waited = started.elapsed();
    assert!(waited < 2 * CONNECT_TIMEOUT + SOON, "{waited:?}");
}

#[tokio::test]
async fn a_statement_that_hangs_is_given_up_and_may_be_repeated() {
    let Some(backend) = on_server("postgres", "STITCHD_TEST_POSTGRES") else {
        return;
    };
    let store = store(&backend.url, "/nonexistent".as_ref());
    store.database().ping().await.unwrap();
    let other = sea_orm::Database::connect(&backend.url).await.unwrap();
    let lock = other.begin().await.unwrap();
    let sql = "LOCK TABLE revisions IN ACCESS EXCLUSIVE MODE";
    lock.execute_unprepared(sql).await.unwrap();

    let started = Instant::now();
    let error = store.database().insert_revision(&row(1, "a")).await;
    assert!(is_unavailable(&error.unwrap_err()));
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(5) + SOON, "{waited:?}");

    lock.rollback().await.unwrap();
    // The server may have carried out what nobody waited for any more.
    let repeated = store.database().insert_revision(&row(1, "a")).await;
    let expected = [Inserted::New, Inserted::AlreadyThere];
    assert!(expected.contains(&repeated.unwrap()));
}

#[tokio::test]
async fn no_secret_is_shown() {
    let address = closed_port().await;
    for scheme in SCHEMES {
        let store = store(&url(scheme, address), "/nonexistent".as_ref());
        let error = store.database().ping().await.unwrap_err();
        let shown = format!("{store:?} {error} {error:?} {}", error.explain());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for bad in [
        "postgres://a:hunter2@[",
        "oracle://a:hunter2@b/c",
        "hunter2",
    ] {
        let backup = backup_settings("/nonexistent".as_ref());
        let error = Store::new(&database_settings(bad), &backup).unwrap_err();
        assert!(matches!(error, StoreError::Url { .. }));
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_refused_not_merely_away() {
    let servers = [
        ("postgres", "STITCHD_TEST_POSTGRES"),
        ("mariadb", "STITCHD_TEST_MARIADB"),
    ];
    for (name, variable) in servers {
        let Some(backend) = on_server(name, variable) else {
            continue;
        };
        let absent = format!("{}_absent", backend.url);
        let store = store(&absent, "/nonexistent".as_ref());
        let error = store.database().ping().await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        assert!(!error.is_retryable());
    }
}

/// Passes bytes on between its own address and a server's, until told not to.
struct Proxy {
    address: SocketAddr,
    server: SocketAddr,
    running: Option<AbortHandle>,
}

impl Proxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = Self {
            address: listener.local_addr().unwrap(),
            server,
            running: None,
        };
        proxy.run(listener);
        proxy
    }

    fn run(&mut self, listener: TcpListener) {
        let server = self.server;
        let task = tokio::spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                links.spawn(async move {
                    let mut server = TcpStream::connect(server).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        self.running = Some(task.abort_handle());
    }

    /// Cuts every connection and refuses new ones.
    async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.abort();
        while !running.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.run(listener);
    }
}

/// Host and port of a URL like `scheme://user@host:port/database`.
fn address_of(backend: &Backend) -> String {
    let (_, rest) = backend.url.split_once("://").unwrap();
    let (authority, _) = rest.split_once('/').unwrap();
    let host = authority.rsplit('@').next().unwrap();
    host.to_owned()
}

#[tokio::test]
async fn what_failed_while_the_database_was_away_succeeds_when_it_is_back() {
    let servers = [
        ("postgres", "STITCHD_TEST_POSTGRES"),
        ("mariadb", "STITCHD_TEST_MARIADB"),
    ];
    for (name, variable) in servers {
        let Some(backend) = on_server(name, variable) else {
            continue;
        };
        let server = address_of(&backend);
        let mut found = tokio::net::lookup_host(&server).await.unwrap();
        let mut proxy = Proxy::start(found.next().unwrap()).await;
        let url = backend.url.replace(&server, &proxy.address.to_string());
        let store = store(&url, "/nonexistent".as_ref());
        let insert = async |revision| {
            let row = row(revision, "a");
            store.database().insert_revision(&row).await
        };
        assert_eq!(insert(1).await.unwrap(), Inserted::New);

        proxy.stop().await;
        let started = Instant::now();
        for _ in 0..3 {
            let error = insert(2).await.unwrap_err();
            assert!(is_unavailable(&error), "{name}: {}", error.explain());
        }
        // The pool waits out one connect_timeout before it is given up; after that a refusal shows at once.
        let waited = started.elapsed();
        assert!(waited < CONNECT_TIMEOUT + SOON, "{name}: {waited:?}");

        proxy.restart().await;
        assert_eq!(insert(2).await.unwrap(), Inserted::New, "{name}");
        assert_eq!(insert(1).await.unwrap(), Inserted::AlreadyThere, "{name}");
    }
}

/// What is written into a deleted file is lost: it must not count as written.
#[tokio::test]
async fn a_database_file_that_is_deleted_is_noticed_and_made_anew() {
    let backend = sqlite();
    let store = store(&backend.url, "/nonexistent".as_ref());
    let database = store.database();
    assert_eq!(
        database.insert_revision(&row(1, "a")).await.unwrap(),
        Inserted::New
    );
    let file = backend.url.trim_start_matches("sqlite://");
    let file = file.split('?').next().unwrap();
    for extension in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{file}{extension}")).unwrap();
    }

    assert_eq!(database.times_replaced(), 0);
    let error = database.insert_revision(&row(2, "b")).await.unwrap_err();
    assert!(is_unavailable(&error), "{}", error.explain());
    assert!(error.explain().contains("deleted"), "{}", error.explain());
    assert_eq!(database.times_replaced(), 1);
    assert_eq!(
        database.insert_revision(&row(2, "b")).await.unwrap(),
        Inserted::New
    );
    assert_eq!(
        database.highest_revision("production").await.unwrap(),
        Some(2)
    );
    assert!(std::fs::metadata(file).is_ok(), "it is there again");
    assert_eq!(database.times_replaced(), 1, "once each");
}
