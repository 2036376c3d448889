//! One source of configuration.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::Dialect;

/// One source of configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Name in control endpoints, metrics and logs.
    pub id: String,
    /// What it is.
    pub kind: SourceKind,
    /// Environment it feeds.
    pub environment: String,
    /// `false`: no client, no poller, the rest runs.
    pub enabled: bool,
    /// The higher one wins when two sources define the same key.
    pub precedence: i32,
    /// Payload file (kind `file`).
    pub path: PathBuf,
    /// Base URL of the SDK endpoints.
    pub api_host: String,
    /// Short for one connection.
    pub client_key: String,
    /// Which SDK connections are fetched.
    pub connections: Connections,
    /// Base URL of the management API; empty: payloads only.
    pub rest_host: String,
    /// Secret for the management API.
    pub secret_key: Option<SecretString>,
    /// File that holds it.
    pub secret_key_file: Option<PathBuf>,
    /// Key of an encrypted connection (with `client_key`).
    pub decryption_key: Option<SecretString>,
    /// File that holds it.
    pub decryption_key_file: Option<PathBuf>,
    /// Signing key of GrowthBook's SDK webhook.
    pub webhook_secret: Option<SecretString>,
    /// File that holds it.
    pub webhook_secret_file: Option<PathBuf>,
    /// Only experiments and connections of this project; empty: all.
    pub project: String,
    /// When the management API is asked which project each feature belongs to.
    pub feature_projects: FeatureProjects,
    /// Dialect in which its environment is evaluated; `None`: `evaluation.dialect`.
    pub dialect: Option<Dialect>,
    /// Age from which on what this source delivered counts as stale.
    #[serde(with = "humantime_serde")]
    pub stale_after: Duration,
    /// Whether a first load with neither features nor experiments is served.
    pub allow_empty: bool,
    /// When it is asked.
    pub poll: Poll,
    /// Overrides of `[guards]`.
    pub guards: SourceGuards,
    /// Custom fields that feed the consumer formats.
    pub fields: Fields,
    /// Stands for the override file (`evaluation.override_file`); never read from settings.
    #[serde(skip)]
    pub is_override: bool,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            id: String::new(),
            kind: SourceKind::Growthbook,
            environment: "production".to_owned(),
            enabled: true,
            precedence: 100,
            path: PathBuf::new(),
            api_host: String::new(),
            client_key: String::new(),
            connections: Connections::List(Vec::new()),
            rest_host: String::new(),
            secret_key: None,
            secret_key_file: None,
            decryption_key: None,
            decryption_key_file: None,
            webhook_secret: None,
            webhook_secret_file: None,
            project: String::new(),
            feature_projects: FeatureProjects::Auto,
            dialect: None,
            stale_after: Duration::from_mins(5),
            allow_empty: false,
            poll: Poll::default(),
            guards: SourceGuards::default(),
            fields: Fields::default(),
            is_override: false,
        }
    }
}

impl Source {
    /// The connections given in the settings; empty when they are to be discovered.
    ///
    /// `client_key` counts as a list of one.
    pub fn listed_connections(&self) -> Vec<Connection> {
        if !self.client_key.is_empty() {
            return vec![Connection {
                key: self.client_key.clone(),
                decryption_key: self.decryption_key.clone(),
                ..Connection::default()
            }];
        }
        match &self.connections {
            Connections::List(list) => list.clone(),
            Connections::Mode(_) => Vec::new(),
        }
    }

    /// Whether connections are read from the management API.
    pub fn discovers_connections(&self) -> bool {
        matches!(self.connections, Connections::Mode(_))
    }
}

/// When the management API is asked which project each feature belongs to; payloads may say it by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureProjects {
    /// Where an experiment belongs to a project: whoever has no projects needs no requests for them.
    #[default]
    Auto,
    /// Whenever the experiments are listed.
    Always,
    /// Never.
    Never,
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A GrowthBook server, its CDN or its proxy.
    Growthbook,
    /// A payload file.
    File,
}

/// Which SDK connections are fetched: a list, or the word `discover`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a list of connections or the word \"discover\"")]
pub enum Connections {
    /// `"discover"`; any other word is reported by validation.
    Mode(String),
    /// Named one by one.
    List(Vec<Connection>),
}

/// One SDK connection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// Client key, `sdk-…`.
    pub key: String,
    /// Base64 of 16 bytes, for an encrypted connection.
    pub decryption_key: Option<SecretString>,
    /// File that holds it.
    pub decryption_key_file: Option<PathBuf>,
    /// Key with which GrowthBook signs pushes for this connection.
    pub push_signing_key: Option<SecretString>,
    /// File that holds it.
    pub push_signing_key_file: Option<PathBuf>,
    /// Whether the connection asks for remote evaluation; it is then read through the management API.
    pub remote_eval: bool,
    /// Dialect for callers that come with this key; `None`: what the route has by itself.
    pub dialect: Option<Dialect>,
}

/// When a source is asked, and how patiently.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Poll {
    /// `false`: no schedule; forced polls still work.
    pub enabled: bool,
    /// Time between polls.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Share of the interval by which each wait varies, up and down.
    pub jitter: f64,
    /// Time to connect.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Time for one request, body included.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Further tries within one poll.
    pub retries: u32,
    /// First wait before a retry at most; doubled per retry, with full jitter.
    #[serde(with = "humantime_serde")]
    pub retry_backoff: Duration,
    /// Longest wait between polls while the source fails.
    #[serde(with = "humantime_serde")]
    pub failure_backoff_max: Duration,
    /// Largest body after decompression, in bytes; for a list, all pages together.
    pub max_body_bytes: usize,
    /// Whether the upstream's event stream is followed where it offers one.
    pub streaming: bool,
}

impl Default for Poll {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_mins(1),
            jitter: 0.1,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            retries: 2,
            retry_backoff: Duration::from_millis(200),
            failure_backoff_max: Duration::from_mins(10),
            max_body_bytes: 33_554_432,
            streaming: true,
        }
    }
}

/// Overrides of `[guards]` for one source; what is absent keeps the general value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceGuards {
    /// See [`super::Guards`].
    pub max_removed_share: Option<f64>,
    /// See [`super::Guards`].
    pub max_removed_min: Option<u64>,
    /// See [`super::Guards`].
    pub max_growth: Option<f64>,
    /// See [`super::Guards`].
    pub growth_floor_bytes: Option<u64>,
    /// See [`super::Guards`].
    pub max_changed_units_share: Option<f64>,
    /// See [`super::Guards`].
    pub auto_accept_after_polls: Option<u32>,
    /// See [`super::Guards`].
    pub weights_changed: Option<super::Reaction>,
    /// See [`super::Guards`].
    pub hash_changed: Option<super::Reaction>,
    /// See [`super::Guards`].
    pub namespace_overlap: Option<super::Reaction>,
}

/// GrowthBook custom fields that feed the consumer formats.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    /// Field with host names (Varnish).
    pub domains: String,
    /// Field with database names (`MediaWiki`).
    pub wikis: String,
    /// Field with `edge-unique` or `mw-user`; absent means `edge-unique`.
    pub user_identifier_type: String,
    /// Field with the event stream; absent means `product_metrics.web_base`.
    pub stream_name: String,
    /// Field with attributes to record.
    pub contextual_attributes: String,
    /// Field with an end date.
    pub end: String,
    /// An experiment without any end date ends this long after its start.
    #[serde(with = "humantime_serde")]
    pub max_duration: Duration,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            domains: "domains".to_owned(),
            wikis: "wikis".to_owned(),
            user_identifier_type: "user_identifier_type".to_owned(),
            stream_name: "stream_name".to_owned(),
            contextual_attributes: "contextual_attributes".to_owned(),
            end: "end".to_owned(),
            max_duration: Duration::from_hours(90 * 24),
        }
    }
}
