//! What of a snapshot somebody may be sent who may see some of its features only.
//!
//! Definitions go out, so evaluation happens elsewhere, and a prerequisite that may not be seen cannot be asked there. Where
//! its value is the same for everybody the rule that asks is resolved; otherwise the feature is left out, and said to be.
//! Saved groups and contextual bandits go along where something that is sent refers to them.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Compiled, Context, Definitions, Dialect, FeatureProjects, js, references::References};

/// The members of a snapshot document.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScopedSnapshot {
    /// Features by key.
    pub features: Map<String, Value>,
    /// Experiments of the management API.
    pub experiments: Vec<Value>,
    /// Auto experiments, in order.
    pub auto_experiments: Vec<Value>,
    /// Saved groups by id.
    pub saved_groups: Map<String, Value>,
    /// Contextual bandits by id.
    pub contextual_bandits: Map<String, Value>,
    /// Overrides of operators.
    pub overrides: Vec<Value>,
    /// Features left out although they may be seen, each with the prerequisite that may not.
    #[serde(skip)]
    pub left_out: Vec<(String, String)>,
}

/// What becomes of a rule whose prerequisite may not be seen.
enum Resolved {
    /// It passes for everybody.
    Passes,
    /// It fails for everybody, and the rule with it.
    Fails,
    /// It fails for everybody, and the feature with it.
    Blocks,
    /// It depends on the user.
    Depends,
}

impl ScopedSnapshot {
    /// Reads a snapshot document and leaves in it what may be seen. Takes as long as compiling it.
    ///
    /// `sees` is asked with the projects of features and auto experiments, `sees_project` with those of experiments. Fails
    /// when the text is not JSON of that shape.
    pub fn new(
        document: &[u8],
        sees: impl Fn(&FeatureProjects) -> bool,
        sees_project: impl Fn(&str) -> bool,
    ) -> Result<Self, serde_json::Error> {
        let mut all: Self = serde_json::from_slice(document)?;
        let is_seen = |item: &Value| sees(&FeatureProjects::of(item));
        let visible = all.features.iter().filter(|(_, feature)| is_seen(feature));
        let mut visible: BTreeSet<&str> = visible.map(|(key, _)| key.as_str()).collect();
        let mut scoped = Self::default();
        // What is left out is missing for those that ask it in turn.
        loop {
            let left_out = scoped.left_out.len();
            scoped.features.clear();
            for key in visible.clone() {
                match resolved(&all.features, &visible, &all.features[key]) {
                    Ok(feature) => drop(scoped.features.insert(key.to_owned(), feature)),
                    Err(parent) => {
                        visible.remove(key);
                        scoped.left_out.push((key.to_owned(), parent));
                    }
                }
            }
            if scoped.left_out.len() == left_out {
                break;
            }
        }
        for experiment in all.auto_experiments.iter().filter(|item| is_seen(item)) {
            let is_whole = parents_of(experiment).all(|parent| visible.contains(parent));
            if is_whole {
                scoped.auto_experiments.push(experiment.clone());
            }
        }
        scoped.experiments = std::mem::take(&mut all.experiments);
        scoped.experiments.retain(|experiment| {
            let project = experiment.get("project").and_then(Value::as_str);
            project.is_some_and(|project| !project.is_empty() && sees_project(project))
        });
        scoped.bandits(&all.contextual_bandits);
        scoped.groups(&all.saved_groups);
        scoped.overrides = std::mem::take(&mut all.overrides);
        scoped.overrides.retain(|forced| {
            let key = forced
                .get("key")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let is_feature = forced.get("kind").and_then(Value::as_str) == Some("feature");
            is_feature && scoped.features.contains_key(key)
        });
        Ok(scoped)
    }

    fn bandits(&mut self, all: &Map<String, Value>) {
        let rules = self.features.values().flat_map(rules_of);
        let named = rules.chain(&self.auto_experiments);
        let named = named.filter_map(|item| item.get("contextualBanditRef")?.as_str());
        let named: BTreeSet<&str> = named.collect();
        let bandits = all.iter().filter(|(name, _)| named.contains(name.as_str()));
        self.contextual_bandits = bandits.map(|(n, b)| (n.clone(), b.clone())).collect();
    }

    /// The groups that are referred to, directly or by other groups.
    fn groups(&mut self, all: &Map<String, Value>) {
        let references = References::new(all);
        let items = self.features.values().chain(&self.auto_experiments);
        let items = items
            .chain(&self.experiments)
            .chain(self.contextual_bandits.values());
        let mut pending: Vec<usize> = items
            .flat_map(|item| references.within(item))
            .map(|(position, _)| position)
            .collect();
        let mut needed = BTreeSet::new();
        while let Some(position) = pending.pop() {
            if needed.insert(position) {
                let (_, group) = references.group(position);
                pending.extend(references.of_group(group).into_iter().map(|(p, _)| p));
            }
        }
        for position in needed {
            let (id, group) = references.group(position);
            self.saved_groups.insert(id.clone(), group.clone());
        }
    }
}

fn rules_of(feature: &Value) -> impl Iterator<Item = &Value> {
    let rules = feature.get("rules").and_then(Value::as_array);
    rules.into_iter().flatten()
}

fn parents_of(item: &Value) -> impl Iterator<Item = &str> {
    let parents = item.get("parentConditions").and_then(Value::as_array);
    let parents = parents.into_iter().flatten();
    parents.filter_map(|parent| parent.get("id")?.as_str())
}

/// A feature without references to what may not be seen; fails with the prerequisite that cannot be resolved.
fn resolved(
    all: &Map<String, Value>,
    visible: &BTreeSet<&str>,
    feature: &Value,
) -> Result<Value, String> {
    let is_hidden = |key: &str| all.contains_key(key) && !visible.contains(key);
    let needs_work = rules_of(feature).flat_map(parents_of).any(is_hidden);
    if !needs_work {
        return Ok(feature.clone());
    }
    let mut feature = feature.clone();
    let Some(Value::Array(rules)) = feature.get_mut("rules") else {
        return Ok(feature);
    };
    let mut kept = Vec::with_capacity(rules.len());
    for mut rule in std::mem::take(rules) {
        let Some(Value::Array(parents)) = rule.get_mut("parentConditions") else {
            kept.push(rule);
            continue;
        };
        let (mut left, mut outcome) = (Vec::new(), Resolved::Passes);
        for parent in std::mem::take(parents) {
            let key = parent.get("id").and_then(Value::as_str).unwrap_or_default();
            if !is_hidden(key) {
                left.push(parent);
                continue;
            }
            outcome = resolve(&all[key], &parent);
            // One that may be seen and stands before it can still block the feature.
            let is_unsure = matches!(outcome, Resolved::Fails) && left.iter().any(is_gate);
            if is_unsure || matches!(outcome, Resolved::Depends) {
                return Err(key.to_owned());
            }
            // Those behind the first that fails are not asked.
            if !matches!(outcome, Resolved::Passes) {
                break;
            }
        }
        match outcome {
            Resolved::Fails => {}
            Resolved::Blocks => {
                let id = rule.get("id").cloned().unwrap_or_default();
                kept.push(json!({"id": id, "parentConditions": left, "force": null}));
            }
            Resolved::Passes | Resolved::Depends => {
                rule["parentConditions"] = left.into();
                kept.push(rule);
            }
        }
    }
    feature["rules"] = kept.into();
    Ok(feature)
}

/// What a prerequisite says, where it says the same to everybody.
fn resolve(parent: &Value, asked: &Value) -> Resolved {
    let Some(value) = constant(parent) else {
        return Resolved::Depends;
    };
    let condition = asked
        .get("condition")
        .filter(|condition| js::truthy((*condition).into()));
    let attributes = Map::from_iter([("value".to_owned(), value)]);
    let compiled = Compiled::new(Definitions::default(), Dialect::Strict);
    let context = Context::new(&attributes);
    if condition.is_none_or(|condition| compiled.passes(&context, condition)) {
        Resolved::Passes
    } else if asked
        .get("gate")
        .is_some_and(|gate| js::truthy(gate.into()))
    {
        Resolved::Blocks
    } else {
        Resolved::Fails
    }
}

/// Whether the failure of a prerequisite blocks the whole feature.
fn is_gate(parent: &Value) -> bool {
    parent
        .get("gate")
        .is_some_and(|gate| js::truthy(gate.into()))
}

/// The value that a feature has for everybody; `None`: it depends.
fn constant(feature: &Value) -> Option<Value> {
    match rules_of(feature).next() {
        None => Some(feature.get("defaultValue").cloned().unwrap_or(Value::Null)),
        // A rule that forces a value on everybody hides those behind it.
        Some(rule) => {
            let members = rule.as_object()?;
            let is_plain = |name: &String| {
                matches!(
                    name.as_str(),
                    "id" | "force" | "metadata" | "tracks" | "name"
                )
            };
            members
                .keys()
                .all(is_plain)
                .then(|| members.get("force").cloned())?
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_shop(features: &Value) -> ScopedSnapshot {
        let document = json!({
            "features": features,
            "experiments": [{"trackingKey": "a", "project": "shop"}, {"trackingKey": "b", "project": "other"}, {"trackingKey": "c"}],
            "saved_groups": {"g1": {"type": "condition", "condition": {"$savedGroup": "g2"}}, "g2": ["x"], "g3": ["y"]},
        });
        let sees = |projects: &FeatureProjects| match projects {
            FeatureProjects::All => true,
            FeatureProjects::Unknown => false,
            FeatureProjects::Some(names) => names.iter().any(|name| **name == *"shop"),
        };
        ScopedSnapshot::new(document.to_string().as_bytes(), sees, |project| {
            project == "shop"
        })
        .unwrap()
    }

    fn feature(project: &str, rules: &Value) -> Value {
        json!({"defaultValue": true, "rules": rules, "metadata": {"projects": [project]}})
    }

    fn asking(parent: &str, value: bool, gate: bool) -> Value {
        json!([{"id": "r", "force": false,
            "parentConditions": [{"id": parent, "condition": {"value": value}, "gate": gate}]}])
    }

    #[test]
    fn only_what_may_be_seen_is_left_and_what_it_refers_to() {
        let scoped = of_shop(&json!({
            "mine": feature("shop", &json!([{"condition": {"id": {"$inGroup": "g1"}}, "force": 1}])),
            "theirs": feature("other", &json!([{"condition": {"id": {"$inGroup": "g3"}}, "force": 1}])),
            "unknown": {"defaultValue": 1},
            "everybody's": {"defaultValue": 1, "metadata": {"allProjects": true}},
        }));
        let keys: Vec<_> = scoped.features.keys().collect();
        assert_eq!(keys, ["everybody's", "mine"]);
        assert_eq!(
            scoped.experiments,
            [json!({"trackingKey": "a", "project": "shop"})]
        );
        let groups: Vec<_> = scoped.saved_groups.keys().collect();
        assert_eq!(groups, ["g1", "g2"]);
        assert!(scoped.left_out.is_empty());
    }

    #[test]
    fn hidden_prerequisites_are_resolved_or_cost_the_feature() {
        let scoped = of_shop(&json!({
            "hidden": feature("other", &json!([])),
            "hidden-forced": feature("other", &json!([{"id": "f", "force": false}])),
            "hidden-split": feature("other", &json!([{"force": false, "coverage": 0.5}])),
            "child-of-split": feature("shop", &asking("hidden-split", true, false)),
            "grandchild-of-split": feature("shop", &asking("child-of-split", true, true)),
            "fails": feature("shop", &asking("hidden-forced", true, false)),
            "gated": feature("shop", &asking("hidden", false, true)),
            "passes": feature("shop", &asking("hidden", true, true)),
            "visible": feature("shop", &asking("passes", true, true)),
        }));
        let rules = |key: &str| &scoped.features[key]["rules"];
        assert_eq!(*rules("fails"), json!([]));
        assert_eq!(
            *rules("passes"),
            json!([{"id": "r", "force": false, "parentConditions": []}])
        );
        assert_eq!(*rules("visible"), asking("passes", true, true));
        let left_out: Vec<_> = scoped
            .left_out
            .iter()
            .map(|(k, p)| (k.as_str(), p.as_str()))
            .collect();
        let expected = [
            ("child-of-split", "hidden-split"),
            ("grandchild-of-split", "child-of-split"),
        ];
        assert_eq!(left_out, expected);
        let blocked = json!([{"id": "r", "parentConditions": [], "force": null}]);
        assert_eq!(*rules("gated"), blocked);
    }
}
