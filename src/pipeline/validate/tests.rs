use serde_json::{Value, json};

use super::*;

fn read_payload(value: &Value) -> Payload {
    payload("s", value.to_string().as_bytes(), None).unwrap()
}

/// One feature definition in, `code path` of each issue out.
#[track_caller]
fn check(definition: &Value, expected: &[&str]) {
    let read =
        read_payload(&json!({"features": {"f": definition, "good": {}}, "savedGroups": {"g": []}}));
    let found: Vec<String> = read
        .issues
        .iter()
        .map(|i| format!("{} {}", i.code, i.path))
        .collect();
    assert_eq!(found, expected, "{definition}");
    assert!(read.features.contains_key("good"));
    assert_eq!(
        read.features.contains_key("f"),
        !expected.iter().any(|e| e.starts_with("quarantined"))
    );
}

#[test]
fn a_member_of_the_wrong_type_quarantines_its_feature_alone() {
    check(&json!(7), &["quarantined features.f"]);
    check(&json!({"rules": {}}), &["quarantined features.f.rules"]);
    check(&json!({"rules": [1]}), &["quarantined features.f.rules[0]"]);
    for (member, value) in [
        ("id", json!(1)),
        ("key", json!({})),
        ("hashAttribute", json!([])),
        ("hashVersion", json!("2")),
        ("coverage", json!("0.5")),
        ("condition", json!([])),
        ("weights", json!([0.5, "0.5"])),
        ("range", json!([0.1])),
        ("ranges", json!([[0.1, 0.2], [0.3]])),
        ("namespace", json!(["n", 0])),
        ("disableStickyBucketing", json!("yes")),
        ("phase", json!({})),
    ] {
        let path = format!("quarantined features.f.rules[0].{member}");
        check(&json!({"rules": [{member: value}]}), &[path.as_str()]);
        check(&json!({"rules": [{member: null}]}), &[]);
    }
    check(
        &json!({"rules": [{"meta": ["x"]}]}),
        &["quarantined features.f.rules[0].meta[0]"],
    );
    let parents = json!({"rules": [{"parentConditions": [{"condition": {}}]}]});
    check(
        &parents,
        &["quarantined features.f.rules[0].parentConditions[0].id"],
    );
}

#[test]
fn what_is_merely_odd_is_served_with_a_warning() {
    check(&json!({"unknown": 1, "rules": [{"mystery": true}]}), &[]);
    let operator = json!({"rules": [{"condition": {"$or": [{"a": {"$nearly": 1}}]}}]});
    check(
        &operator,
        &["unknown_operator features.f.rules[0].condition"],
    );
    check(
        &json!({"rules": [{"weights": [0.2, 0.2]}]}),
        &["odd_weights features.f.rules[0].weights"],
    );
    check(
        &json!({"rules": [{"coverage": 1.5}]}),
        &["odd_coverage features.f.rules[0].coverage"],
    );
    let group = |id: &str| json!({"rules": [{"condition": {"id": {"$inGroup": id}}}]});
    check(&group("g"), &[]);
    check(
        &group("gone"),
        &["dangling_saved_group features.f.rules[0].condition"],
    );
}

#[test]
fn limits_on_depth_and_size_hold() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    for (levels, is_good) in [(DEPTH_MAX - 1, true), (DEPTH_MAX, false), (10_000, false)] {
        let text = format!(
            r#"{{"features":{{"f":{{"defaultValue":{}}}}}}}"#,
            deep(levels)
        );
        let read = payload("s", text.as_bytes(), None).unwrap();
        assert_eq!(read.features.contains_key("f"), is_good, "{levels} levels");
    }
    let huge = json!({"features": {"f": {"defaultValue": "x".repeat(ITEM_BYTES_MAX)}}});
    assert!(read_payload(&huge).features.is_empty());
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    assert!(
        read_payload(&json!({"features": {long_key: {}}}))
            .features
            .is_empty()
    );
    let infinite = r#"{"features":{"f":{"defaultValue":1e999}}}"#;
    assert!(
        payload("s", infinite.as_bytes(), None)
            .unwrap()
            .features
            .is_empty()
    );
}

#[test]
fn a_document_of_the_wrong_shape_is_refused() {
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "<html>",
        r#"{"features":[]}"#,
        r#"{"features":null}"#,
        r#"{"features":{}"#,
        r#"{"features":{},"experiments":{}}"#,
        r#"{"features":{},"savedGroups":[]}"#,
        r#"{"status":400,"error":"Invalid API Key"}"#,
    ] {
        assert_eq!(
            payload("s", text.as_bytes(), None).unwrap_err().code(),
            "malformed",
            "{text}"
        );
    }
    for text in [
        "{}",
        "[]",
        r#"{"experiments":{}}"#,
        r#"{"experiments":null}"#,
    ] {
        let refused = experiments("s", text.as_bytes(), None, &FieldNames::default());
        assert_eq!(refused.unwrap_err().code(), "malformed", "{text}");
    }
}

fn experiment(id: &str, key: &str, status: &str, updated: &str) -> Value {
    json!({
        "id": id, "trackingKey": key, "status": status, "dateUpdated": updated,
        "variations": [{"variationId": "v0", "key": "0", "name": "a", "screenshots": ["https://x/?sig=1"]}],
        "phases": [{"dateStarted": "2026-01-01T00:00:00Z", "trafficSplit": [{"variationId": "v0", "weight": 1}]}],
    })
}

fn read_experiments(items: &[Value]) -> ExperimentList {
    let raw = json!({ "experiments": items, "total": items.len() }).to_string();
    experiments("s", raw.as_bytes(), None, &FieldNames::default()).unwrap()
}

#[test]
fn of_two_experiments_with_one_key_the_running_then_the_later_then_the_smaller_id_stays() {
    let cases = [
        (
            experiment("z", "k", "running", "2026-01-01T00:00:00Z"),
            experiment("a", "k", "stopped", "2026-02-01T00:00:00Z"),
        ),
        (
            experiment("z", "k", "running", "2026-02-01T00:00:00Z"),
            experiment("a", "k", "running", "2026-01-01T00:00:00Z"),
        ),
        (
            experiment("a", "k", "draft", "2026-01-01T00:00:00Z"),
            experiment("b", "k", "draft", "2026-01-01T00:00:00Z"),
        ),
    ];
    for (winner, loser) in cases {
        for items in [[winner.clone(), loser.clone()], [loser, winner.clone()]] {
            let list = read_experiments(&items);
            assert_eq!(list.experiments.len(), 1);
            assert_eq!(list.experiments[0].id, winner["id"]);
            assert_eq!(list.issues[0].code, "duplicate_tracking_key");
        }
    }
}

#[test]
fn what_changes_without_meaning_is_not_in_the_definition() {
    let mut other = experiment("a", "k", "running", "2026-03-01T00:00:00Z");
    other["variations"][0]["screenshots"] = json!(["https://x/?sig=2"]);
    let one = read_experiments(&[experiment("a", "k", "running", "2026-01-01T00:00:00Z")]);
    assert_eq!(
        one.experiments[0].definition,
        read_experiments(&[other]).experiments[0].definition
    );
}

#[test]
fn a_bad_experiment_is_named_and_the_others_stay() {
    let mut bad = experiment("bad", "bad-key", "running", "");
    bad["phases"][0]["coverage"] = json!("all");
    let list = read_experiments(&[bad, experiment("a", "k", "running", ""), json!(3)]);
    assert_eq!(list.experiments.len(), 1);
    let paths: Vec<&str> = list
        .issues
        .iter()
        .map(|issue| issue.path.as_str())
        .collect();
    assert_eq!(
        paths,
        ["experiments.bad.phases[0].coverage", "experiments[2]"]
    );
}
