//! Evaluates features: the first rule that decides, or the default.

use serde_json::Value;

use super::{
    Compiled, Context, Dialect,
    bucketing::in_range,
    condition::{Budget, Evaluator},
    context::Unit,
    definition::{Action, Feature, Filter, Force, Parent, Rollout, Rule, Share, Target},
    js::{self, NULL},
    result::{FeatureResult, Observer, Skip, Source},
    subject::{Attributes, Subject},
};

/// Steps that one call may take, conditions and prerequisites together. Real payloads stay a thousand times below.
pub(super) const STEPS_MAX: u32 = 2_000_000;

/// What evaluating a feature costs beyond its conditions.
const FEATURE_STEPS: u32 = 16;

/// How many prerequisites may hang on each other; more is as bad as a cycle.
const PREREQUISITE_DEPTH_MAX: u32 = 64;

/// One call: a user, and what it may still cost.
pub(super) struct Run<'c, O> {
    pub(super) compiled: &'c Compiled,
    pub(super) context: &'c Context<'c>,
    pub(super) attributes: Attributes<'c>,
    pub(super) observer: O,
    budget: Budget,
}

/// The features that led to the one being evaluated.
#[derive(Clone, Copy)]
pub(super) struct Above<'p> {
    feature: u32,
    depth: u32,
    outer: Option<&'p Above<'p>>,
}

impl Above<'_> {
    /// The feature that a call begins with.
    pub(super) fn first(feature: u32) -> Self {
        Self {
            feature,
            depth: 1,
            outer: None,
        }
    }
}

/// What prerequisites say.
pub(super) enum Gate<'c> {
    Open,
    /// Failed on this feature.
    Skip(&'c str),
    Block,
    Cycle,
}

impl<'c, O: Observer<'c>> Run<'c, O> {
    pub(super) fn new(compiled: &'c Compiled, context: &'c Context<'c>, observer: O) -> Self {
        Self {
            compiled,
            context,
            attributes: context.effective_attributes(),
            observer,
            budget: Budget::new(STEPS_MAX),
        }
    }

    /// Starts another call for the same user, which may cost as much.
    pub(super) fn renew(&self) {
        self.budget.refill(STEPS_MAX);
    }

    /// Allows so many steps from now on.
    pub(super) fn allow(&self, steps: u32) {
        self.budget.refill(steps);
    }

    /// Steps that are still allowed.
    pub(super) fn steps_left(&self) -> u32 {
        self.budget.left()
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.compiled.dialect
    }

    pub(super) fn evaluator(&self) -> Evaluator<'_> {
        Evaluator {
            dialect: self.compiled.dialect,
            groups: &self.compiled.groups,
            budget: &self.budget,
        }
    }

    /// A feature by its key.
    pub(super) fn feature(&mut self, key: &str) -> FeatureResult<'c> {
        match self.compiled.index.get(key) {
            Some(position) => self.known(*position, None),
            None => self.unknown(key),
        }
    }

    fn target(&mut self, target: &'c Target, above: Option<&Above<'_>>) -> FeatureResult<'c> {
        match target {
            Target::Known(position) => self.known(*position, above),
            Target::Missing(key) => self.unknown(key),
        }
    }

    fn unknown(&mut self, key: &str) -> FeatureResult<'c> {
        if let Some(value) = self.context.forced_feature(key) {
            return FeatureResult::new(value, Source::Override);
        }
        let result = FeatureResult::new(&NULL, Source::UnknownFeature);
        self.observer.feature(key, &result);
        result
    }

    /// A feature by its position.
    pub(super) fn known(&mut self, position: u32, above: Option<&Above<'_>>) -> FeatureResult<'c> {
        let compiled = self.compiled;
        let feature = &compiled.features[position as usize];
        let result = if is_cycle(position, above) {
            FeatureResult::new(&NULL, Source::CyclicPrerequisite)
        } else if let Some(value) = self.context.forced_feature(&feature.key) {
            return FeatureResult::new(value, Source::Override);
        } else if self.budget.spend(FEATURE_STEPS).is_err() {
            FeatureResult::new(&NULL, Source::CyclicPrerequisite)
        } else {
            let here = Above {
                feature: position,
                depth: above.map_or(0, |above| above.depth) + 1,
                outer: above,
            };
            self.rules(feature, &here)
        };
        self.observer.feature(&feature.key, &result);
        result
    }

    fn rules(&mut self, feature: &'c Feature, here: &Above<'_>) -> FeatureResult<'c> {
        for (index, rule) in feature.rules.iter().enumerate() {
            match self.rule(feature, rule, here) {
                Ok(result) => {
                    return FeatureResult {
                        rule: Some(index),
                        ..result
                    };
                }
                Err(why) => self.observer.skipped(&feature.key, index, why),
            }
        }
        FeatureResult::new(&feature.default, Source::DefaultValue)
    }

    pub(super) fn rule(
        &mut self,
        feature: &'c Feature,
        rule: &'c Rule,
        here: &Above<'_>,
    ) -> Result<FeatureResult<'c>, Skip<'c>> {
        match self.prerequisites(&rule.parents, Some(here)) {
            Gate::Open => {}
            Gate::Skip(parent) => return Err(Skip::Prerequisite(parent)),
            Gate::Block => return Ok(FeatureResult::new(&NULL, Source::Prerequisite)),
            Gate::Cycle => return Ok(FeatureResult::new(&NULL, Source::CyclicPrerequisite)),
        }
        if let Some(filters) = &rule.filters
            && self.is_filtered_out(filters)
        {
            return Err(Skip::Filters);
        }
        match &rule.action {
            Action::Force(force) => self.force(force).map(|value| FeatureResult {
                rule_id: &rule.id,
                ..FeatureResult::new(value, Source::Force)
            }),
            Action::Experiment(experiment) => {
                let (view, result) = self.experiment(experiment, Some(&feature.key), Some(here));
                self.observer.experiment(view, &result);
                if result.in_experiment && result.passthrough.is_none() {
                    Ok(FeatureResult {
                        rule_id: &rule.id,
                        experiment: Some((view, result.clone())),
                        ..FeatureResult::new(result.value, Source::Experiment)
                    })
                } else {
                    Err(Skip::Experiment(result.reason))
                }
            }
            Action::Nothing => Err(Skip::Empty),
        }
    }

    fn force(&mut self, force: &'c Force) -> Result<&'c Value, Skip<'c>> {
        if let Some(condition) = &force.condition
            && !self
                .evaluator()
                .passes(&condition.node, Subject::User(&self.attributes))
        {
            return Err(Skip::Condition(&condition.source));
        }
        if let Some(rollout) = &force.rollout {
            self.roll_out(rollout)?;
        }
        for track in &force.tracks {
            self.observer.track(track);
        }
        Ok(&force.value)
    }

    /// Whether the unit is in the share that a rule takes.
    fn roll_out(&self, rollout: &'c Rollout) -> Result<(), Skip<'c>> {
        let range = match rollout.share {
            Share::None => (0.0, 0.0),
            Share::Range(range) => range,
            Share::Coverage(coverage) => (0.0, coverage),
        };
        let fallback = rollout
            .fallback_attribute
            .as_deref()
            .filter(|_| self.context.sticky_buckets.is_some());
        let unit = self.unit(&rollout.hash_attribute, fallback);
        let bucket = unit
            .value
            .and_then(|value| rollout.seed.bucket(value.into(), rollout.version));
        let is_in = bucket.is_some_and(|bucket| match rollout.share {
            Share::None => false,
            Share::Range(range) => in_range(bucket, range),
            Share::Coverage(coverage) if self.dialect() == Dialect::Legacy => bucket <= coverage,
            Share::Coverage(coverage) => bucket < coverage,
        });
        is_in.then_some(()).ok_or(Skip::Rollout { bucket, range })
    }

    pub(super) fn unit(&self, attribute: &'c str, fallback: Option<&'c str>) -> Unit<'c> {
        Unit::find(self.dialect(), &self.attributes, attribute, fallback)
    }

    pub(super) fn is_filtered_out(&self, filters: &'c [Filter]) -> bool {
        let is_out = |filter: &'c Filter| {
            let unit = self.unit(&filter.attribute, None);
            let bucket = unit
                .value
                .and_then(|value| filter.seed.bucket(value.into(), filter.version));
            !bucket.is_some_and(|bucket| filter.ranges.iter().any(|range| in_range(bucket, *range)))
        };
        filters.iter().any(is_out)
    }

    pub(super) fn prerequisites(
        &mut self,
        parents: &'c [Parent],
        above: Option<&Above<'_>>,
    ) -> Gate<'c> {
        for parent in parents {
            let result = self.target(&parent.feature, above);
            if result.source == Source::CyclicPrerequisite {
                return Gate::Cycle;
            }
            let passes = parent.condition.as_ref().is_none_or(|condition| {
                self.evaluator()
                    .passes(condition, Subject::Parent(result.value))
            });
            if !passes {
                return if parent.is_gate {
                    Gate::Block
                } else {
                    Gate::Skip(self.key_of(&parent.feature))
                };
            }
        }
        Gate::Open
    }

    pub(super) fn key_of(&self, target: &'c Target) -> &'c str {
        match target {
            Target::Known(position) => &self.compiled.features[*position as usize].key,
            Target::Missing(key) => key,
        }
    }

    pub(super) fn is_in_groups(&self, groups: &[Box<str>]) -> bool {
        let is_in = |name: &str| {
            let members = self.context.groups?;
            js::truthy_member(members, name)
        };
        groups.iter().any(|name| is_in(name).is_some())
    }
}

fn is_cycle(position: u32, above: Option<&Above<'_>>) -> bool {
    above.is_some_and(|above| above.depth >= PREREQUISITE_DEPTH_MAX)
        || std::iter::successors(above, |above| above.outer).any(|above| above.feature == position)
}
