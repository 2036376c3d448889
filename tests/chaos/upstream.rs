//! The upstream's part: lies, absence, bad items, and what it really has.

use serde_json::{Value, json};
use stitchd::cli::demo::upstream::{
    CLIENT_KEY, Connection, Fault, Route, experiment, many_experiments, many_features,
};

use crate::{
    faults::{Kind, Lie, Of},
    support::Bed,
};

/// More than a page: only then can a list shift while it is read.
const EXPERIMENTS: usize = 110;
/// Of a connection whose payload is encrypted.
pub(crate) const SEALED_KEY: &str = "sdk-sealed";
/// 16 bytes in base64: what it is encrypted with.
const SEAL: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
/// The feature whose value operators force.
pub(crate) const FORCED: &str = "forced";
const STEADY: &str = "steady";

/// What the upstream has before anything is said about it.
pub(crate) fn fill(bed: &Bed) {
    bed.upstream.set_features(many_features(5, 2));
    bed.upstream.set_feature(STEADY, steady());
    bed.upstream.set_feature("split", split());
    bed.upstream.set_feature(FORCED, json!({"defaultValue": 0}));
    bed.upstream.add_connection(Connection {
        encryption_key: Some(SEAL.to_owned()),
        ..Connection::new(SEALED_KEY)
    });
    bed.upstream.set_experiments(experiments());
    change(bed, 1);
}

/// For the source's settings: both connections.
pub(crate) fn connections() -> String {
    format!(
        "connections = [{{ key = \"{CLIENT_KEY}\" }}, {{ key = \"{SEALED_KEY}\", decryption_key = \"{SEAL}\" }}]"
    )
}

/// What an experiment says after [`change`] to this value.
pub(crate) fn hypothesis(value: u64) -> String {
    format!("It is {value}.")
}

fn experiments() -> Vec<Value> {
    let mut experiments = many_experiments(EXPERIMENTS);
    experiments.push(experiment(STEADY));
    experiments.push(experiment("moving"));
    experiments
}

fn steady() -> Value {
    json!({"defaultValue": "good"})
}

fn split() -> Value {
    let rule = json!({
        "id": "fr_split", "key": "split", "seed": "split", "hashAttribute": "id", "hashVersion": 2,
        "variations": ["a", "b"], "weights": [0.5, 0.5], "meta": [{"key": "a"}, {"key": "b"}],
    });
    json!({"defaultValue": "a", "rules": [rule]})
}

/// News in both parts: the counter, and an experiment's hypothesis.
pub(crate) fn change(bed: &Bed, value: u64) {
    bed.upstream
        .set_feature("counter", json!({ "defaultValue": value }));
    bed.upstream.update_experiment("moving", |experiment| {
        experiment["hypothesis"] = hypothesis(value).into();
    });
}

pub(crate) async fn begin(bed: &Bed, kind: &Kind) {
    match kind {
        Kind::Lie(lie) => tell(bed, lie),
        Kind::UpstreamDown => bed.upstream.go_down().await.unwrap(),
        Kind::BadItems => {
            bed.upstream.set_feature(STEADY, json!("not an object"));
            bed.upstream.update_experiment(STEADY, |experiment| {
                experiment["phases"] = json!("not a list");
            });
        }
        _ => {}
    }
}

fn tell(bed: &Bed, lie: &Lie) {
    if lie.of != Of::List {
        bed.upstream.set_fault(Route::Features, lie.fault.clone());
    }
    if lie.of != Of::Payload {
        bed.upstream
            .set_fault(Route::Experiments, lie.fault.clone());
    }
}

pub(crate) fn end(bed: &Bed, kind: &Kind, value: u64) {
    match kind {
        Kind::Lie(lie) => {
            bed.upstream.clear_fault(Route::Features);
            bed.upstream.clear_fault(Route::Experiments);
            if matches!(lie.fault, Fault::ShiftingList(_)) {
                bed.upstream.set_experiments(experiments());
                change(bed, value);
            }
        }
        Kind::UpstreamDown => bed.upstream.come_back().unwrap(),
        Kind::BadItems => {
            bed.upstream.set_feature(STEADY, steady());
            bed.upstream.upsert_experiment(experiment(STEADY));
        }
        _ => {}
    }
}
