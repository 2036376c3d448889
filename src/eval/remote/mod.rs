//! Remote evaluation: a payload in which everything is already decided for one user.
//!
//! GrowthBook's SDKs can leave evaluation to a service. They send a user and get the payload back with each feature
//! reduced to its value, and the experiments behind it as `tracks` without what other users would see: byte for byte
//! what GrowthBook Proxy answers, in the dialect that the definitions are compiled for. Contextual bandits, which the
//! proxy passes over, are evaluated.
//!
//! [`Remote::new`] renders everything that the payload alone decides: the parts around features, each feature with each
//! value it can have, each experiment with each variation. [`Remote::answer`] is then evaluation and copying. The same
//! answer is built without that from JSON values in `plain`, to hold the quick way against.
//!
//! Modules: `request` (what is asked), `drive` (the order of evaluation), `template` and `write` (the quick way),
//! `plain` (the simple way).

mod drive;
mod plain;
mod request;
mod template;
mod write;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};

use super::{
    Compiled, Context, Definitions, Dialect, StickyBuckets, context::Unit, js, sticky,
    subject::Attributes,
};

pub use request::{BadRequest, REQUEST_KEYS_MAX, RemoteRequest};

use template::Template;

/// A payload, ready to be evaluated for anybody.
#[derive(Debug)]
pub struct Remote {
    compiled: Compiled,
    /// Keys of the payload's features in JavaScript's order, those without a definition included.
    features: Box<[drive::Entry]>,
    template: Template,
    /// Attributes that name the units of experiments.
    unit_attributes: Box<[Box<str>]>,
    /// Bytes of the longest answer so far, by which the next one's buffer is sized.
    longest: AtomicUsize,
}

/// One user's circumstances while a payload is evaluated.
struct Circumstances<'c> {
    /// Of features, and of what is shown of auto experiments.
    context: Context<'c>,
    /// Of the auto experiments that run before anything else: there nothing is forced on features yet.
    early: Context<'c>,
}

impl Remote {
    /// Compiles a payload, plain or decrypted. Takes milliseconds for large ones: not for a request's path.
    pub fn new(payload: &Value, dialect: Dialect) -> Self {
        let compiled = Compiled::new(Definitions::from_payload(payload), dialect);
        let empty = Map::new();
        let members = payload.as_object().unwrap_or(&empty);
        let features = members.get("features").and_then(Value::as_object);
        let features: Box<[_]> = js::ordered(features.unwrap_or(&empty))
            .into_iter()
            .map(|(key, _)| drive::Entry::new(&compiled, key))
            .collect();
        let template = Template::new(members, &compiled, &features);
        let unit_attributes = compiled.unit_attributes().into_iter().map(Into::into);
        Self {
            unit_attributes: unit_attributes.collect(),
            compiled,
            features,
            template,
            longest: AtomicUsize::new(0),
        }
    }

    /// The dialect that it was compiled for.
    pub fn dialect(&self) -> Dialect {
        self.compiled.dialect()
    }

    /// Whether anything depends on what a unit was given before.
    pub fn has_experiments(&self) -> bool {
        !self.unit_attributes.is_empty()
    }

    /// The units whose sticky buckets matter to a request: attribute and value, each once. Units without a value have
    /// none.
    pub fn sticky_units(&self, request: &RemoteRequest<'_>) -> Vec<(&str, String)> {
        let attributes = Attributes {
            base: &request.attributes,
            overrides: None,
            remote_groups: None,
        };
        let unit = |name| Unit::find(self.dialect(), &attributes, name, None);
        let names = self.unit_attributes.iter().map(AsRef::as_ref);
        names
            .filter_map(|name| Some((name, sticky::unit_text(unit(name).value?))))
            .collect()
    }

    /// The evaluated payload as JSON text.
    ///
    /// With sticky buckets given they are read, and written to where a unit is given something for the first time.
    pub fn answer(&self, request: &RemoteRequest<'_>, sticky: Option<&StickyBuckets>) -> Vec<u8> {
        /// Room for what the longest answer so far did not need.
        const SPARE: usize = 256;
        let longest = self.longest.load(Ordering::Relaxed);
        let circumstances = Circumstances::new(request, sticky);
        let mut out = Vec::with_capacity(longest.max(self.template.len) + SPARE);
        write::answer(self, &circumstances, &mut out);
        if out.len() > longest {
            self.longest.fetch_max(out.len(), Ordering::Relaxed);
        }
        out
    }

    /// [`Remote::answer`] in the simple way, from the payload it was made of: slower, and the measure of the other.
    pub fn answer_plainly(
        &self,
        payload: &Value,
        request: &RemoteRequest<'_>,
        sticky: Option<&StickyBuckets>,
    ) -> String {
        plain::answer(self, payload, &Circumstances::new(request, sticky))
    }
}

impl<'c> Circumstances<'c> {
    fn new(request: &'c RemoteRequest<'_>, sticky: Option<&'c StickyBuckets>) -> Self {
        let early = Context {
            url: request.url.as_deref(),
            forced_variations: Some(&request.forced_variations).filter(|forced| !forced.is_empty()),
            sticky_buckets: sticky,
            ..Context::new(&request.attributes)
        };
        let forced = Some(&request.forced_features).filter(|forced| !forced.is_empty());
        Self {
            context: Context {
                forced_features: forced,
                ..early
            },
            early,
        }
    }
}

#[cfg(test)]
mod tests;
