//! What a `ClientActor` drives: brings bytes of one source in, and knows nothing of what they mean.
//!
//! [`Driver::fetch`] never fails as a whole: each part (the payload of a connection, the list of experiments) has its own
//! [`PartOutcome`]. Only the outer shape is checked here, so that an error page is never taken for a configuration;
//! everything else is the pipeline's. There is no schedule here and no memory of bodies: what was accepted, and with it
//! the [`Validators`], is the caller's.
//!
//! [`FetchError`] says what the caller does next; `http` has limits and retries, `pages` the lists, `budget` the
//! upstream's rate limits, `events` its event streams.

mod budget;
mod connections;
mod decrypt;
mod error;
mod events;
mod file;
mod growthbook;
mod http;
mod jitter;
mod json;
mod pages;
mod references;
mod refusals;

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;

pub use self::{
    budget::{RETRY_AFTER_MAX, retry_after},
    error::{FetchError, mask, root_cause},
    file::File,
    growthbook::Growthbook,
};
use crate::settings::{Connection, Source, SourceKind};

/// Longest time that reading a file should take; a network file system may hang for longer.
const FILE_TIME_MAX: Duration = Duration::from_secs(10);

/// Chooses ring for TLS, once per process; HTTP clients cannot be built before.
pub fn install_tls_provider() {
    // A second installation is refused, which is all right.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::trace!("a TLS provider is installed already");
    }
}

/// One thing that a fetch brings.
///
/// `Debug` masks the client key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartId {
    /// The payload of the SDK connection with this client key; the key of a file is empty.
    Payload(String),
    /// The experiments of the management API.
    Experiments,
}

impl PartId {
    /// `payload` or `experiments`: the name in answers and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Payload(_) => "payload",
            Self::Experiments => "experiments",
        }
    }
}

impl fmt::Debug for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(key) => f.debug_tuple("Payload").field(&mask(key)).finish(),
            Self::Experiments => f.write_str("Experiments"),
        }
    }
}

/// What one part of a fetch brought.
///
/// `Debug` shows the length of a body, not its content.
#[derive(Clone)]
pub enum PartOutcome {
    /// A document. For a payload its JSON with encrypted members decrypted in place; for experiments
    /// `{"experiments":[…],"total":N}` with the raw items of all pages, and `savedGroups` and `namespaces`, lists
    /// too, where running experiments refer to them and the upstream gives them.
    Fetched {
        /// The document.
        body: Bytes,
        /// To be given back on later fetches if, and only if, the body is accepted.
        validator: Option<String>,
    },
    /// The body that belongs to the given validator still holds.
    NotModified,
    /// Not asked for, because the upstream's rate limit is running short: keep the last.
    Skipped,
    /// Nothing usable: keep the last.
    Failed(FetchError),
}

impl fmt::Debug for PartOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetched { body, validator } => f
                .debug_struct("Fetched")
                .field("body_bytes", &body.len())
                .field("validator", validator)
                .finish(),
            Self::NotModified => f.write_str("NotModified"),
            Self::Skipped => f.write_str("Skipped"),
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

/// Which parts a fetch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// All of them: an operator wants to know.
    All,
    /// Not those that the upstream refused for good less than the longest backoff ago; they fail as they did then.
    Due,
}

/// Validators of accepted bodies, by part. Never those of refused ones.
pub type Validators = BTreeMap<PartId, String>;

/// What one fetch brought.
///
/// `Debug` masks the client keys.
#[derive(Clone)]
pub struct Fetched {
    /// Every part that was asked for, and what became of it.
    ///
    /// Without a list of connections (see `connections_error`) there is no payload among them.
    pub parts: BTreeMap<PartId, PartOutcome>,
    /// Why the connections could not be discovered; the last known ones were used, if any.
    pub connections_error: Option<FetchError>,
    /// Why the list of features could not be read; the projects that it told last are used, if any.
    pub features_error: Option<FetchError>,
    /// The connections that were asked for, with their keys.
    pub connections: Vec<Connection>,
    /// What [`Driver::follow`] can follow now. Stays the same over fetches that fail.
    pub streams: Vec<StreamTarget>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections: Vec<_> = self.connections.iter().map(|one| mask(&one.key)).collect();
        f.debug_struct("Fetched")
            .field("parts", &self.parts)
            .field("connections_error", &self.connections_error)
            .field("features_error", &self.features_error)
            .field("connections", &connections)
            .field("streams", &self.streams)
            .finish()
    }
}

/// A place that reports changes by itself: an upstream's event stream, or the file.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamTarget(String);

impl fmt::Debug for StreamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamTarget").field(&mask(&self.0)).finish()
    }
}

/// Reads a payload that the upstream has sent by itself, as a fetched one would be: checked, with plain members.
///
/// Fails when it is not a payload, or cannot be decrypted.
pub async fn open(connection: &Connection, body: Bytes) -> Result<Bytes, FetchError> {
    let opener = decrypt::Opener {
        label: mask(&connection.key),
        decryption_key: connection.decryption_key.clone(),
        content_type: "application/json".to_owned(),
    };
    growthbook::open(opener, body).await
}

/// The way to one source.
pub enum Driver {
    /// A GrowthBook server, its CDN or its proxy.
    Growthbook(Box<Growthbook>),
    /// A payload file.
    File(Box<File>),
}

impl Driver {
    /// Builds the driver of a source; fails with [`FetchError::Setting`] when a setting cannot be used.
    ///
    /// Contacts nobody. Connections belong to the runtime on which they are opened: one driver per actor.
    pub fn new(source: &Source) -> Result<Self, FetchError> {
        Ok(match source.kind {
            SourceKind::Growthbook => Self::Growthbook(Box::new(Growthbook::new(source)?)),
            SourceKind::File => Self::File(Box::new(File::new(source))),
        })
    }

    /// Asks for every part once, with retries, within [`Self::fetch_time_max`].
    pub async fn fetch(&self, validators: &Validators) -> Fetched {
        self.fetch_as(Asking::All, validators).await
    }

    /// The same, but for parts that are to be left alone.
    pub async fn fetch_as(&self, asking: Asking, validators: &Validators) -> Fetched {
        match self {
            Self::Growthbook(growthbook) => growthbook.fetch(asking, validators).await,
            Self::File(file) => file.fetch(validators).await,
        }
    }

    /// Follows the targets for ever, and calls `on_change` whenever a fetch may bring news.
    ///
    /// Reconnects by itself. Calls may come in bursts; one fetch answers all that came before it. May run beside
    /// fetches.
    pub async fn follow(&self, targets: &[StreamTarget], on_change: impl Fn()) {
        match self {
            Self::Growthbook(growthbook) => growthbook.follow(targets, &on_change).await,
            Self::File(_) if targets.is_empty() => std::future::pending().await,
            Self::File(file) => file.follow(&on_change).await,
        }
    }

    /// Longest time that one fetch takes, for the caller's own time limit.
    pub fn fetch_time_max(&self) -> Duration {
        match self {
            Self::Growthbook(growthbook) => growthbook.fetch_time_max(),
            Self::File(_) => FILE_TIME_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_can_be_spawned_and_shows_no_key() {
        fn is_send(_: impl Send) {}
        let source = Source {
            api_host: "http://127.0.0.1:1".to_owned(),
            client_key: "sdk-abcdefghijkl".to_owned(),
            ..Source::default()
        };
        let driver = Driver::new(&source).unwrap();
        let validators = Validators::new();
        is_send(driver.fetch(&validators));
        is_send(driver.follow(&[], || {}));
        assert_eq!(driver.fetch_time_max(), Duration::from_secs(30));
        let part = PartId::Payload(source.client_key);
        assert_eq!(format!("{part:?}"), "Payload(\"sdk-abc…\")");
    }

    #[test]
    fn a_host_that_is_no_url_is_a_setting_error() {
        let error = Driver::new(&Source::default()).err().unwrap();
        assert_eq!(error.code(), "setting");
        assert!(error.is_permanent());
    }
}
