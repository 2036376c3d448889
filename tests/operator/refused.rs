//! What is not taken, and what is told then.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    stand::{EXPERIMENT, ask, feature, force, loaded, off},
    support::TestApp,
};

async fn check(app: &TestApp, path: &str, body: Value, status: u16, told: &str) {
    let answer = ask(app, Method::POST, path, &body).await;
    assert_eq!(answer.status, status, "{body}: {answer:?}");
    let text = answer.json().to_string();
    assert!(text.contains(told), "{body}: {text}");
}

fn with(mut body: Value, more: &Value) -> Value {
    body["reason"] = json!("it broke");
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

/// Lists within each other.
fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| json!([inner]))
}

#[tokio::test]
async fn a_mistake_is_named_and_changes_nothing() {
    let (_bed, app) = loaded().await;
    let revision = app.revision();
    let none = json!({});
    for (body, status, told) in [
        (feature("checkout", "x"), 400, "\"field\":\"reason\""),
        (
            with(feature("checkout", 5), &none),
            400,
            "of type number, the feature's default of type string",
        ),
        (
            with(feature("checkout", nested(65)), &none),
            400,
            "the value is nested deeper than 64 levels",
        ),
        (
            with(feature("chekout", "x"), &none),
            404,
            "\"near\":[\"checkout\"]",
        ),
        (with(off("search-box"), &none), 404, EXPERIMENT),
        (
            with(off("nothing-of-the-kind"), &none),
            404,
            "unknown_experiment",
        ),
        (
            with(feature("checkout", "x"), &json!({"off": true})),
            400,
            "\"field\":\"value\"",
        ),
        (
            with(json!({"kind": "experiment", "key": "x"}), &none),
            400,
            "\"field\":\"off\"",
        ),
        (
            with(json!({"kind": "segment", "key": "x"}), &none),
            400,
            "\"field\":\"kind\"",
        ),
        (
            with(json!({"kind": "feature", "value": 1}), &none),
            400,
            "\"field\":\"key\"",
        ),
        (
            with(feature("checkout", "x"), &json!({"expires_in": "soon"})),
            400,
            "\"field\":\"expires_in\"",
        ),
        (
            with(feature("checkout", "x"), &json!({"expires_in": "2years"})),
            400,
            "at most one year",
        ),
        (
            with(feature("checkout", "x"), &json!({"expire_in": "1h"})),
            400,
            "expire_in",
        ),
    ] {
        check(&app, "overrides", body, status, told).await;
    }
    for (body, status, told) in [
        (
            json!({"revision": 99, "reason": "r"}),
            404,
            "unknown_revision",
        ),
        (json!({"revision": 1}), 400, "\"field\":\"reason\""),
        (json!({"reason": "r"}), 400, "\"field\":\"revision\""),
    ] {
        check(&app, "pin", body, status, told).await;
    }
    let answer = ask(&app, Method::DELETE, "pin", &json!({"reason": "r"})).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (409, &json!("not_pinned"))
    );
    let answer = ask(&app, Method::DELETE, "overrides/none", &Value::Null).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (404, &json!("unknown_override"))
    );
    let elsewhere = app.admin_post("/admin/environments/nope/pin", "{}").await;
    assert_eq!(
        (elsewhere.status, &elsewhere.json()["code"]),
        (404, &json!("unknown_environment"))
    );
    assert_eq!(app.revision(), revision);
    app.stop().await;
}

#[tokio::test]
async fn the_same_target_again_replaces_and_all_is_in_the_audit() {
    let (_bed, app) = loaded().await;
    let first = force(&app, &feature("checkout", "a")).await;
    assert_eq!(first["replaced"], Value::Null);
    let second = force(&app, &feature("checkout", "b")).await;
    assert_eq!(second["replaced"], first["id"]);
    let list = ask(&app, Method::GET, "overrides", &Value::Null)
        .await
        .json();
    let ids: Vec<_> = list["overrides"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["id"])
        .collect();
    assert_eq!(ids, [&second["id"]]);
    let path = format!("overrides/{}", second["id"].as_str().unwrap());
    ask(&app, Method::DELETE, &path, &json!({"reason": "mended"})).await;
    let audit = app.admin_get("/admin/audit").await.json();
    let lines: Vec<_> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            (
                line["action"].as_str().unwrap(),
                line["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        lines[..2],
        [
            ("environment.override.delete", "mended"),
            ("environment.override", "it broke")
        ]
    );
    app.stop().await;
}
