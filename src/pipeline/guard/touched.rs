//! Which experiments a change reaches although their own definitions are the same: through what they refer to.
//!
//! Prerequisites (holdouts are such), saved groups, and what the list of namespaces adds to an experiment. The definition
//! of an experiment in a rule is the rule and all rules before it, because those take units first; what they force, or
//! what a feature's default is, concerns nobody's variation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::splits;
use crate::{
    model::{CanonicalJson, Experiment, Feature, Phase, Sourced, Status, Stitched},
    pipeline::groups,
};

/// Members of a phase's namespace that come from the list of namespaces.
const FROM_NAMESPACE: [&str; 3] = ["format", "hashAttribute", "seed"];

/// What has to be looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched<'a> {
    /// Features with a touched experiment in their rules.
    pub(super) features: BTreeSet<&'a str>,
    /// Tracking keys of touched experiments of the management API.
    pub(super) listed: BTreeSet<&'a str>,
    /// Tracking keys of all touched experiments.
    pub(super) keys: BTreeSet<String>,
}

/// Finds the touched experiments; nothing is parsed unless something changed that others may refer to.
pub(super) fn touched<'a>(before: &'a Stitched, after: &'a Stitched) -> Touched<'a> {
    let mut touched = Touched::default();
    let change = Change::new(before, after);
    let olds: BTreeMap<&str, &Arc<Experiment>> = before
        .experiments
        .iter()
        .map(|old| (old.item.tracking_key.as_str(), &old.item))
        .collect();
    for new in &after.experiments {
        let key = new.item.tracking_key.as_str();
        let old = olds.get(key).filter(|old| is_running(old));
        if old.is_some_and(|old| is_running(&new.item) && change.touches_listed(old, &new.item)) {
            touched.listed.insert(key);
            touched.keys.insert(key.to_owned());
        }
    }
    if change.is_empty() {
        return touched;
    }
    for (key, new) in &after.features {
        let Some(old) = before.features.get(key) else {
            continue;
        };
        if !change.may_touch(new) {
            continue;
        }
        for experiment in change.touched_rules(key, &old.item, &new.item) {
            touched.features.insert(key);
            touched.keys.insert(experiment);
        }
    }
    touched
}

fn is_running(experiment: &Experiment) -> bool {
    experiment.status == Status::Running && !experiment.archived
}

/// What is not the same, and what follows from it.
struct Change<'a> {
    /// Features that changed, and those that depend on such a feature or group.
    features: BTreeSet<&'a str>,
    /// Saved groups that changed, and those that refer to such a group.
    groups: BTreeSet<&'a str>,
}

impl<'a> Change<'a> {
    fn new(before: &'a Stitched, after: &'a Stitched) -> Self {
        let mut change = Self {
            features: changed(&before.features, &after.features, |old, new| {
                old.item.definition == new.item.definition
            }),
            groups: changed(&before.saved_groups, &after.saved_groups, |old, new| {
                old == new
            }),
        };
        change.follow_groups(&after.saved_groups);
        change.follow_features(&after.features);
        change
    }

    fn is_empty(&self) -> bool {
        self.features.is_empty() && self.groups.is_empty()
    }

    fn follow_groups(&mut self, groups: &'a BTreeMap<Arc<str>, CanonicalJson>) {
        if self.groups.is_empty() {
            return;
        }
        let referring: Vec<(&'a str, BTreeSet<String>)> = groups
            .iter()
            .filter(|(_, group)| names_groups(group))
            .map(|(id, group)| (&**id, groups_in(&group.to_value())))
            .collect();
        while let Some((id, _)) = referring.iter().find(|(id, named)| {
            !self.groups.contains(id) && named.iter().any(|n| self.groups.contains(n.as_str()))
        }) {
            self.groups.insert(id);
        }
    }

    fn follow_features(&mut self, features: &'a BTreeMap<Arc<str>, Sourced<Arc<Feature>>>) {
        if !self.groups.is_empty() {
            for (key, feature) in features {
                let definition = &feature.item.definition;
                if names_groups(definition) && self.names_changed_group(&definition.to_value()) {
                    self.features.insert(key);
                }
            }
        }
        let mut children: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
        for (key, feature) in features {
            for parent in &feature.item.parents {
                children.entry(parent).or_default().push(key);
            }
        }
        let mut pending: Vec<&str> = self.features.iter().copied().collect();
        while let Some(parent) = pending.pop() {
            for child in children.get(parent).into_iter().flatten() {
                if self.features.insert(child) {
                    pending.push(child);
                }
            }
        }
    }

    fn names_changed_group(&self, value: &Value) -> bool {
        let named = groups_in(value);
        named.iter().any(|id| self.groups.contains(id.as_str()))
    }

    /// Whether a feature refers to anything that changed; cheap, and yes where that is not known without parsing.
    fn may_touch(&self, feature: &Sourced<Arc<Feature>>) -> bool {
        let parents = &feature.item.parents;
        parents
            .iter()
            .any(|parent| self.features.contains(&**parent))
            || (!self.groups.is_empty() && names_groups(&feature.item.definition))
    }

    /// Tracking keys of a feature's experiments that are the same as before and refer to something that is not.
    fn touched_rules(&self, key: &str, old: &Feature, new: &Feature) -> Vec<String> {
        let mut found = Vec::new();
        if !new.definition.as_str().contains("\"variations\":[") {
            return found;
        }
        let (old, new) = (old.definition.to_value(), new.definition.to_value());
        let rules = |feature: &'_ Value| -> Vec<Value> {
            let rules = feature.get("rules").and_then(Value::as_array);
            rules.cloned().unwrap_or_default()
        };
        let mut is_touched = false;
        for (old, new) in rules(&old).iter().zip(&rules(&new)) {
            if old != new {
                break;
            }
            is_touched |= self.is_referred_to(new);
            if let Some(experiment) = splits::of_rule(key, new).filter(|_| is_touched) {
                found.push(experiment.key);
            }
        }
        found
    }

    fn is_referred_to(&self, rule: &Value) -> bool {
        let parents = rule.get("parentConditions").and_then(Value::as_array);
        let mut parents = parents.into_iter().flatten();
        let is_changed = |parent: &Value| {
            let id = parent.get("id").and_then(Value::as_str);
            id.is_some_and(|id| self.features.contains(id))
        };
        parents.any(is_changed) || self.names_changed_group(rule)
    }

    fn touches_listed(&self, old: &Experiment, new: &Experiment) -> bool {
        let (Some(old_phase), Some(phase)) = (old.current_phase(), new.current_phase()) else {
            return false;
        };
        if old.definition == new.definition {
            return !self.is_empty() && self.is_named_by(phase);
        }
        let is_in_namespace = old_phase.namespace.is_some() && phase.namespace.is_some();
        is_in_namespace && own(&old.definition) == own(&new.definition)
    }

    fn is_named_by(&self, phase: &Phase) -> bool {
        let prerequisites = phase.prerequisites.as_ref().map(CanonicalJson::to_value);
        let prerequisites = prerequisites.as_ref().and_then(Value::as_array);
        let mut prerequisites = prerequisites.into_iter().flatten();
        let is_changed = |prerequisite: &Value| {
            let id = prerequisite.get("id").and_then(Value::as_str);
            id.is_some_and(|id| self.features.contains(id))
        };
        prerequisites.any(is_changed)
            || groups::of_phase(phase)
                .iter()
                .any(|id| self.groups.contains(id.as_str()))
    }
}

/// Keys of what only one side has, or both have differently.
fn changed<'a, T>(
    before: &'a BTreeMap<Arc<str>, T>,
    after: &'a BTreeMap<Arc<str>, T>,
    is_same: impl Fn(&T, &T) -> bool,
) -> BTreeSet<&'a str> {
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let other = after
        .iter()
        .filter(|(key, new)| !before.get(*key).is_some_and(|old| is_same(old, new)));
    gone.chain(other.map(|(key, _)| key))
        .map(|key| &**key)
        .collect()
}

fn names_groups(definition: &CanonicalJson) -> bool {
    let text = definition.as_str();
    ["\"$inGroup\"", "\"$notInGroup\"", "\"$savedGroup\""]
        .iter()
        .any(|operator| text.contains(operator))
}

fn groups_in(value: &Value) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    groups::of_condition(value, &mut ids);
    ids
}

/// An experiment without what the list of namespaces added to it.
fn own(definition: &CanonicalJson) -> Value {
    let mut value = definition.to_value();
    let phases = value.get_mut("phases").and_then(Value::as_array_mut);
    for phase in phases.into_iter().flatten() {
        let namespace = phase.get_mut("namespace").and_then(Value::as_object_mut);
        if let Some(members) = namespace {
            members.retain(|name, _| !FROM_NAMESPACE.contains(&name.as_str()));
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::test_support::{listed, stitched, stitched_with},
        *,
    };

    #[track_caller]
    fn check(before: &Stitched, after: &Stitched, expected: &[&str]) {
        let found = touched(before, after).keys;
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, expected);
    }

    fn experiment(key: &str, more: Value) -> Value {
        let mut rule = json!({"key": key, "variations": [0, 1]});
        let Value::Object(more) = more else { panic!() };
        rule.as_object_mut().unwrap().extend(more);
        rule
    }

    fn depends_on(id: &str) -> Value {
        json!({"parentConditions": [{"id": id, "condition": {"value": true}}]})
    }

    fn side(parent: bool, group: &[&str], first_force: i32) -> Stitched {
        let features = json!({
            "parent": {"defaultValue": parent},
            "middle": {"defaultValue": true, "rules": [
                {"force": false, "parentConditions": [{"id": "parent", "condition": {"value": false}}]}]},
            "by-parent": {"rules": [experiment("by-parent", depends_on("middle"))]},
            "by-group": {"rules": [experiment("by-group", json!({"condition": {"id": {"$inGroup": "g"}}}))]},
            "by-nothing": {"rules": [force(first_force), experiment("by-nothing", json!({}))]},
        });
        let document = json!({"features": features, "savedGroups": {"g": group}});
        let mut prerequisite = listed("listed-parent");
        prerequisite["phases"][0]["prerequisites"] =
            json!([{"id": "parent", "condition": "{\"value\": true}"}]);
        let mut targeted = listed("listed-group");
        targeted["phases"][0]["savedGroupTargeting"] =
            json!([{"matchType": "any", "savedGroups": ["g"]}]);
        stitched(&document, &[prerequisite, targeted, listed("listed-alone")])
    }

    fn force(value: i32) -> Value {
        json!({"force": value, "condition": {"vip": true}})
    }

    #[test]
    fn nothing_is_touched_by_what_nobody_refers_to() {
        let before = side(true, &["a"], 1);
        check(&before, &before, &[]);
        // Another forced value is a change of the feature itself, not of what its experiment refers to.
        check(&before, &side(true, &["a"], 2), &[]);
    }

    #[test]
    fn a_prerequisite_touches_those_that_depend_on_it_however_far_away() {
        let before = side(true, &["a"], 1);
        let after = side(false, &["a"], 1);
        check(&before, &after, &["by-parent", "listed-parent"]);
    }

    #[test]
    fn a_saved_group_touches_those_that_name_it() {
        let before = side(true, &["a"], 1);
        let after = side(true, &["a", "b"], 1);
        check(&before, &after, &["by-group", "listed-group"]);
    }

    #[test]
    fn groups_of_groups_are_followed() {
        let side = |value: &str| {
            let refers = json!({"$savedGroup": {"id": "outer"}});
            let features = json!({"f": {"rules": [experiment("e", json!({"condition": refers}))]}});
            let groups = json!({
                "outer": {"type": "condition", "condition": {"$savedGroup": {"id": "inner"}}},
                "inner": {"type": "list", "attributeKey": "id", "values": [value]},
            });
            stitched(&json!({"features": features, "savedGroups": groups}), &[])
        };
        check(&side("a"), &side("b"), &["e"]);
        check(&side("a"), &side("a"), &[]);
    }

    #[test]
    fn an_experiment_whose_own_definition_changed_is_not_touched() {
        let side = |parent: bool, weights: Value| {
            let mut rule = experiment("e", depends_on("parent"));
            rule["weights"] = weights;
            let features = json!({"parent": {"defaultValue": parent}, "f": {"rules": [rule]}});
            stitched(&json!({"features": features}), &[])
        };
        let before = side(true, json!([0.5, 0.5]));
        check(&before, &side(false, json!([0.9, 0.1])), &[]);
        check(&before, &side(false, json!([0.5, 0.5])), &["e"]);
    }

    #[test]
    fn another_seed_of_a_namespace_touches_its_experiments() {
        let side = |seed: &str| {
            let mut inside = listed("inside");
            inside["phases"][0]["namespace"] =
                json!({"namespaceId": "ns", "enabled": true, "ranges": [[0, 0.5]]});
            let namespaces = json!([{"id": "ns", "format": "multiRange", "seed": seed}]);
            let list =
                json!({"experiments": [inside, listed("outside")], "namespaces": namespaces});
            stitched_with(&json!({"features": {}}), &list)
        };
        check(&side("a"), &side("b"), &["inside"]);
        check(&side("a"), &side("a"), &[]);
    }
}
