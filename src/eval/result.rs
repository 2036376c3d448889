//! What evaluation answers.

use serde_json::{Map, Value};

use super::{
    Range,
    bandit::Choice,
    definition::Experiment,
    js::{self, Actual},
};

/// Where a feature's value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// There is no such feature.
    UnknownFeature,
    /// No rule applied.
    DefaultValue,
    /// A rule forced it.
    Force,
    /// The caller forced it.
    Override,
    /// A variation of an experiment.
    Experiment,
    /// A prerequisite that blocks the feature failed.
    Prerequisite,
    /// The prerequisites lead back to the feature.
    CyclicPrerequisite,
}

impl Source {
    /// GrowthBook's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownFeature => "unknownFeature",
            Self::DefaultValue => "defaultValue",
            Self::Force => "force",
            Self::Override => "override",
            Self::Experiment => "experiment",
            Self::Prerequisite => "prerequisite",
            Self::CyclicPrerequisite => "cyclicPrerequisite",
        }
    }
}

/// The value of a feature for a user.
#[derive(Clone, Debug)]
pub struct FeatureResult<'c> {
    /// The value.
    pub value: &'c Value,
    /// Where it came from.
    pub source: Source,
    /// Id of the rule that gave it; empty where there is none.
    pub rule_id: &'c str,
    /// Position of that rule.
    pub rule: Option<usize>,
    /// The experiment, where the value is a variation of one.
    pub experiment: Option<(ExperimentView<'c>, ExperimentResult<'c>)>,
}

impl<'c> FeatureResult<'c> {
    pub(super) fn new(value: &'c Value, source: Source) -> Self {
        Self {
            value,
            source,
            rule_id: "",
            rule: None,
            experiment: None,
        }
    }

    /// Whether the value is truthy in JavaScript.
    pub fn is_on(&self) -> bool {
        js::truthy(self.value.into())
    }

    /// GrowthBook's `FeatureResult`.
    pub fn to_value(&self) -> Value {
        let mut members = Map::new();
        members.insert("value".into(), self.value.clone());
        members.insert("on".into(), self.is_on().into());
        members.insert("off".into(), (!self.is_on()).into());
        members.insert("source".into(), self.source.as_str().into());
        members.insert("ruleId".into(), self.rule_id.into());
        if let Some((experiment, result)) = &self.experiment {
            members.insert("experiment".into(), experiment.to_value());
            members.insert("experimentResult".into(), result.to_value());
        }
        Value::Object(members)
    }
}

/// Why a unit got the variation it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// By its bucket.
    Assigned,
    /// By its sticky bucket.
    Sticky,
    /// By the page's query string.
    QueryString,
    /// By the caller.
    Forced,
    /// By the experiment's own `force`.
    ForcedByExperiment,
    /// Not in: there are fewer than two variations.
    TooFewVariations,
    /// Not in: experiments are off.
    Disabled,
    /// Not in: the experiment is for other pages.
    Url,
    /// Not in: a draft, or not active.
    Inactive,
    /// Not in: the unit has no value for the hash attribute.
    NoHashValue,
    /// Not in: outside a filter's ranges.
    Filtered,
    /// Not in: outside the namespace's range.
    Namespace,
    /// Not in: the condition failed.
    Condition,
    /// Not in: a prerequisite failed.
    Prerequisite,
    /// Not in: in none of the required groups.
    Groups,
    /// Not in: nobody knows the hash version.
    HashVersion,
    /// Not in: an earlier bucket version is blocked.
    Blocked,
    /// Not in: the bucket is in no variation's range.
    Coverage,
    /// Not in: only forced variations are given out.
    QaMode,
    /// Not in: the experiment is over.
    Stopped,
}

impl Reason {
    /// The word used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Sticky => "sticky",
            Self::QueryString => "query_string",
            Self::Forced => "forced",
            Self::ForcedByExperiment => "forced_by_experiment",
            Self::TooFewVariations => "too_few_variations",
            Self::Disabled => "disabled",
            Self::Url => "url",
            Self::Inactive => "inactive",
            Self::NoHashValue => "no_hash_value",
            Self::Filtered => "filtered",
            Self::Namespace => "namespace",
            Self::Condition => "condition",
            Self::Prerequisite => "prerequisite",
            Self::Groups => "groups",
            Self::HashVersion => "hash_version",
            Self::Blocked => "blocked",
            Self::Coverage => "coverage",
            Self::QaMode => "qa_mode",
            Self::Stopped => "stopped",
        }
    }
}

/// The variation of an experiment for a user.
#[derive(Clone, Debug)]
pub struct ExperimentResult<'c> {
    /// Why.
    pub reason: Reason,
    /// The variation's key.
    pub key: &'c str,
    /// The feature that the experiment ran for.
    pub feature_id: Option<&'c str>,
    /// Whether the unit takes part.
    pub in_experiment: bool,
    /// Whether hashing decided.
    pub hash_used: bool,
    /// Position of the variation.
    pub variation_id: usize,
    /// Its value.
    pub value: &'c Value,
    /// Attribute that names the unit.
    pub hash_attribute: &'c str,
    /// The unit, of whatever type it is; the empty text where it is missing.
    pub hash_value: &'c Value,
    /// Whether a sticky bucket decided.
    pub sticky_bucket_used: bool,
    /// The variation's name.
    pub name: Option<&'c Value>,
    /// Where the unit fell. Shown by GrowthBook only where hashing decided; known here wherever it was computed.
    pub bucket: Option<f64>,
    /// Whether later rules are to go on.
    pub passthrough: Option<&'c Value>,
    /// What a contextual bandit chose.
    pub bandit: Option<Choice<'c>>,
}

impl ExperimentResult<'_> {
    /// GrowthBook's `Result`.
    pub fn to_value(&self) -> Value {
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| members.insert(name.into(), value);
        put("key", self.key.into());
        put("featureId", self.feature_id.into());
        put("inExperiment", self.in_experiment.into());
        put("hashUsed", self.hash_used.into());
        put("variationId", self.variation_id.into());
        put("value", self.value.clone());
        put("hashAttribute", self.hash_attribute.into());
        put("hashValue", self.hash_value.clone());
        put("stickyBucketUsed", self.sticky_bucket_used.into());
        if let Some(name) = self.name {
            put("name", name.clone());
        }
        if let Some(bucket) = self.bucket.filter(|_| self.hash_used) {
            put("bucket", bucket.into());
        }
        if let Some(passthrough) = self.passthrough {
            put("passthrough", passthrough.clone());
        }
        if let Some(bandit) = self.bandit {
            bandit.write(&mut members);
        }
        Value::Object(members)
    }
}

/// An experiment as one user met it: with the weights that a bandit chose.
#[derive(Clone, Copy, Debug)]
pub struct ExperimentView<'c> {
    /// The experiment.
    pub experiment: &'c Experiment,
    /// What a contextual bandit chose.
    pub bandit: Option<Choice<'c>>,
    /// Whether the choice is named beside its weights.
    pub(super) shows_choice: bool,
}

impl ExperimentView<'_> {
    /// GrowthBook's `Experiment`.
    pub fn to_value(&self) -> Value {
        let mut members = self.experiment.source.clone();
        if let Some(bandit) = self.bandit {
            if let Some(weights) = bandit.leaf_weights() {
                members.insert("weights".into(), weights.clone());
            }
            if self.shows_choice {
                let mut choice = Map::new();
                bandit.write(&mut choice);
                members.insert("contextualBandit".into(), choice.into());
            }
        }
        Value::Object(members)
    }

    /// The ranges of the variations.
    pub fn ranges(&self) -> &[Range] {
        self.bandit
            .map_or(&self.experiment.ranges, |bandit| bandit.ranges())
    }
}

/// A unit that met an experiment by hashing: to be recorded, once per [`Exposure::dedupe_key`] and user.
#[derive(Clone, Debug)]
pub struct Exposure<'c> {
    /// The experiment.
    pub experiment: ExperimentView<'c>,
    /// What the unit got.
    pub result: ExperimentResult<'c>,
}

impl Exposure<'_> {
    /// What GrowthBook's SDKs tell exposures of one user apart by.
    pub fn dedupe_key(&self) -> String {
        format!(
            "{}{}{}{}",
            self.result.hash_attribute,
            js::string(Actual::from(self.result.hash_value)),
            self.experiment.experiment.key,
            self.result.variation_id
        )
    }
}

/// Why a rule did not decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Skip<'c> {
    /// This prerequisite failed.
    Prerequisite(&'c str),
    /// A filter left the unit out.
    Filters,
    /// This condition failed.
    Condition(&'c Value),
    /// The unit's bucket, if it has one, is outside this range.
    Rollout {
        /// Where the unit fell.
        bucket: Option<f64>,
        /// What the rule takes.
        range: Range,
    },
    /// The unit did not take part in the rule's experiment, or only passed through.
    Experiment(Reason),
    /// The rule says nothing.
    Empty,
}

/// Is told what happens while a user is evaluated. Does nothing unless it is made to.
pub trait Observer<'c> {
    /// A unit met an experiment.
    fn exposure(&mut self, exposure: Exposure<'c>) {
        let _ = exposure;
    }

    /// A rule of a remotely evaluated feature tells of an exposure: `{"experiment", "result"}`.
    fn track(&mut self, track: &'c Value) {
        let _ = track;
    }

    /// A feature was evaluated, for itself or as a prerequisite. Not told of overrides.
    fn feature(&mut self, key: &str, result: &FeatureResult<'c>) {
        let _ = (key, result);
    }

    /// A rule did not decide.
    fn skipped(&mut self, feature: &'c str, rule: usize, why: Skip<'c>) {
        let _ = (feature, rule, why);
    }

    /// An experiment was run, with whatever outcome.
    fn experiment(&mut self, experiment: ExperimentView<'c>, result: &ExperimentResult<'c>) {
        let _ = (experiment, result);
    }
}

impl Observer<'_> for () {}

impl<'c, O: Observer<'c> + ?Sized> Observer<'c> for &mut O {
    fn exposure(&mut self, exposure: Exposure<'c>) {
        (**self).exposure(exposure);
    }

    fn track(&mut self, track: &'c Value) {
        (**self).track(track);
    }

    fn feature(&mut self, key: &str, result: &FeatureResult<'c>) {
        (**self).feature(key, result);
    }

    fn skipped(&mut self, feature: &'c str, rule: usize, why: Skip<'c>) {
        (**self).skipped(feature, rule, why);
    }

    fn experiment(&mut self, experiment: ExperimentView<'c>, result: &ExperimentResult<'c>) {
        (**self).experiment(experiment, result);
    }
}
