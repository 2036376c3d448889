//! What was accepted, said and counted before a restart still holds after it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{CLIENT_KEY, Upstream},
    settings::{self, Profile},
};

use crate::{
    bed_on, counter, face, publish,
    support::{Bed, ENVIRONMENT, SOURCE, TestApp, databases::on_each, eventually},
};

async fn feature(app: &TestApp, key: &str) -> Value {
    let snapshot = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await.json();
    snapshot["features"][key].clone()
}

async fn tracking_keys(app: &TestApp) -> BTreeSet<String> {
    let snapshot = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await.json();
    let experiments = snapshot["experiments"].as_array().unwrap();
    let key = |experiment: &Value| {
        let key = experiment["tracking_key"].as_str();
        key.or(experiment["trackingKey"].as_str())
            .unwrap()
            .to_owned()
    };
    experiments.iter().map(key).collect()
}

#[tokio::test]
async fn items_in_quarantine_are_still_served_from_their_last_good_version() {
    on_each(async |backend| {
        let bed = bed_on(&backend);
        bed.upstream
            .set_feature("steady", json!({"defaultValue": "good"}));
        let app = bed.start_loaded().await;
        bed.upstream.set_feature("steady", json!("not an object"));
        bed.upstream
            .update_experiment("search-box-2026", |experiment| {
                experiment["phases"] = json!("not a list");
            });
        app.poll().await;
        publish(&bed, &app, 1, 2).await;
        let before = face(&app).await;
        app.stop().await;

        // Upstream is up and still sends the bad items: without the last good versions they would be dropped.
        let app = bed.start().await;
        assert_eq!(face(&app).await, before);
        let report = app.poll().await;
        assert_eq!(report["outcome"], "unchanged", "{report}");
        assert_eq!(face(&app).await, before);
        publish(&bed, &app, 2, 3).await;
        assert_eq!(feature(&app, "steady").await["defaultValue"], "good");
        assert!(tracking_keys(&app).await.contains("search-box-2026"));
        let issues = app
            .admin_get(&format!("/admin/environments/{ENVIRONMENT}/issues"))
            .await;
        let issues = issues.json().to_string();
        assert!(
            issues.contains("steady") && issues.contains("search-box"),
            "{issues}"
        );
        app.stop().await;
    })
    .await;
}

/// A second source of the same environment, payloads only.
fn with_second_source(bed: &mut Bed, second: &Upstream) {
    bed.source_extra = format!(
        r#"
        [[sources]]
        id = "second"
        environment = "{ENVIRONMENT}"
        api_host = "{}"
        client_key = "{CLIENT_KEY}"
        poll.interval = "1h"
        poll.timeout = "1s"
        poll.connect_timeout = "500ms"
        poll.retries = 0
        poll.streaming = false
        "#,
        second.base_url()
    );
}

#[tokio::test]
async fn one_source_coming_back_first_drops_nothing_of_another() {
    on_each(async |backend| {
        let mut bed = bed_on(&backend);
        let second = Upstream::start(0).unwrap();
        second.set_features(json!({"of-second": {"defaultValue": 2}}));
        with_second_source(&mut bed, &second);
        let app = bed.start().await;
        eventually("both sources are served", async || {
            let of_second = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await;
            let both = of_second.status == 200
                && of_second.json()["features"]["of-second"].is_object()
                && of_second.json()["features"]["feature-00000"].is_object();
            both.then_some(())
        })
        .await;
        app.stop().await;

        second.go_down().await.unwrap();
        bed.upstream
            .set_feature("counter", json!({"defaultValue": 7}));
        let app = bed.start().await;
        assert_eq!(feature(&app, "of-second").await["defaultValue"], 2);
        eventually("the first source brings its news", async || {
            (feature(&app, "counter").await["defaultValue"] == 7).then_some(())
        })
        .await;
        assert_eq!(feature(&app, "of-second").await["defaultValue"], 2);
        assert_eq!(feature(&app, "of-second").await["source"], "second");

        // The other way round.
        app.stop().await;
        second.come_back().unwrap();
        bed.upstream.go_down().await.unwrap();
        second.set_feature("of-second", json!({"defaultValue": 3}));
        let app = bed.start().await;
        eventually("the second source brings its news", async || {
            (feature(&app, "of-second").await["defaultValue"] == 3).then_some(())
        })
        .await;
        assert_eq!(counter(&app).await, 7);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn age_is_counted_from_the_last_success_before_the_restart() {
    on_each(async |backend| {
        let mut bed = bed_on(&backend);
        bed.source_extra = "stale_after = \"1s\"".to_owned();
        let app = bed.start_loaded().await;
        // Successes that follow quickly are not stored one by one; a stop in order stores the last.
        publish(&bed, &app, 1, 2).await;
        let before = app.status().await["sources"][SOURCE].clone();
        assert!(before["last_success"].is_string(), "{before}");
        app.stop().await;

        bed.upstream.go_down().await.unwrap();
        for _ in 0..2 {
            let app = bed.start().await;
            app.poll().await;
            let after = app.status().await["sources"][SOURCE].clone();
            assert_eq!(
                after["last_success"], before["last_success"],
                "{}",
                backend.name
            );
            let age = |status: &Value| status["age_seconds"].as_f64().unwrap();
            assert!(age(&after) >= age(&before), "{after} {before}");
            eventually("what is old is called stale", async || {
                let path = format!("{}/v1/snapshot/{ENVIRONMENT}", app.data);
                let answer = app.http.get(path).send().await.unwrap();
                assert_eq!(answer.status(), 200);
                answer.headers().get("x-config-stale").map(drop)
            })
            .await;
            app.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_loaded_has_no_age() {
    let bed = Bed::new();
    bed.upstream.go_down().await.unwrap();
    for _ in 0..2 {
        let app = bed.start().await;
        app.poll().await;
        let status = app.status().await["sources"][SOURCE].clone();
        assert!(status["age_seconds"].is_null() && status["last_success"].is_null());
        let answer = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await;
        assert_eq!(answer.status, 503);
        assert_eq!(app.get("/readyz").await.status, 503);
        app.stop().await;
    }
}

#[tokio::test]
async fn a_pause_is_kept_until_it_is_lifted() {
    on_each(async |backend| {
        let bed = bed_on(&backend);
        let text = bed.toml().replacen("\"1h\"", "\"100ms\"", 1);
        let settings = || settings::from_toml(&text, Profile::Test).unwrap();
        let app = TestApp::spawn(settings()).await;
        app.until_revision(1).await;
        let path = format!("/admin/sources/{SOURCE}/pause");
        let answer = app.admin_post(&path, r#"{"reason":"freeze"}"#).await;
        assert_eq!(answer.json()["state"], "paused");
        app.stop().await;
        for _ in 0..2 {
            bed.upstream.clear_requests();
            let app = TestApp::spawn(settings()).await;
            let status = app.status().await["sources"][SOURCE].clone();
            assert_eq!(status["state"], "paused", "{}", backend.name);
            assert_eq!(status["paused"]["reason"], "freeze");
            assert!(status["next_poll"].is_null());
            assert_eq!(bed.upstream.requests().len(), 0);
            app.stop().await;
        }
        let app = TestApp::spawn(settings()).await;
        app.admin_post(&format!("/admin/sources/{SOURCE}/resume"), "")
            .await;
        app.stop().await;
        let app = TestApp::spawn(settings()).await;
        let status = app.status().await["sources"][SOURCE].clone();
        assert_eq!(status["state"], "running", "{}", backend.name);
        bed.upstream.set_feature("late", json!({"defaultValue": 1}));
        app.until_revision(2).await;
        app.stop().await;
    })
    .await;
}
