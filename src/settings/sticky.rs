//! The section `[sticky_buckets]`.

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::Settings;

/// Where remotely evaluated users' sticky buckets are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StickyBuckets {
    /// Which store.
    pub engine: StickyEngine,
    /// `redis://…` or `rediss://…`; may hold a password, so it is kept secret.
    pub redis_url: Option<SecretString>,
    /// File that holds the URL.
    pub redis_url_file: Option<PathBuf>,
    /// Goes before every key in Redis.
    pub key_prefix: String,
    /// How long a document that does not change is kept; zero means for ever.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// How long a request waits for the store before it is evaluated without.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

/// Which store keeps sticky buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StickyEngine {
    /// None: a unit's variation follows from hashing alone.
    None,
    /// The SQL database.
    Database,
    /// A Redis server, which GrowthBook Proxy may share.
    Redis,
}

impl Default for StickyBuckets {
    fn default() -> Self {
        Self {
            engine: StickyEngine::None,
            redis_url: None,
            redis_url_file: None,
            key_prefix: String::new(),
            ttl: Duration::ZERO,
            timeout: Duration::from_millis(100),
        }
    }
}

impl StickyBuckets {
    /// The URL to connect to, password included; empty where none is set.
    pub fn redis_url(&self) -> &str {
        self.redis_url
            .as_ref()
            .map_or("", |url| url.expose_secret())
    }
}

impl Settings {
    pub(super) fn check_sticky(&self, problems: &mut Vec<String>) {
        let sticky = &self.sticky_buckets;
        let url = sticky.redis_url();
        if sticky.engine == StickyEngine::Redis && url.is_empty() {
            problems.push(
                "`sticky_buckets.redis_url` is missing; set it or `redis_url_file`, or another `engine`".to_owned(),
            );
        } else if !url.is_empty() && !url.starts_with("redis://") && !url.starts_with("rediss://") {
            problems.push(
                "`sticky_buckets.redis_url` does not begin with redis:// or rediss://; use one of them".to_owned(),
            );
        }
        if sticky.timeout.is_zero() {
            problems.push("`sticky_buckets.timeout` is 0; use a positive duration".to_owned());
        }
        if !sticky.ttl.is_zero() && sticky.ttl < Duration::from_secs(1) {
            problems.push(
                "`sticky_buckets.ttl` is below 1s; use whole seconds, or 0s for ever".to_owned(),
            );
        }
    }
}
