//! Which variation a unit gets of many experiments, and nothing else about it.
//!
//! The same decisions as [`Compiled::run`] and [`Compiled::feature`] make, without what surrounds them: no result is
//! built, nobody is told, and the unit is found and turned into text once for all experiments. Where a bandit chooses or
//! buckets are sticky it is the long way all the same. `tests/eval_assign.rs` holds the two ways against each other.

use serde_json::Value;

use super::{
    Compiled, Context,
    bucketing::choose_variation,
    definition::{Action, Experiment},
    feature::{Above, Gate, Run},
    hash::HashedUnit,
};

/// Where in the rules of all features an experiment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulePlace {
    /// Position of the feature, in order of definition.
    pub(super) feature: u32,
    /// Position of the rule.
    pub(super) rule: u32,
}

/// One user's assignments.
pub struct Assigner<'c> {
    run: Run<'c, ()>,
    /// What was looked for already, by attribute; one or two in practice.
    units: Vec<(&'c str, Option<Unit<'c>>)>,
}

/// A value that can be hashed.
struct Unit<'c> {
    value: &'c Value,
    hashed: HashedUnit<'c>,
}

impl Compiled {
    /// Begins the assignments of a user.
    pub fn assigner<'c>(&'c self, context: &'c Context<'c>) -> Assigner<'c> {
        Assigner {
            run: Run::new(self, context, ()),
            units: Vec::new(),
        }
    }

    /// The experiments in the rules of all features, with their places.
    pub fn rule_places(&self) -> impl Iterator<Item = (RulePlace, &Experiment)> {
        let features = (0..).zip(&self.features);
        features.flat_map(|(feature, definition)| {
            let rules = (0..).zip(&definition.rules);
            rules.filter_map(move |(rule, action)| match &action.action {
                Action::Experiment(experiment) => {
                    Some((RulePlace { feature, rule }, &**experiment))
                }
                _ => None,
            })
        })
    }
}

impl<'c> Assigner<'c> {
    /// The variation of an experiment that stands by itself.
    pub fn inline(&mut self, experiment: &'c Experiment) -> Option<usize> {
        self.run.renew();
        self.variation(experiment, None)
    }

    /// The variation of the experiment in a rule, for a unit whose feature's earlier rules let it come that far.
    pub fn rule(&mut self, place: RulePlace) -> Option<usize> {
        self.run.renew();
        let feature = &self.run.compiled.features[place.feature as usize];
        let here = Above::first(place.feature);
        let (earlier, rest) = feature.rules.split_at(place.rule as usize);
        if earlier
            .iter()
            .any(|rule| self.run.rule(feature, rule, &here).is_ok())
        {
            return None;
        }
        let rule = &rest[0];
        if !matches!(
            self.run.prerequisites(&rule.parents, Some(&here)),
            Gate::Open
        ) {
            return None;
        }
        if let Some(filters) = &rule.filters
            && self.run.is_filtered_out(filters)
        {
            return None;
        }
        match &rule.action {
            Action::Experiment(experiment) => self.variation(experiment, Some(&here)),
            _ => None,
        }
    }

    fn variation(
        &mut self,
        experiment: &'c Experiment,
        above: Option<&Above<'_>>,
    ) -> Option<usize> {
        if experiment.bandit.is_some() || self.run.context.sticky_buckets.is_some() {
            let (_, result) = self.run.experiment(experiment, None, above);
            return result.in_experiment.then_some(result.variation_id);
        }
        let arms = experiment.arms.len();
        let is_there = |variation: &usize| *variation < arms;
        if let Some((_, variation)) = self.run.without_unit(experiment) {
            return variation.filter(is_there);
        }
        let at = self.unit(&experiment.hash_attribute);
        let value = self.units[at].1.as_ref()?.value;
        self.run.targeting(experiment, value, above).ok()?;
        if let Some(pattern) = &experiment.url
            && !pattern.matches(self.run.context.url.unwrap_or_default())
        {
            return None;
        }
        let unit = self.units[at].1.as_ref()?;
        let bucket = experiment
            .seed
            .bucket_of(&unit.hashed, experiment.version)?;
        let assigned = choose_variation(bucket, &experiment.ranges)?;
        if experiment.force.is_some() {
            return experiment.force.filter(is_there);
        }
        let is_over = self.run.context.qa_mode || experiment.is_stopped;
        Some(assigned).filter(is_there).filter(|_| !is_over)
    }

    /// Where in `units` the value of an attribute is.
    fn unit(&mut self, attribute: &'c str) -> usize {
        let known = self.units.iter().position(|(name, _)| *name == attribute);
        known.unwrap_or_else(|| {
            let value = self.run.unit(attribute, None).value;
            let unit = value.map(|value| Unit {
                value,
                hashed: HashedUnit::new(value.into()),
            });
            self.units.push((attribute, unit));
            self.units.len() - 1
        })
    }
}
