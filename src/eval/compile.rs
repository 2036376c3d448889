//! From the JSON of features and experiments to what evaluation walks.
//!
//! Nothing fails here. What is malformed becomes what JavaScript makes of it: a rule that is skipped, a condition that
//! is false, a range that nobody is in.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::FixedState;
use serde_json::{Map, Value};

use super::{
    Dialect,
    bandit::Bandit,
    bucketing::{self, Namespace, bucket_ranges},
    condition::{Compiler, Node},
    definition::{
        Action, Arm, Condition, Experiment, Feature, Filter, Force, Parent, Rollout, Rule, Share,
        Sticky, Target,
    },
    hash::{HashVersion, Seed},
    js,
    url::{self, UrlPattern, UrlTargets},
};

/// Positions of features by key.
pub(super) type FeatureIndex = HashMap<Arc<str>, u32, FixedState>;

/// Members of a rule that its experiment takes over where they are truthy, in GrowthBook's order.
const RULE_MEMBERS: [&str; 4] = [
    "weights",
    "hashAttribute",
    "fallbackAttribute",
    "disableStickyBucketing",
];

/// The rest of them, which follow the bucket versions.
const MORE_RULE_MEMBERS: [&str; 9] = [
    "namespace",
    "meta",
    "ranges",
    "name",
    "phase",
    "seed",
    "hashVersion",
    "filters",
    "condition",
];

/// What compiling features and experiments needs to know.
pub(super) struct Definer<'a> {
    pub(super) dialect: Dialect,
    pub(super) compiler: Compiler<'a>,
    pub(super) features: &'a FeatureIndex,
    pub(super) bandits: &'a Map<String, Value>,
    pub(super) overrides: &'a Map<String, Value>,
}

impl Definer<'_> {
    pub(super) fn feature(&self, key: &Arc<str>, definition: &Value) -> Feature {
        let rules = definition.get("rules").and_then(Value::as_array);
        let rule = |rule: &Value| match rule {
            Value::Object(members) => self.rule(key, members),
            _ => Rule {
                id: Box::default(),
                parents: Box::default(),
                filters: None,
                action: Action::Nothing,
            },
        };
        Feature {
            key: Arc::clone(key),
            default: definition.get("defaultValue").cloned().unwrap_or_default(),
            rules: rules.into_iter().flatten().map(rule).collect(),
        }
    }

    fn rule(&self, key: &str, rule: &Map<String, Value>) -> Rule {
        Rule {
            id: text(rule, "id").unwrap_or_default(),
            parents: self.parents(rule),
            filters: filters(rule),
            action: self.action(key, rule),
        }
    }

    fn action(&self, key: &str, rule: &Map<String, Value>) -> Action {
        if let Some(value) = rule.get("force") {
            let tracks = js::truthy_member(rule, "tracks").and_then(Value::as_array);
            return Action::Force(Box::new(Force {
                value: value.clone(),
                condition: self.condition(rule),
                rollout: self.rollout(key, rule),
                tracks: tracks.into_iter().flatten().cloned().collect(),
            }));
        }
        let variations = rule
            .get("contextualVariations")
            .filter(|variations| !variations.is_null())
            .or_else(|| rule.get("variations"))
            .filter(|variations| js::truthy((*variations).into()));
        let Some(variations) = variations else {
            return Action::Nothing;
        };
        let mut source = Map::new();
        source.insert("variations".into(), variations.clone());
        let name = text(rule, "key").unwrap_or_else(|| key.into());
        source.insert("key".into(), (*name).into());
        let mut take = |name: &str, value: Option<&Value>| {
            if let Some(value) = value {
                source.insert(name.into(), value.clone());
            }
        };
        take("coverage", rule.get("coverage"));
        for name in RULE_MEMBERS {
            take(name, js::truthy_member(rule, name));
        }
        for name in ["bucketVersion", "minBucketVersion"] {
            take(name, rule.get(name));
        }
        for name in MORE_RULE_MEMBERS {
            take(name, js::truthy_member(rule, name));
        }
        let bandit = js::truthy_member(rule, "contextualBanditRef").and_then(Value::as_str);
        Action::Experiment(Box::new(self.experiment(source, bandit)))
    }

    /// Compiles an experiment; one without a key has the empty one.
    pub(super) fn experiment(
        &self,
        source: Map<String, Value>,
        bandit: Option<&str>,
    ) -> Experiment {
        let key = text(&source, "key").unwrap_or_default();
        let overrides = self.overrides.get(&*key).and_then(Value::as_object);
        let compiled = match overrides {
            Some(overrides) => {
                let mut merged = source.clone();
                let changes = overrides.iter().filter(|(name, _)| *name != "variations");
                merged.extend(changes.map(|(name, value)| (name.clone(), value.clone())));
                self.assemble(&key, &merged, bandit)
            }
            None => self.assemble(&key, &source, bandit),
        };
        Experiment { source, ..compiled }
    }

    fn assemble(&self, key: &str, source: &Map<String, Value>, bandit: Option<&str>) -> Experiment {
        let arms = arms(source);
        let coverage = self.coverage(source.get("coverage")).unwrap_or(1.0);
        let ranges = js::truthy_member(source, "ranges").map(bucketing::ranges);
        let weights = || js::truthy_member(source, "weights").and_then(bucketing::weights);
        let bandit = bandit
            .and_then(|name| js::truthy_member(self.bandits, name))
            .map(|bandit| Bandit::new(bandit, source, arms.len(), coverage, &self.compiler));
        let is_disabled = js::truthy_member(source, "disableStickyBucketing").is_some();
        Experiment {
            number: u32::MAX,
            key: key.into(),
            source: Map::new(),
            hash_attribute: text(source, "hashAttribute").unwrap_or_else(|| "id".into()),
            fallback_attribute: text(source, "fallbackAttribute"),
            sticky: (!is_disabled).then(|| sticky(key, source)),
            seed: Seed::new(&text(source, "seed").unwrap_or_else(|| key.into())),
            version: hash_version(source, HashVersion::V1),
            ranges: ranges.unwrap_or_else(|| {
                bucket_ranges(arms.len(), coverage, weights().as_deref()).into()
            }),
            filters: filters(source),
            namespace: js::truthy_member(source, "namespace").map(|namespace| {
                Namespace::from_value(namespace).unwrap_or_else(Namespace::nobody)
            }),
            condition: self.condition(source),
            parents: self.parents(source),
            groups: js::truthy_member(source, "groups").map(|groups| {
                let names = groups.as_array().into_iter().flatten();
                names.map(|name| js::string(name.into()).into()).collect()
            }),
            pages: js::truthy_member(source, "urlPatterns")
                .map(|targets| UrlTargets::new(targets, &self.compiler)),
            url: js::truthy_member(source, "url")
                .map(|pattern| UrlPattern::new(pattern, &self.compiler)),
            force: source
                .get("force")
                .map(|force| url::forced_index(force, arms.len())),
            is_active: source.get("active") != Some(&Value::Bool(false))
                && source.get("status").and_then(Value::as_str) != Some("draft"),
            is_stopped: source.get("status").and_then(Value::as_str) == Some("stopped"),
            bandit,
            arms,
        }
    }

    fn condition(&self, members: &Map<String, Value>) -> Option<Condition> {
        js::truthy_member(members, "condition").map(|source| Condition {
            node: self.compiler.condition(source),
            source: source.clone(),
        })
    }

    /// Coverage as a number. JavaScript takes null for 0, the strict dialect for nothing.
    fn coverage(&self, coverage: Option<&Value>) -> Option<f64> {
        let is_absent = |value: &&Value| value.is_null() && self.dialect == Dialect::Strict;
        coverage
            .filter(|value| !is_absent(value))
            .map(|value| js::number(value.into()))
    }

    fn rollout(&self, key: &str, rule: &Map<String, Value>) -> Option<Rollout> {
        let range = js::truthy_member(rule, "range").map(bucketing::range);
        let share = match (range, self.coverage(rule.get("coverage"))) {
            (Some(range), _) => Share::Range(range),
            (None, None) => return None,
            (None, Some(0.0)) => Share::None,
            (None, Some(coverage)) => Share::Coverage(coverage),
        };
        let is_sticky = js::truthy_member(rule, "disableStickyBucketing").is_none();
        Some(Rollout {
            seed: Seed::new(&text(rule, "seed").unwrap_or_else(|| key.into())),
            version: hash_version(rule, HashVersion::V1),
            hash_attribute: text(rule, "hashAttribute").unwrap_or_else(|| "id".into()),
            fallback_attribute: text(rule, "fallbackAttribute").filter(|_| is_sticky),
            share,
        })
    }

    fn parents(&self, members: &Map<String, Value>) -> Box<[Parent]> {
        let Some(parents) = js::truthy_member(members, "parentConditions") else {
            return Box::default();
        };
        let parent = |parent: &Value| {
            let Value::Object(members) = parent else {
                return broken_parent();
            };
            let id = members.get("id").cloned().unwrap_or_default();
            let id = js::string((&id).into());
            Parent {
                feature: match self.features.get(&*id) {
                    Some(position) => Target::Known(*position),
                    None => Target::Missing(id.into()),
                },
                condition: js::truthy_member(members, "condition")
                    .map(|condition| self.compiler.condition(condition)),
                is_gate: js::truthy_member(members, "gate").is_some(),
            }
        };
        match parents.as_array() {
            Some(parents) => parents.iter().map(parent).collect(),
            None => [broken_parent()].into(),
        }
    }
}

/// A prerequisite that JavaScript would throw at: it fails.
fn broken_parent() -> Parent {
    Parent {
        feature: Target::Missing(Box::default()),
        condition: Some(Node::Broken),
        is_gate: false,
    }
}

fn filters(members: &Map<String, Value>) -> Option<Box<[Filter]>> {
    let filters = js::truthy_member(members, "filters")?;
    let filter = |filter: &Value| {
        let empty = Map::new();
        let members = filter.as_object().unwrap_or(&empty);
        let seed = members.get("seed").map(|seed| js::string(seed.into()));
        Filter {
            attribute: text(members, "attribute").unwrap_or_else(|| "id".into()),
            seed: Seed::new(&seed.unwrap_or_else(|| "undefined".into())),
            version: hash_version(members, HashVersion::V2),
            ranges: members
                .get("ranges")
                .map(bucketing::ranges)
                .unwrap_or_default(),
        }
    };
    let filters = filters.as_array().into_iter().flatten();
    Some(filters.map(filter).collect())
}

/// A member as text, if it is truthy.
fn text(members: &Map<String, Value>, name: &str) -> Option<Box<str>> {
    js::truthy_member(members, name).map(|value| js::string(value.into()).into())
}

fn hash_version(members: &Map<String, Value>, default: HashVersion) -> HashVersion {
    match js::truthy_member(members, "hashVersion") {
        None => default,
        Some(Value::Number(version)) => {
            HashVersion::from_number(version.as_f64().unwrap_or_default())
        }
        Some(_) => HashVersion::Unknown,
    }
}

fn sticky(key: &str, source: &Map<String, Value>) -> Sticky {
    let version =
        |name| js::truthy_member(source, name).map_or(0.0, |version| js::number(version.into()));
    Sticky {
        prefix: format!("{key}__").into(),
        assignment: format!("{key}__{}", js::number_text(version("bucketVersion"))).into(),
        min_version: version("minBucketVersion"),
    }
}

fn arms(source: &Map<String, Value>) -> Box<[Arm]> {
    let variations = source.get("variations").and_then(Value::as_array);
    let empty = Map::new();
    let arm = |(index, value): (usize, &Value)| {
        let meta = source.get("meta").and_then(|meta| meta.get(index));
        let meta = meta.and_then(Value::as_object).unwrap_or(&empty);
        Arm {
            value: value.clone(),
            key: text(meta, "key").unwrap_or_else(|| index.to_string().into()),
            sticky_key: meta.get("key").and_then(Value::as_str).map(Into::into),
            name: js::truthy_member(meta, "name").cloned(),
            passthrough: js::truthy_member(meta, "passthrough").cloned(),
        }
    };
    let variations = variations.into_iter().flatten().enumerate();
    variations.map(arm).collect()
}
