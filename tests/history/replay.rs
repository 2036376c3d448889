//! Decisions against revisions of the past.

use serde_json::{Value, json};

use crate::{
    at_revision, publish,
    support::{Answer, Bed, TestApp, answer},
    until_written,
};

const VIEWER: &str = "viewer-secret";

/// A service whose control plane wants tokens.
fn with_tokens() -> Bed {
    let tokens = format!(
        "[admin]\ntokens = [{{name = \"eva\", role = \"viewer\", secret = \"{VIEWER}\"}}, {{name = \"otto\", role = \"admin\", secret = \"otto-secret\"}}]\n"
    );
    Bed {
        extra: tokens,
        ..Bed::new()
    }
}

/// Half of the units see another variation with each value.
fn set_split(bed: &Bed, weights: [f64; 2]) {
    bed.upstream.set_feature(
        "button",
        json!({"defaultValue": "old", "rules": [{"key": "button-test", "seed": "s", "hashAttribute": "id",
            "variations": ["old", "new"], "weights": weights, "coverage": 1}]}),
    );
}

async fn decide(app: &TestApp, plane: &str, query: &str, token: Option<&str>) -> Answer {
    let url = format!("{plane}/v1/decide?user_key=u-1{query}");
    let mut request = app.http.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    answer(request.send().await.unwrap()).await
}

/// Polls after a change, as a viewer cannot.
async fn poll(app: &TestApp) {
    let url = format!("{}/admin/sources/gb/poll", app.admin);
    let polled = app.http.post(url).bearer_auth("otto-secret").send().await;
    assert_eq!(polled.unwrap().status(), 200);
}

#[tokio::test]
async fn a_replay_answers_what_was_answered_at_that_time() {
    let bed = Bed::new();
    set_split(&bed, [1.0, 0.0]);
    let app = bed.start_loaded().await;
    let mut given: Vec<Value> = Vec::new();
    let ask = "&experiments=button-test&explain=true";
    for (revision, weights) in [(1, [1.0, 0.0]), (2, [0.0, 1.0]), (3, [1.0, 0.0])] {
        set_split(&bed, weights);
        app.poll().await;
        assert_eq!(app.revision(), revision);
        given.push(decide(&app, &app.data, ask, None).await.json());
    }
    let variants = |answer: &Value| answer["assignments"][0]["variant_key"].clone();
    assert_ne!(variants(&given[0]), variants(&given[1]));
    until_written(&app).await;
    // Twice, and more revisions than are kept compiled.
    for revision in [1_usize, 2, 3, 2, 1] {
        for plane in [&app.data, &app.admin] {
            let query = format!("{ask}&revision={revision}");
            let again = decide(&app, plane, &query, None).await;
            assert_eq!(again.status, 200, "{again:?}");
            assert_eq!(again.json(), given[revision - 1], "{revision}");
            assert_eq!(again.json()["config_version"], revision);
        }
        let body = json!({"user_key": "u-1", "experiments": ["button-test"], "explain": true, "revision": revision});
        let url = format!("{}/v1/decide", app.data);
        let posted = app
            .http
            .post(url)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(posted.headers()["x-config-revision"], revision.to_string());
        assert_eq!(answer(posted).await.json(), given[revision - 1]);
    }
    let plain = decide(&app, &app.data, "&revision=2", None).await.json();
    assert_eq!(variants(&plain), variants(&given[1]));
    assert!(plain.get("explanations").is_none());
    for (query, status, code) in [
        ("&revision=9", 404, "unknown_revision"),
        ("&revision=x", 400, "bad_request"),
        ("&revision=1&env=nope", 404, "unknown_environment"),
    ] {
        let refused = decide(&app, &app.data, query, None).await;
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (status, &json!(code)),
            "{query}"
        );
    }
    app.stop().await;
}

#[tokio::test]
async fn a_replay_needs_a_token_and_nothing_else_does() {
    let bed = with_tokens();
    let app = bed.start_loaded().await;
    let old = "&revision=1";
    for (plane, query, token, expected) in [
        (&app.data, "", None, 200),
        (&app.data, "", Some("wrong"), 200),
        (&app.data, old, None, 401),
        (&app.data, old, Some("wrong"), 401),
        (&app.data, old, Some(VIEWER), 200),
        (&app.data, old, Some("otto-secret"), 200),
        (&app.admin, "", None, 401),
        (&app.admin, "", Some(VIEWER), 200),
        (&app.admin, old, None, 401),
        (&app.admin, old, Some(VIEWER), 200),
    ] {
        let given = decide(&app, plane, query, token).await;
        assert_eq!(given.status, expected, "{query} {token:?}: {given:?}");
    }
    // A token of the control plane opens nothing else on the data plane.
    let aliased = app
        .http
        .get(format!("{}/decide?user_key=u-1&revision=1", app.data));
    assert_eq!(aliased.send().await.unwrap().status(), 401);
    poll(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn without_tokens_a_request_from_elsewhere_is_refused() {
    let bed = Bed::new();
    let (app, _) = at_revision(&bed, 1).await;
    publish(&bed, &app, 5).await;
    let url = format!("{}/v1/decide?user_key=u-1&revision=1", app.data);
    for (name, value) in [
        ("host", "experiments.example"),
        ("origin", "https://evil.example"),
        ("x-forwarded-for", "192.0.2.1"),
        ("via", "1.1 varnish"),
    ] {
        let asked = app.http.get(&url).header(name, value).send().await.unwrap();
        assert_eq!(asked.status(), 403, "{name}");
        let ordinary = app
            .http
            .get(url.replace("&revision=1", ""))
            .header(name, value);
        assert_eq!(ordinary.send().await.unwrap().status(), 200, "{name}");
    }
    app.stop().await;
}
