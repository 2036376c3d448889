//! Everything that one feature can answer, rendered.

use serde_json::Value;

use super::super::{
    definition::{Action, Arm, Feature, Rule},
    js::NULL,
    result::{FeatureResult, Source},
};

/// A feature's value and where it comes from: what one answer is made of.
#[derive(Clone, Copy)]
pub(super) struct Given<'f> {
    pub(super) value: &'f Value,
    pub(super) source: Source,
    /// The rule that gave it.
    pub(super) rule: Option<&'f Rule>,
    /// The variation, where it is one.
    pub(super) arm: Option<&'f Arm>,
}

impl<'f> Given<'f> {
    /// The rule's id, if it has one.
    pub(super) fn rule_id(&self) -> Option<&'f str> {
        self.rule.map(|rule| &*rule.id).filter(|id| !id.is_empty())
    }

    /// What the value is called: as the variation, else as the rule, else `default`.
    pub(super) fn variant(&self) -> &'f str {
        match self.arm {
            Some(arm) => &arm.key,
            None if self.source == Source::Force => self.rule_id().unwrap_or("force"),
            None => "default",
        }
    }
}

/// The answers of one rule.
#[derive(Debug)]
enum OfRule {
    None,
    Force(Box<[u8]>),
    /// By position of the variation.
    Arms(Box<[Box<[u8]>]>),
}

/// The answers of one feature.
#[derive(Debug)]
pub(super) struct Answers {
    default: Box<[u8]>,
    rules: Box<[OfRule]>,
    /// A prerequisite blocks it.
    blocked: Box<[u8]>,
    /// Its prerequisites lead back to it.
    cyclic: Box<[u8]>,
}

impl Answers {
    /// Renders all of them.
    pub(super) fn new(feature: &Feature, render: impl Fn(Given<'_>) -> Box<[u8]>) -> Self {
        let plain = |value, source| {
            render(Given {
                value,
                source,
                rule: None,
                arm: None,
            })
        };
        let of_rule = |rule: &Rule| match &rule.action {
            Action::Force(force) => OfRule::Force(render(Given {
                value: &force.value,
                source: Source::Force,
                rule: Some(rule),
                arm: None,
            })),
            Action::Experiment(experiment) => {
                let arms = experiment.arms.iter().map(|arm| {
                    render(Given {
                        value: &arm.value,
                        source: Source::Experiment,
                        rule: Some(rule),
                        arm: Some(arm),
                    })
                });
                OfRule::Arms(arms.collect())
            }
            Action::Nothing => OfRule::None,
        };
        Self {
            default: plain(&feature.default, Source::DefaultValue),
            rules: feature.rules.iter().map(of_rule).collect(),
            blocked: plain(&NULL, Source::Prerequisite),
            cyclic: plain(&NULL, Source::CyclicPrerequisite),
        }
    }

    /// The one for a result.
    pub(super) fn of(&self, result: &FeatureResult<'_>) -> &[u8] {
        match result.source {
            Source::DefaultValue => &self.default,
            Source::Prerequisite => &self.blocked,
            Source::Force | Source::Experiment => self.of_rule(result).unwrap_or(&self.blocked),
            // Callers of these protocols force nothing, and positions are of features that exist.
            Source::UnknownFeature | Source::Override | Source::CyclicPrerequisite => &self.cyclic,
        }
    }

    fn of_rule(&self, result: &FeatureResult<'_>) -> Option<&[u8]> {
        match self.rules.get(result.rule?)? {
            OfRule::None => None,
            OfRule::Force(answer) => Some(answer),
            OfRule::Arms(arms) => {
                let (_, result) = result.experiment.as_ref()?;
                arms.get(result.variation_id).map(|answer| &**answer)
            }
        }
    }
}
