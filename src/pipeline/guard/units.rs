//! How many sample units would get another variation through something that their experiment refers to.
//!
//! The sample is fixed, so the same change gives the same numbers everywhere. A unit has nothing but its name, in every
//! attribute that something is hashed by. Experiments that are targeted at other attributes have no such units; for them
//! there are units with the values that targeting names ([`super::sample`]), which say no more than that all would go.
//! A unit that had no variation and gets one does not count: that is what ramping up looks like.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    Guard, Rules, Trip, percent,
    sample::Named,
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
/// Fewer units with named values say nothing: one combination of values may go while others stay.
const TARGETED_MIN: usize = 20;
/// Most experiments named in a message.
const NAMED_MAX: usize = 3;

/// Trips when too large a share of the units that had a variation of a touched experiment would lose it.
pub(super) fn trip(rules: &Rules, before: &Stitched, after: &Stitched) -> Option<Trip> {
    let touched = touched(before, after);
    if touched.keys.is_empty() {
        return None;
    }
    let sides = [document(before, &touched), document(after, &touched)];
    let documents: [Value; 2] = sides
        .each_ref()
        .map(|side| serde_json::from_str(side).unwrap_or_default());
    let attributes = hash_attributes(&documents);
    let [old, new] = sides.map(|side| Environment::new(side.as_bytes(), rules.dialect).ok());
    // Definitions were read once already; what cannot be compiled is not this guard's to report.
    let (old, new) = (old?, new?);
    let plain = |unit: usize| with_name(Map::new(), unit, &attributes);
    let places = places(&old, &new, &touched.keys);
    let counted = count(&old, &new, &places, &plain);
    #[expect(clippy::cast_precision_loss, reason = "there are some thousand units")]
    let share = counted.changed as f64 / counted.with_variation.max(1) as f64;
    if share <= rules.max_changed_units_share {
        let unseen = places
            .iter()
            .filter(|place| !counted.of.contains_key(place.key));
        let unseen: Vec<Place<'_>> = unseen.copied().collect();
        let values = Named::of(&documents);
        let targeted = |unit: usize| with_name(values.unit(unit), unit, &attributes);
        return all_gone(rules, [&old, &new], &unseen, &targeted);
    }
    let lossy = counted.of.iter().filter(|(_, [_, lost])| *lost > 0);
    let lossy = lossy.map(|(key, _)| *key);
    Some(Trip {
        guard: Guard::ChangedUnits,
        subject: "experiments".to_owned(),
        message: format!(
            "{} of {} sample units ({}) would get another variation of {}, whose own definition did not change; at most {} may",
            counted.changed,
            counted.with_variation,
            percent(share),
            named(lossy),
            percent(rules.max_changed_units_share),
        ),
        before: json!(counted.with_variation),
        after: json!(counted.with_variation - counted.changed),
        limit: json!(rules.max_changed_units_share),
    })
}

/// Trips where all targeted units of an experiment would get another variation of it, or none.
fn all_gone(
    rules: &Rules,
    [old, new]: [&Environment; 2],
    unseen: &[Place<'_>],
    unit: &dyn Fn(usize) -> Map<String, Value>,
) -> Option<Trip> {
    if unseen.is_empty() || rules.max_changed_units_share >= 1.0 {
        return None;
    }
    let counted = count(old, new, unseen, unit).of;
    let gone = counted
        .into_iter()
        .filter(|(_, [had, lost])| *had >= TARGETED_MIN && had == lost);
    let gone: BTreeMap<&str, usize> = gone.map(|(key, [had, _])| (key, had)).collect();
    let before: usize = gone.values().sum();
    (before > 0).then(|| Trip {
        guard: Guard::ChangedUnits,
        subject: "experiments".to_owned(),
        message: format!(
            "all {before} targeted sample units would get another variation of {}, whose own definition did not change",
            named(gone.into_keys()),
        ),
        before: json!(before),
        after: json!(0),
        limit: json!(rules.max_changed_units_share),
    })
}

/// A unit with its name in these attributes.
fn with_name(
    mut user: Map<String, Value>,
    unit: usize,
    attributes: &[String],
) -> Map<String, Value> {
    let name = Value::String(format!("sample-{unit}"));
    let named = attributes.iter().map(|key| (key.clone(), name.clone()));
    user.extend(named);
    user
}

fn named<'k>(mut keys: impl Iterator<Item = &'k str>) -> String {
    let first: Vec<String> = keys
        .by_ref()
        .take(NAMED_MAX)
        .map(|key| format!("`{key}`"))
        .collect();
    let more = keys.count();
    let first = first.join(", ");
    if more > 0 {
        format!("{first} and {more} more")
    } else {
        first
    }
}

/// Where an experiment is on both sides.
#[derive(Clone, Copy)]
struct Place<'k> {
    key: &'k str,
    before: usize,
    after: Option<usize>,
}

fn places<'k>(old: &Environment, new: &Environment, keys: &'k BTreeSet<String>) -> Vec<Place<'k>> {
    let place = |key: &'k String| {
        Some(Place {
            key,
            before: old.find(key)?,
            after: new.find(key),
        })
    };
    keys.iter().filter_map(place).collect()
}

/// What the sample shows.
struct Counted<'k> {
    /// Units that had a variation of any touched experiment.
    with_variation: usize,
    /// Those of them that would have another one, or none.
    changed: usize,
    /// The same of each experiment, where it is not none.
    of: BTreeMap<&'k str, [usize; 2]>,
}

fn count<'k>(
    old: &Environment,
    new: &Environment,
    places: &[Place<'k>],
    user: &dyn Fn(usize) -> Map<String, Value>,
) -> Counted<'k> {
    let mut counted = Counted {
        with_variation: 0,
        changed: 0,
        of: BTreeMap::new(),
    };
    let forced = Forced::default();
    for unit in 0..UNITS.min(DECISIONS_MAX / places.len().max(1)) {
        let user = user(unit);
        let context = Context::new(&user);
        let (mut had_one, mut is_changed) = (false, false);
        for place in places {
            let Some(variation) = old.variation(&context, place.before, &forced) else {
                continue;
            };
            had_one = true;
            let after = place
                .after
                .and_then(|after| new.variation(&context, after, &forced));
            let is_lost = after != Some(variation);
            let of_it = counted.of.entry(place.key).or_default();
            of_it[0] += 1;
            of_it[1] += usize::from(is_lost);
            is_changed |= is_lost;
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
fn hash_attributes(documents: &[Value; 2]) -> Vec<String> {
    let mut found = BTreeSet::from(["id".to_owned()]);
    for document in documents {
        collect(document, &mut found);
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

    /// An experiment for some countries behind a prerequisite and a saved group.
    fn targeted(is_open: bool, countries: &[&str]) -> Stitched {
        let rule = json!({"key": "e", "variations": [0, 1],
            "condition": {"plan": {"$in": ["pro", "team"]}, "country": {"$inGroup": "g"}},
            "parentConditions": [{"id": "parent", "condition": {"value": true}}]});
        let features = json!({"parent": {"defaultValue": is_open}, "f": {"rules": [rule]}});
        let document = json!({"features": features, "savedGroups": {"g": countries}});
        stitched(&document, &[])
    }

    #[test]
    fn a_targeted_experiment_that_all_its_units_lose_trips_and_one_that_some_lose_does_not() {
        let all: &[&str] = &["de", "fr", "us"];
        let before = targeted(true, all);
        let tripped = trip(&rules(), &before, &targeted(false, all)).unwrap();
        assert!(
            tripped
                .message
                .ends_with(" of `e`, whose own definition did not change"),
            "{tripped:?}"
        );
        assert_eq!(tripped.after, json!(0));
        assert!(trip(&rules(), &before, &targeted(true, &[])).is_some());
        // How many of the units are from there is not known.
        assert_eq!(trip(&rules(), &before, &targeted(true, &all[..1])), None);
        assert_eq!(trip(&rules(), &targeted(false, all), &before), None);
        let off = Rules {
            max_changed_units_share: 1.0,
            ..rules()
        };
        assert_eq!(trip(&off, &before, &targeted(false, all)), None);
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
