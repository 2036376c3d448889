//! What can be said about a condition without evaluating it: unknown operators, groups that are not there.

use std::collections::HashSet;

use super::BadItem;
use crate::model::Json;

/// Operators of SDK spec 0.12; anything else beginning with `$` makes its condition unknown.
const OPERATORS: &[&str] = &[
    "$and",
    "$or",
    "$nor",
    "$not",
    "$eq",
    "$ne",
    "$lt",
    "$lte",
    "$gt",
    "$gte",
    "$exists",
    "$in",
    "$nin",
    "$ini",
    "$nini",
    "$all",
    "$alli",
    "$size",
    "$elemMatch",
    "$type",
    "$regex",
    "$regexi",
    "$notRegex",
    "$notRegexi",
    "$inGroup",
    "$notInGroup",
    "$veq",
    "$vne",
    "$vgt",
    "$vgte",
    "$vlt",
    "$vlte",
    "$savedGroup",
];

/// Ids of the saved groups that came in the same payload.
pub(super) struct KnownGroups<'a>(HashSet<&'a str>);

impl<'a> KnownGroups<'a> {
    pub(super) fn new(ids: impl Iterator<Item = &'a str>) -> Self {
        Self(ids.collect())
    }
}

/// Appends a warning for everything odd in a condition found at `at`.
pub(super) fn warnings(
    condition: &Json<'_>,
    at: &str,
    groups: &KnownGroups<'_>,
    found: &mut Vec<(&'static str, BadItem)>,
) {
    match condition {
        Json::Object(members) => {
            for (name, operand) in members.iter() {
                if name.starts_with('$') {
                    operator(name, operand, at, groups, found);
                }
                warnings(operand, at, groups, found);
            }
        }
        Json::List(items) => items
            .iter()
            .for_each(|item| warnings(item, at, groups, found)),
        _ => {}
    }
}

fn operator(
    name: &str,
    operand: &Json<'_>,
    at: &str,
    groups: &KnownGroups<'_>,
    found: &mut Vec<(&'static str, BadItem)>,
) {
    if !OPERATORS.contains(&name) {
        found.push((
            "unknown_operator",
            BadItem::new(at, format!("uses the unknown operator `{name}`")),
        ));
    }
    let group = match name {
        "$inGroup" | "$notInGroup" => operand.as_str(),
        "$savedGroup" => operand
            .as_object()
            .and_then(|group| group.get("id")?.as_str()),
        _ => None,
    };
    if let Some(id) = group.filter(|id| !groups.0.contains(id)) {
        found.push((
            "dangling_saved_group",
            BadItem::new(
                at,
                format!("refers to saved group `{id}`, which is not there"),
            ),
        ));
    }
}

/// What is odd about a saved group: a list of values, or an object of a type this version knows.
pub(super) fn saved_group_warning(_id: &str, group: &Json<'_>) -> Option<String> {
    match group {
        Json::List(_) => None,
        Json::Object(members) => match members.get("type").and_then(Json::as_str) {
            Some("list" | "condition" | "remote") => None,
            Some(other) => Some(format!("has the unknown type `{other}`")),
            None => Some("has no type".to_owned()),
        },
        _ => Some("is neither a list nor an object".to_owned()),
    }
}
