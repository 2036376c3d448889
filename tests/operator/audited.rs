//! Every decision leaves an entry that says who, why, and what came of it.

use reqwest::Method;
use serde_json::{Value, json};
use stitchd::settings::{Profile, from_toml};

use crate::{
    stand::{feature, furnish, text},
    support::{Answer, Bed, ENVIRONMENT, SOURCE, TestApp, answer, eventually},
};

const TOKENS: &str = r#"
    [admin]
    tokens = [{name = "otto", role = "operator", secret = "otto-secret"}]
"#;

async fn say(app: &TestApp, method: Method, path: &str, body: &Value) -> Answer {
    let request = app
        .http
        .request(method, format!("{}/admin/{path}", app.admin));
    let mut request = request.bearer_auth("otto-secret");
    if !body.is_null() {
        request = request.body(body.to_string());
    }
    answer(request.send().await.unwrap()).await
}

/// Carries a decision out; gives the revision served after it.
async fn decide(app: &TestApp, method: Method, path: &str, body: &Value) -> Value {
    let path = format!("environments/{ENVIRONMENT}/{path}");
    let answer = say(app, method, &path, body).await;
    assert!([200, 201].contains(&answer.status), "{path}: {answer:?}");
    answer.json()
}

async fn until_held(app: &TestApp) {
    let path = format!("sources/{SOURCE}/poll");
    eventually("the input is held", async || {
        let report = say(app, Method::POST, &path, &Value::Null).await.json();
        (report["outcome"] == "held").then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_decision_says_who_why_and_what_came_of_it() {
    let mut bed = Bed::new();
    furnish(&mut bed);
    bed.extra = TOKENS.to_owned();
    let settings = from_toml(&text(&bed), Profile::Test).unwrap();
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;

    let mut body = feature("checkout", "fixed");
    body["reason"] = json!("it broke");
    let set = decide(&app, Method::POST, "overrides", &body).await;
    let id = set["id"].as_str().unwrap();
    let path = format!("overrides/{id}?reason=mended");
    let gone = decide(&app, Method::DELETE, &path, &Value::Null).await;
    bed.upstream.set_feature("late", json!({"defaultValue": 1}));
    let poll = format!("sources/{SOURCE}/poll");
    let polled = say(&app, Method::POST, &poll, &Value::Null).await.json();
    assert_eq!(polled["outcome"], "published", "{polled}");
    let body = json!({"revision": 1, "reason": "as on Tuesday"});
    let pinned = decide(&app, Method::POST, "pin", &body).await;
    let unpinned = decide(&app, Method::DELETE, "pin?reason=all+clear", &Value::Null).await;
    let path = format!("environments/{ENVIRONMENT}/pin");
    let refused = say(&app, Method::DELETE, &path, &json!({"reason": "twice"})).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    let refused = say(&app, Method::DELETE, &path, &Value::Null).await;
    assert_eq!(refused.json()["field"], "reason", "{refused:?}");
    bed.upstream.set_features(json!({}));
    until_held(&app).await;
    let mut approved = Value::Null;
    for (fate, reason) in [("discard", "a broken export"), ("approve", "it is meant")] {
        let path = format!("held/{SOURCE}/{fate}");
        approved = decide(&app, Method::POST, &path, &json!({ "reason": reason })).await;
    }
    // The history says the same of each revision.
    for (done, cause, reason, pinned_from) in [
        (&set, "override feature checkout", "it broke", None),
        (&gone, "override removed feature checkout", "mended", None),
        (&pinned, "pin 1", "as on Tuesday", Some(1)),
        (&unpinned, "unpin", "all clear", None),
        (&approved, "approve gb", "it is meant", None),
    ] {
        let path = format!("environments/{ENVIRONMENT}/revisions/{}", done["revision"]);
        let shown = say(&app, Method::GET, &path, &Value::Null).await.json();
        let members = ["cause", "author", "reason", "pinned_from"].map(|name| &shown[name]);
        let expected = [
            cause.into(),
            "otto".into(),
            reason.into(),
            json!(pinned_from),
        ];
        assert_eq!(members, expected.each_ref(), "{shown}");
    }

    let audit = say(&app, Method::GET, "audit", &Value::Null).await.json();
    let entries = audit["entries"].as_array().unwrap().iter().rev();
    let entries = entries.filter(|entry| entry["action"] != "source.poll");
    let members = ["actor", "role", "action", "target", "reason", "result"];
    let found: Vec<Value> = entries
        .map(|entry| members.iter().map(|member| entry[member].clone()).collect())
        .collect();
    let by_otto = |action: &str, target: &str, reason: &str, result: &str| {
        let action = format!("environment.{action}");
        let target = format!("{ENVIRONMENT}{target}");
        json!(["otto", "operator", action, target, reason, result])
    };
    let revision = |done: &Value| format!("revision {}", done["revision"]);
    let expected = [
        by_otto("override", " feature checkout", "it broke", &revision(&set)),
        by_otto(
            "override.delete",
            &format!(" {id}"),
            "mended",
            &revision(&gone),
        ),
        by_otto("pin", " 1", "as on Tuesday", &revision(&pinned)),
        by_otto("unpin", "", "all clear", &revision(&unpinned)),
        by_otto("unpin", "", "twice", "failed: not_pinned"),
        by_otto("held.discard", "/gb", "a broken export", "discarded"),
        by_otto("held.approve", "/gb", "it is meant", "published"),
    ];
    let found: Vec<Value> = found
        .into_iter()
        .filter(|line| line[5] != "failed: bad_request")
        .collect();
    assert_eq!(found, expected);
    app.stop().await;
}
