//! Databases that can be made useless for a while.

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};
use stitchd::store::Store;

use super::{
    Bed,
    databases::{Backend, on_server, sqlite},
    proxy::{Proxy, Wire},
    store,
};

/// A way for a database to be of no use.
pub enum Trouble {
    /// Another process holds the file for itself; reads go on, writes wait and fail.
    Lock {
        url: String,
        held: Option<DatabaseConnection>,
    },
    /// The way to the server is cut, or swallows everything.
    Wire(Proxy, Wire),
}

impl Trouble {
    pub async fn begin(&mut self) {
        match self {
            Self::Lock { url, held } => {
                let mut options = ConnectOptions::new(url.as_str());
                options.max_connections(1);
                let connection = Database::connect(options).await.unwrap();
                connection
                    .execute_unprepared("BEGIN EXCLUSIVE")
                    .await
                    .unwrap();
                *held = Some(connection);
            }
            Self::Wire(proxy, wire) => proxy.set(*wire),
        }
    }

    pub async fn end(&mut self) {
        match self {
            Self::Lock { held, .. } => {
                let held = held.take().unwrap();
                held.execute_unprepared("ROLLBACK").await.unwrap();
                held.close().await.unwrap();
            }
            Self::Wire(proxy, _) => proxy.set(Wire::Pass),
        }
    }
}

/// A bed with a database that can be troubled, and a way round the trouble to look into it.
pub struct Case {
    pub name: String,
    pub bed: Bed,
    pub trouble: Trouble,
    pub direct: Store,
    pub _backend: Backend,
}

/// Every backend with every trouble it can have.
pub async fn cases() -> Vec<Case> {
    let backend = sqlite();
    let trouble = Trouble::Lock {
        url: backend.url.clone(),
        held: None,
    };
    let bed = Bed::on(&backend);
    let mut cases = vec![Case {
        name: "sqlite locked".to_owned(),
        direct: store(&backend.url, bed.dir.path()),
        bed,
        trouble,
        _backend: backend,
    }];
    for wire in [Wire::Cut, Wire::Blackhole] {
        cases.extend(cases_with(wire).await);
    }
    cases
}

pub async fn cases_with(wire: Wire) -> Vec<Case> {
    let servers = [
        on_server("postgres", "STITCHD_TEST_POSTGRES"),
        on_server("mariadb", "STITCHD_TEST_MARIADB"),
    ];
    let mut cases = Vec::new();
    for backend in servers.into_iter().flatten() {
        let (proxy, url) = Proxy::in_front_of(&backend).await;
        let mut bed = Bed::on(&backend);
        bed.database_url = url;
        cases.push(Case {
            name: format!("{} {wire:?}", backend.name),
            direct: store(&backend.url, bed.dir.path()),
            bed,
            trouble: Trouble::Wire(proxy, wire),
            _backend: backend,
        });
    }
    cases
}
