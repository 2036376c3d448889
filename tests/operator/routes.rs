//! An override shows on every route, within a second, and leaves no trace when it is taken back.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use stitchd::cli::demo::upstream::CLIENT_KEY;
use tokio::time::Instant;

use crate::{
    stand::{
        EXPERIMENT, REMOTE, SEALED, ask, bytes, evaluated, feature, force, loaded, off, opened,
        remove, snapshot,
    },
    support::{Answer, TestApp},
};

async fn assigned(app: &TestApp) -> Vec<String> {
    let decided = app.get("/v1/decide?user_key=user-1").await.json();
    let keys = decided["assignments"].as_array().unwrap().iter();
    keys.map(|one| one["experiment_key"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_forced_feature_has_its_value_on_every_route_within_a_second() {
    let (_bed, app) = loaded().await;
    let before = bytes(&app).await;
    assert_eq!(
        app.get("/v1/evaluate/checkout?context={}").await.json()["value"],
        "new"
    );
    assert_eq!(
        evaluated(&app, REMOTE).await["features"]["checkout"]["defaultValue"],
        "new"
    );

    let started = Instant::now();
    let set = force(&app, &feature("checkout", "fixed")).await;
    assert_eq!(set["durable"], true);
    assert_eq!(snapshot(&app).await["revision"], set["revision"]);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );

    let shown = snapshot(&app).await;
    assert_eq!(
        shown["features"]["checkout"],
        json!({"defaultValue": "fixed", "source": "gb"})
    );
    let listed = &shown["overrides"][0];
    assert_eq!(
        (&listed["id"], &listed["kind"], &listed["key"]),
        (&set["id"], &json!("feature"), &json!("checkout"))
    );
    assert_eq!(
        (&listed["value"], &listed["reason"], &listed["author"]),
        (&json!("fixed"), &json!("it broke"), &json!("loopback"))
    );
    assert_eq!(listed["expires_at"], Value::Null);
    let plain = app.get(&format!("/api/features/{CLIENT_KEY}")).await.json();
    assert_eq!(
        plain["features"]["checkout"],
        json!({"defaultValue": "fixed"})
    );
    let sealed = app.get(&format!("/api/features/{SEALED}")).await.json();
    assert_eq!(
        opened(&sealed, "encryptedFeatures")["checkout"],
        json!({"defaultValue": "fixed"})
    );
    assert_eq!(sealed["features"], json!({}));
    assert_eq!(
        app.get("/v1/evaluate/checkout?context={}").await.json()["value"],
        "fixed"
    );
    assert_eq!(
        evaluated(&app, REMOTE).await["features"]["checkout"]["defaultValue"],
        "fixed"
    );

    let gone = remove(&app, &set["id"]).await;
    assert_eq!(gone["id"], set["id"]);
    assert_eq!(bytes(&app).await, before, "the very bytes are back");
    app.stop().await;
}

#[tokio::test]
async fn an_experiment_that_is_off_takes_nobody_on_any_route() {
    let (_bed, app) = loaded().await;
    let before = bytes(&app).await;
    assert!(assigned(&app).await.contains(&EXPERIMENT.to_owned()));
    let varnish = async || -> Answer {
        app.get("/api/v1/experiments?authority=varnish&format=config")
            .await
    };
    assert!(varnish().await.json().get(EXPERIMENT).is_some());

    let set = force(&app, &off(EXPERIMENT)).await;
    let banner = force(&app, &off("banner")).await;
    assert!(!assigned(&app).await.contains(&EXPERIMENT.to_owned()));
    let shown = snapshot(&app).await;
    assert_eq!(shown["features"]["search"]["rules"], json!([]));
    assert_eq!(shown["auto_experiments"], json!([]));
    assert!(!shown["experiments"].to_string().contains(EXPERIMENT));
    assert_eq!(shown["overrides"].as_array().unwrap().len(), 2);
    assert!(varnish().await.json().get(EXPERIMENT).is_none());
    assert!(varnish().await.json().get("sticky-header-2026").is_some());
    for query in ["authority=mediawiki&format=config", "format=analytics"] {
        let list = app.get(&format!("/api/v1/experiments?{query}")).await;
        assert!(
            !String::from_utf8_lossy(&list.body).contains(EXPERIMENT),
            "{query}"
        );
    }
    let plain = app.get(&format!("/api/features/{CLIENT_KEY}")).await.json();
    assert_eq!(
        (&plain["features"]["search"]["rules"], &plain["experiments"]),
        (&json!([]), &json!([]))
    );
    let sealed = app.get(&format!("/api/features/{SEALED}")).await.json();
    assert_eq!(opened(&sealed, "encryptedExperiments"), json!([]));
    assert_eq!(
        opened(&sealed, "encryptedFeatures")["search"]["rules"],
        json!([])
    );
    assert_eq!(
        evaluated(&app, REMOTE).await["features"]["search"]["defaultValue"],
        0
    );

    remove(&app, &banner["id"]).await;
    remove(&app, &set["id"]).await;
    assert_eq!(bytes(&app).await, before);
    app.stop().await;
}

#[tokio::test]
async fn an_override_outlasts_what_the_upstream_does_and_goes_with_its_target() {
    let (bed, app) = loaded().await;
    force(&app, &feature("checkout", "fixed")).await;
    bed.upstream
        .set_feature("checkout", json!({"defaultValue": "other", "rules": []}));
    bed.upstream.set_feature("new", json!({"defaultValue": 7}));
    assert_eq!(app.poll().await["outcome"], "published");
    let shown = snapshot(&app).await;
    assert_eq!(shown["features"]["checkout"]["defaultValue"], "fixed");
    assert_eq!(shown["features"]["new"]["defaultValue"], 7);
    bed.upstream.remove_feature("checkout");
    app.poll().await;
    assert!(snapshot(&app).await["features"].get("checkout").is_none());
    let issues = ask(&app, Method::GET, "issues", &Value::Null).await.json();
    assert!(
        issues.to_string().contains("override_without_target"),
        "{issues}"
    );
    app.stop().await;
}

#[tokio::test]
async fn streams_tell_of_an_override() {
    let (_bed, app) = loaded().await;
    let url = format!("{}/v1/stream/production?events=2", app.data);
    let stream = tokio::spawn(app.http.get(url).send());
    let mut response = stream.await.unwrap().unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("retry"));
    let set = force(&app, &feature("checkout", "fixed")).await;
    let rest = response.text().await.unwrap();
    assert!(rest.contains(&format!("id: {}", set["revision"])), "{rest}");
    app.stop().await;
}
