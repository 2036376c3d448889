//! What each consumer is shown: the model as bytes.
//!
//! Pure, and stable: the same experiments give the same bytes. Consumers reject a whole document for one bad entry, so
//! every experiment is checked by itself against the consumer's schema, and an unfit one is withheld alone, with an
//! [`Issue`]. Who is shown at all is decided before (`pipeline::adapt`). `snapshot` is the document for everybody else.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde_json::Value;

use crate::model::{Experiment, Issue, Sourced, canonical};

mod analytics;
mod dates;
pub mod encodings;
mod mediawiki;
mod naming;
mod schema;
pub mod snapshot;
mod split;
#[cfg(test)]
mod test_support;
mod varnish;

/// Name of the document for the edge caches.
pub const VARNISH: &str = "varnish";

/// Name of the document for MediaWiki.
pub const MEDIAWIKI: &str = "mediawiki";

/// Name of the document for analysts.
pub const ANALYTICS: &str = "analytics";

/// One consumer's document.
#[derive(Clone, Debug)]
pub struct View {
    /// Name of the document: [`VARNISH`], [`MEDIAWIKI`] or [`ANALYTICS`].
    pub name: &'static str,
    /// Its bytes.
    pub body: Bytes,
    /// Tracking keys of the experiments in it, sorted.
    pub members: Vec<String>,
    /// One per experiment that is meant for this consumer and withheld from it.
    pub issues: Vec<Issue>,
}

/// Renders `varnish`, `mediawiki` and `analytics`, in that order.
///
/// Expects the shown experiments only, each tracking key once; their order does not matter.
pub fn render_consumers(shown: &[Sourced<Arc<Experiment>>]) -> Vec<View> {
    CONSUMERS
        .iter()
        .map(|consumer| consumer.render(shown))
        .collect()
}

/// Why an experiment is kept from a consumer.
#[derive(Debug, PartialEq, Eq)]
struct Withheld {
    /// Issue code.
    code: &'static str,
    message: String,
}

impl Withheld {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The outer shape of a document.
#[derive(Clone, Copy)]
enum Shape {
    /// An object by name.
    Map,
    /// A list sorted by name.
    List,
}

/// A consumer format.
struct Consumer {
    name: &'static str,
    shape: Shape,
    /// Whether the experiment is meant for this consumer; being left out otherwise is no issue.
    is_addressed: fn(&Experiment) -> bool,
    /// Makes the experiment's entry.
    entry: fn(&Sourced<Arc<Experiment>>) -> Result<Value, Withheld>,
    /// The consumer's schema, applied to the finished entry of this name.
    check: fn(&str, &Value) -> Result<(), String>,
}

const CONSUMERS: [Consumer; 3] = [
    Consumer {
        name: VARNISH,
        shape: Shape::Map,
        is_addressed: varnish::is_addressed,
        entry: varnish::entry,
        check: schema::check_varnish,
    },
    Consumer {
        name: MEDIAWIKI,
        shape: Shape::List,
        is_addressed: mediawiki::is_addressed,
        entry: mediawiki::entry,
        check: schema::check_mediawiki,
    },
    Consumer {
        name: ANALYTICS,
        shape: Shape::List,
        is_addressed: |_| true,
        entry: analytics::entry,
        check: schema::check_analytics,
    },
];

impl Consumer {
    fn render(&self, shown: &[Sourced<Arc<Experiment>>]) -> View {
        let mut entries = BTreeMap::new();
        let mut issues = Vec::new();
        for experiment in shown {
            let item = &experiment.item;
            // With an unreadable field nobody knows whom the experiment is meant for.
            if item.delivery.problems.is_empty() && !(self.is_addressed)(item) {
                continue;
            }
            match self.fit_entry(experiment) {
                Ok(entry) => {
                    entries.insert(item.tracking_key.as_str(), entry);
                }
                Err(withheld) => issues.push(Issue::error(
                    withheld.code,
                    &experiment.source,
                    format!("experiments.{}", item.tracking_key),
                    format!("withheld from `{}`: {}", self.name, withheld.message),
                )),
            }
        }
        View {
            name: self.name,
            body: self.shape.write(&entries),
            members: entries.into_keys().map(str::to_owned).collect(),
            issues,
        }
    }

    fn fit_entry(&self, experiment: &Sourced<Arc<Experiment>>) -> Result<Value, Withheld> {
        if let Some((field, what)) = experiment.item.delivery.problems.first() {
            let message = format!("custom field `{field}` {what}");
            return Err(Withheld::new("bad_field", message));
        }
        let entry = (self.entry)(experiment)?;
        (self.check)(&experiment.item.tracking_key, &entry)
            .map_err(|reason| Withheld::new("schema", reason))?;
        Ok(entry)
    }
}

impl Shape {
    /// Writes members in the order in which each entry was made: it is fixed, and friendlier than the alphabet.
    fn write(self, entries: &BTreeMap<&str, Value>) -> Bytes {
        let (open, close) = match self {
            Self::Map => ('{', '}'),
            Self::List => ('[', ']'),
        };
        let mut text = String::from(open);
        for (i, (name, entry)) in entries.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            if matches!(self, Self::Map) {
                canonical::write_string(name, &mut text);
                text.push(':');
            }
            text.push_str(&entry.to_string());
        }
        text.push(close);
        text.into()
    }
}
