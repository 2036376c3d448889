//! The short way to a variation and the long one say the same, whatever is asked of whom.

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use stitchd::eval::{
    Compiled, Context, Definitions, Dialect, ExperimentResult, ExperimentView, Observer,
};

/// Names of attributes; few, so that conditions and users meet.
fn attribute() -> impl Strategy<Value = String> {
    select(vec!["id", "country", "plan", "age", "company", "tags"]).prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..40).prop_map(Value::from),
        (-10_i32..10).prop_map(|tenths| json!(f64::from(tenths) / 10.0)),
        select(vec![
            "", "DE", "FR", "pro", "free", "5", "é", "😀-1", "user-77"
        ])
        .prop_map(Value::from),
    ]
}

fn user() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        4 => scalar(),
        1 => vec(scalar(), 0..3).prop_map(Value::from),
    ];
    // More than eight members are found in another way than fewer.
    let more = (0_usize..12)
        .prop_map(|number| (0..number).map(|at| (format!("more-{at}"), Value::from(at))));
    (vec((attribute(), value), 0..5), more)
        .prop_map(|(members, more)| members.into_iter().chain(more).collect())
}

fn condition() -> impl Strategy<Value = Value> {
    let operand = prop_oneof![
        scalar(),
        vec(scalar(), 0..4).prop_map(|items| json!({"$in": items})),
        scalar().prop_map(|value| json!({"$ne": value})),
        scalar().prop_map(|value| json!({"$gt": value})),
        any::<bool>().prop_map(|truth| json!({"$exists": truth})),
        select(vec!["g", "h", "none"]).prop_map(|id| json!({"$inGroup": id})),
    ];
    let leaf = vec((attribute(), operand), 0..3)
        .prop_map(|pairs| Value::Object(pairs.into_iter().collect()));
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|items| json!({"$or": items})),
            inner.prop_map(|inner| json!({"$not": inner})),
            Just(json!({"$and": null})),
        ]
    })
}

fn share() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), Just(0.5), 0.0..1.2_f64]
}

/// Members that an experiment may have.
fn members() -> impl Strategy<Value = Map<String, Value>> {
    let range = || (share(), share()).prop_map(|(a, b)| json!([a.min(b), a.max(b)]));
    let one = prop_oneof![
        4 => condition().prop_map(|value| ("condition", value)),
        2 => share().prop_map(|value| ("coverage", value.into())),
        2 => vec(share(), 2..4).prop_map(|value| ("weights", value.into())),
        1 => vec(range(), 1..4).prop_map(|value| ("ranges", value.into())),
        3 => (0_i64..4).prop_map(|value| ("hashVersion", value.into())),
        2 => attribute().prop_map(|value| ("hashAttribute", value.into())),
        1 => attribute().prop_map(|value| ("fallbackAttribute", value.into())),
        1 => (share(), share()).prop_map(|(a, b)| ("namespace", json!(["ns", a.min(b), a.max(b)]))),
        1 => (vec(range(), 0..3), attribute())
            .prop_map(|(ranges, attribute)| ("filters", json!([{"seed": "f", "attribute": attribute, "ranges": ranges}]))),
        1 => select(vec!["draft", "stopped", "running"]).prop_map(|value| ("status", value.into())),
        1 => any::<bool>().prop_map(|value| ("active", value.into())),
        1 => (0_i64..4).prop_map(|value| ("force", value.into())),
        1 => (select(vec!["parent", "cycle", "nobody"]), condition())
            .prop_map(|(id, condition)| ("parentConditions", json!([{"id": id, "condition": condition}]))),
        1 => Just(("urlPatterns", json!([{"include": true, "type": "simple", "pattern": "/shop*"}]))),
        1 => Just(("url", json!("shop"))),
        1 => Just(("groups", json!(["beta"]))),
        1 => select(vec!["bandit", "none"]).prop_map(|value| ("contextualBanditRef", value.into())),
    ];
    let members = vec(one, 0..5);
    (members, 0_usize..4, "[a-zé]{0,3}").prop_map(|(members, variations, seed)| {
        let named = members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let mut members: Map<String, Value> = named.collect();
        members.insert("key".into(), "experiment".into());
        members.insert("seed".into(), seed.into());
        members.insert("variations".into(), (0..variations).collect());
        members
    })
}

fn payload(rules: &[Map<String, Value>], condition: &Value) -> Value {
    json!({
        "features": {
            "flag": {"defaultValue": null, "rules": rules},
            "parent": {"defaultValue": true, "rules": [{"condition": condition, "force": "pro"}]},
            "cycle": {"defaultValue": 1, "rules": [{"parentConditions": [{"id": "flag", "condition": {}}], "force": 5}]},
        },
        "savedGroups": {"g": ["DE", 5], "h": {"type": "list", "attributeKey": "plan", "values": ["pro"]}},
        "contextualBandits": {"bandit": {"banditVersion": 1, "contexts": [
            {"leafId": 1, "condition": condition, "weights": [0.1, 0.9]}]}},
    })
}

/// Notes what came of the experiments in the rules of one feature.
#[derive(Default)]
struct Ran(Vec<(usize, Option<usize>)>);

impl<'c> Observer<'c> for Ran {
    fn experiment(&mut self, experiment: ExperimentView<'c>, result: &ExperimentResult<'c>) {
        if result.feature_id == Some("flag") {
            let address = std::ptr::from_ref(experiment.experiment).addr();
            let variation = result.in_experiment.then_some(result.variation_id);
            self.0.push((address, variation));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn short_and_long_way_agree(
        rules in vec(members(), 1..4), force in option::of((condition(), 0_usize..3)), condition in condition(),
        user in user(), page in select(vec![None, Some("https://x.org/shop"), Some("https://x.org/?experiment=1")]),
        qa_mode in prop::bool::weighted(0.05), is_forced in prop::bool::weighted(0.05),
    ) {
        let inline = rules[0].clone();
        let mut rules = rules;
        if let Some((condition, at)) = force {
            let rule = json!({"condition": condition, "force": "forced"});
            let rule = rule.as_object().cloned().expect("an object");
            rules.insert(at.min(rules.len()), rule);
        }
        let payload = payload(&rules, &condition);
        let forced = json!({"experiment": 1});
        for dialect in [Dialect::Strict, Dialect::Legacy] {
            let compiled = Compiled::new(Definitions::from_payload(&payload), dialect);
            let mut context = Context::new(&user);
            context.url = page;
            context.qa_mode = qa_mode;
            context.forced_variations = forced.as_object().filter(|_| is_forced);

            let experiment = compiled.experiment(inline.clone());
            let long = compiled.run(&context, &experiment, ());
            let mut assigner = compiled.assigner(&context);
            let short = assigner.inline(&experiment);
            prop_assert_eq!(short, long.in_experiment.then_some(long.variation_id), "{:?}", long.reason);

            let mut ran = Ran::default();
            compiled.feature(&context, "flag", &mut ran);
            for (place, experiment) in compiled.rule_places().filter(|(_, e)| &**e.key() == "experiment") {
                let address = std::ptr::from_ref(experiment).addr();
                let met = ran.0.iter().find(|(ran, _)| *ran == address);
                let expected = met.and_then(|(_, variation)| *variation);
                prop_assert_eq!(assigner.rule(place), expected, "{:?}", place);
            }
        }
    }
}
