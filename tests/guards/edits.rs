//! Units that would change their variation: by an edit of their experiment, or by what it refers to.

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{ExperimentExt as _, experiment},
    settings::{self, Profile},
};

use crate::{
    stand::{approve, assert_held, bed, guards, held, only_held, settled, start},
    support::{Bed, ENVIRONMENT, TestApp},
};

const KEY: &str = "experiment-00003";

async fn issue_codes(app: &TestApp) -> Vec<String> {
    let path = format!("/admin/environments/{ENVIRONMENT}/issues");
    let issues = app.admin_get(&path).await.json();
    let issues = issues["issues"].as_array().unwrap().iter();
    issues
        .map(|issue| issue["code"].as_str().unwrap().to_owned())
        .collect()
}

fn edit(bed: &Bed, change: impl Fn(Value) -> Value) {
    bed.upstream
        .update_experiment(KEY, |e| *e = change(e.take()));
}

#[tokio::test]
async fn other_weights_are_an_issue_by_default() {
    let bed = bed();
    let app = start(&bed).await;
    edit(&bed, |e| e.with_weights(&[0.9, 0.1]));
    assert_eq!(app.poll().await["outcome"], "published");
    assert!(
        issue_codes(&app)
            .await
            .contains(&"weights_changed".to_owned())
    );
    assert_eq!(held(&app).await, [Value::Null; 0]);
    app.stop().await;
}

/// What the history says was wrong with a revision.
async fn issues_of(app: &TestApp, revision: u64) -> Vec<Value> {
    let path = format!("/admin/environments/{ENVIRONMENT}/revisions/{revision}");
    let answer = app.admin_get(&path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["issues"]["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_revision_of_an_unsafe_edit_says_so_for_ever() {
    let bed = bed();
    // More that is wrong than a revision keeps of it.
    let odd =
        json!({"defaultValue": 0, "rules": [{"force": 1, "condition": {"id": {"$nearly": 1}}}]});
    for number in 0..120 {
        bed.upstream
            .set_feature(&format!("odd-{number:03}"), odd.clone());
    }
    let app = start(&bed).await;
    let is_edit = |issue: &Value| issue["code"] == "weights_changed";
    let metric = format!("stitchd_issues{{environment=\"{ENVIRONMENT}\"}} ");
    let counted = async |app: &TestApp| {
        let text = String::from_utf8(app.admin_get("/metrics").await.body.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&metric));
        line.unwrap().parse::<f64>().unwrap()
    };
    let before = counted(&app).await;
    assert!(before > 100.0, "{before}");
    edit(&bed, |e| e.with_weights(&[0.9, 0.1]));
    let revision = app.poll().await["revision"].as_u64().unwrap();
    let found = issues_of(&app, revision).await;
    let edits: Vec<&Value> = found.iter().filter(|issue| is_edit(issue)).collect();
    assert_eq!(edits.len(), 1, "{found:?}");
    assert_eq!(edits[0]["path"], format!("experiments.{KEY}"));
    let listed = issue_codes(&app).await;
    assert!(listed.iter().any(|code| code == "weights_changed"));
    assert_eq!(counted(&app).await.to_string(), listed.len().to_string());
    // The next revision is none of that edit, the former one stays what it was.
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    let next = app.poll().await["revision"].as_u64().unwrap();
    assert!(!issues_of(&app, next).await.iter().any(is_edit));
    app.stop().await;
    let app = start(&bed).await;
    assert_eq!(issues_of(&app, revision).await, found);
    app.stop().await;
}

#[tokio::test]
async fn an_edit_of_both_is_held_for_the_one_that_is_to_be_held() {
    let mut bed = bed();
    bed.extra = "[guards]\nweights_changed = \"hold\"\n".to_owned();
    let app = start(&bed).await;
    edit(&bed, |e| {
        e.with_weights(&[0.9, 0.1])
            .with_member("hashVersion", json!(1))
    });
    assert_held(&app, "weights_changed").await;
    assert_eq!(guards(&only_held(&app).await), ["weights_changed"]);
    app.stop().await;
}

#[tokio::test]
async fn unsafe_edits_are_held_where_the_settings_say_so() {
    let mut bed = bed();
    bed.extra = "[guards]\nweights_changed = \"hold\"\nhash_changed = \"hold\"\nnamespace_overlap = \"hold\"\n"
        .to_owned();
    let app = start(&bed).await;
    edit(&bed, |e| e.with_coverage(0.5));
    assert_eq!(app.poll().await["outcome"], "published");
    edit(&bed, |e| e.with_weights(&[0.9, 0.1]));
    assert_held(&app, "weights_changed").await;
    edit(&bed, |e| {
        e.with_weights(&[0.5, 0.5])
            .with_member("hashVersion", json!(1))
    });
    assert_held(&app, "hash_changed").await;
    edit(&bed, |e| e.with_member("hashVersion", json!(2)));
    assert_eq!(app.poll().await["outcome"], "unchanged");
    let in_namespace = |key: &str, from: f64| {
        let mut e = experiment(key);
        e["phases"][0]["namespace"] =
            json!({"namespaceId": "ns", "enabled": true, "ranges": [[from, from + 0.5]]});
        e
    };
    bed.upstream.upsert_experiment(in_namespace("one", 0.0));
    assert_eq!(app.poll().await["outcome"], "published");
    bed.upstream.upsert_experiment(in_namespace("two", 0.4));
    assert_held(&app, "namespace_overlap").await;
    app.stop().await;
}

/// The same of a source that says all in its payload.
#[tokio::test]
async fn unsafe_edits_in_rules_and_auto_experiments_are_held_too() {
    let mut bed = bed();
    bed.extra = "[guards]\nweights_changed = \"hold\"\nnamespace_overlap = \"hold\"\n".to_owned();
    let rule = |key: &str, namespace: Value| {
        let rule = json!({"key": key, "variations": [0, 1], "namespace": namespace});
        json!({"defaultValue": 0, "rules": [rule]})
    };
    let auto = |weight: f64| {
        json!({"key": "banner", "status": "running", "variations": [{}, {}],
            "weights": [weight, 1.0 - weight]})
    };
    bed.upstream.set_auto_experiments(Some(vec![auto(0.5)]));
    bed.upstream
        .set_feature("one", rule("one", json!(["ns", 0, 0.5])));
    let app = start(&bed).await;
    bed.upstream
        .set_feature("two", rule("two", json!(["ns", 0.4, 1])));
    assert_held(&app, "namespace_overlap").await;
    bed.upstream
        .set_feature("two", rule("two", json!(["ns", 0.5, 1])));
    assert_eq!(app.poll().await["outcome"], "published");
    bed.upstream.set_auto_experiments(Some(vec![auto(0.9)]));
    assert_held(&app, "weights_changed").await;
    let path = format!("/admin/environments/{ENVIRONMENT}/held");
    let held = app.admin_get(&path).await.json();
    let changed = &held["held"][0]["diff"]["auto_experiments"]["changed"];
    assert_eq!(changed[0]["key"], "banner", "{held}");
    app.stop().await;
}

#[tokio::test]
async fn the_last_experiment_of_a_payload_ends_by_approval_alone() {
    let bed = Bed::new();
    let settings = bed.toml().replace("rest_host =", "# rest_host =");
    let with = |rules: Value| json!({"only": {"defaultValue": 0, "rules": rules}});
    let rule = json!([{"key": "last", "variations": [0, 1]}]);
    bed.upstream.set_features(with(rule));
    let settings = settings::from_toml(&settings, Profile::Test).unwrap();
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    settled(&app).await;
    bed.upstream.set_features(with(json!([])));
    assert_held(&app, "shrink").await;
    assert_eq!(
        only_held(&app).await["reasons"][0]["message"],
        "nothing is left of 1 experiments of the payload"
    );
    assert_eq!(approve(&app).await["outcome"], "published");
    app.stop().await;
}

fn gated(is_open: bool) -> [(&'static str, Value); 2] {
    let rule = json!({"key": "gated-test", "variations": [0, 1], "hashAttribute": "id", "hashVersion": 2,
        "parentConditions": [{"id": "gate", "condition": {"value": true}}]});
    [
        ("gate", json!({ "defaultValue": is_open })),
        ("gated", json!({"defaultValue": 0, "rules": [rule]})),
    ]
}

#[tokio::test]
async fn a_prerequisite_that_ends_an_experiment_is_held_and_one_that_opens_it_is_not() {
    let bed = bed();
    for (key, definition) in gated(false) {
        bed.upstream.set_feature(key, definition);
    }
    let app = start(&bed).await;
    bed.upstream.set_feature("gate", gated(true)[0].1.clone());
    assert_eq!(app.poll().await["outcome"], "published");
    bed.upstream.set_feature("gate", gated(false)[0].1.clone());
    assert_held(&app, "changed_units").await;
    let held = only_held(&app).await;
    assert_eq!(guards(&held), ["changed_units"]);
    assert_eq!(held["reasons"][0]["before"], 2000);
    assert_eq!(held["reasons"][0]["after"], 0);
    let changed = &held["diff"]["features"]["changed"][0];
    assert_eq!(changed["key"], "gate");
    let field = json!({"path": "defaultValue", "from": true, "to": false});
    assert_eq!(changed["fields"], json!([field]));
    app.stop().await;
}
