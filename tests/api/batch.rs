//! `/v1/decide/batch` and its limits.

use serde_json::{Value, json};

use crate::{
    questions::{deciding, fill, get, post, send},
    support::Bed,
};

#[tokio::test]
async fn units_are_answered_in_order_as_if_asked_one_by_one() {
    let (_bed, app) = deciding().await;
    let units: Vec<Value> = (0..300)
        .map(|unit| json!({"user_key": format!("u-{unit}"), "context": {"country": if unit % 3 == 0 { "DE" } else { "FR" }}}))
        .collect();
    let told = post(
        &app,
        "/v1/decide/batch",
        &json!({"env": "production", "units": units}),
    )
    .await;
    assert_eq!(told.status, 200, "{}", told.text);
    assert_eq!(told.header("x-config-revision"), Some("1"));
    assert_eq!(told.header("cache-control"), Some("no-store"));
    let answer = told.json();
    assert_eq!(answer["revision"], 1);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), units.len());
    for (unit, result) in units.iter().zip(results).step_by(37) {
        assert_eq!(post(&app, "/v1/decide", unit).await.json(), *result);
    }
    assert_eq!(results[0]["assignments"].as_array().unwrap().len(), 2);
    assert_eq!(results[1]["assignments"].as_array().unwrap().len(), 1);
    let none = post(&app, "/v1/decide/batch", &json!({"units": []})).await;
    assert_eq!(none.json()["results"], json!([]));
    app.stop().await;
}

#[tokio::test]
async fn units_may_be_forced_and_explained() {
    let (_bed, app) = deciding().await;
    let body = json!({"experiments": ["everybody"], "explain": true, "units": [
        {"user_key": "a", "forced": {"everybody": "control"}}, {"user_key": "b"}]});
    let answer = post(&app, "/v1/decide/batch", &body).await.json();
    let [forced, out] = [0, 1].map(|at| &answer["results"][at]);
    assert_eq!(forced["assignments"][0]["variant_key"], "control");
    assert_eq!(forced["explanations"][0]["reason"], "forced");
    assert_eq!(out["assignments"], json!([]));
    assert_eq!(out["explanations"][0]["reason"], "condition");
    app.stop().await;
}

#[tokio::test]
async fn limits_are_named_where_they_are_passed() {
    let mut bed = Bed::new();
    fill(&bed);
    bed.extra = "[evaluation]\nmax_batch_units = 5\nmax_decisions = 6".to_owned();
    let mut settings = bed.settings();
    settings.server.max_request_bytes = 2_000;
    let app = crate::support::TestApp::spawn(settings).await;
    app.until_revision(1).await;
    let batch = async |number: usize, more: Value| {
        let units: Vec<Value> = (0..number)
            .map(|unit| json!({"user_key": unit.to_string()}))
            .collect();
        let mut body = more;
        body["units"] = units.into();
        post(&app, "/v1/decide/batch", &body).await
    };
    assert_eq!(batch(3, json!({})).await.status, 200);
    let told = batch(6, json!({})).await;
    assert_eq!(told.problem(400).1, "units");
    assert!(
        told.text.contains("`evaluation.max_batch_units` = 5"),
        "{}",
        told.text
    );
    // Two experiments, so four units are eight decisions.
    let told = batch(4, json!({})).await;
    assert_eq!(told.problem(400).1, "units");
    assert!(
        told.text.contains("`evaluation.max_decisions` = 6"),
        "{}",
        told.text
    );
    assert_eq!(
        batch(5, json!({"experiments": ["listed"]})).await.status,
        200
    );
    let explained = json!({"experiments": ["listed"], "explain": true});
    let told = batch(1, explained).await;
    assert_eq!(told.problem(400).1, "units");
    assert!(told.text.contains("counts as 10"), "{}", told.text);
    let long = "x".repeat(2_000);
    let told = post(&app, "/v1/decide", &json!({ "user_key": long })).await;
    assert_eq!(told.problem(413).0, "body_too_large");
    assert!(told.text.contains("2000 bytes"), "{}", told.text);
    app.stop().await;
}

#[tokio::test]
async fn a_bad_unit_is_named_by_its_place() {
    let (_bed, app) = deciding().await;
    for (body, field) in [
        (json!({}), "units"),
        (json!({"units": {}}), "units"),
        (json!({"units": [{"user_key": "a"}, 7]}), "units[1]"),
        (
            json!({"units": [{"user_key": "a"}, {"user_key": ""}]}),
            "units[1].user_key",
        ),
        (
            json!({"units": [{"user_key": "a", "context": 1}]}),
            "units[0].context",
        ),
        (
            json!({"units": [{"user_key": "a", "env": "x"}]}),
            "units[0].env",
        ),
        (
            json!({"units": [{"user_key": "a", "forced": {"listed": "x"}}]}),
            "units[0].forced.listed",
        ),
        (json!({"units": [], "user_key": "a"}), "user_key"),
    ] {
        let told = post(&app, "/v1/decide/batch", &body).await;
        assert_eq!(
            told.problem(400),
            ("bad_request".to_owned(), field.to_owned()),
            "{body}"
        );
    }
    let nested = format!(
        "{{\"units\":[{{\"user_key\":\"a\",\"context\":{}",
        "{\"a\":".repeat(500)
    );
    let told = send(&app, "POST", "/v1/decide/batch", &[], Some(nested)).await;
    assert_eq!(told.problem(400).1, "body");
    app.stop().await;
}

#[tokio::test]
async fn a_large_context_is_worked_through_like_a_small_one() {
    let (_bed, app) = deciding().await;
    let mut context = json!({"country": "DE", "long": "x".repeat(100_000)});
    let large = post(
        &app,
        "/v1/decide",
        &json!({"user_key": "u", "context": context}),
    )
    .await;
    context["long"] = "x".into();
    let small = post(
        &app,
        "/v1/decide",
        &json!({"user_key": "u", "context": context}),
    )
    .await;
    assert_eq!(large.json(), small.json());
    let query = [("user_key", "u"), ("context", r#"{"country":"DE"}"#)];
    assert_eq!(get(&app, "/v1/decide", &query).await.json(), small.json());
    app.stop().await;
}
