//! Saved groups that experiments of the management API refer to.
//!
//! A payload defines the groups of its features, mostly as bare lists of values; what attribute those are of stands in
//! the conditions that use them. An experiment of the management API names groups alone, so their definitions are read
//! from there ([`super::validate`]) and added here in the typed form of SDK specification 0.9:
//! `{"type":"list","attributeKey","values"}` or `{"type":"condition","condition"}`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Number, Value, json};

use super::{stitch::StitchInput, validate::DEPTH_MAX};
use crate::model::{CanonicalJson, Issue, Json, Phase, Status, Stitched};

/// A group as the management API lists it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    #[serde(rename = "type")]
    kind: String,
    attribute_key: Option<String>,
    #[serde(default)]
    values: Vec<String>,
    condition: Option<String>,
}

impl Listed {
    /// The typed form; fails with what is wrong.
    pub(super) fn typed(self) -> Result<Value, String> {
        match self.kind.as_str() {
            "list" => {
                let attribute = self.attribute_key.filter(|key| !key.is_empty());
                let attribute = attribute.ok_or("is a list and has no `attributeKey`")?;
                let values: Vec<Value> = self.values.into_iter().flat_map(spellings).collect();
                Ok(json!({"type": "list", "attributeKey": attribute, "values": values}))
            }
            "condition" => {
                let text = self.condition.unwrap_or_default();
                let condition: Value = serde_json::from_str(&text)
                    .map_err(|error| format!("has a `condition` that is not JSON: {error}"))?;
                if !condition.is_object() || Json::from(&condition).depth() > DEPTH_MAX {
                    return Err(format!(
                        "has a `condition` that is not an object of at most {DEPTH_MAX} levels"
                    ));
                }
                Ok(json!({"type": "condition", "condition": condition}))
            }
            other => Err(format!("has the unknown type `{other}`")),
        }
    }
}

/// A value as it may stand among a user's attributes: the list has texts for numbers too.
fn spellings(text: String) -> impl Iterator<Item = Value> {
    let number = text.parse::<i64>().map(Number::from).ok();
    let number = number.or_else(|| Number::from_f64(text.parse().ok()?));
    // Only a number's own spelling: `007` and `1e3` are texts.
    let number = number.filter(|number| number.to_string() == text);
    [Some(Value::String(text)), number.map(Value::Number)]
        .into_iter()
        .flatten()
}

/// Ids of the groups that a phase names, in its saved group targeting and in its condition.
pub(super) fn of_phase(phase: &Phase) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    if let Some(targeting) = &phase.saved_group_targeting {
        let targeting = targeting.to_value();
        let targets = targeting.as_array().into_iter().flatten();
        let groups = targets.filter_map(|target| target.get("savedGroups")?.as_array());
        ids.extend(groups.flatten().filter_map(text));
    }
    if let Ok(condition) = serde_json::from_str(&phase.targeting_condition) {
        of_condition(&condition, &mut ids);
    }
    ids
}

/// Adds the ids of the groups that a condition names, to whatever depth.
pub(super) fn of_condition(condition: &Value, ids: &mut BTreeSet<String>) {
    match condition {
        Value::Object(members) => {
            for (name, operand) in members {
                match name.as_str() {
                    "$inGroup" | "$notInGroup" => ids.extend(text(operand)),
                    "$savedGroup" => ids.extend(operand.get("id").and_then(text)),
                    _ => of_condition(operand, ids),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| of_condition(item, ids)),
        _ => {}
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Of all listed groups those that are named, directly or by the condition of another.
pub(super) fn reachable(
    named: BTreeSet<String>,
    mut listed: BTreeMap<String, Value>,
) -> BTreeMap<Arc<str>, CanonicalJson> {
    let mut kept = BTreeMap::new();
    let mut pending = named;
    while let Some(id) = pending.pop_first() {
        let Some(group) = listed.remove(&id) else {
            continue;
        };
        if let Some(condition) = group.get("condition") {
            of_condition(condition, &mut pending);
        }
        kept.insert(id.into(), CanonicalJson::from_value(&group));
    }
    kept
}

/// Adds the groups of the management API to those of the payloads.
///
/// A payload's values count before the list's, because its features were evaluated with them; of a bare list only the
/// attribute is added.
pub(super) fn merge(inputs: &[&StitchInput], stitched: &mut Stitched) {
    let lists = inputs
        .iter()
        .filter_map(|input| input.experiments.as_deref());
    for (id, group) in lists.flat_map(|list| &list.saved_groups) {
        let merged = match stitched.saved_groups.get(id).map(CanonicalJson::to_value) {
            None => group.clone(),
            Some(Value::Array(values)) => match group.to_value() {
                Value::Object(mut members) if members.contains_key("values") => {
                    members.insert("values".to_owned(), Value::Array(values));
                    CanonicalJson::from_value(&Value::Object(members))
                }
                _ => continue,
            },
            Some(_) => continue,
        };
        stitched.saved_groups.insert(Arc::clone(id), merged);
    }
}

/// Warns of groups that running experiments name and nobody defines: such a group has no members.
pub(super) fn report_missing(stitched: &mut Stitched) {
    let mut issues = Vec::new();
    for experiment in &stitched.experiments {
        let item = &experiment.item;
        if item.status != Status::Running || item.archived {
            continue;
        }
        let named = item.current_phase().map(of_phase).unwrap_or_default();
        let known = &stitched.saved_groups;
        for id in named.iter().filter(|id| !known.contains_key(id.as_str())) {
            let path = format!("experiments.{}", item.tracking_key);
            let message = format!("refers to saved group `{id}`, which is not there");
            issues.push(Issue::warning(
                "dangling_saved_group",
                &experiment.source,
                path,
                message,
            ));
        }
    }
    stitched.issues.extend(issues);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(group: Value) -> Result<Value, String> {
        serde_json::from_value::<Listed>(group).unwrap().typed()
    }

    #[test]
    fn values_that_spell_a_number_match_the_number_too() {
        let group = json!({"id": "g", "type": "list", "attributeKey": "id", "values": ["u1", "2", "1.5", "007", "1e3"]});
        let values = json!(["u1", "2", 2, "1.5", 1.5, "007", "1e3"]);
        let expected = json!({"type": "list", "attributeKey": "id", "values": values});
        assert_eq!(typed(group), Ok(expected));
    }

    #[test]
    fn what_is_wrong_with_a_group_is_said() {
        let error = |group| typed(group).unwrap_err();
        let list = error(json!({"id": "g", "type": "list", "values": []}));
        assert_eq!(list, "is a list and has no `attributeKey`");
        let condition = error(json!({"id": "g", "type": "condition", "condition": "{"}));
        assert!(
            condition.starts_with("has a `condition` that is not JSON: "),
            "{condition}"
        );
        let array = error(json!({"id": "g", "type": "condition", "condition": "[]"}));
        assert_eq!(
            array,
            "has a `condition` that is not an object of at most 64 levels"
        );
        let kind = error(json!({"id": "g", "type": "cohort"}));
        assert_eq!(kind, "has the unknown type `cohort`");
    }

    #[test]
    fn only_groups_that_are_named_are_kept_and_circles_end() {
        let refer =
            |id: &str| json!({"type": "condition", "condition": {"$savedGroup": {"id": id}}});
        let listed = [("a", refer("b")), ("b", refer("a")), ("c", refer("a"))];
        let listed = listed.map(|(id, group)| (id.to_owned(), group)).into();
        let kept = reachable(["a".to_owned(), "x".to_owned()].into(), listed);
        let ids: Vec<&str> = kept.keys().map(|id| &**id).collect();
        assert_eq!(ids, ["a", "b"]);
    }
}
