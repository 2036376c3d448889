//! What the tests of decisions ask, and of what.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use stitchd::cli::demo::upstream::{ExperimentExt, experiment, experiment_rule};

use crate::support::{Bed, TestApp};

/// An answer with all its headers.
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A problem that no cache keeps: its code and its field.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> (String, String) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["error"], problem["detail"]);
        let word = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        (word("code"), word("field"))
    }
}

/// Sends a request without a body.
pub(crate) async fn ask(app: &TestApp, method: &str, path: &str) -> Told {
    send(app, method, path, &[], None).await
}

/// GETs a path with these query parameters.
pub(crate) async fn get(app: &TestApp, path: &str, query: &[(&str, &str)]) -> Told {
    let query: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    ask(app, "GET", &format!("{path}?{}", query.join("&"))).await
}

/// POSTs a JSON body.
pub(crate) async fn post(app: &TestApp, path: &str, body: &Value) -> Told {
    send(app, "POST", path, &[], Some(body.to_string())).await
}

pub(crate) async fn send(
    app: &TestApp,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> Told {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = app.http.request(method, format!("{}{path}", app.data));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request
            .header("content-type", "application/json")
            .body(body);
    }
    let answer = request.send().await.unwrap();
    Told {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        text: answer.text().await.unwrap(),
    }
}

/// The text with every byte that is not plain escaped.
pub(crate) fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A service that decides about:
///
/// - `everybody`: all units in `treatment`, through feature `button`, for users in Germany;
/// - `listed`: halves, known to the management API alone;
/// - `draft` and `over`: nobody.
pub(crate) async fn deciding() -> (Bed, TestApp) {
    let bed = Bed::new();
    fill(&bed);
    let app = bed.start_loaded().await;
    (bed, app)
}

/// What [`deciding`] has upstream.
pub(crate) fn fill(bed: &Bed) {
    let everybody = experiment("everybody")
        .with_weights(&[0.0, 1.0])
        .with_condition(&json!({"country": "DE"}));
    let values = [json!({"color": "blue"}), json!({"color": "green"})];
    let rule = experiment_rule(&everybody, &values).unwrap();
    bed.upstream.set_features(json!({
        "button": {"defaultValue": {"color": "grey"}, "rules": [
            {"id": "fr_staff", "condition": {"staff": true}, "force": {"color": "red"}}, rule]},
        "limit": {"defaultValue": 10, "rules": [{"force": 20, "condition": {"plan": "pro"}}]},
        "greeting": {"defaultValue": "hello"},
        "ratio": {"defaultValue": 0.5},
        "rolled": {"defaultValue": false, "rules": [{"force": true, "coverage": 1.0}]},
        "forced": {"defaultValue": false, "rules": [{"force": true}]},
        "nothing": {"defaultValue": null},
        "coerced": {"defaultValue": false, "rules": [{"force": true, "condition": {"age": 5}}]},
    }));
    bed.upstream.set_experiments(vec![
        everybody,
        experiment("listed"),
        experiment("draft").with_status("draft"),
        experiment("over").with_status("stopped"),
    ]);
}
