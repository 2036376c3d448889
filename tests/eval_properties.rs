//! What has to hold for all payloads and users, hostile ones included.

use std::{thread, time::Duration};

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use stitchd::eval::{
    Compiled, Context, Definitions, Dialect, ReduceOptions, prune_condition, reduce_payload,
};

const DIALECTS: [Dialect; 2] = [Dialect::Strict, Dialect::Legacy];

fn compile(payload: &Value, dialect: Dialect) -> Compiled {
    Compiled::new(Definitions::from_payload(payload), dialect)
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is not an object"),
    }
}

/// The variation that a unit gets, if any.
fn variation(payload: &Value, unit: &str) -> Option<usize> {
    let compiled = compile(payload, Dialect::Strict);
    let attributes = members(json!({"id": unit}));
    let context = Context::new(&attributes);
    let result = compiled.feature(&context, "flag", ());
    result.experiment.map(|(_, result)| result.variation_id)
}

fn experiment(seed: &str, version: u8, coverage: f64, weights: &[f64]) -> Value {
    let variations: Vec<usize> = (0..weights.len()).collect();
    json!({"features": {"flag": {"defaultValue": null, "rules": [{
        "key": "experiment", "seed": seed, "hashVersion": version, "coverage": coverage,
        "variations": variations, "weights": weights
    }]}}})
}

/// Weights that add up to 1.
fn weights() -> impl Strategy<Value = Vec<f64>> {
    vec(1_u32..100, 2..6).prop_map(|shares| {
        let total = f64::from(shares.iter().sum::<u32>());
        shares
            .into_iter()
            .map(|share| f64::from(share) / total)
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn raising_coverage_never_moves_an_assigned_unit(
        unit in "\\PC{1,12}", seed in "\\PC{1,12}", version in 1_u8..=2, weights in weights(),
        (low, high) in (0.0..=1.0, 0.0..=1.0).prop_map(|(a, b): (f64, f64)| (a.min(b), a.max(b))),
    ) {
        let before = variation(&experiment(&seed, version, low, &weights), &unit);
        let after = variation(&experiment(&seed, version, high, &weights), &unit);
        prop_assert!(before.is_none() || before == after, "{before:?} became {after:?}");
    }

    #[test]
    fn raising_a_rollout_never_takes_a_unit_out(
        unit in "\\PC{1,12}", version in 1_u8..=2,
        (low, high) in (0.0..=1.0, 0.0..=1.0).prop_map(|(a, b): (f64, f64)| (a.min(b), a.max(b))),
    ) {
        let attributes = members(json!({"id": unit}));
        let is_in = |dialect, coverage: f64| {
            let payload = json!({"features": {"flag": {"rules": [
                {"force": true, "coverage": coverage, "hashVersion": version}]}}});
            compile(&payload, dialect).feature(&Context::new(&attributes), "flag", ()).is_on()
        };
        for dialect in DIALECTS {
            prop_assert!(!is_in(dialect, low) || is_in(dialect, high));
        }
    }
}

#[test]
fn assignment_is_uniform() {
    for (seed, weights) in [
        ("even", vec![0.5, 0.5]),
        ("thirds", vec![1.0 / 3.0; 3]),
        ("uneven", vec![0.1, 0.2, 0.7]),
        ("many", vec![0.1; 10]),
    ] {
        let compiled = compile(&experiment(seed, 2, 1.0, &weights), Dialect::Strict);
        let units = 100_000_u32;
        let mut counts = vec![0_u32; weights.len()];
        for unit in 0..units {
            let attributes = members(json!({"id": format!("user-{unit}")}));
            let context = Context::new(&attributes);
            let result = compiled.feature(&context, "flag", ());
            let (_, result) = result.experiment.expect("everyone takes part");
            counts[result.variation_id] += 1;
        }
        let distance = |(count, weight): (&u32, &f64)| {
            let expected = f64::from(units) * weight;
            (f64::from(*count) - expected).powi(2) / expected
        };
        let chi_square: f64 = counts.iter().zip(&weights).map(distance).sum();
        // The 0.9999 quantile for 9 degrees of freedom; for fewer it is lower.
        assert!(chi_square < 33.7, "{seed}: {chi_square} from {counts:?}");
    }
}

/// Names that mean something somewhere, and some that do not.
fn name() -> impl Strategy<Value = String> {
    let names = "$and $or $nor $not $savedGroup $savedGroups $eq $ne $lt $gte $exists $in $nin $ini $all $alli $size \
                 $elemMatch $regex $regexi $notRegex $type $veq $vlt $inGroup $notInGroup $future id attributeKey \
                 value a b.c a.0 length g force condition variations weights coverage ranges filters meta namespace \
                 parentConditions hashVersion hashAttribute contextualBanditRef tracks seed range type values key";
    let names: Vec<&str> = names.split_whitespace().collect();
    select(names).prop_map(str::to_owned)
}

/// Any JSON, often shaped like a condition, a rule or a group.
fn json_value() -> impl Strategy<Value = Value> {
    let number = any::<f64>().prop_filter("JSON has finite numbers", |number| number.is_finite());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        number.prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        select(vec![
            "(",
            "(a+)+$",
            "a(?=b)\\1",
            "[b-a]",
            "{,3}",
            "g",
            "list",
            "condition",
            "flag"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((name(), inner), 0..5).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn hostile_payloads_and_users_never_panic(
        feature in json_value(), rules in vec(json_value(), 0..4), group in json_value(),
        bandit in json_value(), condition in json_value(), user in vec((name(), json_value()), 0..6),
        url in "\\PC{0,20}",
    ) {
        let attributes: Map<String, Value> = user.into_iter().collect();
        let payload = json!({
            "features": {"flag": {"rules": rules}, "a": feature, "b": {"rules": [
                {"condition": condition, "force": 1}, {"variations": [1, 2], "condition": condition}]}},
            "savedGroups": {"g": group, "h": {"type": "condition", "condition": group}},
            "contextualBandits": {"g": bandit}, "experiments": rules,
        });
        for dialect in DIALECTS {
            let compiled = compile(&payload, dialect);
            let mut context = Context::new(&attributes);
            context.url = Some(&url);
            for key in ["flag", "a", "b"] {
                compiled.feature(&context, key, ()).to_value();
            }
            compiled.auto_experiments(&context, &[], ());
            compiled.passes(&context, &condition);
            compiled.why_not(&context, &condition);
        }
        prune_condition(&condition, &attributes, &members(payload["savedGroups"].clone()));
        reduce_payload(&payload, &ReduceOptions::from_value(&json!({"attributes": attributes})));
    }
}

/// Runs on a stack of the size that threads have by default, and fails if it takes long.
fn bounded(run: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().stack_size(2 << 20).spawn(move || {
        run();
        sender.send(()).expect("someone waits");
    });
    let finished = receiver.recv_timeout(Duration::from_mins(5));
    assert!(finished.is_ok(), "it ran away or panicked");
    thread.expect("a thread").join().expect("it did not panic");
}

/// Whether the flag is on for a user, in both dialects.
fn is_on(payload: &Value, attributes: Value) -> [bool; 2] {
    let attributes = members(attributes);
    DIALECTS.map(|dialect| {
        let compiled = compile(payload, dialect);
        compiled
            .feature(&Context::new(&attributes), "flag", ())
            .is_on()
    })
}

fn flag(condition: &Value) -> Value {
    json!({"flag": {"rules": [{"condition": condition, "force": true}]}})
}

/// `wrap` applied to `inner` so many times.
fn nested(times: usize, inner: Value, wrap: impl Fn(Value) -> Value) -> Value {
    (0..times).fold(inner, |inner, _| wrap(inner))
}

#[test]
fn deep_conditions_end() {
    bounded(|| {
        for wrap in [
            (|inner| json!({"$and": [inner, inner]})) as fn(Value) -> Value,
            |inner| json!({"$not": {"$not": inner}}),
            |inner| json!({"a": {"$elemMatch": {"$elemMatch": inner}}}),
            |inner| json!({"a": {"$not": {"$not": {"$all": [inner]}}}}),
        ] {
            // A document of doubling size stays small enough at this depth.
            is_on(
                &json!({"features": flag(&nested(12, json!({"id": "1"}), wrap))}),
                json!({"id": "1"}),
            );
        }
        let deep = nested(400, json!({"id": "1"}), |inner| json!({"$not": inner}));
        let is_on = is_on(&json!({"features": flag(&deep)}), json!({"id": "1"}));
        assert_eq!(is_on, [false, false]);
    });
}

#[test]
fn many_references_to_groups_fail_the_condition() {
    bounded(|| {
        let mut groups = Map::new();
        for level in 0..30 {
            let next = json!({"$savedGroup": {"id": format!("g{}", level + 1)}});
            let condition = json!({"$and": [next, next]});
            groups.insert(
                format!("g{level}"),
                json!({"type": "condition", "condition": condition}),
            );
        }
        groups.insert(
            "g30".into(),
            json!({"type": "condition", "condition": {"id": "1"}}),
        );
        for (condition, expected) in [
            (json!({"$savedGroup": {"id": "g0"}}), false),
            (json!({"$not": {"$savedGroup": {"id": "g0"}}}), false),
            (json!({"$savedGroup": {"id": "g25"}}), true),
        ] {
            let payload = json!({"features": flag(&condition), "savedGroups": groups});
            assert_eq!(
                is_on(&payload, json!({"id": "1"})),
                [expected; 2],
                "{condition}"
            );
            prune_condition(&condition, &members(json!({"id": "1"})), &groups);
        }
    });
}

#[test]
fn long_chains_of_groups_end() {
    bounded(|| {
        let mut groups = Map::new();
        for level in 0..2_000 {
            let next = json!({"$savedGroup": {"id": format!("g{}", level + 1)}});
            let condition = json!({"$or": [{"id": "2"}, {"$and": [{"id": "1"}, next]}]});
            groups.insert(
                format!("g{level}"),
                json!({"type": "condition", "condition": condition}),
            );
        }
        groups.insert(
            "g2000".into(),
            json!({"type": "condition", "condition": {"id": "1"}}),
        );
        for (start, expected) in [("g0", false), ("g1900", true)] {
            let condition = json!({"$savedGroup": {"id": start}});
            let payload = json!({"features": flag(&condition), "savedGroups": groups});
            assert_eq!(
                is_on(&payload, json!({"id": "1"})),
                [expected; 2],
                "{start}"
            );
        }
        let payload =
            json!({"features": flag(&json!({"$savedGroup": {"id": "g0"}})), "savedGroups": groups});
        let options = ReduceOptions::from_value(&json!({"attributes": {"country": "US"}}));
        reduce_payload(&payload, &options);
    });
}

#[test]
fn many_prerequisites_end() {
    bounded(|| {
        let mut features = Map::new();
        for level in 0..60 {
            let parent = json!({"id": format!("f{}", level + 1), "condition": {}});
            let rule = json!({"parentConditions": [parent, parent, parent], "force": true});
            features.insert(
                format!("f{level}"),
                json!({"defaultValue": false, "rules": [rule, rule]}),
            );
        }
        features.insert("flag".into(), features["f0"].clone());
        is_on(&json!({"features": features}), json!({"id": "1"}));
        let mut features = Map::new();
        for level in 0..50_000 {
            let parent = json!({"id": format!("f{}", level + 1), "condition": {"value": true}});
            let rule = json!({"parentConditions": [parent], "force": true});
            features.insert(
                format!("f{level}"),
                json!({"defaultValue": false, "rules": [rule]}),
            );
        }
        features.insert("f50000".into(), json!({"defaultValue": true}));
        for (start, expected) in [("f0", false), ("f49950", true)] {
            features.insert("flag".into(), features[start].clone());
            let payload = json!({"features": features});
            assert_eq!(
                is_on(&payload, json!({"id": "1"})),
                [expected; 2],
                "{start}"
            );
        }
        let options = ReduceOptions::from_value(&json!({"include": {"projects": []}}));
        reduce_payload(&json!({"features": features}), &options);
    });
}

#[test]
fn large_lists_and_catastrophic_patterns_end() {
    bounded(|| {
        let tests: Vec<Value> = (0..3_000)
            .map(|number| json!({"$gt": 10_000 + number}))
            .collect();
        let items: Vec<Value> = (0..3_000).map(Value::from).collect();
        let condition = json!({"items": {"$elemMatch": {"$not": {"$all": tests}}, "$all": tests}});
        is_on(
            &json!({"features": flag(&condition)}),
            json!({"items": items}),
        );
        let rules: Vec<Value> = [
            "^(a+)+$",
            "^(a|a)*\\1$",
            "(?=(a+)+b)c",
            "^(([a-z])+.)+(?!x)[A-Z]$",
        ]
        .iter()
        .cycle()
        .take(100)
        .map(|pattern| json!({"condition": {"text": {"$regex": pattern}}, "force": true}))
        .collect();
        let payload = json!({"features": {"flag": {"rules": rules}}});
        for length in [100, 4_000, 100_000] {
            let text = "a".repeat(length) + "!";
            assert_eq!(is_on(&payload, json!({"text": text})), [false; 2]);
        }
    });
}
