//! What one key alone cannot show: ranges, combinations, names that must be unique.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Connections, Profile, Settings, Source, SourceKind};

/// Shortest poll interval: below this a poller is a load test.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

impl Settings {
    /// Every contradiction and value out of range, each with its key and what to do.
    pub fn problems(&self, profile: Profile) -> Vec<String> {
        let mut problems = Vec::new();
        self.check_server(&mut problems);
        self.check_storage(&mut problems);
        self.check_sticky(&mut problems);
        self.check_guards(&mut problems);
        self.check_evaluation(&mut problems);
        self.check_publish(&mut problems);
        self.check_rate_limit(&mut problems);
        if self.override_file().is_some() && profile == Profile::Production {
            problems.push(
                "`evaluation.override_file` is for development and test; unset it, or set `STITCHD_ENV`".to_owned(),
            );
        }
        let mut ids = BTreeSet::new();
        for source in &self.sources {
            if !ids.insert(&source.id) {
                problems.push(format!(
                    "`sources`: two sources are called `{}`; rename one",
                    source.id
                ));
            }
            source.check(&mut problems);
        }
        problems
    }

    fn check_server(&self, problems: &mut Vec<String>) {
        let server = &self.server;
        if server.data_bind == server.admin_bind && server.data_bind.port() != 0 {
            problems.push(
                "`server.data_bind` and `server.admin_bind` are the same; use two ports".to_owned(),
            );
        }
        if !is_name(&server.default_environment) {
            problems.push(name_problem(
                "server.default_environment",
                &server.default_environment,
            ));
        }
        if server.max_connections == 0 {
            problems.push("`server.max_connections` is 0; use at least 1".to_owned());
        }
        let mut names = BTreeSet::new();
        for (i, token) in self.admin.tokens.iter().enumerate() {
            if token.name.is_empty() {
                problems.push(format!(
                    "`admin.tokens[{i}].name` is empty; say who uses it"
                ));
            } else if !names.insert(&token.name) {
                problems.push(format!(
                    "`admin.tokens[{i}].name`: `{}` is used twice; rename one",
                    token.name
                ));
            }
            if token.secret.is_none() && token.secret_file.is_none() {
                problems.push(format!(
                    "`admin.tokens[{i}].secret` is missing; set it or `secret_file`"
                ));
            }
        }
        for (i, origin) in self.http.cors_origins.iter().enumerate() {
            if origin != "*" && !is_base_url(origin) {
                problems.push(format!("`http.cors_origins[{i}]` is `{origin}`; use `*` or an origin like https://example.org"));
            }
        }
    }

    fn check_storage(&self, problems: &mut Vec<String>) {
        let scheme = self.database.url().split(':').next().unwrap_or_default();
        if !["sqlite", "postgres", "postgresql", "mysql", "mariadb"].contains(&scheme) {
            problems.push(format!(
                "`database.url` begins with `{scheme}:`; use sqlite://, postgres:// or mysql://"
            ));
        }
        if self.database.keep_revisions == 0 {
            problems.push("`database.keep_revisions` is 0; use at least 1".to_owned());
        }
        if self.database.max_connections == 0 {
            problems.push("`database.max_connections` is 0; use at least 1".to_owned());
        }
        if self.backup.generations == 0 {
            problems.push("`backup.generations` is 0; use at least 1".to_owned());
        }
        if self.backup.dir.as_os_str().is_empty() {
            problems.push("`backup.dir` is empty; name a folder".to_owned());
        }
    }

    fn check_evaluation(&self, problems: &mut Vec<String>) {
        for (name, limit) in [
            ("max_batch_units", self.evaluation.max_batch_units),
            ("max_decisions", self.evaluation.max_decisions),
        ] {
            if limit == 0 {
                problems.push(format!("`evaluation.{name}` is 0; use at least 1"));
            }
        }
        // One environment is compiled from all its sources together, so it has one dialect.
        let mut named = BTreeMap::new();
        for source in &self.sources {
            let Some(dialect) = source.dialect else {
                continue;
            };
            let (first, known) = *named
                .entry(&source.environment)
                .or_insert((&source.id, dialect));
            if known != dialect {
                problems.push(format!(
                    "`sources.{}.dialect` is `{}`, but source `{first}` of environment `{}` has `{}`; use one",
                    source.id,
                    dialect.as_str(),
                    source.environment,
                    known.as_str()
                ));
            }
        }
    }

    fn check_guards(&self, problems: &mut Vec<String>) {
        let general = &self.guards;
        shares(
            "guards",
            Some(general.max_removed_share),
            Some(general.max_changed_units_share),
            problems,
        );
        growth("guards", Some(general.max_growth), problems);
        for source in &self.sources {
            let key = format!("sources.{}.guards", source.id);
            shares(
                &key,
                source.guards.max_removed_share,
                source.guards.max_changed_units_share,
                problems,
            );
            growth(&key, source.guards.max_growth, problems);
        }
    }
}

impl Source {
    fn check(&self, problems: &mut Vec<String>) {
        let key = |name: &str| format!("`sources.{}.{name}`", self.id);
        if !is_name(&self.id) {
            problems.push(name_problem("sources.id", &self.id));
        }
        if !is_name(&self.environment) {
            problems.push(name_problem(
                &format!("sources.{}.environment", self.id),
                &self.environment,
            ));
        }
        if self.poll.interval < INTERVAL_MIN {
            let got = humantime::format_duration(self.poll.interval);
            problems.push(format!(
                "{} is {got}; use at least 100ms",
                key("poll.interval")
            ));
        }
        if !(0.0..=1.0).contains(&self.poll.jitter) {
            problems.push(format!(
                "{} is {}; use a share from 0 to 1",
                key("poll.jitter"),
                self.poll.jitter
            ));
        }
        for (name, value) in [
            ("poll.connect_timeout", self.poll.connect_timeout),
            ("poll.timeout", self.poll.timeout),
            ("stale_after", self.stale_after),
            ("fields.max_duration", self.fields.max_duration),
        ] {
            if value.is_zero() {
                problems.push(format!("{} is 0; use a positive duration", key(name)));
            }
        }
        match self.kind {
            SourceKind::File if self.path.as_os_str().is_empty() => {
                problems.push(format!("{} is missing; name the payload file", key("path")));
            }
            SourceKind::File => {}
            SourceKind::Growthbook => self.check_growthbook(problems),
        }
    }

    fn check_growthbook(&self, problems: &mut Vec<String>) {
        let key = |name: &str| format!("`sources.{}.{name}`", self.id);
        if !is_base_url(&self.api_host) {
            problems.push(format!(
                "{} is `{}`; use a URL like https://cdn.growthbook.io",
                key("api_host"),
                self.api_host
            ));
        }
        let has_rest = !self.rest_host.is_empty();
        if has_rest && !is_base_url(&self.rest_host) {
            problems.push(format!(
                "{} is `{}`; use a URL like https://api.growthbook.io",
                key("rest_host"),
                self.rest_host
            ));
        }
        let has_secret = self.secret_key.is_some();
        if has_rest && !has_secret {
            problems.push(format!(
                "{} is set but {} is missing; set it or `secret_key_file`",
                key("rest_host"),
                key("secret_key")
            ));
        }
        self.check_connections(has_rest && has_secret, problems);
    }

    /// `has_api`: the management API can be asked.
    fn check_connections(&self, has_api: bool, problems: &mut Vec<String>) {
        let key = |name: &str| format!("`sources.{}.{name}`", self.id);
        let has_list = match &self.connections {
            Connections::Mode(word) if word == "discover" => {
                if !has_api {
                    problems.push(format!(
                        "{} is `discover`, which needs `rest_host` and `secret_key`",
                        key("connections")
                    ));
                }
                true
            }
            Connections::Mode(word) => {
                problems.push(format!(
                    "{} is `{word}`; use a list or `discover`",
                    key("connections")
                ));
                true
            }
            Connections::List(list) => !list.is_empty(),
        };
        match (self.client_key.is_empty(), has_list) {
            (false, true) => problems.push(format!(
                "{} and {} are both set; keep one of them",
                key("client_key"),
                key("connections")
            )),
            (true, false) => problems.push(format!(
                "{} is missing; set it or `connections`",
                key("client_key")
            )),
            _ => {}
        }
        let mut keys = BTreeSet::new();
        for (i, connection) in self.listed_connections().iter().enumerate() {
            if connection.key.is_empty() {
                problems.push(format!(
                    "{} is empty",
                    key(&format!("connections[{i}].key"))
                ));
            } else if !keys.insert(connection.key.clone()) {
                problems.push(format!(
                    "{} is listed twice; keep one",
                    key(&format!("connections[{i}].key"))
                ));
            }
            if connection.remote_eval && !has_api {
                let name = key(&format!("connections[{i}].remote_eval"));
                problems.push(format!("{name} needs `rest_host` and `secret_key`"));
            }
        }
    }
}

fn shares(key: &str, removed: Option<f64>, units: Option<f64>, problems: &mut Vec<String>) {
    for (name, share) in [
        ("max_removed_share", removed),
        ("max_changed_units_share", units),
    ] {
        if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
            problems.push(format!(
                "`{key}.{name}` is {share}; use a share from 0 to 1"
            ));
        }
    }
}

fn growth(key: &str, factor: Option<f64>, problems: &mut Vec<String>) {
    if let Some(factor) = factor.filter(|factor| factor.is_nan() || *factor < 1.0) {
        problems.push(format!(
            "`{key}.max_growth` is {factor}; use a factor of at least 1"
        ));
    }
}

/// Names appear in URLs, file names and metric labels.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    !text.is_empty() && text.len() <= 64 && text.chars().all(allowed) && !text.starts_with('.')
}

pub(super) fn name_problem(key: &str, name: &str) -> String {
    format!(
        "`{key}` is `{name}`; use 1 to 64 letters, digits, `-`, `_` and `.`, not beginning with `.`"
    )
}

fn is_base_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace)
    })
}
