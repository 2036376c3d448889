//! The service with a toggle of every kind, how the tests ask it, and what every answer must be like.

use std::sync::LazyLock;

use bytes::Bytes;
use jsonschema::Validator;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

use crate::support::{Bed, TestApp};

/// A project that some features are in.
pub(crate) const PROJECT: &str = "prj_shop";
/// The base of Unleash's clients.
pub(crate) const BASE: &str = "/api/frontend";
pub(crate) const METRICS: &str = "/api/frontend/client/metrics";
pub(crate) const REGISTER: &str = "/api/frontend/client/register";

/// What every client can read: some take `toggles` apart without looking.
static TOGGLES: LazyLock<Validator> = LazyLock::new(|| {
    let variant = json!({
        "type": "object",
        "required": ["name", "enabled", "feature_enabled"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "enabled": {"type": "boolean"},
            "feature_enabled": {"const": true},
            "payload": {
                "type": "object",
                "required": ["type", "value"],
                "additionalProperties": false,
                // One that is no text breaks the whole answer for clients that decode strictly.
                "properties": {"type": {"enum": ["string", "number", "json", "csv"]}, "value": {"type": "string"}}
            }
        }
    });
    let toggle = json!({
        "type": "object",
        "required": ["name", "enabled", "variant", "impressionData"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "enabled": {"const": true},
            "variant": variant,
            "impressionData": {"type": "boolean"}
        }
    });
    let answer = json!({
        "type": "object",
        "required": ["toggles"],
        "additionalProperties": false,
        "properties": {"toggles": {"type": "array", "items": toggle}}
    });
    jsonschema::draft202012::new(&answer).unwrap()
});

/// An answer, checked.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }

    pub(crate) fn tag(&self) -> &str {
        self.header("etag").unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let all = self.json();
        let toggles = all["toggles"].as_array().unwrap().iter();
        toggles
            .map(|toggle| toggle["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The variant of a toggle; `None`: it is not enabled.
    pub(crate) fn variant(&self, name: &str) -> Option<Value> {
        Some(self.toggle(name)?["variant"].clone())
    }

    pub(crate) fn toggle(&self, name: &str) -> Option<Value> {
        let all = self.json();
        let mut toggles = all["toggles"].as_array().unwrap().iter();
        toggles.find(|toggle| toggle["name"] == name).cloned()
    }
}

/// Checks status, headers and body of an answer on a path.
pub(crate) fn check(path: &str, seen: &Seen) {
    let media = seen.header("content-type").unwrap_or_default();
    let media = media.split(';').next().unwrap();
    let path = path.split('?').next().unwrap();
    let is_report = path.contains("client");
    match seen.status {
        200 => {
            assert!(!is_report, "{path}");
            assert_eq!(media, "application/json");
            check_toggles(seen);
        }
        202 => assert!(is_report && seen.body.is_empty(), "{seen:?}"),
        304 => assert!(!is_report && seen.body.is_empty(), "{seen:?}"),
        400 | 401 | 413 | 429 => {
            assert_eq!(media, "application/json");
            let message = seen.json()["message"].as_str().map(str::len);
            assert!(message > Some(0), "{seen:?}");
        }
        // Clients tell it by its status alone.
        503 => {
            let wait = seen.header("retry-after").unwrap();
            assert!(wait.parse::<u64>().unwrap() > 0);
        }
        status => panic!("{status} is no answer here: {seen:?}"),
    }
    let is_answered = matches!(seen.status, 200 | 304);
    assert_eq!(seen.header("etag").is_some(), is_answered, "{seen:?}");
    let kept = seen.header("cache-control");
    let expected = if is_answered {
        "private, no-cache"
    } else {
        "no-store"
    };
    assert_eq!(kept, Some(expected), "{seen:?}");
}

fn check_toggles(seen: &Seen) {
    let body = seen.json();
    let errors: Vec<String> = TOGGLES
        .iter_errors(&body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{body:#}");
    let (names, mut sorted) = (seen.names(), seen.names());
    sorted.sort();
    sorted.dedup();
    // A client makes a dictionary of them that does not forgive a name that is there twice.
    assert_eq!(names, sorted);
}

/// A question.
#[derive(Clone)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
}

pub(crate) fn get(path: &str) -> Ask {
    Ask {
        method: Method::GET,
        path: path.to_owned(),
        headers: Vec::new(),
        body: None,
    }
}

pub(crate) fn post(path: &str, body: &str) -> Ask {
    Ask {
        method: Method::POST,
        body: Some(body.to_owned()),
        ..get(path)
    }
    .header("content-type", "application/json")
}

impl Ask {
    /// With a token, as Unleash's clients show it.
    pub(crate) fn by(self, secret: &str) -> Self {
        self.header("authorization", secret)
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With a tag that the client has.
    pub(crate) fn having(self, tags: &str) -> Self {
        self.header("if-none-match", tags)
    }

    /// Asks, and checks the answer.
    pub(crate) async fn of(&self, app: &TestApp) -> Seen {
        let url = format!("{}{}", app.data, self.path);
        let mut request = app.http.request(self.method.clone(), url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let response = request.send().await.unwrap();
        let seen = Seen {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap(),
        };
        check(&self.path, &seen);
        seen
    }
}

/// A bed with a feature for every kind of toggle.
pub(crate) fn bed() -> Bed {
    let bed = Bed::new();
    let is_pro = json!({"plan": "pro"});
    let experiment = json!({
        "id": "fr_x", "key": "button-2026", "hashAttribute": "id", "hashVersion": 2,
        "variations": ["grey", "green"], "weights": [0, 1], "coverage": 1,
        "meta": [{"key": "control"}, {"key": "treatment"}],
    });
    let for_adults = json!({"age": {"$gte": 18}});
    bed.upstream.set_features(json!({
        "adults": {"defaultValue": false, "rules": [{"id": "fr_a", "condition": for_adults, "force": true}]},
        "button": {"defaultValue": false, "rules": [experiment]},
        "empty": {"defaultValue": ""},
        "for-pro": {"defaultValue": false, "rules": [{"id": "fr_pro", "condition": is_pro, "force": true}]},
        "for-u-7": {"defaultValue": false, "rules": [{"id": "fr_u", "condition": {"id": "u-7"}, "force": true}]},
        "in-shop": {"defaultValue": true, "metadata": {"projects": [PROJECT]}},
        "list": {"defaultValue": [1, "two"]},
        "nothing": {"defaultValue": null},
        "object": {"defaultValue": {"a": [1.5]}},
        "off": {"defaultValue": false},
        "on": {"defaultValue": true},
        "ratio": {"defaultValue": 0.5},
        "session": {"defaultValue": false, "rules": [{"id": "fr_s", "condition": {"sessionId": "s-1"}, "force": true}]},
        "text": {"defaultValue": "plain", "rules": [{"id": "fr_t", "condition": is_pro, "force": "gold"}]},
        "zero": {"defaultValue": 0},
    }));
    bed
}

/// The service, loaded, with a token that sees everything.
pub(crate) async fn start(bed: &Bed) -> (TestApp, String) {
    bed.start_with_token("frontend").await
}
