//! Runs experiments: whether a unit takes part, and with which variation.

use super::{
    bucketing::choose_variation,
    context::Unit,
    definition::Experiment,
    feature::{Above, Gate, Run},
    js::{EMPTY, NULL},
    result::{ExperimentResult, ExperimentView, Exposure, Observer, Reason},
    sticky::{sticky_key, unit_text},
    subject::Subject,
    url,
};

/// How an experiment ended for a unit.
struct Outcome {
    reason: Reason,
    variation: Option<usize>,
    bucket: Option<f64>,
}

impl Outcome {
    fn out(reason: Reason) -> Self {
        Self {
            reason,
            variation: None,
            bucket: None,
        }
    }

    fn forced(reason: Reason, variation: usize) -> Self {
        Self {
            reason,
            variation: Some(variation),
            bucket: None,
        }
    }
}

/// What the store of sticky buckets says.
enum Remembered {
    Nothing,
    Variation(usize),
    Blocked,
}

impl<'c, O: Observer<'c>> Run<'c, O> {
    /// Runs an experiment, remembers and reports what came of it.
    pub(super) fn experiment(
        &mut self,
        experiment: &'c Experiment,
        feature: Option<&'c str>,
        above: Option<&Above<'_>>,
    ) -> (ExperimentView<'c>, ExperimentResult<'c>) {
        let user = Subject::User(&self.attributes);
        let bandit = experiment.bandit.as_ref();
        let mut view = ExperimentView {
            experiment,
            bandit: bandit.map(|bandit| bandit.choose(self.evaluator(), user)),
            shows_choice: false,
        };
        let is_sticky = experiment.sticky.is_some() && self.context.sticky_buckets.is_some();
        let fallback = experiment
            .fallback_attribute
            .as_deref()
            .filter(|_| is_sticky);
        let unit = self.unit(&experiment.hash_attribute, fallback);
        let outcome = self.outcome(view, unit, above);
        let result = result(view, unit, feature, &outcome);
        if result.hash_used {
            view.shows_choice = result.bandit.is_some();
            if is_sticky {
                self.remember(experiment, unit, result.key);
            }
            self.observer.exposure(Exposure {
                experiment: view,
                result: result.clone(),
            });
        }
        (view, result)
    }

    fn outcome(
        &mut self,
        view: ExperimentView<'c>,
        unit: Unit<'c>,
        above: Option<&Above<'_>>,
    ) -> Outcome {
        let experiment = view.experiment;
        if let Some(outcome) = self.before_hashing(experiment) {
            return outcome;
        }
        let Some(value) = unit.value else {
            return Outcome::out(Reason::NoHashValue);
        };
        let remembered = self.remembered(experiment);
        let found = match remembered {
            Remembered::Variation(variation) => Some(variation),
            _ => None,
        };
        if found.is_none()
            && let Err(reason) = self.targeting(experiment, value, above)
        {
            return Outcome::out(reason);
        }
        if let Some(pattern) = &experiment.url
            && !pattern.matches(self.context.url.unwrap_or_default())
        {
            return Outcome::out(Reason::Url);
        }
        let Some(bucket) = experiment.seed.bucket(value.into(), experiment.version) else {
            return Outcome::out(Reason::HashVersion);
        };
        let ranges = view
            .bandit
            .map_or(&*experiment.ranges, |bandit| bandit.ranges());
        let assigned = found.or_else(|| choose_variation(bucket, ranges));
        let (reason, variation) = if matches!(remembered, Remembered::Blocked) {
            (Reason::Blocked, None)
        } else if assigned.is_none() {
            (Reason::Coverage, None)
        } else if let Some(force) = experiment.force {
            (Reason::ForcedByExperiment, Some(force))
        } else if self.context.qa_mode {
            (Reason::QaMode, None)
        } else if experiment.is_stopped {
            (Reason::Stopped, None)
        } else if found.is_some() {
            (Reason::Sticky, assigned)
        } else {
            (Reason::Assigned, assigned)
        };
        Outcome {
            reason,
            variation,
            bucket: Some(bucket),
        }
    }

    /// What is decided without the unit: the variation if there is one, and why.
    pub(super) fn without_unit(&self, experiment: &Experiment) -> Option<(Reason, Option<usize>)> {
        let outcome = self.before_hashing(experiment)?;
        Some((outcome.reason, outcome.variation))
    }

    /// What is decided without the unit.
    fn before_hashing(&self, experiment: &Experiment) -> Option<Outcome> {
        let variations = experiment.arms.len();
        if variations < 2 {
            return Some(Outcome::out(Reason::TooFewVariations));
        }
        if !self.context.is_enabled {
            return Some(Outcome::out(Reason::Disabled));
        }
        let page = self.context.url.unwrap_or_default();
        if experiment
            .pages
            .as_ref()
            .is_some_and(|pages| !pages.matches(page))
        {
            return Some(Outcome::out(Reason::Url));
        }
        if let Some(index) = url::query_string_override(&experiment.key, page, variations) {
            return Some(Outcome::forced(Reason::QueryString, index));
        }
        if let Some(value) = self.context.forced_variation(&experiment.key) {
            let index = url::forced_index(value, variations);
            return Some(Outcome::forced(Reason::Forced, index));
        }
        (!experiment.is_active).then(|| Outcome::out(Reason::Inactive))
    }

    /// What a unit that already has a variation need not pass.
    pub(super) fn targeting(
        &mut self,
        experiment: &'c Experiment,
        value: &'c serde_json::Value,
        above: Option<&Above<'_>>,
    ) -> Result<(), Reason> {
        match (&experiment.filters, &experiment.namespace) {
            (Some(filters), _) if self.is_filtered_out(filters) => return Err(Reason::Filtered),
            (None, Some(namespace)) if !namespace.contains(value.into()) => {
                return Err(Reason::Namespace);
            }
            _ => {}
        }
        if let Some(condition) = &experiment.condition
            && !self
                .evaluator()
                .passes(&condition.node, Subject::User(&self.attributes))
        {
            return Err(Reason::Condition);
        }
        if !matches!(self.prerequisites(&experiment.parents, above), Gate::Open) {
            return Err(Reason::Prerequisite);
        }
        match &experiment.groups {
            Some(groups) if !self.is_in_groups(groups) => Err(Reason::Groups),
            _ => Ok(()),
        }
    }

    fn remembered(&self, experiment: &'c Experiment) -> Remembered {
        let (Some(store), Some(sticky)) = (self.context.sticky_buckets, &experiment.sticky) else {
            return Remembered::Nothing;
        };
        let key = |attribute: &'c str| {
            let unit = self.unit(attribute, None);
            let value = unit.value.map(unit_text);
            (
                value.is_some(),
                sticky_key(attribute, &value.unwrap_or_default()),
            )
        };
        let (_, own) = key(&experiment.hash_attribute);
        let (has_fallback, fallback) =
            key(experiment.fallback_attribute.as_deref().unwrap_or("id"));
        let fallback = has_fallback.then_some(fallback);
        let is_blocked = |key: &str| store.has_below(key, &sticky.prefix, sticky.min_version);
        if sticky.min_version > 0.0
            && (is_blocked(&own) || fallback.as_deref().is_some_and(is_blocked))
        {
            return Remembered::Blocked;
        }
        let variation = store
            .get(&own, &sticky.assignment)
            .or_else(|| store.get(fallback.as_deref()?, &sticky.assignment));
        let index = variation.and_then(|variation| {
            let variation = variation.as_str()?;
            let is_it = |arm: &super::definition::Arm| arm.sticky_key.as_deref() == Some(variation);
            experiment.arms.iter().position(is_it)
        });
        index.map_or(Remembered::Nothing, Remembered::Variation)
    }

    fn remember(&self, experiment: &Experiment, unit: Unit<'_>, variation: &str) {
        if let (Some(store), Some(sticky), Some(value)) =
            (self.context.sticky_buckets, &experiment.sticky, unit.value)
        {
            store.set(
                unit.attribute,
                unit_text(value),
                &sticky.assignment,
                variation,
            );
        }
    }
}

fn result<'c>(
    view: ExperimentView<'c>,
    unit: Unit<'c>,
    feature: Option<&'c str>,
    outcome: &Outcome,
) -> ExperimentResult<'c> {
    let arms = &view.experiment.arms;
    // What is forced may not be there; more ranges than variations lead beyond them: hashed, but not in.
    let variation = outcome
        .variation
        .filter(|variation| *variation < arms.len());
    let in_experiment = variation.is_some();
    let variation = variation.unwrap_or_default();
    let arm = arms.get(variation);
    let hash_used = matches!(outcome.reason, Reason::Assigned | Reason::Sticky);
    ExperimentResult {
        reason: outcome.reason,
        key: arm.map_or("0", |arm| &arm.key),
        feature_id: feature,
        in_experiment,
        hash_used,
        variation_id: variation,
        value: arm.map_or(&NULL, |arm| &arm.value),
        hash_attribute: unit.attribute,
        hash_value: unit.value.unwrap_or(&EMPTY),
        sticky_bucket_used: matches!(outcome.reason, Reason::Sticky | Reason::Blocked),
        name: arm.and_then(|arm| arm.name.as_ref()),
        bucket: outcome.bucket,
        passthrough: arm.and_then(|arm| arm.passthrough.as_ref()),
        bandit: view.bandit.filter(|_| hash_used && in_experiment),
    }
}
