//! A token of one project never sees a feature of another, on any protocol, whatever depends on what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};

use crate::{
    scoped,
    support::{Bed, ENVIRONMENT, SOURCE, TestApp},
};

const PROJECTS: [&str; 3] = ["a", "b", "c"];
/// Projects that a scope may have: one has no features.
const SCOPES: [&str; 4] = ["a", "b", "c", "elsewhere"];
/// Environments that are made up, and scopes that look at each.
const ENVIRONMENTS: usize = 12;
const SCOPES_EACH: usize = 4;

/// A feature as it is made up: its projects (none: unknown), on what it depends, and how it decides.
#[derive(Clone, Debug)]
struct Made {
    projects: BTreeSet<usize>,
    is_everybodys: bool,
    parent: Option<usize>,
    is_gate: bool,
    how: u8,
}

fn made() -> impl Strategy<Value = Made> {
    let projects = prop::collection::btree_set(0..PROJECTS.len(), 0..3);
    let parent = prop::option::of(0..8_usize);
    (
        projects,
        prop::bool::weighted(0.1),
        parent,
        any::<bool>(),
        0..4_u8,
    )
        .prop_map(|(projects, is_everybodys, parent, is_gate, how)| Made {
            projects,
            is_everybodys,
            parent,
            is_gate,
            how,
        })
}

fn key(number: usize) -> String {
    format!("feature-{number}")
}

impl Made {
    /// The definition; a prerequisite is always a feature with a lower number, so that there are no cycles.
    fn definition(&self, number: usize) -> Value {
        let mut rule = match self.how {
            0 => json!({"id": "r", "force": true, "coverage": 0.5, "hashAttribute": "id"}),
            1 => json!({"id": "r", "force": true, "condition": {"country": "DE"}}),
            2 => json!({"id": "r", "key": format!("exp-{number}"), "hashAttribute": "id",
                        "variations": [true, false], "weights": [0.5, 0.5]}),
            _ => json!({"id": "r", "force": true}),
        };
        if let Some(parent) = self.parent_of(number) {
            rule["parentConditions"] =
                json!([{"id": key(parent), "condition": {"value": true}, "gate": self.is_gate}]);
        }
        let mut definition = json!({"defaultValue": false, "rules": [rule]});
        let projects: Vec<_> = self.projects.iter().map(|at| PROJECTS[*at]).collect();
        if self.is_everybodys {
            definition["metadata"] = json!({"allProjects": true});
        } else if !projects.is_empty() {
            definition["metadata"] = json!({ "projects": projects });
        }
        definition
    }

    fn parent_of(&self, number: usize) -> Option<usize> {
        self.parent.filter(|parent| *parent < number)
    }

    fn is_seen(&self, scope: &BTreeSet<&str>) -> bool {
        self.is_everybodys || self.projects.iter().any(|at| scope.contains(PROJECTS[*at]))
    }
}

/// Everything that somebody with these secrets is shown.
struct Seen {
    /// Keys of features that any answer names, by protocol.
    names: BTreeMap<&'static str, BTreeSet<String>>,
    /// Values in OFREP's answer, for what is evaluated.
    values: BTreeMap<String, Value>,
}

struct Secrets {
    server: String,
    client: String,
    frontend: String,
}

async fn get(app: &TestApp, path: &str, secret: &str) -> Value {
    let request = app.http.get(format!("{}{path}", app.data));
    let answer = request.bearer_auth(secret).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

async fn post(app: &TestApp, path: &str, secret: &str, body: &Value) -> Value {
    let request = app.http.post(format!("{}{path}", app.data));
    let answer = request
        .bearer_auth(secret)
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

fn keys(map: &Value) -> BTreeSet<String> {
    map.as_object().unwrap().keys().cloned().collect()
}

fn named(list: &Value, name: &str) -> BTreeSet<String> {
    let items = list.as_array().unwrap().iter();
    items
        .map(|item| item[name].as_str().unwrap().to_owned())
        .collect()
}

impl Secrets {
    async fn new(app: &TestApp, scope: &[&str]) -> Self {
        Self {
            server: app.token(&scoped("server", scope)).await.1,
            client: app.token(&scoped("client", scope)).await.1,
            frontend: app.token(&scoped("frontend", scope)).await.1,
        }
    }

    async fn look(&self, app: &TestApp, unit: &str) -> Seen {
        let mut names = BTreeMap::new();
        let context = json!({"context": {"targetingKey": unit, "country": "DE"}});
        let flags = post(app, "/ofrep/v1/evaluate/flags", &self.client, &context).await;
        names.insert("ofrep", named(&flags["flags"], "key"));
        let values = flags["flags"].as_array().unwrap().iter();
        let values = values.map(|flag| {
            (
                flag["key"].as_str().unwrap().to_owned(),
                flag["value"].clone(),
            )
        });
        let values = values.collect();
        let query = format!("/api/frontend?userId={unit}&country=DE");
        let toggles = get(app, &query, &self.frontend).await;
        names.insert("frontend", named(&toggles["toggles"], "name"));
        let snapshot = get(app, &format!("/v1/snapshot/{ENVIRONMENT}"), &self.server).await;
        names.insert("snapshot", keys(&snapshot["features"]));
        let features = get(app, &format!("/api/features/{}", self.client), &self.client).await;
        names.insert("features", keys(&features["features"]));
        // An experiment is called after the feature that it is in.
        let decided = get(app, &format!("/v1/decide?user_key={unit}"), &self.server).await;
        let decided = named(&decided["assignments"], "experiment_key");
        let of = |key: String| key.replace("exp-", "feature-");
        names.insert("decide", decided.into_iter().map(of).collect());
        Seen { names, values }
    }
}

async fn check(app: &TestApp, made: &[Made], scope: &[&str], secrets: &Secrets) {
    let all: BTreeSet<&str> = scope.iter().copied().collect();
    let numbered = made.iter().enumerate();
    let seen: BTreeSet<String> = numbered
        .filter(|(_, made)| made.is_seen(&all))
        .map(|(number, _)| key(number))
        .collect();
    for unit in ["u-1", "u-2", "u-3"] {
        let found = secrets.look(app, unit).await;
        for (protocol, names) in &found.names {
            let foreign: Vec<_> = names.difference(&seen).collect();
            assert!(
                foreign.is_empty(),
                "{protocol} shows {foreign:?} to {scope:?}: {made:#?}"
            );
        }
        // What is evaluated here is all there, and as it is for those who see everything.
        assert_eq!(found.names["ofrep"], seen, "{scope:?}");
        let whole = ["/v1/evaluate/", "?country=DE"];
        for (key, value) in &found.values {
            let context = json!({"user_key": unit, "context": {"country": "DE"}});
            let url = format!("{}{}{key}", app.data, whole[0]);
            let answer = app
                .http
                .post(url)
                .body(context.to_string())
                .send()
                .await
                .unwrap();
            let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(&answer["value"], value, "{key} of {made:#?}");
        }
        for number in 0..made.len() {
            check_one(app, &key(number), &seen, secrets, unit).await;
        }
    }
}

/// One flag by its key: as good as absent where it may not be seen.
async fn check_one(
    app: &TestApp,
    key: &str,
    seen: &BTreeSet<String>,
    secrets: &Secrets,
    unit: &str,
) {
    let url = format!("{}/ofrep/v1/evaluate/flags/{key}", app.data);
    let body = json!({"context": {"targetingKey": unit}}).to_string();
    let request = app.http.post(url).bearer_auth(&secrets.client).body(body);
    let status = request.send().await.unwrap().status();
    let expected = if seen.contains(key) { 200 } else { 404 };
    assert_eq!(status, expected, "{key}");
    let answer = get(
        app,
        &format!("/v1/evaluate/{key}?user_key={unit}"),
        &secrets.server,
    )
    .await;
    let is_unknown = answer["reason"] == "unknownFeature";
    assert_eq!(is_unknown, !seen.contains(key), "{key}: {answer}");
}

#[tokio::test]
async fn nobody_sees_a_feature_of_a_project_that_is_not_theirs() {
    let mut bed = Bed::new();
    bed.source_extra =
        "guards.max_removed_share = 1.0\nguards.max_changed_units_share = 1.0".to_owned();
    bed.upstream.set_experiments(Vec::new());
    bed.source_extra += "\nallow_empty = true";
    let app = Arc::new(bed.start_loaded().await);
    let mut runner = TestRunner::new(Config::default());
    for _ in 0..ENVIRONMENTS {
        let features = prop::collection::vec(made(), 1..9);
        let made = features.new_tree(&mut runner).unwrap().current();
        let definitions: Map<String, Value> = made
            .iter()
            .enumerate()
            .map(|(number, made)| (key(number), made.definition(number)))
            .collect();
        bed.upstream.set_features(Value::Object(definitions));
        let report = app.poll().await;
        let outcome = report["outcome"].as_str().unwrap();
        if outcome == "held" {
            // The last experiment of a payload ends with an approval alone.
            let approve = format!("/admin/environments/{ENVIRONMENT}/held/{SOURCE}/approve");
            let approved = app.admin_post(&approve, r#"{"reason":"made up"}"#).await;
            assert_eq!(approved.status, 200, "{approved:?}");
        } else {
            assert!(["published", "unchanged"].contains(&outcome), "{report}");
        }
        let scopes =
            prop::collection::vec(prop::sample::subsequence(&SCOPES[..], 1..4), SCOPES_EACH);
        for scope in scopes.new_tree(&mut runner).unwrap().current() {
            let secrets = Secrets::new(&app, &scope).await;
            check(&app, &made, &scope, &secrets).await;
        }
    }
    Arc::into_inner(app).unwrap().stop().await;
}

/// A source's own client key sees on every protocol what its connection delivers.
#[tokio::test]
async fn a_client_key_sees_what_its_connection_delivers() {
    use stitchd::cli::demo::upstream::{CLIENT_KEY, Connection};
    let mut bed = Bed::new();
    let other = "sdk-other";
    bed.upstream.add_connection(Connection::new(other));
    let own = json!({"only-other": {"defaultValue": true}});
    bed.upstream.set_connection_features(other, own);
    let keys = format!(
        "[[sources.connections]]\nkey = \"{CLIENT_KEY}\"\n[[sources.connections]]\nkey = \"{other}\"\n"
    );
    bed.source_extra = keys;
    let text = bed
        .toml()
        .replacen(&format!("client_key = \"{CLIENT_KEY}\""), "", 1);
    let settings = stitchd::settings::from_toml(&text, stitchd::settings::Profile::Test).unwrap();
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    let seen = async |key: &str| {
        let flags = post(&app, "/ofrep/v1/evaluate/flags", key, &json!({})).await;
        named(&flags["flags"], "key")
    };
    assert_eq!(seen(other).await, BTreeSet::from(["only-other".to_owned()]));
    let first = seen(CLIENT_KEY).await;
    assert!(
        first.contains("feature-00001") && !first.contains("only-other"),
        "{first:?}"
    );
    app.stop().await;
}

/// Payloads often name no project; then the management API is asked, once an experiment shows that projects are in use.
#[tokio::test]
async fn the_list_of_features_says_whose_a_feature_is_where_its_payload_does_not() {
    let bed = Bed::new();
    bed.upstream.set_feature_project("feature-00001", "shop");
    bed.upstream.set_feature_project("feature-00002", "shop");
    let own = json!({"defaultValue": 1, "metadata": {"projects": ["blog"]}});
    bed.upstream.set_feature("feature-00002", own);
    let app = bed.start_loaded().await;
    let (_, secret) = app.token(&scoped("client", &["shop"])).await;
    let seen = async || {
        let flags = post(&app, "/ofrep/v1/evaluate/flags", &secret, &json!({})).await;
        named(&flags["flags"], "key")
    };
    assert!(seen().await.is_empty(), "nobody uses projects yet");
    let mut experiment = stitchd::cli::demo::upstream::experiment("sticky-header-2026");
    experiment["project"] = json!("shop");
    bed.upstream.set_experiments(vec![experiment]);
    let report = app.poll().await;
    assert_eq!(report["outcome"], "published", "{report}");
    assert_eq!(seen().await, BTreeSet::from(["feature-00001".to_owned()]));
    // What is relayed to SDKs is as it came.
    let path = format!("/api/features/{}", stitchd::cli::demo::upstream::CLIENT_KEY);
    let relayed = app.get(&path).await.json();
    assert_eq!(relayed["features"]["feature-00001"].get("metadata"), None);
    app.stop().await;
    // A restart without upstream knows it still.
    bed.upstream.go_down().await.unwrap();
    let app = bed.start().await;
    let flags = post(&app, "/ofrep/v1/evaluate/flags", &secret, &json!({})).await;
    let found = named(&flags["flags"], "key");
    assert_eq!(found, BTreeSet::from(["feature-00001".to_owned()]));
    app.stop().await;
}
