//! Features and experiments, prepared: what depends on the definitions alone is computed here, once.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    Range,
    bandit::Bandit,
    bucketing::Namespace,
    condition::Node,
    hash::{HashVersion, Seed},
    url::{UrlPattern, UrlTargets},
};

/// A feature.
#[derive(Clone, Debug)]
pub(super) struct Feature {
    pub(super) key: Arc<str>,
    pub(super) default: Value,
    pub(super) rules: Box<[Rule]>,
}

/// A rule of a feature.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) id: Box<str>,
    pub(super) parents: Box<[Parent]>,
    pub(super) filters: Option<Box<[Filter]>>,
    pub(super) action: Action,
}

/// What a rule does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Force(Box<Force>),
    Experiment(Box<Experiment>),
    Nothing,
}

/// A rule that gives a value, possibly to a share of the units.
#[derive(Clone, Debug)]
pub(super) struct Force {
    pub(super) value: Value,
    pub(super) condition: Option<Condition>,
    pub(super) rollout: Option<Rollout>,
    pub(super) tracks: Box<[Value]>,
}

/// A condition and what it was made from.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) node: Node,
    pub(super) source: Value,
}

/// A share of the units.
#[derive(Clone, Debug)]
pub(super) struct Rollout {
    pub(super) seed: Seed,
    pub(super) version: HashVersion,
    pub(super) hash_attribute: Box<str>,
    /// Asked only where buckets are sticky.
    pub(super) fallback_attribute: Option<Box<str>>,
    pub(super) share: Share,
}

/// Which buckets are in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    None,
    Range(Range),
    Coverage(f64),
}

/// A prerequisite.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    pub(super) feature: Target,
    pub(super) condition: Option<Node>,
    /// Whether its failure blocks the whole feature.
    pub(super) is_gate: bool,
}

/// A feature that something refers to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Known(u32),
    Missing(Box<str>),
}

/// Ranges of a hash of their own that a unit has to be in.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) attribute: Box<str>,
    pub(super) seed: Seed,
    pub(super) version: HashVersion,
    pub(super) ranges: Box<[Range]>,
}

/// An experiment: of a feature's rule, of an auto experiment, or by itself.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its place among all experiments of a payload; `u32::MAX` for one that is none of them.
    pub(super) number: u32,
    pub(super) key: Arc<str>,
    /// As GrowthBook's SDKs show it.
    pub(super) source: Map<String, Value>,
    pub(super) arms: Box<[Arm]>,
    pub(super) hash_attribute: Box<str>,
    pub(super) fallback_attribute: Option<Box<str>>,
    pub(super) sticky: Option<Sticky>,
    pub(super) seed: Seed,
    pub(super) version: HashVersion,
    pub(super) ranges: Box<[Range]>,
    pub(super) filters: Option<Box<[Filter]>>,
    pub(super) namespace: Option<Namespace>,
    pub(super) condition: Option<Condition>,
    pub(super) parents: Box<[Parent]>,
    pub(super) groups: Option<Box<[Box<str>]>>,
    pub(super) pages: Option<UrlTargets>,
    pub(super) url: Option<UrlPattern>,
    /// May be a variation that is not there.
    pub(super) force: Option<usize>,
    pub(super) is_active: bool,
    pub(super) is_stopped: bool,
    pub(super) bandit: Option<Bandit>,
}

/// A variation.
#[derive(Clone, Debug)]
pub(super) struct Arm {
    pub(super) value: Value,
    /// What it is reported as.
    pub(super) key: Box<str>,
    /// What it is remembered as.
    pub(super) sticky_key: Option<Box<str>>,
    pub(super) name: Option<Value>,
    pub(super) passthrough: Option<Value>,
}

/// How an experiment's buckets are remembered.
#[derive(Clone, Debug)]
pub(super) struct Sticky {
    /// `<key>__`
    pub(super) prefix: Box<str>,
    /// `<key>__<bucket version>`
    pub(super) assignment: Box<str>,
    pub(super) min_version: f64,
}

impl Experiment {
    /// Tracking key.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The definition as GrowthBook's SDKs show it.
    pub fn source(&self) -> &Map<String, Value> {
        &self.source
    }

    /// Number of variations.
    pub fn variations(&self) -> usize {
        self.arms.len()
    }

    /// Attribute that names its units.
    pub fn hash_attribute(&self) -> &str {
        &self.hash_attribute
    }

    /// Second choice, where buckets are sticky.
    pub fn fallback_attribute(&self) -> Option<&str> {
        self.fallback_attribute.as_deref()
    }
}
