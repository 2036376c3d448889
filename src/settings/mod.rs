//! Typed settings: what an operator may say, how the layers combine, and every mistake reported at once.
//!
//! Settings are data: nothing here opens a socket, builds a client or knows an actor. [`load`] reads the folder and the
//! environment; [`Settings::problems`] checks what one key alone cannot show.

mod layers;
mod publish;
mod rate_limit;
mod secrets;
mod sections;
mod source;
mod sticky;
mod validate;

use std::{fmt, path::PathBuf};

pub use layers::{Profile, from_toml, load};
pub use publish::{Publish, TargetUrl, WebhookTarget};
pub use rate_limit::{RateClass, RateLimit};
pub use sections::{
    Admin, AdminToken, Backup, DataAuth, Database, Dialect, Evaluation, Guards, Http, LogFormat,
    Reaction, Role, Server, Telemetry,
};
pub use source::{
    Connection, Connections, FeatureProjects, Fields, Poll, Source, SourceGuards, SourceKind,
};
pub use sticky::{StickyBuckets, StickyEngine};

use serde::Deserialize;

/// Everything an operator can set; one field per section of `settings/default.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Listeners and process-wide behaviour.
    pub server: Server,
    /// Who may use the control plane.
    pub admin: Admin,
    /// The SQL database.
    pub database: Database,
    /// The disk backup.
    pub backup: Backup,
    /// Evaluation defaults and the override file.
    pub evaluation: Evaluation,
    /// Where sticky buckets are kept.
    pub sticky_buckets: StickyBuckets,
    /// Limits on what one change may do.
    pub guards: Guards,
    /// Cache headers and CORS of the data plane.
    pub http: Http,
    /// Who is told about a new revision.
    pub publish: Publish,
    /// How often tokens may ask.
    pub rate_limit: RateLimit,
    /// Logs and traces.
    pub telemetry: Telemetry,
    /// Where configuration comes from.
    pub sources: Vec<Source>,
}

impl Settings {
    /// Names of all environments that a source feeds, sorted, each once.
    pub fn environments(&self) -> Vec<String> {
        let mut names: Vec<String> = self.sources.iter().map(|s| s.environment.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Dialect in which an environment is evaluated where a call names none: that of its sources, else the general one.
    pub fn dialect_of(&self, environment: &str) -> Dialect {
        let mut sources = self.sources.iter();
        sources
            .find_map(|source| source.dialect.filter(|_| source.environment == environment))
            .unwrap_or(self.evaluation.dialect)
    }

    /// The override file, where one is set.
    pub fn override_file(&self) -> Option<PathBuf> {
        let file = &self.evaluation.override_file;
        (!file.as_os_str().is_empty()).then(|| file.clone())
    }
}

/// Everything that is wrong with the settings, one line per problem, each naming its key.
#[derive(Debug)]
pub struct SettingsError {
    /// One sentence each: the key, what is wrong, what to do.
    pub problems: Vec<String>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => f.write_str(one),
            many => {
                write!(f, "{} problems in the settings:", many.len())?;
                many.iter()
                    .try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for SettingsError {}
