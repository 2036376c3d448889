//! What of an answer depends on the payload alone, rendered once.

use serde_json::{Map, Value};

use super::{
    super::{
        Compiled,
        definition::{Action, Experiment, Feature},
        js,
    },
    drive::Entry,
    plain::scrubbed,
};

/// A payload's answer with gaps for what depends on the user.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) parts: Box<[Part]>,
    /// In the order of the entries.
    pub(super) features: Box<[FeatureTemplate]>,
    /// By number of the experiment.
    pub(super) experiments: Box<[ExperimentTemplate]>,
    /// Bytes of an answer in which every feature has its default.
    pub(super) len: usize,
}

/// A part of the answer.
#[derive(Debug)]
pub(super) enum Part {
    Bytes(Box<[u8]>),
    /// The members of `features`.
    Features,
    /// The elements of `experiments`.
    Experiments,
}

/// A feature's answers.
#[derive(Debug)]
pub(super) struct FeatureTemplate {
    /// `"<key>":{"defaultValue":`, with the comma before it.
    pub(super) opening: Box<[u8]>,
    pub(super) default: Answer,
    /// By position of the rule.
    pub(super) rules: Box<[RuleTemplate]>,
}

/// The answers that one rule can give.
#[derive(Debug)]
pub(super) enum RuleTemplate {
    None,
    Force(Answer),
    /// By position of the variation.
    Variations(Box<[Answer]>),
}

/// `"<key>":{"defaultValue":<value>}`, with the comma before it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) bytes: Box<[u8]>,
    value_from: usize,
}

/// An experiment's exposures, by variation.
#[derive(Debug)]
pub(super) struct ExperimentTemplate {
    pub(super) arms: Box<[ArmTemplate]>,
    /// `"<fallback attribute>","hashValue":`
    pub(super) fallback: Box<[u8]>,
}

/// The exposure of a unit that got one variation by hashing, or by its sticky bucket.
#[derive(Debug)]
pub(super) struct ArmTemplate {
    /// Up to the unit: `{"experiment":…,"result":{…"hashAttribute":"<attribute>","hashValue":`
    pub(super) before_unit: Box<[u8]>,
    /// Where in that the attribute's name begins.
    pub(super) attribute_from: usize,
    /// From the unit to the bucket: `,"stickyBucketUsed":false,…"bucket":`
    pub(super) before_bucket: Box<[u8]>,
    /// The same where the sticky bucket decided.
    pub(super) before_bucket_sticky: Box<[u8]>,
    pub(super) after_bucket: Box<[u8]>,
    /// The experiment as it is shown to a unit with this variation.
    pub(super) experiment: std::ops::Range<usize>,
}

impl Template {
    pub(super) fn new(
        members: &Map<String, Value>,
        compiled: &Compiled,
        entries: &[Entry],
    ) -> Self {
        let features = entries.iter().enumerate().map(|(place, entry)| {
            let feature = entry
                .position
                .map(|position| &compiled.features[position as usize]);
            FeatureTemplate::new(place, &entry.key, feature)
        });
        let features: Box<[_]> = features.collect();
        let parts = parts(members);
        let bytes = |part: &Part| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::Features | Part::Experiments => 0,
        };
        let defaults: usize = features
            .iter()
            .map(|feature| feature.default.bytes.len())
            .sum();
        Self {
            len: defaults + parts.iter().map(bytes).sum::<usize>(),
            experiments: experiments(compiled),
            parts,
            features,
        }
    }
}

/// The payload's members in JavaScript's order; `features` and `experiments` stay where they are, or come last.
fn parts(members: &Map<String, Value>) -> Box<[Part]> {
    let mut names: Vec<&str> = js::ordered(members)
        .into_iter()
        .map(|(name, _)| name.as_str())
        .collect();
    for name in ["features", "experiments"] {
        if !members.contains_key(name) {
            names.push(name);
        }
    }
    let mut parts = Vec::new();
    let mut text = String::from("{");
    for (index, name) in names.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&js::json_text(&name.into()));
        text.push(':');
        let (open, part, close) = match name {
            "features" => ("{", Part::Features, "}"),
            "experiments" => ("[", Part::Experiments, "]"),
            _ => {
                text.push_str(&js::json_text(&members[name]));
                continue;
            }
        };
        text.push_str(open);
        parts.push(Part::Bytes(std::mem::take(&mut text).into_bytes().into()));
        parts.push(part);
        text.push_str(close);
    }
    text.push('}');
    parts.push(Part::Bytes(text.into_bytes().into()));
    parts.into()
}

impl FeatureTemplate {
    fn new(place: usize, key: &str, feature: Option<&Feature>) -> Self {
        let comma = if place > 0 { "," } else { "" };
        let opening = format!("{comma}{}:{{\"defaultValue\":", js::json_text(&key.into()));
        let answer = |value: &Value| Answer::new(&opening, value);
        let rules = feature.map(|feature| &*feature.rules).unwrap_or_default();
        let rules = rules.iter().map(|rule| match &rule.action {
            Action::Force(force) => RuleTemplate::Force(answer(&force.value)),
            Action::Experiment(experiment) => {
                let arms = experiment.arms.iter();
                RuleTemplate::Variations(arms.map(|arm| answer(&arm.value)).collect())
            }
            Action::Nothing => RuleTemplate::None,
        });
        Self {
            default: answer(feature.map_or(&js::NULL, |feature| &feature.default)),
            rules: rules.collect(),
            opening: opening.into_bytes().into(),
        }
    }
}

impl Answer {
    fn new(opening: &str, value: &Value) -> Self {
        let bytes = format!("{opening}{}}}", js::json_text(value));
        Self {
            bytes: bytes.into_bytes().into(),
            value_from: opening.len(),
        }
    }

    /// The value alone.
    pub(super) fn value(&self) -> &[u8] {
        &self.bytes[self.value_from..self.bytes.len() - 1]
    }

    /// All but the closing brace.
    pub(super) fn unclosed(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - 1]
    }
}

/// The exposures of all experiments, in the order of their numbers.
fn experiments(compiled: &Compiled) -> Box<[ExperimentTemplate]> {
    let rules = compiled
        .rule_experiments()
        .map(|(feature, _, experiment)| (Some(&**feature), experiment));
    let auto = compiled.auto_experiments.iter();
    rules
        .chain(auto.map(|auto| (None, &auto.experiment)))
        .map(|(feature, experiment)| ExperimentTemplate::new(feature, experiment))
        .collect()
}

impl ExperimentTemplate {
    fn new(feature: Option<&str>, experiment: &Experiment) -> Self {
        let attribute = |name: &str| format!("{},\"hashValue\":", js::json_text(&name.into()));
        let arms = (0..experiment.arms.len()).map(|index| {
            let own = attribute(&experiment.hash_attribute);
            ArmTemplate::new(feature, experiment, index, &own)
        });
        Self {
            arms: arms.collect(),
            fallback: attribute(experiment.fallback_attribute.as_deref().unwrap_or_default())
                .into_bytes()
                .into(),
        }
    }
}

impl ArmTemplate {
    fn new(feature: Option<&str>, experiment: &Experiment, index: usize, attribute: &str) -> Self {
        let arm = &experiment.arms[index];
        let shown = js::json_text(&scrubbed(experiment.source.clone().into(), Some(index)));
        let opening = "{\"experiment\":";
        let mut before_unit = format!(
            "{opening}{shown},\"result\":{{\"key\":{},\"featureId\":{},\"inExperiment\":true,\"hashUsed\":true,\
             \"variationId\":{index},\"value\":{},\"hashAttribute\":",
            js::json_text(&(*arm.key).into()),
            js::json_text(&feature.into()),
            js::json_text(&arm.value),
        );
        let attribute_from = before_unit.len();
        before_unit.push_str(attribute);
        let member = |name: &str, value: &Option<Value>| {
            let value = value
                .as_ref()
                .map(|value| format!(",\"{name}\":{}", js::json_text(value)));
            value.unwrap_or_default()
        };
        let name = member("name", &arm.name);
        let before_bucket = |is_sticky: bool| {
            let text = format!(",\"stickyBucketUsed\":{is_sticky}{name},\"bucket\":");
            text.into_bytes().into()
        };
        let after_bucket = format!("{}}}}}", member("passthrough", &arm.passthrough));
        Self {
            before_unit: before_unit.into_bytes().into(),
            attribute_from,
            before_bucket: before_bucket(false),
            before_bucket_sticky: before_bucket(true),
            after_bucket: after_bucket.into_bytes().into(),
            experiment: opening.len()..opening.len() + shown.len(),
        }
    }

    /// The experiment as it is shown to a unit with this variation.
    pub(super) fn shown(&self) -> &[u8] {
        &self.before_unit[self.experiment.clone()]
    }
}
