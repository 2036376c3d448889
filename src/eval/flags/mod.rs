//! Features as other protocols know them: OpenFeature's flags, Unleash's toggles.
//!
//! `Flags::new` renders every answer that a feature can give ahead, once per snapshot, dialect and protocol's need: one
//! per default, forced value and variation. An evaluation is then the evaluator's result, which picks one of them, and
//! copying. All users share it, whatever they may see: a caller is shown the flags at some positions, see
//! [`Flags::visible`].

mod answers;
mod ofrep;
#[cfg(test)]
mod tests;
mod toggles;

use std::sync::Arc;

use serde_json::Value;

use self::answers::Answers;
use super::{
    Compiled, Context,
    definition::{Action, Rule},
    feature::{Run, STEPS_MAX},
    result::{FeatureResult, Observer, Reason, Skip},
};

/// Steps that one answer with many flags may take; real ones stay a hundred times below.
const ALL_STEPS_MAX: u32 = 8_000_000;
/// The attribute that OpenFeature's targeting key and Unleash's user id become.
pub const UNIT_ATTRIBUTE: &str = "id";

/// What a feature says of its projects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureProjects {
    /// Nothing.
    Unknown,
    /// It is in all of them.
    All,
    /// These; may be none.
    Some(Box<[Box<str>]>),
}

impl FeatureProjects {
    /// Reads `metadata.projects` and `metadata.allProjects` of a definition.
    pub fn of(definition: &Value) -> Self {
        let Some(metadata) = definition.get("metadata") else {
            return Self::Unknown;
        };
        if metadata.get("allProjects") == Some(&Value::Bool(true)) {
            return Self::All;
        }
        match metadata.get("projects").and_then(Value::as_array) {
            Some(names) => Self::Some(
                names
                    .iter()
                    .filter_map(Value::as_str)
                    .map(Into::into)
                    .collect(),
            ),
            None => Self::Unknown,
        }
    }
}

/// One flag with everything it can answer.
#[derive(Debug)]
pub struct Flag {
    key: Arc<str>,
    position: u32,
    projects: FeatureProjects,
    ofrep: Answers,
    toggle: Answers,
    /// Answers in place of those where the unit that the flag needs is not known.
    unit_missing: Box<[u8]>,
}

impl Flag {
    /// The feature's key.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The feature's projects.
    pub fn projects(&self) -> &FeatureProjects {
        &self.projects
    }
}

/// All flags of a snapshot, sorted by key.
#[derive(Debug)]
pub struct Flags(Box<[Flag]>);

impl Flags {
    /// Renders the answers of all features; `projects` are theirs, in the same order.
    pub(super) fn new(compiled: &Compiled, projects: &[FeatureProjects]) -> Self {
        let features = compiled.features.iter().zip(projects);
        let flags = (0..)
            .zip(features)
            .map(|(position, (feature, projects))| Flag {
                key: Arc::clone(&feature.key),
                position,
                projects: projects.clone(),
                ofrep: ofrep::answers(feature),
                toggle: toggles::answers(feature),
                unit_missing: ofrep::unit_missing(&feature.key),
            });
        let mut flags: Vec<Flag> = flags.collect();
        flags.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Self(flags.into())
    }

    /// The flags, sorted by key.
    pub fn all(&self) -> &[Flag] {
        &self.0
    }

    /// Positions of the flags that may be seen.
    pub fn visible(&self, may_be_seen: impl Fn(&Flag) -> bool) -> Box<[u32]> {
        let numbered = (0..).zip(&self.0);
        let visible = numbered.filter(|(_, flag)| may_be_seen(flag));
        visible.map(|(at, _)| at).collect()
    }

    /// Position of a flag among those that may be seen.
    pub fn find(&self, key: &str, visible: &[u32]) -> Option<u32> {
        let found = self.0.binary_search_by(|flag| (*flag.key).cmp(key)).ok()?;
        let found = u32::try_from(found).ok()?;
        visible.binary_search(&found).ok().map(|_| found)
    }

    /// Evaluates flags at these positions for one user, each by itself, in this order.
    fn evaluate<'c, O: Observer<'c>>(
        &'c self,
        compiled: &'c Compiled,
        context: &'c Context<'c>,
        at: &[u32],
        observer: O,
        mut found: impl FnMut(&'c Flag, &FeatureResult<'c>, &mut O),
    ) {
        let mut left = ALL_STEPS_MAX;
        let mut run = Run::new(compiled, context, observer);
        for at in at {
            let flag = &self.0[*at as usize];
            let steps = left.min(STEPS_MAX);
            run.allow(steps);
            let result = run.known(flag.position, None);
            left -= steps - run.steps_left();
            found(flag, &result, &mut run.observer);
        }
    }
}

/// Notices that a rule passed a user by because the unit that it splits by has no value.
struct UnitWatch<'c> {
    compiled: &'c Compiled,
    is_missing: bool,
}

impl<'c> Observer<'c> for UnitWatch<'c> {
    fn skipped(&mut self, feature: &'c str, rule: usize, why: Skip<'c>) {
        let is_without_unit = matches!(
            why,
            Skip::Rollout { bucket: None, .. }
                | Skip::Experiment(Reason::NoHashValue)
                | Skip::Filters
        );
        if !is_without_unit || self.is_missing {
            return;
        }
        let Some(position) = self.compiled.index.get(feature) else {
            return;
        };
        let feature = &self.compiled.features[*position as usize];
        self.is_missing = feature.rules.get(rule).is_some_and(splits_by_unit);
    }
}

/// Whether a rule splits users by the attribute that targeting keys become.
fn splits_by_unit(rule: &Rule) -> bool {
    let filters = rule.filters.iter().flat_map(|filters| filters.iter());
    let by_filter = filters.map(|filter| &*filter.attribute);
    let by_action = match &rule.action {
        Action::Force(force) => force
            .rollout
            .as_ref()
            .map(|rollout| &*rollout.hash_attribute),
        Action::Experiment(experiment) => Some(&*experiment.hash_attribute),
        Action::Nothing => None,
    };
    by_filter
        .chain(by_action)
        .any(|name| name == UNIT_ATTRIBUTE)
}
