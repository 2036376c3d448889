//! How many sample units would get another variation through something that their experiment refers to.
//!
//! The sample is fixed, so the same change gives the same numbers everywhere. A unit has nothing but its name, in every
//! attribute that something is hashed by: experiments that are targeted at other attributes have no sample units and are
//! not covered. A unit that had no variation and gets one does not count: that is what ramping up looks like.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    Guard, Rules, Trip, percent,
    touched::{Touched, touched},
};
use crate::{
    eval::{Context, Environment, environment::Forced},
    model::{CanonicalJson, Stitched, canonical::write_string},
};

/// Sample units; with so many a share of 5 % is exact to about one half.
const UNITS: usize = 2_000;
/// Most decisions made for one side, so that a change that touches everything takes some tenths of a second at most.
const DECISIONS_MAX: usize = 400_000;
/// Most experiments named in a message.
const NAMED_MAX: usize = 3;

/// Trips when too large a share of the units that had a variation of a touched experiment would lose it.
pub(super) fn trip(rules: &Rules, before: &Stitched, after: &Stitched) -> Option<Trip> {
    let touched = touched(before, after);
    if touched.keys.is_empty() {
        return None;
    }
    let sides = [document(before, &touched), document(after, &touched)];
    let attributes = hash_attributes(&sides);
    let [old, new] = sides.map(|side| Environment::new(side.as_bytes(), rules.dialect).ok());
    // Definitions were read once already; what cannot be compiled is not this guard's to report.
    let counted = count(&old?, &new?, &touched.keys, &attributes);
    #[expect(clippy::cast_precision_loss, reason = "there are some thousand units")]
    let share = counted.changed as f64 / counted.with_variation.max(1) as f64;
    (share > rules.max_changed_units_share).then(|| Trip {
        guard: Guard::ChangedUnits,
        subject: "experiments".to_owned(),
        message: format!(
            "{} of {} sample units ({}) would get another variation of {}, whose own definition did not change; at most {} may",
            counted.changed,
            counted.with_variation,
            percent(share),
            named(&counted.experiments),
            percent(rules.max_changed_units_share),
        ),
        before: json!(counted.with_variation),
        after: json!(counted.with_variation - counted.changed),
        limit: json!(rules.max_changed_units_share),
    })
}

fn named(keys: &BTreeSet<&str>) -> String {
    let first: Vec<String> = keys
        .iter()
        .take(NAMED_MAX)
        .map(|key| format!("`{key}`"))
        .collect();
    let more = keys.len() - first.len();
    let first = first.join(", ");
    if more > 0 {
        format!("{first} and {more} more")
    } else {
        first
    }
}

/// What the sample shows.
struct Counted<'k> {
    /// Units that had a variation of any touched experiment.
    with_variation: usize,
    /// Those of them that would have another one, or none.
    changed: usize,
    /// The experiments in which that happens.
    experiments: BTreeSet<&'k str>,
}

fn count<'k>(
    old: &Environment,
    new: &Environment,
    keys: &'k BTreeSet<String>,
    attributes: &[String],
) -> Counted<'k> {
    let places: Vec<(&str, usize, Option<usize>)> = keys
        .iter()
        .filter_map(|key| Some((key.as_str(), old.find(key)?, new.find(key))))
        .collect();
    let mut counted = Counted {
        with_variation: 0,
        changed: 0,
        experiments: BTreeSet::new(),
    };
    let forced = Forced::default();
    for unit in 0..UNITS.min(DECISIONS_MAX / places.len().max(1)) {
        let name = Value::String(format!("sample-{unit}"));
        let user: Map<String, Value> = attributes
            .iter()
            .map(|attribute| (attribute.clone(), name.clone()))
            .collect();
        let context = Context::new(&user);
        let (mut had_one, mut is_changed) = (false, false);
        for (key, before, after) in &places {
            let Some(variation) = old.variation(&context, *before, &forced) else {
                continue;
            };
            had_one = true;
            let after = after.and_then(|after| new.variation(&context, after, &forced));
            if after != Some(variation) {
                is_changed = true;
                counted.experiments.insert(key);
            }
        }
        counted.with_variation += usize::from(had_one);
        counted.changed += usize::from(is_changed);
    }
    counted
}

/// A snapshot document with the touched experiments and what they need.
fn document(stitched: &Stitched, touched: &Touched<'_>) -> String {
    let features = with_parents(stitched, touched);
    let groups = stitched.saved_groups.iter();
    let mut out = String::from("{\"features\":{");
    let features = features.into_iter();
    let features = features.filter_map(|key| Some((key, stitched.features.get(key)?)));
    let definitions = features.map(|(key, feature)| (key, &feature.item.definition));
    write_members(definitions, &mut out);
    out.push_str("},\"saved_groups\":{");
    write_members(groups.map(|(id, group)| (&**id, group)), &mut out);
    out.push_str("},\"experiments\":[");
    let listed = stitched.experiments.iter();
    let listed = listed.filter(|e| touched.listed.contains(e.item.tracking_key.as_str()));
    for (i, experiment) in listed.enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(experiment.item.definition.as_str());
    }
    out.push_str("]}");
    out
}

fn write_members<'a>(
    members: impl Iterator<Item = (&'a str, &'a CanonicalJson)>,
    out: &mut String,
) {
    for (i, (key, value)) in members.enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_string(key, out);
        out.push(':');
        out.push_str(value.as_str());
    }
}

/// The features that decide on touched experiments, with all that they depend on.
fn with_parents<'a>(stitched: &'a Stitched, touched: &Touched<'a>) -> BTreeSet<&'a str> {
    let mut needed = BTreeSet::new();
    let mut pending: Vec<&str> = touched.features.iter().copied().collect();
    for experiment in &stitched.experiments {
        if !touched
            .listed
            .contains(experiment.item.tracking_key.as_str())
        {
            continue;
        }
        let phase = experiment.item.current_phase();
        let prerequisites = phase.and_then(|phase| phase.prerequisites.as_ref());
        let prerequisites = prerequisites.map(CanonicalJson::to_value);
        for id in ids(prerequisites.as_ref()) {
            pending.extend(stitched.features.get_key_value(id).map(|(key, _)| &**key));
        }
    }
    if !touched.listed.is_empty() {
        // A bare list of values does not say of which attribute; the conditions of features that ask for it do.
        let asks = stitched.features.iter().filter(|(_, feature)| {
            let text = feature.item.definition.as_str();
            text.contains("\"$inGroup\"") || text.contains("\"$notInGroup\"")
        });
        pending.extend(asks.map(|(key, _)| &**key));
    }
    while let Some(key) = pending.pop() {
        if needed.insert(key)
            && let Some(feature) = stitched.features.get(key)
        {
            pending.extend(feature.item.parents.iter().map(|parent| &**parent));
        }
    }
    needed
}

fn ids(prerequisites: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = prerequisites.and_then(Value::as_array);
    let list = list.into_iter().flatten();
    list.filter_map(|prerequisite| prerequisite.get("id")?.as_str())
}

/// Every attribute that something is hashed by on either side.
fn hash_attributes(documents: &[String; 2]) -> Vec<String> {
    let mut found = BTreeSet::from(["id".to_owned()]);
    for document in documents {
        let value: Value = serde_json::from_str(document).unwrap_or_default();
        collect(&value, &mut found);
    }
    found.into_iter().collect()
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(members) => {
            for (name, member) in members {
                let names_one = matches!(
                    name.as_str(),
                    "hashAttribute" | "fallbackAttribute" | "attribute"
                );
                match member {
                    Value::String(attribute) if names_one => {
                        found.insert(attribute.clone());
                    }
                    _ => collect(member, found),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::test_support::{listed, rules, stitched, stitched_with},
        *,
    };

    /// An experiment with a prerequisite that a share of the units passes.
    fn gated(share: f64) -> Stitched {
        let parent = json!({"defaultValue": false, "rules": [{"force": true, "coverage": share, "hashAttribute": "id"}]});
        let rule = json!({"key": "e", "variations": [0, 1], "coverage": 0.5, "hashAttribute": "company",
            "parentConditions": [{"id": "parent", "condition": {"value": true}}]});
        let features = json!({"parent": parent, "f": {"rules": [rule]}});
        stitched(&json!({"features": features}), &[])
    }

    #[test]
    fn a_prerequisite_that_takes_units_out_trips_and_one_that_lets_more_in_does_not() {
        let trip = |before, after| trip(&rules(), &gated(before), &gated(after));
        assert_eq!(trip(0.8, 0.79), None);
        assert_eq!(trip(0.1, 0.9), None);
        let tripped = trip(0.8, 0.4).unwrap();
        assert_eq!(tripped.guard, Guard::ChangedUnits);
        let (before, after) = (
            tripped.before.as_u64().unwrap(),
            tripped.after.as_u64().unwrap(),
        );
        // Half of the units are covered, 80 % of them pass; then 40 % do.
        assert!((700..900).contains(&before), "{tripped:?}");
        assert!((300..500).contains(&after), "{tripped:?}");
        assert!(
            tripped.message.contains(" of `e`, whose own"),
            "{tripped:?}"
        );
        assert_eq!(tripped, trip(0.8, 0.4).unwrap(), "the sample is fixed");
    }

    #[test]
    fn a_namespace_that_is_hashed_anew_trips() {
        let side = |seed: &str| {
            let mut inside = listed("inside");
            inside["phases"][0]["namespace"] =
                json!({"namespaceId": "ns", "enabled": true, "ranges": [[0, 0.5]]});
            let namespaces = json!([{"id": "ns", "format": "multiRange", "seed": seed}]);
            let list = json!({"experiments": [inside], "namespaces": namespaces});
            stitched_with(&json!({"features": {}}), &list)
        };
        assert!(trip(&rules(), &side("a"), &side("b")).is_some());
        assert_eq!(trip(&rules(), &side("a"), &side("a")), None);
    }

    #[test]
    fn a_group_of_the_management_api_that_loses_its_members_trips() {
        let side = |members: usize| {
            let values: Vec<String> = (0..members).map(|i| format!("sample-{i}")).collect();
            let mut targeted = listed("targeted");
            targeted["phases"][0]["coverage"] = json!(1);
            targeted["phases"][0]["savedGroupTargeting"] =
                json!([{"matchType": "all", "savedGroups": ["g"]}]);
            let asks = json!({"rules": [{"force": 1, "condition": {"id": {"$inGroup": "g"}}}]});
            let document = json!({"features": {"asks": asks}, "savedGroups": {"g": values}});
            stitched(&document, &[targeted])
        };
        let tripped = trip(&rules(), &side(1_000), &side(500)).unwrap();
        assert_eq!((tripped.before, tripped.after), (json!(1_000), json!(500)));
        assert_eq!(trip(&rules(), &side(500), &side(1_000)), None);
    }
}
