//! Running experiments whose ranges within one namespace overlap: their units would be in both.
//!
//! Read from the list, the rules of features, and auto experiments. A payload says a namespace as `[id, start, end]`, or as
//! a filter where it is hashed by a seed of its own; the list says either as ranges under an id.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde_json::Value;

use super::guard::splits;
use crate::{
    eval::Range,
    model::{Issue, Status, Stitched},
};

/// What tells one namespace from another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Namespace {
    Id(String),
    Filter {
        seed: String,
        attribute: String,
        hash_version: String,
    },
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "namespace `{id}`"),
            Self::Filter { seed, .. } => write!(f, "the namespace of seed `{seed}`"),
        }
    }
}

/// The part of a namespace that an experiment takes.
struct Place {
    key: String,
    source: Arc<str>,
    ranges: Vec<Range>,
}

impl Place {
    fn overlaps(&self, (low, high): Range) -> bool {
        self.ranges.iter().any(|(l, h)| low < *h && *l < high)
    }
}

type Places = BTreeMap<Namespace, Vec<Place>>;

/// Reports each two experiments that overlap once, at the one whose key comes later.
pub(super) fn report(stitched: &mut Stitched) {
    let mut all = Places::new();
    of_list(stitched, &mut all);
    of_payloads(stitched, &mut all);
    for places in all.values_mut() {
        places.sort_by(|a, b| a.key.cmp(&b.key));
    }
    let mut issues = Vec::new();
    let mut told = BTreeSet::new();
    for (namespace, places) in &all {
        let with_ranges = places.iter().enumerate();
        let with_ranges = with_ranges.flat_map(|(i, place)| {
            let ranges = place.ranges.iter();
            ranges.map(move |range| (i, place, range))
        });
        for (i, place, range) in with_ranges {
            let earlier = places[..i].iter();
            let mut others = earlier.filter(|other| other.key != place.key);
            let Some(other) = others.find(|other| other.overlaps(*range)) else {
                continue;
            };
            if told.insert((&*place.key, &*other.key)) {
                let message = format!("overlaps experiment `{}` in {namespace}", other.key);
                let path = format!("experiments.{}", place.key);
                let issue = Issue::warning("namespace_overlap", &place.source, path, message);
                issues.push(issue);
            }
        }
    }
    stitched.issues.extend(issues);
}

fn of_list(stitched: &Stitched, all: &mut Places) {
    for experiment in &stitched.experiments {
        let item = &experiment.item;
        let is_running = item.status == Status::Running && !item.archived;
        let phase = item.current_phase().filter(|_| is_running);
        let Some(namespace) = phase.and_then(|phase| phase.namespace.as_ref()) else {
            continue;
        };
        let id = Namespace::Id(namespace.id.clone());
        all.entry(id).or_default().push(Place {
            key: item.tracking_key.clone(),
            source: Arc::clone(&experiment.source),
            ranges: namespace.ranges.clone(),
        });
    }
}

fn of_payloads(stitched: &Stitched, all: &mut Places) {
    let mut add = |key: String, source: &Arc<str>, definition: &Value| {
        for (namespace, ranges) in namespaces(definition) {
            all.entry(namespace).or_default().push(Place {
                key: key.clone(),
                source: Arc::clone(source),
                ranges,
            });
        }
    };
    for (key, feature) in &stitched.features {
        // Few features have any; nothing is parsed of the others.
        let text = feature.item.definition.as_str();
        if !text.contains("\"namespace\":[") && !text.contains("\"filters\":[") {
            continue;
        }
        let definition = feature.item.definition.to_value();
        let rules = definition.get("rules").and_then(Value::as_array);
        for rule in rules.into_iter().flatten() {
            if let Some(split) = splits::of_rule(key, rule) {
                add(split.key, &feature.source, rule);
            }
        }
    }
    for auto in &stitched.auto_experiments {
        let definition = auto.item.to_value();
        if let Some(split) = splits::of_auto(&definition) {
            add(split.key, &auto.source, &definition);
        }
    }
}

/// What a rule or an auto experiment takes. As SDKs see it, filters stand in the place of a namespace.
fn namespaces(definition: &Value) -> Vec<(Namespace, Vec<Range>)> {
    if let Some(filters) = definition.get("filters").and_then(Value::as_array) {
        return filters.iter().filter_map(of_filter).collect();
    }
    let namespace = definition.get("namespace");
    namespace.and_then(of_id).into_iter().collect()
}

fn of_filter(filter: &Value) -> Option<(Namespace, Vec<Range>)> {
    let text = |name: &str| filter.get(name).and_then(Value::as_str);
    let namespace = Namespace::Filter {
        seed: text("seed")?.to_owned(),
        attribute: text("attribute").unwrap_or("id").to_owned(),
        hash_version: filter
            .get("hashVersion")
            .unwrap_or(&Value::from(2))
            .to_string(),
    };
    Some((namespace, splits::ranges(filter.get("ranges")?)?))
}

fn of_id(namespace: &Value) -> Option<(Namespace, Vec<Range>)> {
    let [id, start, end, ..] = namespace.as_array()?.as_slice() else {
        return None;
    };
    let range = (start.as_f64()?, end.as_f64()?);
    Some((Namespace::Id(id.as_str()?.to_owned()), vec![range]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pipeline::guard::test_support::{listed, stitched};

    fn rule(key: &str, member: &str, value: Value) -> Value {
        let mut rule = json!({"key": key, "variations": [0, 1]});
        rule[member] = value;
        rule
    }

    fn filter(seed: &str, from: f64, to: f64) -> Value {
        json!([{"seed": seed, "attribute": "id", "hashVersion": 2, "ranges": [[from, to]]}])
    }

    #[track_caller]
    fn check(rules: &[Value], auto: &[Value], list: &[Value], expected: &[(&str, &str)]) {
        let feature = |(i, rule): (usize, &Value)| (format!("f{i}"), json!({"rules": [rule]}));
        let features: serde_json::Map<_, _> = rules.iter().enumerate().map(feature).collect();
        let document = json!({"features": features, "experiments": auto});
        let issues = stitched(&document, list).issues;
        let overlaps = issues.iter().filter(|i| i.code == "namespace_overlap");
        let found: Vec<_> = overlaps.map(|i| (&*i.path, &*i.message)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn experiments_in_rules_that_overlap_are_reported_once() {
        let at = |key: &str, from: f64, to: f64| rule(key, "namespace", json!(["ns", from, to]));
        let apart = [at("one", 0.0, 0.5), at("two", 0.5, 1.0)];
        check(&apart, &[], &[], &[]);
        let both = (
            "experiments.two",
            "overlaps experiment `one` in namespace `ns`",
        );
        let overlapping = [
            at("two", 0.4, 1.0),
            at("one", 0.0, 0.5),
            at("two", 0.3, 1.0),
        ];
        check(&overlapping, &[], &[], &[both]);
        let elsewhere = [
            at("one", 0.0, 0.5),
            rule("two", "namespace", json!(["other", 0, 1])),
        ];
        check(&elsewhere, &[], &[], &[]);
        // One experiment may have more rules than one.
        check(&[at("one", 0.0, 0.5), at("one", 0.0, 0.5)], &[], &[], &[]);
    }

    #[test]
    fn the_list_the_rules_and_auto_experiments_share_their_namespaces() {
        let mut one = listed("one");
        one["phases"][0]["namespace"] =
            json!({"namespaceId": "ns", "enabled": true, "ranges": [[0.0, 0.5]]});
        let same = rule("one", "namespace", json!(["ns", 0.0, 0.5]));
        let two = rule("two", "namespace", json!(["ns", 0.4, 0.6]));
        let both = (
            "experiments.two",
            "overlaps experiment `one` in namespace `ns`",
        );
        check(&[same, two.clone()], &[], &[one.clone()], &[both]);
        check(&[], &[two], &[one], &[both]);
    }

    #[test]
    fn filters_of_one_seed_are_one_namespace() {
        let at =
            |key: &str, seed: &str, from: f64| rule(key, "filters", filter(seed, from, from + 0.5));
        let both = (
            "experiments.two",
            "overlaps experiment `one` in the namespace of seed `x`",
        );
        check(
            &[at("one", "x", 0.0), at("two", "x", 0.4)],
            &[],
            &[],
            &[both],
        );
        check(&[at("one", "x", 0.0)], &[at("two", "x", 0.4)], &[], &[both]);
        check(&[at("one", "x", 0.0), at("two", "x", 0.5)], &[], &[], &[]);
        check(&[at("one", "x", 0.0), at("two", "y", 0.4)], &[], &[], &[]);
        let mut stopped = at("two", "x", 0.4);
        stopped["status"] = json!("stopped");
        check(&[at("one", "x", 0.0)], &[stopped], &[], &[]);
    }
}
