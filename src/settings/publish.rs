//! The section `[publish]`: who is told about a new revision.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::Deserialize;
use url::Url;

use super::Settings;

/// Begins every signing secret (Standard Webhooks, "Symmetric signatures").
const SECRET_PREFIX: &str = "whsec_";

/// Shortest and longest key behind the prefix, in bytes (the same section).
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Who is told about a new revision.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    /// Base URLs of caches to purge.
    pub purge_targets: Vec<TargetUrl>,
    /// URLs to notify.
    pub webhooks: Vec<WebhookTarget>,
}

impl Publish {
    /// Whether nobody is told.
    pub fn is_empty(&self) -> bool {
        self.purge_targets.is_empty() && self.webhooks.is_empty()
    }
}

/// A URL that is told about each new revision.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookTarget {
    /// Where to.
    pub url: TargetUrl,
    /// Signing secret: `whsec_` and base64.
    #[serde(default)]
    pub secret: Option<SecretString>,
    /// File that holds the signing secret.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

impl WebhookTarget {
    /// The key behind `whsec_`; `None` where there is none that the standard allows.
    pub fn signing_key(&self) -> Option<SecretSlice<u8>> {
        let text = self.secret.as_ref()?.expose_secret();
        let key = STANDARD.decode(text.strip_prefix(SECRET_PREFIX)?).ok()?;
        KEY_BYTES
            .contains(&key.len())
            .then(|| SecretSlice::from(key))
    }
}

/// An address that may hold credentials: never shown whole, in `Debug` neither.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct TargetUrl(Option<Url>);

impl From<String> for TargetUrl {
    fn from(text: String) -> Self {
        let url = Url::parse(&text).ok();
        Self(url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()))
    }
}

impl TargetUrl {
    /// The whole address; `None`: the text was no http or https URL, which [`Settings::problems`] reports.
    pub fn url(&self) -> Option<&Url> {
        self.0.as_ref()
    }

    /// The address without credentials and query, for people.
    pub fn shown(&self) -> String {
        let Some(mut url) = self.0.clone() else {
            return "not a URL".to_owned();
        };
        url.set_query(None);
        url.set_fragment(None);
        let is_bare = url.set_username("").and(url.set_password(None)).is_ok();
        debug_assert!(is_bare, "a URL with a host can have credentials");
        url.into()
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Settings {
    /// Names no address: whoever mistypes one may have put a password into it.
    pub(super) fn check_publish(&self, problems: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for (i, target) in self.publish.purge_targets.iter().enumerate() {
            let key = format!("`publish.purge_targets[{i}]`");
            match target.url() {
                None => problems.push(format!(
                    "{key} is no http or https URL; use one like http://cache.example.org:6081"
                )),
                Some(url) if url.query().is_some() || url.fragment().is_some() => {
                    problems.push(format!(
                        "{key} has a query or fragment; leave it out, paths are put behind the URL"
                    ));
                }
                Some(_) if !seen.insert(target.shown()) => {
                    problems.push(format!("{key} is listed twice; keep one"));
                }
                Some(_) => {}
            }
        }
        for (i, target) in self.publish.webhooks.iter().enumerate() {
            let key = format!("`publish.webhooks[{i}]");
            if target.url.url().is_none() {
                problems.push(format!(
                    "{key}.url` is no http or https URL; use one like https://example.org/hook"
                ));
            }
            if target.secret.is_none() {
                problems.push(format!(
                    "{key}.secret` is missing; set it or `secret_file`, to the output of `echo whsec_$(openssl rand -base64 32)`"
                ));
            } else if target.signing_key().is_none() {
                problems.push(format!(
                    "{key}.secret` is not `whsec_` and base64 of 24 to 64 bytes; make one with `echo whsec_$(openssl rand -base64 32)`"
                ));
            }
        }
    }
}
