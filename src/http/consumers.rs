//! Which host asked for which consumer's configuration, and which revision it got.
//!
//! Consumers of the Wikimedia kind name themselves in `X-Experiment-Config-Poller`. The names come from outside, so
//! the list is bounded: the consumer that has not been seen for longest makes room.

use std::collections::HashMap;

use actix_web::http::header::HeaderMap;
use parking_lot::Mutex;

/// Header in which a consumer gives its host name.
const POLLER: &str = "x-experiment-config-poller";
/// Consumers remembered; an edge of a few hundred hosts with two formats fits.
const CONSUMERS_MAX: usize = 1000;
/// Longest host name taken, in bytes (RFC 1035 allows 255).
const HOST_BYTES_MAX: usize = 255;

/// One consumer as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Consumer {
    /// Host name as it said it.
    pub(super) host: String,
    /// `varnish` or `mediawiki`.
    pub(super) authority: &'static str,
    /// Environment it asked for.
    pub(super) environment: String,
    /// Revision it got last.
    pub(super) revision: u64,
    /// When, in Unix milliseconds.
    pub(super) at_ms: i64,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    host: String,
    authority: &'static str,
    environment: String,
}

struct Seen {
    revision: u64,
    at_ms: i64,
    /// Order of the visits; times alone may be equal.
    visit: u64,
}

#[derive(Default)]
struct List {
    seen: HashMap<Key, Seen>,
    visits: u64,
}

/// All consumers seen lately, shared by the workers.
#[derive(Default)]
pub(super) struct Consumers(Mutex<List>);

/// The host a request names, if it names an acceptable one.
pub(super) fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(POLLER)?.to_str().ok()?;
    let is_acceptable = (1..=HOST_BYTES_MAX).contains(&host.len())
        && host.bytes().all(|byte| byte.is_ascii_graphic());
    is_acceptable.then_some(host)
}

impl Consumers {
    /// Notes a visit; returns how many consumers are remembered.
    pub(super) fn note(&self, consumer: Consumer) -> usize {
        let Consumer {
            host,
            authority,
            environment,
            revision,
            at_ms,
        } = consumer;
        let key = Key {
            host,
            authority,
            environment,
        };
        let mut list = self.0.lock();
        let list = &mut *list;
        list.visits += 1;
        if list.seen.len() >= CONSUMERS_MAX && !list.seen.contains_key(&key) {
            let oldest = list.seen.values().map(|seen| seen.visit).min();
            list.seen.retain(|_, seen| Some(seen.visit) != oldest);
        }
        list.seen.insert(
            key,
            Seen {
                revision,
                at_ms,
                visit: list.visits,
            },
        );
        list.seen.len()
    }

    /// All of them, by host, authority and environment.
    pub(super) fn list(&self) -> Vec<Consumer> {
        let list = self.0.lock();
        let consumer = |(key, seen): (&Key, &Seen)| Consumer {
            host: key.host.clone(),
            authority: key.authority,
            environment: key.environment.clone(),
            revision: seen.revision,
            at_ms: seen.at_ms,
        };
        let mut all: Vec<Consumer> = list.seen.iter().map(consumer).collect();
        drop(list);
        all.sort_by(|a, b| {
            (&a.host, a.authority, &a.environment).cmp(&(&b.host, b.authority, &b.environment))
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(host: &str, revision: u64) -> Consumer {
        let (host, environment) = (host.to_owned(), "production".to_owned());
        Consumer {
            host,
            authority: "varnish",
            environment,
            revision,
            at_ms: 0,
        }
    }

    #[test]
    fn the_consumer_seen_longest_ago_makes_room() {
        let consumers = Consumers::default();
        for i in 0..CONSUMERS_MAX {
            consumers.note(visit(&format!("cp{i}"), 1));
        }
        consumers.note(visit("cp0", 2));
        assert_eq!(consumers.note(visit("new", 1)), CONSUMERS_MAX);
        let hosts: Vec<String> = consumers
            .list()
            .into_iter()
            .map(|consumer| consumer.host)
            .collect();
        assert!(hosts.contains(&"cp0".to_owned()) && hosts.contains(&"new".to_owned()));
        assert!(!hosts.contains(&"cp1".to_owned()));
    }

    #[test]
    fn only_printable_names_of_bounded_length_are_taken() {
        let check = |name: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            let name_header = actix_web::http::header::HeaderName::from_static(POLLER);
            headers.insert(name_header, name.try_into().unwrap());
            assert_eq!(host(&headers).is_some(), expected, "{name}");
        };
        check("cp1001.eqiad.wmnet", true);
        check(&"a".repeat(HOST_BYTES_MAX), true);
        check(&"a".repeat(HOST_BYTES_MAX + 1), false);
        check("", false);
        check("two words", false);
        check("h\u{e4}st", false);
    }
}
