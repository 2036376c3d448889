//! The service with a dozen features and experiments, and the questions that all tests ask.

use serde_json::{Map, Value, json};
use stitchd::cli::demo::upstream::{many_experiments, many_features};

use crate::support::{Answer, Bed, ENVIRONMENT, SOURCE, TestApp, eventually};

/// Features and experiments that the upstream has at first.
pub(crate) const ITEMS: usize = 12;

/// A bed whose upstream has [`ITEMS`] features with three rules each, and as many running experiments.
pub(crate) fn bed() -> Bed {
    let bed = Bed::new();
    bed.upstream.set_features(many_features(ITEMS, 3));
    bed.upstream.set_experiments(many_experiments(ITEMS));
    bed
}

/// Starts the service and waits until its first poll is accounted for.
pub(crate) async fn start(bed: &Bed) -> TestApp {
    let app = bed.start_loaded().await;
    settled(&app).await;
    app
}

/// Waits until a poll has ended.
pub(crate) async fn settled(app: &TestApp) {
    eventually("the first poll has ended", async || {
        let status = app.status().await;
        (!status["sources"][SOURCE]["last_outcome"].is_null()).then_some(())
    })
    .await;
}

/// The first so many of the upstream's features.
pub(crate) fn keep_features(bed: &Bed, number: usize) {
    let features: Map<String, Value> = bed.upstream.features().into_iter().take(number).collect();
    bed.upstream.set_features(Value::Object(features));
}

/// The first so many of the upstream's experiments.
pub(crate) fn keep_experiments(bed: &Bed, number: usize) {
    let experiments = bed.upstream.experiments().into_iter().take(number);
    bed.upstream.set_experiments(experiments.collect());
}

/// Features and experiments in the served snapshot.
pub(crate) async fn counts(app: &TestApp) -> (usize, usize) {
    let snapshot = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await.json();
    (
        snapshot["features"].as_object().unwrap().len(),
        snapshot["experiments"].as_array().unwrap().len(),
    )
}

/// What is held, as the control plane lists it.
pub(crate) async fn held(app: &TestApp) -> Vec<Value> {
    let path = format!("/admin/environments/{ENVIRONMENT}/held");
    let answer = app.admin_get(&path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["environment"], ENVIRONMENT);
    body["held"].as_array().unwrap().clone()
}

/// The only thing that is held.
pub(crate) async fn only_held(app: &TestApp) -> Value {
    let mut held = held(app).await;
    assert_eq!(held.len(), 1, "{held:?}");
    held.remove(0)
}

/// The guards that tripped.
pub(crate) fn guards(held: &Value) -> Vec<&str> {
    let reasons = held["reasons"].as_array().unwrap().iter();
    reasons
        .map(|reason| reason["guard"].as_str().unwrap())
        .collect()
}

/// Decides about what is held of the bed's source.
pub(crate) async fn decide(app: &TestApp, fate: &str, body: &Value) -> Answer {
    let path = format!("/admin/environments/{ENVIRONMENT}/held/{SOURCE}/{fate}");
    app.admin_post(&path, &body.to_string()).await
}

/// Approves what is held and gives the answer.
pub(crate) async fn approve(app: &TestApp) -> Value {
    let answer = decide(app, "approve", &json!({"reason": "it is meant"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Fails unless a poll was held with this guard and nothing that is served has moved.
pub(crate) async fn assert_held(app: &TestApp, guard: &str) {
    let before = app.served().await;
    let report = app.poll().await;
    assert_eq!(report["outcome"], "held", "{report}");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains(&format!(": {guard}: ")), "{report}");
    assert_eq!(before, app.served().await, "{guard}");
    assert_eq!(app.status().await["environments"][ENVIRONMENT]["held"], 1);
}

/// The value of a metric of the bed's source.
pub(crate) async fn metric(app: &TestApp, name: &str, labels: &str) -> Option<f64> {
    let text = String::from_utf8(app.admin_get("/metrics").await.body.to_vec()).unwrap();
    let start = format!("{name}{{source=\"{SOURCE}\"{labels}}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start))?;
    Some(line.parse().unwrap())
}
