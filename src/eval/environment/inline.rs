//! From an experiment as the management API lists it to one that can be run by itself.
//!
//! What GrowthBook's server does when it puts an experiment into a payload, for its last phase: condition and saved groups
//! become one condition, the split becomes weights in the order of the variations, a namespace becomes a range of a hash
//! of its own. What cannot be read lets nobody in, and a note says so.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// An experiment to be compiled.
pub(super) struct Inline {
    /// As GrowthBook's SDKs would get it.
    pub(super) definition: Map<String, Value>,
    /// What is wrong with it, for whoever asks why.
    pub(super) notes: Vec<String>,
}

/// Members that SDKs know under the same name.
const SAME_MEMBERS: [&str; 6] = [
    "hashAttribute",
    "fallbackAttribute",
    "hashVersion",
    "disableStickyBucketing",
    "bucketVersion",
    "minBucketVersion",
];

/// A condition that nobody passes, in either dialect and under whatever it stands.
fn nobody() -> Value {
    json!({ "$or": null })
}

/// The saved groups of a snapshot, and which attribute each bare list is a list of.
///
/// A bare list does not say it, and the management API names groups by id alone: the conditions that the payload's own
/// rules ask of the group do.
pub(super) struct Groups<'d> {
    groups: &'d Map<String, Value>,
    attributes: HashMap<&'d str, &'d str>,
}

impl<'d> Groups<'d> {
    pub(super) fn new(groups: &'d Map<String, Value>, features: &'d Map<String, Value>) -> Self {
        let mut attributes = HashMap::new();
        if groups.values().any(Value::is_array) {
            let definitions = features.values().chain(groups.values());
            definitions.for_each(|definition| find_asked(definition, &mut attributes));
        }
        Self { groups, attributes }
    }

    /// The condition of being in a group.
    fn member(&self, id: &str, notes: &mut Vec<String>) -> Value {
        let reference = json!({ "$savedGroup": { "id": id } });
        match self.groups.get(id) {
            None => notes.push(format!(
                "saved group `{id}` is not in the payload; nobody is in it"
            )),
            Some(Value::Array(_)) => match self.attributes.get(id) {
                Some(attribute) => return single(attribute, json!({ "$inGroup": id })),
                None => notes.push(format!(
                    "no condition of the payload says which attribute saved group `{id}` is a list of; nobody is in it"
                )),
            },
            Some(_) => {}
        }
        reference
    }
}

/// Notes of every `{attribute: {"$inGroup": id}}` which attribute it asks; the first one counts.
fn find_asked<'d>(value: &'d Value, attributes: &mut HashMap<&'d str, &'d str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| find_asked(item, attributes)),
        Value::Object(members) => {
            for (name, member) in members {
                for operator in ["$inGroup", "$notInGroup"] {
                    if let Some(id) = member.get(operator).and_then(Value::as_str) {
                        attributes.entry(id).or_insert(name);
                    }
                }
                find_asked(member, attributes);
            }
        }
        _ => {}
    }
}

/// The last phase of a running experiment; for any other, why nobody is in it: its status, `archived` or `no_phase`.
pub(super) fn definition(
    key: &str,
    experiment: &Map<String, Value>,
    groups: &Groups<'_>,
) -> Result<Inline, String> {
    if experiment.get("archived") == Some(&Value::Bool(true)) {
        return Err("archived".to_owned());
    }
    let status = experiment.get("status").and_then(Value::as_str);
    if status != Some("running") {
        return Err(status.unwrap_or("unknown").to_owned());
    }
    let phases = list(experiment, "phases");
    let Some(Value::Object(phase)) = phases.last() else {
        return Err("no_phase".to_owned());
    };
    let mut notes = Vec::new();
    let variations = list(experiment, "variations");
    let mut definition = Map::new();
    let mut put = |name: &str, value: Value| definition.insert(name.to_owned(), value);
    put("key", key.into());
    put("variations", vec![Value::Null; variations.len()].into());
    put("meta", variations.iter().map(meta).collect());
    if let Some(name) = experiment.get("name") {
        put("name", name.clone());
    }
    put("phase", (phases.len() - 1).to_string().into());
    for name in SAME_MEMBERS {
        if let Some(value) = experiment.get(name) {
            put(name, value.clone());
        }
    }
    // The management API leaves out what is the default there; SDKs have another one.
    if !experiment.contains_key("hashVersion") {
        put("hashVersion", 2.into());
    }
    for name in ["coverage", "seed"] {
        if let Some(value) = phase.get(name) {
            put(name, value.clone());
        }
    }
    if let Some(weights) = weights(variations, list(phase, "trafficSplit")) {
        put("weights", weights);
    }
    if let Some(condition) = targeting(phase, groups, &mut notes) {
        put("condition", condition);
    }
    let prerequisites = list(phase, "prerequisites");
    if !prerequisites.is_empty() {
        let parents = prerequisites.iter().map(|p| prerequisite(p, &mut notes));
        put("parentConditions", parents.collect());
    }
    if let Some((name, value)) = namespace(phase, experiment) {
        put(name, value);
    }
    Ok(Inline { definition, notes })
}

fn list<'v>(members: &'v Map<String, Value>, name: &str) -> &'v [Value] {
    let items = members.get(name).and_then(Value::as_array);
    items.map(Vec::as_slice).unwrap_or_default()
}

fn meta(variation: &Value) -> Value {
    json!({ "key": variation.get("key"), "name": variation.get("name") })
}

/// Weights in the order of the variations; one that the split does not name gets nothing. `None` without any split.
fn weights(variations: &[Value], split: &[Value]) -> Option<Value> {
    let weight = |variation: &Value| {
        let id = variation.get("variationId")?;
        let part = split
            .iter()
            .find(|part| part.get("variationId") == Some(id))?;
        part.get("weight").cloned()
    };
    let weights = variations
        .iter()
        .map(|variation| weight(variation).unwrap_or_else(|| 0.into()));
    (!split.is_empty()).then(|| weights.collect())
}

/// The phase's condition and saved groups as one condition; `None` where everybody is meant.
fn targeting(
    phase: &Map<String, Value>,
    groups: &Groups<'_>,
    notes: &mut Vec<String>,
) -> Option<Value> {
    let mut parts = Vec::new();
    let text = phase.get("targetingCondition").and_then(Value::as_str);
    if let Some(condition) = condition(text, "the targeting condition", notes) {
        parts.push(condition);
    }
    for targeting in list(phase, "savedGroupTargeting") {
        let ids = targeting.get("savedGroups").and_then(Value::as_array);
        let ids = ids.into_iter().flatten().filter_map(Value::as_str);
        let mut members: Vec<Value> = ids.map(|id| groups.member(id, notes)).collect();
        match targeting.get("matchType").and_then(Value::as_str) {
            _ if members.is_empty() => {}
            Some("all") => parts.append(&mut members),
            Some("any") => parts.push(json!({ "$or": members })),
            Some("none") => {
                let none = members.into_iter().map(|member| json!({ "$not": member }));
                parts.extend(none);
            }
            _ => {
                notes.push(
                    "the saved group targeting asks for no match that is known; nobody passes"
                        .to_owned(),
                );
                parts.push(nobody());
            }
        }
    }
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(json!({ "$and": parts })),
    }
}

/// Reads the text of a condition; `None` where it asks nothing.
fn condition(text: Option<&str>, what: &str, notes: &mut Vec<String>) -> Option<Value> {
    let text = text.map(str::trim).filter(|text| !text.is_empty())?;
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(members)) if members.is_empty() => None,
        Ok(condition @ Value::Object(_)) => Some(condition),
        _ => {
            notes.push(format!("{what} is not a JSON object; nobody passes"));
            Some(nobody())
        }
    }
}

fn prerequisite(prerequisite: &Value, notes: &mut Vec<String>) -> Value {
    let text = prerequisite.get("condition").and_then(Value::as_str);
    let condition = condition(text, "the condition of a prerequisite", notes);
    json!({ "id": prerequisite.get("id"), "condition": condition.unwrap_or_else(|| json!({})) })
}

/// The member that keeps the experiment to its part of a namespace.
///
/// The older format hashes by the namespace's id; the other one has ranges of a hash of its own. Where the format is not
/// known, several ranges can only be of the other one.
fn namespace(
    phase: &Map<String, Value>,
    experiment: &Map<String, Value>,
) -> Option<(&'static str, Value)> {
    let namespace = phase.get("namespace")?.as_object()?;
    if namespace.get("enabled") == Some(&Value::Bool(false)) {
        return None;
    }
    let id = namespace.get("namespaceId")?;
    let ranges = list(namespace, "ranges");
    let has_own_hash = match namespace.get("format").and_then(Value::as_str) {
        Some(format) => format != "legacy",
        None => ranges.len() > 1,
    };
    if has_own_hash {
        let range = || namespace.get("range").map(|range| json!([range]));
        let ranges = namespace.get("ranges").cloned().or_else(range);
        let attribute = namespace.get("hashAttribute");
        let filter = json!({
            "attribute": attribute.or_else(|| experiment.get("hashAttribute")),
            "seed": namespace.get("seed").unwrap_or(id),
            "hashVersion": 2,
            "ranges": ranges,
        });
        return Some(("filters", json!([filter])));
    }
    let range = ranges.first().or_else(|| namespace.get("range"))?;
    let end = |index: usize| range.get(index).cloned().unwrap_or_default();
    Some(("namespace", json!([id, end(0), end(1)])))
}

fn single(name: &str, value: Value) -> Value {
    let mut members = Map::new();
    members.insert(name.to_owned(), value);
    members.into()
}
