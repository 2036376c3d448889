//! Remote evaluation: `POST /api/eval/{client_key}`.

use reqwest::{Method, Response};
use serde_json::{Map, Value, json};
use stitchd::{
    cli::demo::upstream::{CLIENT_KEY, Connection},
    settings::{Connections, Profile, Settings, from_toml},
};

use crate::support::{Bed, TestApp};

/// A connection whose SDKs have everything evaluated.
pub(crate) const REMOTE_KEY: &str = "sdk-remote";

/// The settings of a bed with an ordinary connection and one for remote evaluation.
pub(crate) fn settings(bed: &Bed) -> Settings {
    bed.upstream.add_connection(Connection {
        remote_eval: true,
        ..Connection::new(REMOTE_KEY)
    });
    let own = format!("client_key = \"{CLIENT_KEY}\"");
    let text = bed.toml();
    assert!(text.contains(&own));
    let connections = format!(
        "[[sources.connections]]\nkey = \"{CLIENT_KEY}\"\n[[sources.connections]]\nkey = \"{REMOTE_KEY}\"\nremote_eval = true\n"
    );
    let text = text.replacen(&own, "", 1) + &connections;
    from_toml(&text, Profile::Test).unwrap_or_else(|error| panic!("{error}"))
}

/// Starts the service and waits for its first revision.
pub(crate) async fn start(bed: &Bed) -> TestApp {
    let app = TestApp::spawn(settings(bed)).await;
    app.until_revision(1).await;
    app
}

/// An experiment that splits users in halves.
pub(crate) fn split(weights: [f64; 2]) -> Value {
    json!({"defaultValue": "none", "rules": [{
        "id": "fr_1", "key": "checkout", "hashVersion": 2, "coverage": 1, "hashAttribute": "id",
        "variations": ["old", "new"], "weights": weights, "meta": [{"key": "control"}, {"key": "treatment"}],
        "condition": {"country": "NL"}
    }]})
}

pub(crate) async fn post(app: &TestApp, path: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = app.http.post(format!("{}{path}", app.data));
    let request = request.header("content-type", "application/json");
    request.body(body).send().await.unwrap()
}

/// The answer for a user, which must be one.
pub(crate) async fn evaluate(app: &TestApp, request: &Value) -> Value {
    let response = post(app, &format!("/api/eval/{REMOTE_KEY}"), request.to_string()).await;
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_user_is_told_values_and_exposures_and_nothing_about_others() {
    let bed = Bed::new();
    bed.upstream.set_features(json!({
        "flag": {"defaultValue": false, "rules": [{"condition": {"country": "NL"}, "force": true}]},
        "checkout": split([0.0, 1.0])
    }));
    let app = start(&bed).await;
    let request =
        json!({"attributes": {"id": "u1", "country": "NL"}, "url": "https://example.com/"});
    let response = post(
        &app,
        &format!("/api/eval/{REMOTE_KEY}"),
        request.to_string(),
    )
    .await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        header(&response, "content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    assert_eq!(header(&response, "x-config-revision"), Some("1"));
    assert_eq!(header(&response, "x-config-stale"), Some("0"));
    assert_eq!(header(&response, "x-sse-support"), Some("enabled"));
    assert_eq!(header(&response, "etag"), None);
    let answer: Value = json_of(response).await;
    assert_eq!(answer["features"]["flag"], json!({"defaultValue": true}));
    let rule = &answer["features"]["checkout"]["rules"][0];
    assert_eq!(rule["force"], "new");
    let track = &rule["tracks"][0];
    assert_eq!(track["experiment"]["variations"], json!([{}, "new"]));
    assert_eq!(track["experiment"].get("condition"), None);
    assert_eq!(track["result"]["key"], "treatment");
    assert_eq!(track["result"]["hashValue"], "u1");
    assert_eq!(answer["experiments"], json!([]));
    assert!(!answer.to_string().contains("country"), "{answer}");

    // Of one of whom nothing is known.
    let answer = evaluate(&app, &json!({})).await;
    assert_eq!(
        answer["features"]["checkout"],
        json!({"defaultValue": "none"})
    );
    assert_eq!(answer["features"]["flag"], json!({"defaultValue": false}));
    app.stop().await;
}

#[tokio::test]
async fn what_a_request_forces_goes_first() {
    let bed = Bed::new();
    bed.upstream
        .set_features(json!({"flag": {"defaultValue": 1}, "checkout": split([0.0, 1.0])}));
    let app = start(&bed).await;
    let request = json!({
        "attributes": {"id": "u1", "country": "NL"}, "forcedVariations": {"checkout": 0}, "forcedFeatures": [["flag", {"a": 2}]]
    });
    let answer = evaluate(&app, &request).await;
    assert_eq!(
        answer["features"]["flag"],
        json!({"defaultValue": {"a": 2}})
    );
    assert_eq!(answer["features"]["checkout"]["defaultValue"], "old");
    app.stop().await;
}

#[tokio::test]
async fn a_new_revision_is_evaluated_from_its_first_request_on() {
    let bed = Bed::new();
    bed.upstream
        .set_features(json!({"flag": {"defaultValue": 1}}));
    let app = start(&bed).await;
    assert_eq!(
        evaluate(&app, &json!({})).await["features"]["flag"]["defaultValue"],
        1
    );
    for value in 2..5 {
        bed.upstream
            .set_feature("flag", json!({"defaultValue": value}));
        assert_eq!(app.poll().await["outcome"], "published");
        let response = post(&app, &format!("/api/eval/{REMOTE_KEY}"), "{}").await;
        assert_eq!(
            header(&response, "x-config-revision"),
            Some(value.to_string().as_str())
        );
        let answer: Value = json_of(response).await;
        assert_eq!(answer["features"]["flag"]["defaultValue"], value);
    }
    app.stop().await;
}

#[tokio::test]
async fn the_dialect_is_the_proxys_unless_a_request_asks_for_another() {
    let bed = Bed::new();
    // JavaScript takes the text for a number.
    bed.upstream
        .set_features(json!({"flag": {"defaultValue": "no", "rules": [
        {"condition": {"age": {"$gt": 18}}, "force": "yes"}]}}));
    let app = start(&bed).await;
    for (query, expected) in [
        ("", "yes"),
        ("?dialect=legacy", "yes"),
        ("?dialect=strict", "no"),
    ] {
        let path = format!("/api/eval/{REMOTE_KEY}{query}");
        let response = post(&app, &path, r#"{"attributes":{"age":"20"}}"#).await;
        let answer: Value = json_of(response).await;
        assert_eq!(
            answer["features"]["flag"]["defaultValue"], expected,
            "{query}"
        );
    }
    app.stop().await;

    let mut strict = settings(&bed);
    let Connections::List(connections) = &mut strict.sources[0].connections else {
        panic!("two connections are listed");
    };
    for connection in connections {
        connection.dialect = Some(stitchd::settings::Dialect::Strict);
    }
    let app = TestApp::spawn(strict).await;
    app.until_revision(1).await;
    for (query, expected) in [("", "no"), ("?dialect=legacy", "yes")] {
        let path = format!("/api/eval/{REMOTE_KEY}{query}");
        let answer = json_of(post(&app, &path, r#"{"attributes":{"age":"20"}}"#).await).await;
        assert_eq!(
            answer["features"]["flag"]["defaultValue"], expected,
            "{query}"
        );
    }
    app.stop().await;
}

#[tokio::test]
async fn mistakes_are_answered_as_the_proxy_answers_them() {
    let bed = Bed::new();
    let app = start(&bed).await;
    let many: Map<String, Value> = (0..1001).map(|key| (format!("k{key}"), json!(1))).collect();
    let invalid = [
        "[]".to_owned(),
        "{".to_owned(),
        r#"{"attributes":[]}"#.to_owned(),
        r#"{"attributes":{"secret-word":"secret-word"},"url":["secret-word"]}"#.to_owned(),
        json!({"attributes": many}).to_string(),
    ];
    for body in invalid {
        let response = post(&app, &format!("/api/eval/{REMOTE_KEY}"), body.clone()).await;
        assert_eq!(response.status(), 400, "{body}");
        assert_eq!(header(&response, "cache-control"), Some("no-store"));
        let answer: Value = json_of(response).await;
        assert_eq!(answer["status"], 400);
        assert_eq!(answer["error"], "Invalid input");
        let detail = answer["detail"].as_str().unwrap();
        assert!(
            !detail.is_empty() && !detail.contains("secret-word"),
            "{detail}"
        );
    }
    let path = format!("/api/eval/{REMOTE_KEY}?dialect=klingon");
    let answer: Value = json_of(post(&app, &path, "{}").await).await;
    assert_eq!(answer["error"], "Invalid input");

    let response = post(&app, &format!("/api/eval/{CLIENT_KEY}"), "{}").await;
    assert_eq!(response.status(), 400);
    let expected = r#"{"status":400,"error":"Failed to get features (remote eval required)"}"#;
    assert_eq!(response.text().await.unwrap(), expected);

    let response = post(&app, "/api/eval/sdk-nobody", "{}").await;
    assert_eq!(response.status(), 400);
    assert_eq!(header(&response, "x-unrecoverable"), Some("1"));
    assert_eq!(
        response.text().await.unwrap(),
        r#"{"status":400,"error":"Invalid API Key"}"#
    );

    let long = format!(r#"{{"url":"{}"}}"#, "a".repeat(1_100_000));
    let response = post(&app, &format!("/api/eval/{REMOTE_KEY}"), long).await;
    assert_eq!(response.status(), 413);
    let answer: Value = json_of(response).await;
    assert_eq!(answer["status"], 413);

    let url = format!("{}/api/eval/{REMOTE_KEY}", app.data);
    let response = app.http.get(url).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(header(&response, "allow"), Some("POST"));
    app.stop().await;
}

#[tokio::test]
async fn before_the_first_load_nothing_is_evaluated() {
    let bed = Bed::new();
    bed.upstream.set_fault(
        stitchd::cli::demo::upstream::Route::Features,
        stitchd::cli::demo::upstream::Fault::Status(500),
    );
    bed.upstream.set_fault(
        stitchd::cli::demo::upstream::Route::SdkPayload,
        stitchd::cli::demo::upstream::Fault::Status(500),
    );
    let app = TestApp::spawn(settings(&bed)).await;
    let response = post(&app, &format!("/api/eval/{REMOTE_KEY}"), "{}").await;
    assert_eq!(response.status(), 503);
    assert!(header(&response, "retry-after").is_some());
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    app.stop().await;
}

#[tokio::test]
async fn browsers_may_ask_from_anywhere() {
    let bed = Bed::new();
    let app = start(&bed).await;
    let url = format!("{}/api/eval/{REMOTE_KEY}", app.data);
    let preflight = app
        .http
        .request(Method::OPTIONS, &url)
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let response = preflight.send().await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
    assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
    let methods = header(&response, "access-control-allow-methods").unwrap();
    assert!(methods.contains("POST"), "{methods}");
    let headers = header(&response, "access-control-allow-headers").unwrap();
    assert!(
        headers == "*" || headers.contains("content-type"),
        "{headers}"
    );

    let request = app.http.post(&url).header("origin", "https://shop.example");
    let response = request.body("{}").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
    let exposed = header(&response, "access-control-expose-headers").unwrap();
    assert!(exposed.contains("x-config-revision"), "{exposed}");
    app.stop().await;
}
