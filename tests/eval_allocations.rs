//! Counts what evaluation allocates. A binary of its own: the counting allocator is the whole process's.

use serde_json::{Map, Value, json};
use stitchd::eval::{
    Compiled, Context, Definitions, Dialect, Environment, Observer, environment::Forced,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn payload() -> Value {
    let split = json!({
        "key": "split", "hashVersion": 2, "coverage": 1, "variations": ["a", "b"], "weights": [0.5, 0.5],
        "meta": [{"key": "0"}, {"key": "1"}]
    });
    json!({
        "features": {
            "static": {"defaultValue": {"color": "blue"}},
            "targeting": {"defaultValue": false, "rules": [{
                "condition": {
                    "country": {"$in": ["US", "CA"]}, "id": {"$inGroup": "beta"},
                    "email": {"$regex": "@example\\.com$"}, "age": {"$gt": 18},
                    "$or": [{"plan": "pro"}, {"tags": {"$elemMatch": {"$eq": "a"}}}]
                },
                "force": true}]},
            "split": {"defaultValue": "a", "rules": [split]},
            "rollout": {"defaultValue": false, "rules": [{"coverage": 0.5, "force": true}]},
            "child": {"defaultValue": false, "rules": [
                {"parentConditions": [{"id": "targeting", "condition": {"value": true}, "gate": true}]},
                {"parentConditions": [{"id": "split", "condition": {"value": {"$exists": true}}}], "force": true}]}
        },
        "savedGroups": {"beta": ["user-1", "user-2"]}
    })
}

fn attributes() -> Map<String, Value> {
    let attributes = json!({
        "id": "user-1", "country": "US", "email": "someone@example.com", "age": 41, "plan": "free", "tags": ["b", "a"]
    });
    attributes.as_object().cloned().expect("an object")
}

/// Allocations of evaluating a feature once, after it was evaluated before (automata warm up).
fn allocations<'c>(
    compiled: &'c Compiled,
    context: &'c Context<'c>,
    key: &str,
    observer: &mut impl Observer<'c>,
) -> u64 {
    compiled.feature(context, key, &mut *observer);
    let before = dhat::HeapStats::get().total_blocks;
    compiled.feature(context, key, &mut *observer);
    dhat::HeapStats::get().total_blocks - before
}

/// Counts exposures without keeping them.
#[derive(Default)]
struct Exposures(usize);

impl<'c> Observer<'c> for Exposures {
    fn exposure(&mut self, exposure: stitchd::eval::Exposure<'c>) {
        self.0 += usize::from(exposure.result.in_experiment);
    }
}

/// Fifty experiments that are targeted at two attributes each, as a snapshot has them.
fn snapshot() -> Value {
    let feature = |number: usize| {
        let key = format!("experiment-{number:02}");
        let rule = json!({
            "key": key, "hashVersion": 1 + number % 2, "variations": ["a", "b"], "weights": [0.5, 0.5],
            "condition": {"country": {"$in": ["US", "DE"]}, "plan": {"$ne": "trial"}},
        });
        (
            key,
            json!({"defaultValue": "a", "rules": [rule], "source": "gb"}),
        )
    };
    let features: Map<String, Value> = (0..50).map(feature).collect();
    json!({"features": features, "experiments": []})
}

/// Allocations of assigning a unit to all experiments, rendering included, into memory that is there.
fn assigning(dialect: Dialect) -> u64 {
    let document = snapshot().to_string();
    let environment = Environment::new(document.as_bytes(), dialect).expect("a snapshot");
    let attributes = attributes();
    let context = Context::new(&attributes);
    let (forced, mut out) = (
        Forced::default(),
        Vec::with_capacity(environment.answer_bytes()),
    );
    assert_eq!(environment.assign(&context, None, &forced, &mut out), 50);
    out.clear();
    let before = dhat::HeapStats::get().total_blocks;
    environment.assign(&context, None, &forced, &mut out);
    dhat::HeapStats::get().total_blocks - before
}

#[test]
fn evaluation_allocates_nothing() {
    let _profiler = dhat::Profiler::builder().testing().build();
    for dialect in [Dialect::Strict, Dialect::Legacy] {
        // The list of units that were looked for; there is one.
        assert_eq!(assigning(dialect), 1, "{dialect:?}");
    }
    let payload = payload();
    let attributes = attributes();
    let mut context = Context::new(&attributes);
    context.url = Some("https://example.com/?other=1");
    for dialect in [Dialect::Strict, Dialect::Legacy] {
        let compiled = Compiled::new(Definitions::from_payload(&payload), dialect);
        for key in [
            "static",
            "targeting",
            "split",
            "rollout",
            "child",
            "nobody-knows-it",
        ] {
            let mut exposures = Exposures::default();
            let count = allocations(&compiled, &context, key, &mut exposures);
            assert_eq!(count, 0, "{key} in {dialect:?}");
            let expected = if matches!(key, "split" | "child") {
                2
            } else {
                0
            };
            assert_eq!(exposures.0, expected, "{key} in {dialect:?}");
        }
        assert_eq!(*compiled.feature(&context, "child", ()).value, json!(true));
    }
}
