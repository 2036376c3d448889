//! `/v1/evaluate/{key}`.

use serde_json::{Value, json};

use crate::{
    questions::{ask, deciding, get, post},
    support::TestApp,
};

/// Value, type and reason.
async fn evaluated(app: &TestApp, key: &str, query: &[(&str, &str)]) -> (Value, Value, String) {
    let told = get(app, &format!("/v1/evaluate/{key}"), query).await;
    assert_eq!(told.status, 200, "{}", told.text);
    let answer = told.json();
    let names: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(names, ["key", "value", "type", "reason", "revision"]);
    assert_eq!(answer["key"], key);
    assert_eq!(told.header("x-config-revision"), Some("1"));
    assert_eq!(told.header("cache-control"), Some("no-store"));
    let reason = answer["reason"].as_str().unwrap().to_owned();
    (answer["value"].clone(), answer["type"].clone(), reason)
}

/// Checks value, type and reason of a call.
async fn check(app: &TestApp, key: &str, query: &[(&str, &str)], expected: [Value; 2], why: &str) {
    let [value, kind] = expected;
    let found = evaluated(app, key, query).await;
    assert_eq!(found, (value, kind, why.to_owned()), "{key} {query:?}");
}

#[tokio::test]
async fn values_have_the_type_that_was_asked_for() {
    let (_bed, app) = deciding().await;
    for (key, wanted, value) in [
        ("limit", "integer", json!(10)),
        ("limit", "float", json!(10)),
        ("ratio", "number", json!(0.5)),
        ("greeting", "string", json!("hello")),
        ("button", "object", json!({"color": "grey"})),
    ] {
        let expected = [value, json!(wanted)];
        check(&app, key, &[("type", wanted)], expected, "defaultValue").await;
    }
    let pro = [("type", "integer"), ("context", r#"{"plan":"pro"}"#)];
    check(&app, "limit", &pro, [json!(20), json!("integer")], "force").await;
    let truth = [json!(true), json!("boolean")];
    check(&app, "forced", &[("type", "boolean")], truth, "force").await;
    app.stop().await;
}

#[tokio::test]
async fn without_a_type_the_value_has_its_own() {
    let (_bed, app) = deciding().await;
    let hello = [json!("hello"), json!("string")];
    check(&app, "greeting", &[], hello, "defaultValue").await;
    let half = [json!(0.5), json!("float")];
    check(&app, "ratio", &[], half, "defaultValue").await;
    let german = [("context", r#"{"id":"u-1","country":"DE"}"#)];
    let green = [json!({"color": "green"}), json!("object")];
    check(&app, "button", &german, green, "experiment").await;
    app.stop().await;
}

#[tokio::test]
async fn what_is_not_there_leaves_the_default() {
    let (_bed, app) = deciding().await;
    let three = [json!(3), json!("integer")];
    let query = [("type", "integer"), ("default", "3")];
    check(&app, "nobody", &query, three.clone(), "unknownFeature").await;
    check(&app, "nothing", &query[1..], three, "defaultValue").await;
    let nothing = [json!(null), json!(null)];
    check(&app, "nobody", &[], nothing, "unknownFeature").await;
    let query = [("type", "string"), ("default", "plain text")];
    let text = [json!("plain text"), json!("string")];
    check(&app, "nobody", &query, text, "unknownFeature").await;
    app.stop().await;
}

#[tokio::test]
async fn a_value_of_another_type_gives_the_default_and_counts() {
    let (_bed, app) = deciding().await;
    for (key, kind, default) in [
        ("ratio", "integer", "7"),
        ("greeting", "boolean", "true"),
        ("limit", "string", "many"),
        ("button", "number", "1.5"),
        ("forced", "object", "{}"),
    ] {
        let (value, shown, reason) =
            evaluated(&app, key, &[("type", kind), ("default", default)]).await;
        let expected: Value = serde_json::from_str(default).unwrap_or_else(|_| default.into());
        assert_eq!(
            (value, shown, reason.as_str()),
            (expected, json!(kind), "typeMismatch")
        );
    }
    let metrics = app.admin_get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for kind in ["integer", "boolean", "string", "number", "object"] {
        let line = format!("stitchd_type_mismatches_total{{type=\"{kind}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    app.stop().await;
}

#[tokio::test]
async fn without_a_unit_experiments_and_rollouts_are_skipped() {
    let (_bed, app) = deciding().await;
    let german = ("context", r#"{"country":"DE"}"#);
    assert_eq!(
        evaluated(&app, "button", &[german]).await.0,
        json!({"color": "grey"})
    );
    assert_eq!(evaluated(&app, "rolled", &[]).await.0, json!(false));
    assert_eq!(evaluated(&app, "forced", &[]).await.0, json!(true));
    assert_eq!(
        evaluated(&app, "rolled", &[("user_key", "u-1")]).await.0,
        json!(true)
    );
    assert_eq!(
        evaluated(&app, "button", &[german, ("user_key", "u-1")])
            .await
            .0,
        json!({"color": "green"})
    );
    app.stop().await;
}

#[tokio::test]
async fn a_body_says_the_same_as_a_query() {
    let (_bed, app) = deciding().await;
    let body =
        json!({"type": "integer", "default": 1, "context": {"plan": "pro"}, "env": "production"});
    let posted = post(&app, "/v1/evaluate/limit", &body).await.json();
    assert_eq!(
        posted,
        json!({"key": "limit", "value": 20, "type": "integer", "reason": "force", "revision": 1})
    );
    let query = [
        ("type", "integer"),
        ("default", "1"),
        ("context", r#"{"plan":"pro"}"#),
    ];
    assert_eq!(get(&app, "/v1/evaluate/limit", &query).await.json(), posted);
    let told = ask(&app, "GET", "/v1/evaluate/caf%C3%A9%2Fx%2525").await;
    assert_eq!(told.json()["key"], "café/x%25");
    app.stop().await;
}

#[tokio::test]
async fn bad_input_is_400_with_the_field_named() {
    let (_bed, app) = deciding().await;
    for (query, field) in [
        (vec![("type", "text")], "type"),
        (vec![("type", "integer"), ("default", "1.5")], "default"),
        (vec![("type", "boolean"), ("default", "yes")], "default"),
        (vec![("default", "plain")], "default"),
        (vec![("context", "[1]")], "context"),
        (vec![("dialect", "x")], "dialect"),
        (vec![("experiments", "a")], "experiments"),
    ] {
        let told = get(&app, "/v1/evaluate/limit", &query).await;
        assert_eq!(
            told.problem(400),
            ("bad_request".to_owned(), field.to_owned()),
            "{query:?}"
        );
    }
    let told = post(
        &app,
        "/v1/evaluate/limit",
        &json!({"type": "string", "default": 7}),
    )
    .await;
    assert_eq!(told.problem(400).1, "default");
    app.stop().await;
}
