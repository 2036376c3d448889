//! The verb "decide": GrowthBook's evaluation, compiled and exact to the last bit.
//!
//! [`Compiled::new`] takes what a payload defines and prepares everything that depends on the definitions alone:
//! conditions become trees, patterns automata, lists hash sets, weights ranges, seeds half-finished hashes, and
//! references positions. Nothing is refused on the way; what is malformed evaluates as GrowthBook says it does.
//!
//! Evaluation then takes a [`Context`] (a user and the circumstances) and answers with values borrowed from both. It
//! reads no clock, draws no random number, takes no lock, and allocates next to nothing. What it would have to tell
//! someone (exposures, usage, why a rule did not decide) it tells an [`Observer`], which is `()` where nobody asks.
//!
//! **Two dialects.** GrowthBook's SDKs disagree on purpose: the [`Dialect::Legacy`] of JavaScript up to 1.8 compares
//! with coercion, the [`Dialect::Strict`] of specification 0.12 does not, and knows a third truth for what it does
//! not understand. Definitions are compiled for one of them.
//!
//! **Bounds.** References to saved groups, nesting, prerequisites, backtracking and the steps of one call are limited;
//! beyond a limit a condition is false and a prerequisite cyclic.
//!
//! Modules in reading order: `js` (what JavaScript does with values), `hash`, `bucketing`, `version`, `regex`,
//! `subject`, `set`, `condition`, `groups`; `definition`, `compile`; `context`, `feature`, `experiment`, `sticky`,
//! `bandit`, `url`, `redirect`; `result`; `assign`; `explain`, `steps`; `environment` (all of one snapshot); `flags`
//! (its features in other protocols); `remote` (payloads in which everything is decided); `prune` and `reduce` (payloads for users who are partly known);
//! `scoped` (snapshots for those who may see a part).

mod assign;
mod bandit;
mod bucketing;
mod compile;
mod condition;
mod context;
mod definition;
pub mod environment;
mod experiment;
mod explain;
mod feature;
pub mod flags;
mod groups;
mod hash;
mod js;
mod prune;
mod redirect;
mod reduce;
mod references;
mod regex;
mod remote;
mod result;
pub mod scoped;
mod set;
mod steps;
mod sticky;
mod subject;
mod url;
mod version;

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value};

pub use assign::{Assigner, RulePlace};
pub use bandit::Choice;
pub use bucketing::{Range, bucket_ranges, choose_variation, equal_weights, in_namespace};
pub use context::Context;
pub use definition::Experiment;
pub use environment::Environment;
pub use explain::{Explanation, Failure, Step};
pub use flags::{FeatureProjects, Flag, Flags};
pub use hash::hash;
pub use prune::prune_condition;
pub use redirect::{AutoOutcome, Redirect};
pub use reduce::{ReduceOptions, reduce_payload};
pub use remote::{BadRequest, REQUEST_KEYS_MAX, Remote, RemoteRequest};
pub use result::{
    ExperimentResult, ExperimentView, Exposure, FeatureResult, Observer, Reason, Skip, Source,
};
pub use scoped::ScopedSnapshot;
pub use sticky::{StickyBuckets, StickyDocument, sticky_key};
pub use url::query_string_override;

use compile::{Definer, FeatureIndex};
use condition::{Budget, Compiler, Evaluator};
use definition::{Action, Feature};
use feature::Run;
use groups::Groups;
use redirect::AutoExperiment;
use subject::Subject;

/// Steps that a condition by itself may take.
const CONDITION_STEPS_MAX: u32 = 2_000_000;

/// Which of GrowthBook's two ways of comparing values is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Specification 0.12: no coercion, three-valued logic.
    #[default]
    Strict,
    /// JavaScript SDKs up to 1.8, and GrowthBook Proxy.
    Legacy,
}

impl Dialect {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Strict, Self::Legacy];

    /// Reads the word used in settings and calls.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|dialect| dialect.as_str() == word)
    }

    /// The word used in settings and calls.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Legacy => "legacy",
        }
    }
}

/// What is to be compiled.
#[derive(Clone, Debug, Default)]
pub struct Definitions<'d> {
    /// Features by key.
    pub features: Vec<(&'d str, &'d Value)>,
    /// Saved groups by id.
    pub saved_groups: Map<String, Value>,
    /// Contextual bandits by id.
    pub contextual_bandits: Map<String, Value>,
    /// Auto experiments in the order in which they run.
    pub auto_experiments: Vec<&'d Value>,
    /// Changes to experiments by key (deprecated in GrowthBook).
    pub overrides: Map<String, Value>,
}

impl<'d> Definitions<'d> {
    /// Everything in an SDK payload, plain or decrypted.
    pub fn from_payload(payload: &'d Value) -> Self {
        let members = |name: &str| payload.get(name).and_then(Value::as_object);
        let features = members("features").into_iter().flatten();
        let experiments = payload.get("experiments").and_then(Value::as_array);
        Self {
            features: features
                .map(|(key, feature)| (key.as_str(), feature))
                .collect(),
            saved_groups: members("savedGroups").cloned().unwrap_or_default(),
            contextual_bandits: members("contextualBandits").cloned().unwrap_or_default(),
            auto_experiments: experiments.into_iter().flatten().collect(),
            overrides: Map::new(),
        }
    }
}

/// Definitions, ready to evaluate.
#[derive(Clone, Debug)]
pub struct Compiled {
    dialect: Dialect,
    index: FeatureIndex,
    features: Box<[Feature]>,
    groups: Groups,
    auto_experiments: Box<[AutoExperiment]>,
    bandits: Map<String, Value>,
    overrides: Map<String, Value>,
}

impl Compiled {
    /// Compiles definitions for a dialect. Takes milliseconds for large payloads: not for a request's path.
    pub fn new(definitions: Definitions<'_>, dialect: Dialect) -> Self {
        let groups = Groups::new(dialect, &definitions.saved_groups);
        // JavaScript knows no feature whose definition is falsy.
        let known: Vec<(Arc<str>, &Value)> = definitions
            .features
            .iter()
            .filter(|(_, definition)| js::truthy((*definition).into()))
            .map(|(key, definition)| ((*key).into(), *definition))
            .collect();
        let index = (0..)
            .zip(&known)
            .map(|(position, (key, _))| (Arc::clone(key), position))
            .collect();
        let mut compiled = Self {
            dialect,
            index,
            features: Box::default(),
            groups,
            auto_experiments: Box::default(),
            bandits: definitions.contextual_bandits,
            overrides: definitions.overrides,
        };
        let definer = compiled.definer();
        let features = known
            .iter()
            .map(|(key, definition)| definer.feature(key, definition))
            .collect();
        let experiments = definitions
            .auto_experiments
            .iter()
            .filter_map(|experiment| {
                let source = experiment.as_object()?.clone();
                Some(AutoExperiment::new(definer.experiment(source, None)))
            });
        let experiments = experiments.collect();
        compiled.features = features;
        compiled.auto_experiments = experiments;
        compiled.number_experiments();
        compiled
    }

    /// Gives each experiment its place among all of them, those of rules first.
    fn number_experiments(&mut self) {
        let rules = self
            .features
            .iter_mut()
            .flat_map(|feature| &mut feature.rules)
            .filter_map(|rule| match &mut rule.action {
                Action::Experiment(experiment) => Some(&mut **experiment),
                _ => None,
            });
        let auto = self.auto_experiments.iter_mut();
        let all = rules.chain(auto.map(|auto| &mut auto.experiment));
        for (number, experiment) in (0..).zip(all) {
            experiment.number = number;
        }
    }

    fn definer(&self) -> Definer<'_> {
        Definer {
            dialect: self.dialect,
            compiler: Compiler::new(self.dialect, &self.groups.index),
            features: &self.index,
            bandits: &self.bandits,
            overrides: &self.overrides,
        }
    }

    /// The dialect that it was compiled for.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Keys of all features, in order of definition.
    pub fn feature_keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.features.iter().map(|feature| &feature.key)
    }

    /// The experiments in the rules of all features, each with the feature's key and the rule's position.
    pub fn rule_experiments(&self) -> impl Iterator<Item = (&Arc<str>, usize, &Experiment)> {
        self.features.iter().flat_map(|feature| {
            let rules = feature.rules.iter().enumerate();
            rules.filter_map(|(position, rule)| match &rule.action {
                Action::Experiment(experiment) => Some((&feature.key, position, &**experiment)),
                _ => None,
            })
        })
    }

    /// Evaluates a feature.
    pub fn feature<'c>(
        &'c self,
        context: &'c Context<'c>,
        key: &str,
        observer: impl Observer<'c>,
    ) -> FeatureResult<'c> {
        Run::new(self, context, observer).feature(key)
    }

    /// Compiles an experiment that no feature has, to be run against these features and groups.
    pub fn experiment(&self, definition: Map<String, Value>) -> Experiment {
        self.definer().experiment(definition, None)
    }

    /// Runs an experiment by itself.
    pub fn run<'c>(
        &'c self,
        context: &'c Context<'c>,
        experiment: &'c Experiment,
        observer: impl Observer<'c>,
    ) -> ExperimentResult<'c> {
        let mut run = Run::new(self, context, observer);
        let (view, result) = run.experiment(experiment, None, None);
        run.observer.experiment(view, &result);
        result
    }

    /// Runs the auto experiments of a page, up to the first redirect; manual ones only where `triggered` names them.
    pub fn auto_experiments<'c>(
        &'c self,
        context: &'c Context<'c>,
        triggered: &[&str],
        observer: impl Observer<'c>,
    ) -> AutoOutcome<'c> {
        Run::new(self, context, observer).auto_experiments(&self.auto_experiments, triggered)
    }

    /// Whether a user passes a condition.
    pub fn passes(&self, context: &Context<'_>, condition: &Value) -> bool {
        let node = Compiler::new(self.dialect, &self.groups.index).condition(condition);
        let evaluator = Evaluator {
            dialect: self.dialect,
            groups: &self.groups,
            budget: &Budget::new(CONDITION_STEPS_MAX),
        };
        evaluator.passes(&node, Subject::User(&context.effective_attributes()))
    }

    /// The attributes by which units of experiments are named, in alphabetical order.
    fn unit_attributes(&self) -> BTreeSet<&str> {
        let rules = self.rule_experiments().map(|(_, _, experiment)| experiment);
        let auto = self.auto_experiments.iter().map(|auto| &auto.experiment);
        rules
            .chain(auto)
            .flat_map(|experiment| {
                let fallback = experiment.fallback_attribute();
                [Some(experiment.hash_attribute()), fallback]
            })
            .flatten()
            .collect()
    }

    /// The units whose sticky buckets matter to a user: attribute and value, to load their documents by
    /// ([`sticky_key`]).
    pub fn sticky_units(&self, context: &Context<'_>) -> Vec<(&str, String)> {
        let names = self.unit_attributes();
        let attributes = context.effective_attributes();
        let unit = |name| context::Unit::find(self.dialect, &attributes, name, None);
        let value = |name| unit(name).value.map(sticky::unit_text).unwrap_or_default();
        names.into_iter().map(|name| (name, value(name))).collect()
    }
}
