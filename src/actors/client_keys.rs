//! Whose client keys are ours: what each stands for, answered from memory without asking anybody.
//!
//! Part of the board, so it outlives every actor. Keys in the settings are known from the start. Discovered ones are
//! written by the `ConfigServiceActor` with each list of connections; until the first such list they are those of which
//! the stored snapshots have a document, so that a restart with the upstream down knows what it serves.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{
    eval::Dialect,
    model::{
        Snapshot,
        snapshot::{connection_document, connection_of},
    },
    settings::{Connection, Settings},
};

/// What a client key stands for.
pub struct ClientKey {
    /// The key itself.
    pub key: Arc<str>,
    /// Environment whose snapshot has its document.
    pub environment: Arc<str>,
    /// Source it belongs to, and its connection there; `None` while it is known from a stored snapshot alone.
    pub origin: Option<Origin>,
    /// Name of its document.
    pub document: Arc<str>,
    /// Whether its SDKs have features evaluated remotely; then nobody gets the document itself.
    pub is_remote_eval: bool,
    /// Dialect in which its users are evaluated; `None`: the route's own.
    pub dialect: Option<Dialect>,
}

/// Where a client key comes from.
pub struct Origin {
    /// Source id.
    pub source: Arc<str>,
    /// The connection with its keys.
    pub connection: Connection,
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey")
            .field("environment", &self.environment)
            .field("source", &self.origin.as_ref().map(|origin| &origin.source))
            .field("is_remote_eval", &self.is_remote_eval)
            .finish_non_exhaustive()
    }
}

/// Connections of one source.
struct OfSource {
    id: Arc<str>,
    environment: Arc<str>,
    /// `None`: not discovered yet.
    connections: Option<Vec<Connection>>,
}

/// What a stored snapshot says of a key.
struct Restored {
    environment: Arc<str>,
    is_remote_eval: bool,
}

/// All client keys.
pub struct ClientKeys {
    by_key: ArcSwap<HashMap<Arc<str>, Arc<ClientKey>>>,
    /// In the order in which sources win when two have the same key.
    sources: Mutex<Vec<OfSource>>,
    /// Keys of which a stored snapshot has a document.
    restored: Mutex<BTreeMap<Arc<str>, Restored>>,
}

impl ClientKeys {
    /// The keys of the settings.
    pub(super) fn new(settings: &Settings) -> Self {
        let mut sources: Vec<_> = settings.sources.iter().collect();
        sources.sort_by(|a, b| {
            b.precedence
                .cmp(&a.precedence)
                .then_with(|| a.id.cmp(&b.id))
        });
        let sources = sources.into_iter().map(|source| OfSource {
            id: source.id.as_str().into(),
            environment: source.environment.as_str().into(),
            connections: (!source.discovers_connections()).then(|| source.listed_connections()),
        });
        let keys = Self {
            by_key: ArcSwap::default(),
            sources: Mutex::new(sources.collect()),
            restored: Mutex::default(),
        };
        keys.rebuild();
        keys
    }

    /// What a key stands for; `None`: it is not ours. Takes no lock and allocates nothing.
    pub fn find(&self, key: &str) -> Option<Arc<ClientKey>> {
        self.by_key.load().get(key).cloned()
    }

    /// Whether every key is known that can be: not so before a source that discovers its connections has done so once.
    pub fn is_complete(&self) -> bool {
        let sources = self.sources.lock();
        sources.iter().all(|source| source.connections.is_some())
    }

    /// Takes in the connections that a source has discovered.
    pub fn set_discovered(&self, source: &str, connections: &[Connection]) {
        {
            let mut sources = self.sources.lock();
            let Some(known) = sources.iter_mut().find(|known| &*known.id == source) else {
                return;
            };
            known.connections = Some(connections.to_vec());
        }
        self.rebuild();
    }

    /// Takes in the keys of which a stored snapshot has a document.
    pub fn restore(&self, snapshot: &Snapshot) {
        let environment = &snapshot.environment;
        for (key, is_remote_eval) in snapshot
            .documents
            .keys()
            .filter_map(|name| connection_of(name))
        {
            let known = Restored {
                environment: Arc::clone(environment),
                is_remote_eval,
            };
            self.restored.lock().insert(key.into(), known);
        }
        self.rebuild();
    }

    fn rebuild(&self) {
        let sources = self.sources.lock();
        let mut by_key: HashMap<Arc<str>, Arc<ClientKey>> = HashMap::new();
        for source in sources.iter() {
            for connection in source.connections.iter().flatten() {
                let key: Arc<str> = connection.key.as_str().into();
                let known = ClientKey {
                    key: Arc::clone(&key),
                    environment: Arc::clone(&source.environment),
                    document: connection_document(&key, connection.remote_eval),
                    is_remote_eval: connection.remote_eval,
                    dialect: connection.dialect.map(super::board::dialect),
                    origin: Some(Origin {
                        source: Arc::clone(&source.id),
                        connection: connection.clone(),
                    }),
                };
                by_key.entry(key).or_insert_with(|| Arc::new(known));
            }
        }
        for (key, restored) in self.restored.lock().iter() {
            let Restored {
                environment,
                is_remote_eval,
            } = restored;
            let mut of_environment = sources.iter().filter(|s| s.environment == *environment);
            // Once the connections are known, one that is no longer among them is not ours any more.
            if of_environment.all(|source| source.connections.is_some()) {
                continue;
            }
            by_key.entry(Arc::clone(key)).or_insert_with(|| {
                Arc::new(ClientKey {
                    key: Arc::clone(key),
                    environment: Arc::clone(environment),
                    origin: None,
                    document: connection_document(key, *is_remote_eval),
                    is_remote_eval: *is_remote_eval,
                    dialect: None,
                })
            });
        }
        // The lock is still held: two writers cannot put an older map over a newer one.
        self.by_key.store(Arc::new(by_key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Candidate, Document, Evaluators, SnapshotMeta},
        settings::{Connections, Source},
    };

    fn source(id: &str, environment: &str, precedence: i32) -> Source {
        Source {
            id: id.to_owned(),
            environment: environment.to_owned(),
            precedence,
            ..Source::default()
        }
    }

    fn connection(key: &str, remote_eval: bool) -> Connection {
        Connection {
            key: key.to_owned(),
            remote_eval,
            ..Connection::default()
        }
    }

    fn keys(sources: Vec<Source>) -> ClientKeys {
        ClientKeys::new(&Settings {
            sources,
            ..Settings::default()
        })
    }

    fn stored(environment: &str, names: &[&str]) -> Snapshot {
        let now = time::OffsetDateTime::UNIX_EPOCH;
        let document = |name: &&str| Arc::new(Document::new(*name, "{}".into(), now, Vec::new()));
        let candidate = Candidate {
            environment: environment.into(),
            hash: String::new(),
            snapshot_tail: "\"features\":{}}".into(),
            documents: names.iter().map(document).collect(),
            meta: SnapshotMeta::default(),
            created_at: now,
            evaluators: Evaluators::default(),
            base: None,
        };
        candidate.at_revision(1)
    }

    #[test]
    fn listed_keys_are_known_at_once_and_the_higher_precedence_has_a_shared_one() {
        let mut low = source("a", "test", 1);
        low.client_key = "sdk-1".to_owned();
        let mut high = source("b", "production", 2);
        let list = vec![connection("sdk-1", false), connection("sdk-2", true)];
        high.connections = Connections::List(list);
        let keys = keys(vec![low, high]);
        let key = keys.find("sdk-1").unwrap();
        assert_eq!(
            (&*key.environment, &*key.document),
            ("production", "features/sdk-1")
        );
        let key = keys.find("sdk-2").unwrap();
        assert!(key.is_remote_eval && &*key.document == "eval/sdk-2");
        assert!(keys.find("sdk-3").is_none() && keys.is_complete());
    }

    #[test]
    fn stored_documents_stand_in_until_connections_are_discovered() {
        let mut discovering = source("a", "production", 1);
        discovering.connections = Connections::Mode("discover".to_owned());
        let keys = keys(vec![discovering, source("b", "test", 1)]);
        assert!(!keys.is_complete());
        keys.restore(&stored(
            "production",
            &["features/sdk-1", "eval/sdk-2", "varnish"],
        ));
        // Nobody in this environment discovers: a document of it without a listed key is of the past.
        keys.restore(&stored("test", &["features/sdk-3"]));
        assert!(keys.find("sdk-1").unwrap().origin.is_none());
        assert!(keys.find("sdk-2").unwrap().is_remote_eval);
        assert!(keys.find("sdk-3").is_none());
        keys.set_discovered("a", &[connection("sdk-1", false)]);
        let key = keys.find("sdk-1").unwrap();
        assert_eq!(&*key.origin.as_ref().unwrap().source, "a");
        assert!(keys.find("sdk-2").is_none() && keys.is_complete());
    }
}
