//! Which definitions decide, and what is said of them.

use serde_json::{Map, Value, json};

use super::{Environment, Forced};
use crate::eval::{Context, Dialect};

fn environment(document: &Value) -> Environment {
    Environment::new(document.to_string().as_bytes(), Dialect::Strict).unwrap()
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

/// An experiment as the management API lists it, halves `control` and `treatment`.
fn listed(key: &str, phase: Value) -> Value {
    let mut whole = json!({
        "name": "Main", "coverage": 1, "seed": key, "targetingCondition": "",
        "trafficSplit": [{"variationId": "v1", "weight": 0.5}, {"variationId": "v0", "weight": 0.5}],
    });
    for (name, value) in members(phase) {
        whole[name] = value;
    }
    json!({
        "id": format!("exp_{key}"), "trackingKey": key, "name": "An experiment", "status": "running", "archived": false,
        "hashAttribute": "id", "hashVersion": 2, "source": "gb",
        "variations": [
            {"variationId": "v0", "key": "control", "name": "Control"},
            {"variationId": "v1", "key": "treatment", "name": "Treatment"},
        ],
        "phases": [{"name": "Old", "coverage": 0}, whole],
    })
}

fn assigned(environment: &Environment, user: Value) -> Vec<Value> {
    forced(environment, user, &Forced::default())
}

fn forced(environment: &Environment, user: Value, forced: &Forced) -> Vec<Value> {
    let user = members(user);
    let mut out = b"[".to_vec();
    let number = environment.assign(&Context::new(&user), None, forced, &mut out);
    out.push(b']');
    let found: Vec<Value> = serde_json::from_slice(&out).unwrap();
    assert_eq!(found.len(), number);
    found
}

fn why(environment: &Environment, key: &str, user: Value) -> Value {
    let user = members(user);
    match environment.find(key) {
        Some(at) => environment.explain(&Context::new(&user), at, &Forced::default()),
        None => environment.explain_absent(key),
    }
}

/// Variations of 1,000 units, by key of the variation; those that are not in count as empty.
fn counts(environment: &Environment, more: &Value) -> [usize; 3] {
    let mut counts = [0; 3];
    for unit in 0..1_000 {
        let mut user = more.clone();
        user["id"] = format!("u{unit}").into();
        let found = assigned(environment, user);
        let key = found.first().map(|found| found["variant_key"].clone());
        match key.as_ref().and_then(Value::as_str) {
            Some("control") => counts[0] += 1,
            Some("treatment") => counts[1] += 1,
            _ => counts[2] += 1,
        }
    }
    counts
}

#[test]
fn a_running_experiment_of_the_management_api_is_decided_by_its_last_phase() {
    let half = listed("exp", json!({"coverage": 0.5}));
    let [control, treatment, out] =
        counts(&environment(&json!({"experiments": [half]})), &json!({}));
    assert!(
        (200..300).contains(&control) && (200..300).contains(&treatment),
        "{control} {treatment} {out}"
    );
    let document = json!({"experiments": [listed("exp", json!({}))]});
    let found = assigned(&environment(&document), json!({"id": "a"}));
    let id = if found[0]["variant_key"] == "control" {
        "v0"
    } else {
        "v1"
    };
    assert_eq!(
        found,
        [json!({
            "experiment_key": "exp", "experiment_id": "exp_exp",
            "variant_key": found[0]["variant_key"], "variant_id": id, "payload": null,
        })]
    );
    // The split is by id: what stands first in it belongs to the second variation.
    let all_treatment =
        json!([{"variationId": "v1", "weight": 1}, {"variationId": "v0", "weight": 0}]);
    let document = json!({"experiments": [listed("exp", json!({"trafficSplit": all_treatment}))]});
    assert_eq!(counts(&environment(&document), &json!({})), [0, 1_000, 0]);
}

#[test]
fn drafts_and_stopped_and_archived_experiments_decide_nothing() {
    let mut experiments = Vec::new();
    for (key, member, value, status) in [
        ("a", "status", json!("draft"), "draft"),
        ("b", "status", json!("stopped"), "stopped"),
        ("c", "archived", json!(true), "archived"),
        ("d", "phases", json!([]), "no_phase"),
    ] {
        let mut experiment = listed(key, json!({}));
        experiment[member] = value;
        experiments.push(experiment);
        let environment = environment(&json!({ "experiments": experiments }));
        assert_eq!(
            assigned(&environment, json!({"id": "1"})),
            Vec::<Value>::new()
        );
        let explanation = why(&environment, key, json!({"id": "1"}));
        assert_eq!(
            (&explanation["reason"], &explanation["status"]),
            (&json!("not_running"), &json!(status))
        );
    }
    let nothing = environment(&json!({}));
    assert_eq!(
        why(&nothing, "x", json!({}))["reason"],
        "unknown_experiment"
    );
}

/// Units in a phase, of the users given.
fn passing(phase: Value, groups: &Value, users: &[Value]) -> Vec<bool> {
    let features = json!({
        "flag": {"defaultValue": 1, "rules": [{"force": 2, "condition": {"tenant": {"$inGroup": "bare"}}}]},
        "parent": {"defaultValue": false, "rules": [{"force": true, "condition": {"plan": "pro"}}]},
    });
    let document = json!({"features": features, "saved_groups": groups, "experiments": [listed("exp", phase)]});
    let environment = environment(&document);
    let is_in = |user: &Value| !assigned(&environment, user.clone()).is_empty();
    users.iter().map(is_in).collect()
}

#[test]
fn targeting_groups_and_prerequisites_are_asked() {
    let users = [
        json!({"id": "1", "tenant": "acme", "country": "DE", "plan": "pro"}),
        json!({"id": "1", "tenant": "other", "country": "FR", "plan": "free"}),
    ];
    let groups = json!({
        "bare": ["acme"], "lonely": ["1"],
        "typed": {"type": "list", "attributeKey": "country", "values": ["FR"]},
        "germans": {"type": "condition", "condition": {"country": "DE"}},
    });
    let check = |phase: Value, expected: [bool; 2]| {
        assert_eq!(passing(phase.clone(), &groups, &users), expected, "{phase}");
    };
    let group = |kind: &str, ids: Value| json!({"savedGroupTargeting": [{"matchType": kind, "savedGroups": ids}]});
    check(
        json!({"targetingCondition": "{\"country\":\"DE\"}"}),
        [true, false],
    );
    check(json!({"targetingCondition": "{}"}), [true, true]);
    check(json!({"targetingCondition": "{"}), [false, false]);
    check(group("all", json!(["bare"])), [true, false]);
    check(group("all", json!(["bare", "typed"])), [false, false]);
    check(group("any", json!(["bare", "typed"])), [true, true]);
    check(group("none", json!(["bare"])), [false, true]);
    check(group("none", json!(["typed", "germans"])), [false, false]);
    check(group("all", json!(["absent"])), [false, false]);
    check(group("none", json!(["absent"])), [true, true]);
    check(group("all", json!(["lonely"])), [false, false]);
    check(group("any", json!([])), [true, true]);
    check(group("some", json!(["bare"])), [false, false]);
    let parent = json!({"prerequisites": [{"id": "parent", "condition": "{\"value\":true}"}]});
    check(parent, [true, false]);
    check(
        json!({"prerequisites": [{"id": "nobody", "condition": "{\"value\":true}"}]}),
        [false, false],
    );
    check(
        json!({"prerequisites": [{"id": "parent", "condition": "nonsense"}]}),
        [false, false],
    );
    let both = json!({"targetingCondition": "{\"plan\":\"pro\"}",
        "savedGroupTargeting": [{"matchType": "all", "savedGroups": ["germans"]}]});
    check(both, [true, false]);
}

#[test]
fn a_group_that_is_not_there_is_explained() {
    let phase =
        json!({"savedGroupTargeting": [{"matchType": "all", "savedGroups": ["absent", "lonely"]}]});
    let document =
        json!({"saved_groups": {"lonely": ["1"]}, "experiments": [listed("exp", phase)]});
    let explanation = why(&environment(&document), "exp", json!({"id": "1"}));
    assert_eq!(explanation["reason"], "condition");
    let notes: Vec<&str> = explanation["notes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        notes[0].contains("`absent`") && notes[1].contains("`lonely`"),
        "{notes:?}"
    );
}

#[test]
fn namespaces_keep_units_out() {
    let older = json!({"namespace": {"namespaceId": "ns", "enabled": true, "range": [0, 0.3]}});
    let [_, _, out] = counts(
        &environment(&json!({"experiments": [listed("exp", older)]})),
        &json!({}),
    );
    assert!((620..780).contains(&out), "{out}");
    let several = json!({"namespace": {"namespaceId": "ns", "ranges": [[0, 0.2], [0.5, 0.7]], "range": [0, 0.2]}});
    let [_, _, out] = counts(
        &environment(&json!({"experiments": [listed("exp", several)]})),
        &json!({}),
    );
    assert!((520..680).contains(&out), "{out}");
    let own = |range: Value| {
        json!({"namespace": {"namespaceId": "ns", "format": "multiRange", "seed": "s", "hashAttribute": "company",
            "range": range, "ranges": [range]}})
    };
    for (range, expected) in [(json!([0, 1]), 0), (json!([0, 0]), 1_000)] {
        let environment = environment(&json!({"experiments": [listed("exp", own(range))]}));
        let [_, _, out] = counts(&environment, &json!({"company": "acme"}));
        assert_eq!(out, expected);
        assert_eq!(counts(&environment, &json!({}))[2], 1_000);
    }
    let off = json!({"namespace": {"namespaceId": "ns", "enabled": false, "range": [0, 0.3]}});
    let [_, _, out] = counts(
        &environment(&json!({"experiments": [listed("exp", off)]})),
        &json!({}),
    );
    assert_eq!(out, 0);
}

/// A rule that runs an experiment with all units in its second variation.
fn rule(key: &str, values: &Value) -> Value {
    json!({"id": "fr_1", "key": key, "variations": values, "weights": [0, 1], "hashVersion": 2,
        "meta": [{"key": "control"}, {"key": "treatment"}]})
}

#[test]
fn the_rule_of_a_feature_goes_before_the_management_api() {
    let document = json!({
        "features": {
            "b": {"defaultValue": 0, "source": "gb", "rules": [
                {"condition": {"staff": true}, "force": 9}, rule("exp", &json!(["old", "new"]))]},
            "c": {"defaultValue": 0, "rules": [rule("exp", &json!([1, 2])), rule("own", &json!([1, {"x": 1.5}]))]},
        },
        "experiments": [listed("exp", json!({"targetingCondition": "{\"country\":\"nowhere\"}"}))],
    });
    let environment = environment(&document);
    let exp = |payload: Value| {
        json!({"experiment_key": "exp", "experiment_id": "exp_exp",
        "variant_key": "treatment", "variant_id": "v1", "payload": payload})
    };
    // The management API does not know `own`: keys stand for ids. In feature `c` it comes after `exp`, which takes all.
    assert_eq!(
        assigned(&environment, json!({"id": "1"})),
        [exp(json!("new"))]
    );
    // An SDK gives staff the value 9, so feature `b` has no exposure; feature `c` has.
    assert_eq!(
        assigned(&environment, json!({"id": "1", "staff": true})),
        [exp(json!(2))]
    );
    let explanation = why(&environment, "own", json!({"id": "1"}));
    assert_eq!(
        (
            &explanation["reason"],
            &explanation["item"],
            &explanation["earlier_rule"]["rule"]
        ),
        (
            &json!("earlier_rule"),
            &json!("features.c.rules[1]"),
            &json!(0)
        )
    );
    let explanation = why(&environment, "exp", json!({"id": "1"}));
    assert_eq!(
        (
            &explanation["reason"],
            &explanation["item"],
            &explanation["source"],
            &explanation["rule_id"]
        ),
        (
            &json!("assigned"),
            &json!("features.b.rules[1]"),
            &json!("gb"),
            &json!("fr_1")
        )
    );
    assert_eq!(explanation["hash"]["attribute"], "id");
    assert_eq!(
        explanation["hash"]["ranges"],
        json!([[0.0, 0.0], [0.0, 1.0]])
    );
    let own = Forced::from_iter([(environment.find("own").unwrap(), 1)]);
    let found = forced(&environment, json!({}), &own);
    let expected = json!({"experiment_key": "own", "experiment_id": "own", "variant_key": "treatment",
        "variant_id": "treatment", "payload": {"x": 1.5}});
    assert_eq!(found, [expected]);
}

#[test]
fn the_failing_part_of_a_condition_is_told() {
    let phase = json!({"targetingCondition": "{\"country\":{\"$in\":[\"US\"]},\"plan\":\"pro\"}"});
    let document = json!({"experiments": [listed("exp", phase)]});
    let explanation = why(
        &environment(&document),
        "exp",
        json!({"id": "1", "plan": "pro", "country": "DE"}),
    );
    assert_eq!(
        explanation["failed"],
        json!({"at": "country.$in", "expected": ["US"], "found": "DE"})
    );
    assert_eq!(explanation["variant_key"], Value::Null);
    let explanation = why(
        &environment(&document),
        "exp",
        json!({"plan": "pro", "country": "US"}),
    );
    assert_eq!(explanation["reason"], "no_hash_value");
}

#[test]
fn variations_are_named_by_key_or_position() {
    let document = json!({"features": {"f": {"rules": [rule("exp", &json!([1, 2]))]}}});
    let environment = environment(&document);
    let decision = &environment.decisions()[0];
    for (named, expected) in [
        (json!("control"), Some(0)),
        (json!("treatment"), Some(1)),
        (json!(1), Some(1)),
        (json!(2), None),
        (json!(-1), None),
        (json!(0.5), None),
        (json!("1"), None),
        (json!(null), None),
    ] {
        assert_eq!(decision.variation(&named), expected, "{named}");
    }
}
