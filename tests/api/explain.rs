//! `explain`: why a unit is in, or is not.

use serde_json::{Value, json};

use crate::{
    questions::{deciding, get, post},
    support::{SOURCE, TestApp},
};

/// The explanation of one experiment for a user.
async fn explained(app: &TestApp, experiment: &str, context: Value) -> Value {
    let body = json!({"user_key": "u-1", "experiments": [experiment], "explain": true, "context": context});
    let answer = post(app, "/v1/decide", &body).await.json();
    let explanations = answer["explanations"].as_array().unwrap();
    assert_eq!(explanations.len(), 1, "{answer}");
    let is_in = !answer["assignments"].as_array().unwrap().is_empty();
    assert_eq!(is_in, !explanations[0]["variant_key"].is_null(), "{answer}");
    assert_eq!(explanations[0]["revision"], answer["revision"]);
    explanations[0].clone()
}

#[tokio::test]
async fn the_rule_the_bucket_and_the_failing_part_are_named() {
    let (_bed, app) = deciding().await;
    let told = explained(&app, "everybody", json!({"country": "DE"})).await;
    assert_eq!(told["variant_key"], "treatment");
    assert_eq!(told["reason"], "assigned");
    assert_eq!(told["item"], "features.button.rules[1]");
    assert_eq!(told["rule_id"], "fr_everybody");
    assert_eq!(told["source"], SOURCE);
    assert_eq!(told["hash"]["attribute"], "id");
    assert_eq!(told["hash"]["value"], "u-1");
    assert_eq!(told["hash"]["version"], 2);
    let bucket = told["hash"]["bucket"].as_f64().unwrap();
    assert!((0.0..1.0).contains(&bucket));
    assert_eq!(told["hash"]["ranges"], json!([[0.0, 0.0], [0.0, 1.0]]));

    let told = explained(&app, "everybody", json!({"country": "FR"})).await;
    assert_eq!(told["reason"], "condition");
    assert_eq!(
        told["failed"],
        json!({"at": "country", "expected": "DE", "found": "FR"})
    );
    let told = explained(&app, "everybody", json!({"country": "DE", "staff": true})).await;
    assert_eq!(told["reason"], "earlier_rule");
    assert_eq!(told["earlier_rule"], json!({"rule": 0, "decided": "force"}));
    app.stop().await;
}

#[tokio::test]
async fn experiments_that_do_not_run_say_so() {
    let (_bed, app) = deciding().await;
    let told = explained(&app, "over", json!({})).await;
    assert_eq!(
        (&told["reason"], &told["status"], &told["item"]),
        (
            &json!("not_running"),
            &json!("stopped"),
            &json!("experiments.over")
        )
    );
    assert_eq!(explained(&app, "draft", json!({})).await["status"], "draft");
    let told = explained(&app, "never-heard-of", json!({})).await;
    assert_eq!(told["reason"], "unknown_experiment");
    let told = explained(&app, "listed", json!({})).await;
    assert_eq!(
        (&told["item"], &told["reason"]),
        (&json!("experiments.listed"), &json!("assigned"))
    );
    app.stop().await;
}

#[tokio::test]
async fn without_names_every_running_experiment_is_explained() {
    let (_bed, app) = deciding().await;
    let query = [("user_key", "u-1"), ("explain", "true")];
    let answer = get(&app, "/v1/decide", &query).await.json();
    let explanations = answer["explanations"].as_array().unwrap();
    let keys: Vec<&Value> = explanations
        .iter()
        .map(|told| &told["experiment_key"])
        .collect();
    assert_eq!(keys, ["everybody", "listed"]);
    let quiet = get(
        &app,
        "/v1/decide",
        &[("user_key", "u-1"), ("explain", "false")],
    )
    .await;
    assert_eq!(quiet.json().get("explanations"), None);
    app.stop().await;
}
