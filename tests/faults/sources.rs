//! Several sources of one environment, payload files, and the override file of development.

use std::{fs, path::Path};

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{Upstream, experiment},
    settings::{self, Profile},
};

use crate::{
    stand::{
        self, assert_report, assert_unmoved, experiments, has_feature, issues, poll_source,
        snapshot,
    },
    support::{Bed, SOURCE, TestApp, eventually},
};

/// A second upstream, as source `second` of the same environment.
fn second(bed: &mut Bed, precedence: i32) -> Upstream {
    let upstream = Upstream::start(0).unwrap();
    upstream
        .set_features(json!({"shared": {"defaultValue": "second"}, "own": {"defaultValue": 1}}));
    upstream.set_experiments(vec![
        experiment("shared-experiment"),
        experiment("own-experiment"),
    ]);
    let base = upstream.base_url();
    bed.extra = format!(
        r#"
        [[sources]]
        id = "second"
        environment = "production"
        precedence = {precedence}
        api_host = "{base}"
        client_key = "sdk-demo"
        rest_host = "{base}"
        secret_key = "secret_demo"
        poll.interval = "1h"
        poll.retries = 0
        "#
    );
    upstream
}

/// Both sources have delivered.
async fn both(bed: &Bed) -> TestApp {
    let app = TestApp::spawn(bed.settings()).await;
    eventually("both sources have delivered", async || {
        let polled = [SOURCE, "second"].map(|id| poll_source(&app, id));
        for report in polled {
            report.await;
        }
        (app.revision() > 0
            && has_feature(&app, "own").await
            && has_feature(&app, "feature-00000").await)
            .then_some(())
    })
    .await;
    app
}

#[tokio::test]
async fn the_higher_precedence_wins_and_the_collision_is_an_issue() {
    for (precedence, winner, loser) in [(50, SOURCE, "second"), (150, "second", SOURCE)] {
        let mut bed = Bed::new();
        let _second = second(&mut bed, precedence);
        bed.upstream
            .set_feature("shared", json!({"defaultValue": SOURCE}));
        bed.upstream
            .upsert_experiment(experiment("shared-experiment"));
        let app = both(&bed).await;
        let served = snapshot(&app).await;
        let shared = &served["features"]["shared"];
        assert_eq!(*shared, json!({"defaultValue": winner, "source": winner}));
        assert_eq!(served["features"]["own"]["source"], "second");
        assert_eq!(served["features"]["feature-00000"]["source"], SOURCE);
        let list = served["experiments"].as_array().unwrap();
        let shared = list
            .iter()
            .find(|e| e["trackingKey"] == "shared-experiment")
            .unwrap();
        assert_eq!(shared["source"], winner);
        assert_eq!(list.len(), 4);
        let issues = issues(&app).await;
        for path in ["features.shared", "experiments.shared-experiment"] {
            let found = issues.iter().find(|issue| issue["path"] == path).unwrap();
            assert_eq!(
                (&found["code"], &found["source"]),
                (&json!("collision"), &json!(loser))
            );
            assert!(
                found["message"].as_str().unwrap().contains(winner),
                "{found}"
            );
        }
        app.stop().await;
    }
}

#[tokio::test]
async fn one_that_fails_keeps_its_last_good_and_blocks_no_other() {
    let mut bed = Bed::new();
    let second = second(&mut bed, 100);
    let app = both(&bed).await;
    second.set_features(json!({"other": {"defaultValue": 1}}));
    second.go_down().await.unwrap();
    for number in 0..3 {
        let news = format!("news-{number}");
        bed.upstream.set_feature(&news, json!({"defaultValue": 1}));
        let report = poll_source(&app, "second").await;
        assert_report(
            &report,
            "failed",
            &["experiments", "payload"],
            "payload: refused: ",
        );
        assert_report(&app.poll().await, "published", &[], "");
        assert!(has_feature(&app, &news).await);
        assert!(has_feature(&app, "own").await);
        assert!(
            experiments(&app)
                .await
                .contains(&"own-experiment".to_owned())
        );
    }
    let before = app.served().await;
    app.stop().await;

    // After a restart too, although it never answers the new process.
    let app = TestApp::spawn(bed.settings()).await;
    stand::settled(&app).await;
    assert_unmoved("restart", &before, &app.served().await);
    bed.upstream.set_feature("late", json!({"defaultValue": 1}));
    assert_report(&app.poll().await, "published", &[], "");
    assert!(has_feature(&app, "late").await && has_feature(&app, "own").await);
    second.come_back().unwrap();
    assert_report(&poll_source(&app, "second").await, "published", &[], "");
    assert!(has_feature(&app, "other").await && !has_feature(&app, "own").await);
    app.stop().await;
}

/// A source that was never there joins when it comes; until then the other is served.
#[tokio::test]
async fn one_that_was_never_there_does_not_hold_up_the_first_publish() {
    let mut bed = Bed::new();
    let second = second(&mut bed, 100);
    second.go_down().await.unwrap();
    let app = stand::start(&bed, &[]).await;
    assert!(has_feature(&app, "feature-00000").await);
    assert_eq!(poll_source(&app, "second").await["outcome"], "failed");
    second.come_back().unwrap();
    assert_report(&poll_source(&app, "second").await, "published", &[], "");
    assert!(has_feature(&app, "own").await && has_feature(&app, "feature-00000").await);
    app.stop().await;
}

/// An emptied source is held by itself; the other's news are published.
#[tokio::test]
async fn one_that_empties_is_held_by_itself() {
    let mut bed = Bed::new();
    let second = second(&mut bed, 100);
    let app = both(&bed).await;
    second.set_features(json!({}));
    let report = poll_source(&app, "second").await;
    assert_report(&report, "held", &["payload"], "payload: empty_features: ");
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    assert_report(&app.poll().await, "published", &[], "");
    assert!(has_feature(&app, "own").await && has_feature(&app, "news").await);
    assert_eq!(app.status().await["environments"]["production"]["held"], 1);
    app.stop().await;
}

fn write(path: &Path, payload: &Value) {
    fs::write(path, payload.to_string()).unwrap();
}

/// A bed whose only source is a payload file.
async fn with_file(bed: &Bed, path: &Path, interval: &str, streaming: bool) -> TestApp {
    let toml = bed.toml();
    let head = toml.split("[[sources]]").next().unwrap();
    let path = path.display();
    let text = format!(
        r#"{head}
        [[sources]]
        id = "{SOURCE}"
        kind = "file"
        environment = "production"
        path = "{path}"
        poll.interval = "{interval}"
        poll.streaming = {streaming}
        "#
    );
    let settings = settings::from_toml(&text, Profile::Test).unwrap_or_else(|e| panic!("{e}"));
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    stand::settled(&app).await;
    app
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    for (interval, streaming) in [("1h", true), ("100ms", false)] {
        let bed = Bed::new();
        let path = bed.dir.path().join("payload.json");
        write(&path, &json!({"features": {"one": {"defaultValue": 1}}}));
        let app = with_file(&bed, &path, interval, streaming).await;
        assert!(has_feature(&app, "one").await);
        write(&path, &json!({"features": {"two": {"defaultValue": 2}}}));
        app.until_revision(2).await;
        assert!(has_feature(&app, "two").await && !has_feature(&app, "one").await);
        // Replaced, as editors and deployments do it.
        let new = bed.dir.path().join("new.json");
        write(&new, &json!({"features": {"six": {"defaultValue": 2}}}));
        fs::rename(&new, &path).unwrap();
        app.until_revision(3).await;
        assert!(has_feature(&app, "six").await);
        assert_eq!(bed.upstream.requests().len(), 0);
        app.stop().await;
    }
}

#[tokio::test]
async fn a_bad_file_keeps_its_last_good_content() {
    let bed = Bed::new();
    let path = bed.dir.path().join("payload.json");
    write(&path, &json!({"features": {"one": {"defaultValue": 1}}}));
    let app = with_file(&bed, &path, "1h", false).await;
    let before = app.served().await;
    for (content, outcome, code) in [
        ("", "failed", "not_json"),
        ("{\"features\":{\"one\"", "failed", "not_json"),
        ("{}", "failed", "bad_shape"),
        ("[]", "failed", "bad_shape"),
        ("{\"features\":[]}", "failed", "malformed"),
        ("{\"features\":{}}", "held", "empty_features"),
    ] {
        fs::write(&path, content).unwrap();
        let report = app.poll().await;
        assert_report(
            &report,
            outcome,
            &["payload"],
            &format!("payload: {code}: "),
        );
        assert_unmoved(content, &before, &app.served().await);
    }
    fs::remove_file(&path).unwrap();
    assert_report(&app.poll().await, "failed", &["payload"], "payload: file: ");
    assert_unmoved("gone", &before, &app.served().await);
    write(&path, &json!({"features": {"two": {"defaultValue": 2}}}));
    assert_report(&app.poll().await, "published", &[], "");
    assert!(has_feature(&app, "two").await);
    app.stop().await;
}

/// The bed's own source, with an override file in place of it.
fn overridden(bed: &mut Bed, content: &str) -> std::path::PathBuf {
    let path = bed.dir.path().join("flags.json");
    fs::write(&path, content).unwrap();
    bed.extra = format!("[evaluation]\noverride_file = \"{}\"\n", path.display());
    path
}

#[tokio::test]
async fn the_override_file_stands_for_every_source() {
    let mut bed = Bed::new();
    // What was served before is no part of it.
    let app = bed.start_loaded().await;
    app.stop().await;
    bed.upstream.clear_requests();
    let path = overridden(&mut bed, r#"{"dark-mode": true, "limit": 3, "off": false}"#);
    let app = TestApp::spawn(bed.settings()).await;
    app.until_revision(2).await;
    let served = snapshot(&app).await;
    let features = served["features"].as_object().unwrap();
    let values: Vec<(&str, &Value)> = features
        .iter()
        .map(|(key, f)| (key.as_str(), &f["defaultValue"]))
        .collect();
    let wanted = [
        ("dark-mode", &json!(true)),
        ("limit", &json!(3)),
        ("off", &json!(false)),
    ];
    assert_eq!(values, wanted);
    assert_eq!(served["experiments"], json!([]));
    assert_eq!(app.status().await["sources"].as_object().unwrap().len(), 1);
    // It is read again when it changes, and a bad one changes nothing.
    fs::write(&path, "{\"dark-mode\"").unwrap();
    let report = poll_source(&app, "override-production").await;
    assert_eq!(report["outcome"], "failed", "{report}");
    assert!(has_feature(&app, "limit").await);
    fs::write(&path, r#"{"dark-mode": false}"#).unwrap();
    let report = poll_source(&app, "override-production").await;
    assert_report(&report, "published", &[], "");
    assert!(!has_feature(&app, "limit").await);
    assert_eq!(bed.upstream.requests().len(), 0, "no source is contacted");
    app.stop().await;
}

#[tokio::test]
async fn an_empty_override_file_is_empty_on_purpose() {
    let mut bed = Bed::new();
    overridden(&mut bed, "{}");
    let app = TestApp::spawn(bed.settings()).await;
    app.until_revision(1).await;
    assert_eq!(snapshot(&app).await["features"], json!({}));
    assert_eq!(bed.upstream.requests().len(), 0);
    app.stop().await;
}

#[tokio::test]
async fn production_refuses_an_override_file() {
    let mut bed = Bed::new();
    overridden(&mut bed, "{}");
    let error = settings::from_toml(&bed.toml(), Profile::Production).unwrap_err();
    assert!(
        error.to_string().contains("evaluation.override_file"),
        "{error}"
    );
    assert!(settings::from_toml(&bed.toml(), Profile::Development).is_ok());
}
