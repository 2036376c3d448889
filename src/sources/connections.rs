//! Which of the upstream's SDK connections a source reads.

use std::collections::BTreeSet;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::FetchError;
use crate::settings::{Connection, Source};

/// An item of `/api/v1/sdk-connections`, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    key: String,
    environment: String,
    #[serde(default)]
    project: Option<String>,
    #[serde(default)]
    projects: Option<Vec<String>>,
    #[serde(default)]
    encryption_key: Option<String>,
    #[serde(default)]
    remote_eval_enabled: Option<bool>,
    #[serde(default)]
    proxy_signing_key: Option<String>,
}

/// The connections of the source's environment and project, in upstream's order.
///
/// Fails when an item cannot be read, because leaving it out would take its features away, and when none belongs here.
pub(super) fn select(
    items: &[Box<RawValue>],
    source: &Source,
) -> Result<Vec<Connection>, FetchError> {
    let mut seen = BTreeSet::new();
    let mut selected = Vec::new();
    for item in items {
        // The parse error may quote the item, which holds keys; its category and place say enough.
        let listed: Listed = serde_json::from_str(item.get()).map_err(|error| {
            let column = error.column();
            FetchError::Shape {
                message: format!("an SDK connection cannot be read, column {column}"),
            }
        })?;
        if listed.environment == source.environment && listed.covers(&source.project) {
            selected.push(listed.into_connection(source));
        } else {
            seen.insert(listed.environment);
        }
    }
    if selected.is_empty() {
        return Err(FetchError::NoConnections {
            environment: source.environment.clone(),
            seen: seen.into_iter().collect(),
        });
    }
    Ok(selected)
}

impl Listed {
    /// A connection without projects covers all of them.
    fn covers(&self, project: &str) -> bool {
        let first = self.project.iter().filter(|name| !name.is_empty());
        let mut own = self.projects.iter().flatten().chain(first).peekable();
        project.is_empty() || own.peek().is_none() || own.any(|name| name == project)
    }

    fn into_connection(self, source: &Source) -> Connection {
        let key = self.encryption_key.filter(|key| !key.is_empty());
        let signing_key = self.proxy_signing_key.filter(|key| !key.is_empty());
        Connection {
            key: self.key,
            decryption_key: key
                .map(SecretString::from)
                .or_else(|| source.decryption_key.clone()),
            push_signing_key: signing_key.map(SecretString::from),
            remote_eval: self.remote_eval_enabled.unwrap_or(false),
            ..Connection::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const LIST: &str = r#"[
        {"key":"sdk-2","environment":"production","project":"","projects":[],"encryptPayload":true,"encryptionKey":"k","proxySigningKey":"p"},
        {"key":"sdk-1","environment":"production","project":"web","projects":["web","app"],"encryptionKey":"","remoteEvalEnabled":true},
        {"key":"sdk-3","environment":"dev","project":"","projects":[]}
    ]"#;

    fn selected(environment: &str, project: &str) -> Result<Vec<Connection>, FetchError> {
        let items: Vec<Box<RawValue>> = serde_json::from_str(LIST).unwrap();
        let source = Source {
            environment: environment.to_owned(),
            project: project.to_owned(),
            ..Source::default()
        };
        select(&items, &source)
    }

    fn keys(environment: &str, project: &str) -> Vec<String> {
        let selected = selected(environment, project).unwrap();
        selected.into_iter().map(|c| c.key).collect()
    }

    #[test]
    fn environment_and_project_select_in_upstreams_order() {
        assert_eq!(keys("production", ""), ["sdk-2", "sdk-1"]);
        assert_eq!(keys("production", "app"), ["sdk-2", "sdk-1"]);
        assert_eq!(keys("production", "other"), ["sdk-2"]);
        assert_eq!(keys("dev", "web"), ["sdk-3"]);
    }

    #[test]
    fn keys_and_remote_evaluation_come_from_the_list() {
        let list = selected("production", "").unwrap();
        let key = list[0].decryption_key.as_ref().unwrap();
        assert_eq!(key.expose_secret(), "k");
        let key = list[0].push_signing_key.as_ref().unwrap();
        assert_eq!(key.expose_secret(), "p");
        assert!(list[1].push_signing_key.is_none());
        assert!(list[1].decryption_key.is_none() && list[1].remote_eval);
    }

    #[test]
    fn nothing_for_the_environment_names_those_there_are() {
        assert_eq!(
            selected("staging", "").unwrap_err().to_string(),
            "no SDK connection for environment `staging`: upstream has `dev`, `production`"
        );
    }

    #[test]
    fn one_unreadable_connection_refuses_the_list_without_quoting_it() {
        let items: Vec<Box<RawValue>> =
            serde_json::from_str(r#"[{"key":"sdk-1","encryptionKey":"hush"}]"#).unwrap();
        let error = select(&items, &Source::default()).unwrap_err();
        assert_eq!(error.code(), "bad_shape");
        assert!(!error.to_string().contains("hush"));
    }
}
