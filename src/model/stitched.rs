//! All sources of one environment, merged.

use std::{collections::BTreeMap, sync::Arc};

use super::{CanonicalJson, Experiment, Feature, Issue};

/// An item together with the id of the source it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Sourced<T> {
    /// Source id.
    pub source: Arc<str>,
    /// The item.
    pub item: T,
}

/// The merged configuration of one environment, before it is rendered.
#[derive(Clone, Debug, Default)]
pub struct Stitched {
    /// Environment name.
    pub environment: String,
    /// Features by key.
    pub features: BTreeMap<Arc<str>, Sourced<Arc<Feature>>>,
    /// Experiments, sorted by tracking key, each key once.
    pub experiments: Vec<Sourced<Arc<Experiment>>>,
    /// SDK auto experiments (visual, redirect) in evaluation order.
    pub auto_experiments: Vec<Sourced<CanonicalJson>>,
    /// Saved groups by id.
    pub saved_groups: BTreeMap<Arc<str>, CanonicalJson>,
    /// Contextual bandits by id.
    pub contextual_bandits: BTreeMap<Arc<str>, CanonicalJson>,
    /// Ids of the sources that contributed, highest precedence first.
    pub sources: Vec<String>,
    /// Everything a person should know about it, sorted.
    pub issues: Vec<Issue>,
}
