//! How fast evaluation is, by itself and beside GrowthBook's own SDK for Rust in the same run.
//!
//! One line each: name, measured ratio, bar, `PASS` or `FAIL`. Times are measured against their limit (at most 1),
//! comparisons are how many times faster (at least the bar). Fails where a bar is missed.

use std::{hint::black_box, io::Write as _, process::ExitCode, time::Duration};

use growthbook_rust::{
    client::{GrowthBookClient, GrowthBookClientBuilder, GrowthBookClientTrait as _},
    model_public::GrowthBookAttribute,
};
use serde_json::{Map, Value, json};
use stitchd::eval::{
    Compiled, Context, Definitions, Dialect, Environment, Remote, RemoteRequest,
    environment::Forced,
};

/// How many features the "all features" case has.
const MANY: usize = 1_000;

/// Samples per measurement; the fastest counts, because other work on the machine only ever adds.
const SAMPLES: usize = 25;

/// The features that are measured, with lists of so many members.
fn kinds(members: u32) -> Map<String, Value> {
    let members: Vec<String> = (0..members)
        .map(|member| format!("account-{member}"))
        .collect();
    let split = |key: &str| {
        json!({"key": key, "seed": key, "hashVersion": 2, "coverage": 1, "hashAttribute": "id",
               "variations": ["control", "treatment"], "weights": [0.5, 0.5],
               "meta": [{"key": "0"}, {"key": "1"}]})
    };
    let kinds = json!({
        "static": {"defaultValue": true},
        "targeting": {"defaultValue": "off", "rules": [{
            "condition": {"account": {"$in": members}, "email": {"$regex": "@example\\.(com|org)$"}},
            "force": "on"}]},
        "split": {"defaultValue": "control", "rules": [split("split")]},
        "mixed": {"defaultValue": "off", "rules": [
            {"condition": {"country": {"$in": ["FR", "DE"]}, "version": {"$vgte": "3.0.0"}}, "force": "eu"},
            {"condition": {"email": {"$regex": "@internal\\.example\\.com$"}}, "force": "staff"},
            {"condition": {"$or": [{"plan": "enterprise"}, {"age": {"$gt": 90}}]}, "force": "vip"},
            {"coverage": 0.01, "hashAttribute": "id", "seed": "roll", "force": "rolled"},
            {"condition": {"account": {"$in": members}}, "key": "mixed", "seed": "mixed",
             "hashVersion": 2, "coverage": 1, "hashAttribute": "id", "variations": ["a", "b"],
             "weights": [0.5, 0.5]}]}
    });
    kinds.as_object().cloned().expect("an object")
}

/// A payload of the features and of so many more that take turns being like them.
fn payload(kinds: &Map<String, Value>, more: usize) -> Value {
    let mut features = kinds.clone();
    for (number, kind) in (0..more).zip(kinds.values().cycle()) {
        features.insert(format!("feature-{number}"), kind.clone());
    }
    json!({"features": features})
}

fn attributes() -> Map<String, Value> {
    let attributes = json!({
        "id": "user-4711", "account": "account-7", "email": "someone@example.com", "country": "US",
        "plan": "pro", "age": 41, "version": "2.10.3", "tags": ["a", "b"]
    });
    attributes.as_object().cloned().expect("an object")
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn time(iterations: u32, operation: &mut dyn FnMut()) -> Duration {
    let start = std::time::Instant::now();
    for _ in 0..iterations {
        operation();
    }
    start.elapsed()
}

/// Microseconds that one operation takes: the best of several samples of about 20 ms.
fn micros(mut operation: impl FnMut()) -> f64 {
    let mut iterations = 1;
    while time(iterations, &mut operation) < Duration::from_millis(20) {
        iterations *= 2;
    }
    let sample = |_| time(iterations, &mut operation).as_secs_f64() * 1e6 / f64::from(iterations);
    (0..SAMPLES).map(sample).fold(f64::INFINITY, f64::min)
}

/// Prints one line per bar and remembers whether one was missed.
#[derive(Default)]
struct Report {
    failed: bool,
}

impl Report {
    fn line(&mut self, name: &str, ratio: f64, bar: f64, passes: bool) {
        self.failed |= !passes;
        let verdict = if passes { "PASS" } else { "FAIL" };
        let line = writeln!(std::io::stdout(), "{name} {ratio:.3} {bar} {verdict}");
        line.expect("stdout takes a line");
    }

    /// A time that may be at most `limit`, both in microseconds.
    fn at_most(&mut self, name: &str, micros: f64, limit: f64) {
        let name = format!("{name} ({micros:.3} us of {limit} us)");
        self.line(&name, micros / limit, 1.0, micros <= limit);
    }

    /// Our time beside theirs, both in microseconds.
    fn faster(&mut self, name: &str, ours: f64, theirs: f64, bar: f64) {
        let name = format!("{name} ({ours:.3} us, growthbook-rust {theirs:.3} us)");
        self.line(&name, theirs / ours, bar, theirs / ours >= bar);
    }
}

fn oracle(payload: &Value) -> GrowthBookClient {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let client = GrowthBookClientBuilder::new()
        .auto_refresh(false)
        .features_json(payload["features"].clone())
        .expect("features it can read")
        .build();
    let client = runtime.expect("a runtime").block_on(client);
    client.expect("a client that asks nobody")
}

fn ours(compiled: &Compiled, context: &Context<'_>, key: &str) -> f64 {
    micros(|| {
        black_box(compiled.feature(black_box(context), black_box(key), ()));
    })
}

/// The mixed flag in a payload of nothing else that is large: their SDK copies the whole payload for each flag.
fn compare(report: &mut Report, attributes: &Map<String, Value>) {
    let payload = payload(&kinds(10), 0);
    let compiled = Compiled::new(Definitions::from_payload(&payload), Dialect::Strict);
    let context = Context::new(attributes);
    let client = oracle(&payload);
    let given = GrowthBookAttribute::from(Value::Object(attributes.clone()));
    let given = given.expect("attributes it can read");
    for key in ["static", "targeting", "split", "mixed"] {
        let expected = client.feature_result(key, Some(given.clone()));
        let found = compiled.feature(&context, key, ());
        assert_eq!(*found.value, expected.value, "both say the same of `{key}`");
    }
    let theirs = micros(|| {
        black_box(client.feature_result(black_box("mixed"), Some(given.clone())));
    });
    report.faster(
        "eval/mixed",
        ours(&compiled, &context, "mixed"),
        theirs,
        20.0,
    );
}

/// Assigning a unit to fifty experiments, each targeted at two attributes, and writing the answer down.
fn deciding(attributes: &Map<String, Value>) -> f64 {
    let feature = |number: usize| {
        let key = format!("experiment-{number:02}");
        let rule = json!({
            "key": key, "hashVersion": 2, "variations": ["control", "treatment"], "weights": [0.5, 0.5],
            "condition": {"country": {"$in": ["US", "DE"]}, "plan": {"$ne": "trial"}},
            "meta": [{"key": "control"}, {"key": "treatment"}]});
        (key, json!({"defaultValue": "control", "rules": [rule]}))
    };
    let features: Map<String, Value> = (0..50).map(feature).collect();
    let document = json!({ "features": features }).to_string();
    let environment = Environment::new(document.as_bytes(), Dialect::Strict).expect("a snapshot");
    let context = Context::new(attributes);
    let (forced, mut out) = (
        Forced::default(),
        Vec::with_capacity(environment.answer_bytes()),
    );
    assert_eq!(environment.assign(&context, None, &forced, &mut out), 50);
    micros(|| {
        out.clear();
        black_box(environment.assign(black_box(&context), None, &forced, &mut out));
    })
}

/// A whole answer of remote evaluation: a hundred features of all kinds, in the order of the payload.
fn remotely(attributes: &Map<String, Value>) -> f64 {
    let payload = payload(&kinds(10), 96);
    let remote = Remote::new(&payload, Dialect::Legacy);
    let request = RemoteRequest {
        attributes: attributes.clone(),
        ..RemoteRequest::default()
    };
    micros(|| {
        black_box(remote.answer(black_box(&request), None));
    })
}

fn main() -> ExitCode {
    let payload = payload(&kinds(1_000), MANY);
    let compiled = Compiled::new(Definitions::from_payload(&payload), Dialect::Strict);
    let attributes = attributes();
    let context = Context::new(&attributes);
    let all = micros(|| {
        for key in compiled.feature_keys() {
            black_box(compiled.feature(black_box(&context), key, ()));
        }
    });
    let mut report = Report::default();
    report.at_most("eval/static", ours(&compiled, &context, "static"), 0.2);
    report.at_most(
        "eval/targeting",
        ours(&compiled, &context, "targeting"),
        1.0,
    );
    report.at_most("eval/split", ours(&compiled, &context, "split"), 0.3);
    report.at_most("eval/thousand-features", all, 1_000.0);
    report.at_most("eval/decide-50", deciding(&attributes), 10.0);
    report.at_most("eval/remote-100", remotely(&attributes), 60.0);
    compare(&mut report, &attributes);
    ExitCode::from(u8::from(report.failed))
}
