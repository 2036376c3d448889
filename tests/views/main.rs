//! Consumer formats under hostile input: whatever an experiment holds, the documents fit their consumers' schemas.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use stitchd::{
    model::{Experiment, Issue},
    pipeline::adapt::adapt,
    views::{View, render_consumers},
};

mod generators;
mod schemas;

use generators::{experiments, field_names, fitting, sourced, weights};
use schemas::{assert_fits, list_schema, varnish_schema};

/// Parses a view's bytes; fails where a repeated member would be lost by that.
fn parse(view: &View) -> Value {
    let text = std::str::from_utf8(&view.body).unwrap();
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!(value.to_string(), text);
    value
}

/// Names and entries of a document.
fn entries(document: &Value) -> Vec<(&str, &Value)> {
    match document {
        Value::Object(members) => members.iter().map(|(name, e)| (name.as_str(), e)).collect(),
        Value::Array(items) => items
            .iter()
            .map(|entry| (entry["name"].as_str().unwrap(), entry))
            .collect(),
        other => panic!("not a document: {other}"),
    }
}

/// First and last bin of each group of a domain, in group order.
fn ranges(domain: &Value) -> Vec<(String, u64, u64)> {
    let groups = domain["groups"].as_object().unwrap();
    let ranges = groups.iter().map(|(group, range)| {
        let [first, last] = [0, 1].map(|i| range[i].as_u64().unwrap());
        (group.clone(), first, last)
    });
    ranges.collect()
}

/// What JSON Schema cannot say about any entry.
fn assert_sound(entry: &Value) {
    let (start, end) = (
        entry["start"].as_str().unwrap(),
        entry["end"].as_str().unwrap(),
    );
    assert!(start < end, "{start} {end}");
    for domain in entry
        .get("domains")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::values)
    {
        let ranges = ranges(domain);
        assert!(
            ranges
                .iter()
                .all(|(_, first, last)| first <= last && *last <= 99_999)
        );
        // Groups stand in the order of their bins, so neighbours are all that can overlap.
        assert!(
            ranges.windows(2).all(|pair| pair[0].2 < pair[1].1),
            "{ranges:?}"
        );
    }
}

fn is_addressed(consumer: &str, experiment: &Experiment) -> bool {
    let delivery = &experiment.delivery;
    !delivery.problems.is_empty()
        || match consumer {
            "varnish" => !delivery.domains.is_empty() && delivery.user_identifier_type != "mw-user",
            "mediawiki" => !delivery.wikis.is_empty(),
            _ => true,
        }
}

/// Checks everything that holds for the documents of any experiments.
fn check(experiments: &[Experiment]) {
    let shown: Vec<_> = experiments.iter().cloned().map(sourced).collect();
    let views = render_consumers(&shown);
    assert_eq!(
        views.iter().map(|view| view.name).collect::<Vec<_>>(),
        ["varnish", "mediawiki", "analytics"]
    );
    let backwards: Vec<_> = shown.iter().rev().cloned().collect();
    for (view, again) in views.iter().zip(render_consumers(&backwards)) {
        assert_eq!(view.body, again.body, "order of input shows");
        let document = parse(view);
        assert_fits(view.name, &document);
        let entries = entries(&document);
        assert!(entries.iter().map(|(name, _)| name).eq(&view.members));
        assert!(view.members.is_sorted());
        for (_, entry) in &entries {
            assert_sound(entry);
        }
        for experiment in experiments {
            let path = format!("experiments.{}", experiment.tracking_key);
            let issues: Vec<&Issue> = view.issues.iter().filter(|i| i.path == path).collect();
            let is_listed = view.members.contains(&experiment.tracking_key);
            let expected = usize::from(is_addressed(view.name, experiment));
            assert_eq!(
                usize::from(is_listed) + issues.len(),
                expected,
                "{issues:?}"
            );
            assert!(issues.iter().all(|issue| issue.message.contains(view.name)));
        }
    }
}

/// The document of one consumer for one experiment.
fn render(consumer: usize, experiment: &Experiment) -> Value {
    parse(&render_consumers(&[sourced(experiment.clone())])[consumer])
}

/// Bins of the fitting experiment, where it is served.
fn edge_ranges(experiment: &Experiment) -> Option<Vec<(String, u64, u64)>> {
    let document = render(0, experiment);
    let entry = document.get(&experiment.tracking_key)?;
    Some(ranges(&entry["domains"]["fr.wikipedia.org"]))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_document_fits_its_consumer(experiments in prop::collection::vec(experiments(), 0..6)) {
        let unique: BTreeMap<String, Experiment> = experiments
            .into_iter()
            .map(|experiment| (experiment.tracking_key.clone(), experiment))
            .collect();
        check(&unique.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn a_bad_experiment_changes_nothing_for_the_others(other in experiments()) {
        let good = fitting(0.1, &[0.5, 0.5]);
        prop_assume!(other.tracking_key != good.tracking_key);
        let both = [sourced(good.clone()), sourced(other)];
        for (consumer, view) in render_consumers(&both).iter().enumerate() {
            let (alone, document) = (render(consumer, &good), parse(view));
            let alone = entries(&alone);
            prop_assert_eq!(alone.len(), 1);
            prop_assert!(entries(&document).contains(&alone[0]));
        }
    }

    #[test]
    fn raising_coverage_never_moves_a_bin(
        weights in weights(),
        coverages in prop::array::uniform2(0.0..=1.0f64),
    ) {
        let [low, high] = [coverages[0].min(coverages[1]), coverages[0].max(coverages[1])];
        let before = edge_ranges(&fitting(low, &weights));
        let after = edge_ranges(&fitting(high, &weights));
        if let Some(before) = before {
            let after = after.expect("what was served at a lower coverage is served at a higher one");
            prop_assert_eq!(before.len(), after.len());
            for (old, new) in before.iter().zip(&after) {
                prop_assert_eq!((&old.0, old.1), (&new.0, new.1));
                prop_assert!(old.2 <= new.2);
            }
        }
    }

    /// Against whole-number arithmetic, which needs no rounding: weights of four digits, coverage of three.
    #[test]
    fn bins_are_those_of_exact_arithmetic(
        parts in prop::collection::vec(1..4000u64, 1..6),
        coverage in 1..=1000u64,
    ) {
        let mut parts = parts;
        let mut left = 10_000;
        for part in &mut parts {
            *part = (*part).min(left);
            left -= *part;
        }
        let weights: Vec<f64> = parts
            .iter()
            .map(|part| f64::from(u32::try_from(*part).unwrap()) / 10_000.0)
            .collect();
        let share = f64::from(u32::try_from(coverage).unwrap()) / 1000.0;
        let mut first = 0;
        let mut expected = Some(Vec::new());
        for (i, part) in parts.iter().enumerate() {
            let count = coverage * part / 100;
            if count == 0 {
                expected = None;
            } else if let Some(expected) = &mut expected {
                expected.push((format!("g{i}"), first, first + count - 1));
            }
            first += part * 10;
        }
        prop_assert_eq!(edge_ranges(&fitting(share, &weights)), expected);
    }

    #[test]
    fn groups_keep_the_order_of_the_variations(count in 1..9u8, seed in any::<u64>()) {
        let mut experiment = fitting(0.5, &vec![1.0 / f64::from(count); usize::from(count)]);
        let shift = usize::try_from(seed % u64::from(count)).unwrap();
        experiment.variations.rotate_left(shift);
        let names: Vec<&str> = experiment.variations.iter().map(|v| v.name.as_str()).collect();
        prop_assert_eq!(&render(1, &experiment)[0]["groups"], &json!(names));
    }
}

#[test]
fn the_schemas_of_this_test_refuse_what_consumers_refuse() {
    let varnish = jsonschema::draft4::new(&varnish_schema()).unwrap();
    let good = json!({"sticky-header-2026": {
        "start": "2026-09-01T14:30:00Z", "end": "2026-09-29T14:30:00Z", "cache_split": true,
        "domains": {"fr.wikipedia.org": {"groups": {"control": [0, 499], "treatment": [500, 999]}}}
    }});
    assert!(varnish.is_valid(&good));
    assert!(varnish.is_valid(&json!({})));
    for (pointer, value) in [
        (
            "/sticky-header-2026/start",
            json!("2026-09-01T14:30:00.000Z"),
        ),
        ("/sticky-header-2026/domains", json!({})),
        (
            "/sticky-header-2026/domains",
            json!({"FR.org": {"groups": {"a": [0, 1]}}}),
        ),
        (
            "/sticky-header-2026/domains/fr.wikipedia.org/groups",
            json!({}),
        ),
        (
            "/sticky-header-2026/domains/fr.wikipedia.org/groups/control",
            json!([0, 3333.33]),
        ),
        (
            "/sticky-header-2026/domains/fr.wikipedia.org/groups/control",
            json!([0, 100_000]),
        ),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(!varnish.is_valid(&bad), "{bad}");
    }
    assert!(!varnish.is_valid(&json!({"short": good["sticky-header-2026"]})));
    let mediawiki = jsonschema::draft4::new(&list_schema(false)).unwrap();
    assert!(mediawiki.is_valid(&json!([])));
    assert!(!mediawiki.is_valid(&json!([{"name": "sticky-header-2026"}])));
}

#[test]
fn an_unaddressed_experiment_is_no_issue() {
    let mut experiment = fitting(0.1, &[0.5, 0.5]);
    experiment.custom_fields.clear();
    adapt(&mut experiment, &field_names());
    let views = render_consumers(&[sourced(experiment)]);
    assert!(views.iter().all(|view| view.issues.is_empty()));
    assert_eq!([0, 1].map(|i| views[i].body.clone()), ["{}", "[]"]);
    assert_eq!(views[2].members, ["sticky-header-2026"]);
}

#[test]
fn an_unreadable_field_withholds_everywhere_and_is_named() {
    let mut experiment = fitting(0.1, &[0.5, 0.5]);
    experiment
        .custom_fields
        .insert("domains".to_owned(), json!(7));
    adapt(&mut experiment, &field_names());
    for view in render_consumers(&[sourced(experiment)]) {
        let [issue] = &view.issues[..] else {
            panic!("one issue expected, got {:?}", view.issues);
        };
        assert_eq!(issue.code, "bad_field");
        assert_eq!(issue.path, "experiments.sticky-header-2026");
        let expected = format!(
            "withheld from `{}`: custom field `domains` is a number, not a list",
            view.name
        );
        assert_eq!(issue.message, expected);
        assert!(view.members.is_empty());
    }
}

#[test]
fn unequal_weights_reach_the_edge_and_analysts_but_not_mediawiki() {
    let views = render_consumers(&[sourced(fitting(0.1, &[0.9, 0.1]))]);
    assert_eq!([0, 1, 2].map(|i| views[i].members.len()), [1, 0, 1]);
    assert_eq!(views[1].issues[0].code, "unequal_split");
}
