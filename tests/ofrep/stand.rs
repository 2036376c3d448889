//! The service with a flag of every kind, and how the tests ask it.

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::{
    schema,
    support::{Bed, TestApp},
};

/// A project that some flags are in.
pub(crate) const PROJECT: &str = "prj_shop";

/// Which of the two operations a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    One,
    All,
}

/// An answer, checked against the protocol.
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

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn tag(&self) -> &str {
        self.header("etag").unwrap()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.header("x-config-revision").unwrap().parse().unwrap()
    }

    /// The answer for one flag among all.
    pub(crate) fn flag(&self, key: &str) -> Value {
        let all = self.json();
        let mut flags = all["flags"].as_array().unwrap().iter();
        let found = flags.find(|flag| flag["key"] == key);
        found
            .unwrap_or_else(|| panic!("no `{key}`: {all:#}"))
            .clone()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        let all = self.json();
        let flags = all["flags"].as_array().unwrap().iter();
        flags
            .map(|flag| flag["key"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Where the event stream is.
    pub(crate) fn stream_address(&self) -> String {
        let address = &self.json()["eventStreams"][0]["endpoint"]["requestUri"];
        address.as_str().unwrap().to_owned()
    }
}

/// A question.
#[derive(Clone)]
pub(crate) struct Ask {
    asked: Asked,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// Asks for all flags.
pub(crate) fn all() -> Ask {
    Ask::at(Asked::All, "/ofrep/v1/evaluate/flags")
}

/// Asks for one flag, its key as it stands in a path.
pub(crate) fn one(key: &str) -> Ask {
    Ask::at(Asked::One, &format!("/ofrep/v1/evaluate/flags/{key}"))
}

impl Ask {
    pub(crate) fn at(asked: Asked, path: &str) -> Self {
        Self {
            asked,
            path: path.to_owned(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// With a token.
    pub(crate) fn by(self, secret: &str) -> Self {
        self.header("authorization", &format!("Bearer {secret}"))
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With a tag that the client has.
    pub(crate) fn having(self, tags: &str) -> Self {
        self.header("if-none-match", tags)
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub(crate) fn context(self, context: &Value) -> Self {
        self.body(&json!({ "context": context }).to_string())
    }

    pub(crate) fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        self.path = format!("{}?{}", self.path, query.finish());
        self
    }

    /// Asks, and checks the answer.
    pub(crate) async fn of(&self, app: &TestApp) -> Seen {
        let mut request = app.http.post(format!("{}{}", app.data, self.path));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.header("content-type", "application/json");
        let response = request.body(self.body.clone()).send().await.unwrap();
        let seen = Seen {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap(),
        };
        schema::check(self.asked, &seen);
        seen
    }
}

/// A bed with a flag for every way of getting a value.
pub(crate) fn bed() -> Bed {
    let bed = Bed::new();
    let is_pro = json!({"plan": "pro"});
    let experiment = json!({
        "id": "fr_x", "key": "button-2026", "hashAttribute": "id", "hashVersion": 2,
        "variations": ["grey", "green"], "weights": [0, 1], "coverage": 1,
        "meta": [{"key": "control"}, {"key": "treatment"}],
    });
    let gate = json!([{"id": "off", "condition": {"value": true}, "gate": true}]);
    bed.upstream.set_features(json!({
        "banner": {"defaultValue": "plain", "rules": [{"id": "fr_pro", "condition": is_pro, "force": "gold"}]},
        "blocked": {"defaultValue": true, "rules": [{"id": "fr_gate", "parentConditions": gate}]},
        "button": {"defaultValue": "none", "rules": [experiment]},
        "by-company": {"defaultValue": false, "rules": [
            {"id": "fr_c", "force": true, "coverage": 1, "hashAttribute": "company"}]},
        "elsewhere": {"defaultValue": false, "rules": [
            {"id": "fr_e", "condition": is_pro, "force": true, "coverage": 1, "hashAttribute": "id"}]},
        "in-shop": {"defaultValue": "shop", "metadata": {"projects": [PROJECT]}},
        "list": {"defaultValue": [1, "two"]},
        "nothing": {"defaultValue": null},
        "object": {"defaultValue": {"size": 1.0, "deep": {"list": [null]}}},
        "off": {"defaultValue": false},
        "on": {"defaultValue": true},
        "ratio": {"defaultValue": 0.5, "rules": [{"id": "fr_r", "condition": is_pro, "force": 2}]},
        "rollout": {"defaultValue": 0, "rules": [
            {"id": "fr_s", "force": 3, "coverage": 1, "hashAttribute": "id"}]},
        "shop/cart total": {"defaultValue": "slash and space"},
        "50%": {"defaultValue": "percent"},
        "a%2Fb": {"defaultValue": "no slash"},
        "gr\u{fc}\u{df}e": {"defaultValue": "beyond ASCII"},
        "whole": {"defaultValue": 1, "rules": [{"id": "fr_w", "condition": is_pro, "force": 2.0}]},
    }));
    bed
}

/// The service, loaded, with a token that sees everything.
pub(crate) async fn start(bed: &Bed) -> (TestApp, String) {
    bed.start_with_token("client").await
}
