//! What trips is parked; everything else goes on being published.

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{
        CLIENT_KEY, Connection, ExperimentExt as _, feature, many_experiments, many_features,
    },
    settings::{self, Profile},
};

use crate::{
    stand::{
        ITEMS, assert_held, bed, counts, guards, held, keep_experiments, keep_features, metric,
        only_held, settled, start,
    },
    support::{ENVIRONMENT, SOURCE, TestApp},
};

#[tokio::test]
async fn too_few_features_are_parked_and_the_experiments_are_published() {
    let bed = bed();
    let app = start(&bed).await;
    keep_features(&bed, 6);
    bed.upstream.set_experiments(many_experiments(ITEMS + 1));
    let report = app.poll().await;
    assert_eq!(report["outcome"], "published", "{report}");
    assert_eq!(report["failed_parts"], json!(["payload"]));
    assert_eq!(counts(&app).await, (ITEMS, ITEMS + 1));
    let held = only_held(&app).await;
    assert_eq!(held["source"], SOURCE);
    assert_eq!(held["parts"], json!(["payload"]));
    let shrink = &held["reasons"][0];
    assert_eq!(shrink["guard"], "shrink");
    assert_eq!(
        (&shrink["before"], &shrink["after"]),
        (&json!(12), &json!(6))
    );
    assert_eq!(shrink["limit"], 0.3);
    let removed = held["diff"]["features"]["removed"].as_array().unwrap();
    assert_eq!(removed.len(), 6);
    assert_eq!(held["diff"]["experiments"]["added"], json!([]));
    assert_eq!(metric(&app, "stitchd_held_inputs", "").await, Some(1.0));
    let ready = app.admin_get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(
        ready.json()["degraded"],
        json!([format!("held: an input of source `{SOURCE}`")])
    );
    app.stop().await;
}

#[tokio::test]
async fn too_few_experiments_are_parked_and_the_payload_is_published() {
    let bed = bed();
    let app = start(&bed).await;
    keep_experiments(&bed, 6);
    bed.upstream.set_feature("news", feature(true));
    let report = app.poll().await;
    assert_eq!(report["outcome"], "published", "{report}");
    assert_eq!(counts(&app).await, (ITEMS + 1, ITEMS));
    let held = only_held(&app).await;
    assert_eq!(held["parts"], json!(["experiments"]));
    assert_eq!(held["diff"]["features"]["added"], json!([]));
    app.stop().await;
}

#[tokio::test]
async fn both_may_be_parked_and_a_good_input_ends_it() {
    let bed = bed();
    let app = start(&bed).await;
    keep_features(&bed, 5);
    keep_experiments(&bed, 5);
    assert_held(&app, "shrink").await;
    assert_eq!(
        only_held(&app).await["parts"],
        json!(["experiments", "payload"])
    );
    bed.upstream.set_features(many_features(ITEMS, 3));
    let report = app.poll().await;
    assert_eq!(report["outcome"], "held", "{report}");
    assert_eq!(only_held(&app).await["parts"], json!(["experiments"]));
    bed.upstream.set_experiments(many_experiments(ITEMS));
    assert_eq!(app.poll().await["outcome"], "unchanged");
    assert_eq!(held(&app).await, [Value::Null; 0]);
    assert_eq!(metric(&app, "stitchd_held_inputs", "").await, Some(0.0));
    assert_eq!(app.admin_get("/readyz").await.json()["degraded"], json!([]));
    app.stop().await;
}

#[tokio::test]
async fn identical_repeats_are_counted_and_told_once() {
    let bed = bed();
    let app = start(&bed).await;
    keep_features(&bed, 6);
    assert_held(&app, "shrink").await;
    let first = only_held(&app).await;
    // Another date and order mean nothing.
    bed.upstream.set_volatile(true);
    assert_held(&app, "shrink").await;
    let second = only_held(&app).await;
    assert_eq!(
        (&first["repeats"], &second["repeats"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(first["digest"], second["digest"]);
    assert_eq!(first["first_seen"], second["first_seen"]);
    let trips = metric(&app, "stitchd_guard_trips_total", ",guard=\"shrink\"").await;
    assert_eq!(trips, Some(1.0));
    keep_features(&bed, 5);
    assert_held(&app, "shrink").await;
    let other = only_held(&app).await;
    assert_eq!(other["repeats"], 0);
    assert_ne!(other["digest"], first["digest"]);
    app.stop().await;
}

#[tokio::test]
async fn what_was_parked_is_parked_again_after_a_restart() {
    let bed = bed();
    let app = start(&bed).await;
    let before = app.served().await;
    keep_features(&bed, 6);
    assert_held(&app, "shrink").await;
    app.stop().await;
    let app = start(&bed).await;
    assert_eq!(before, app.served().await);
    assert_eq!(guards(&only_held(&app).await)[0], "shrink");
    assert_held(&app, "shrink").await;
    app.stop().await;
}

#[tokio::test]
async fn a_view_that_loses_most_of_its_experiments_is_held() {
    let bed = bed();
    let app = start(&bed).await;
    for number in 0..6 {
        let key = format!("experiment-{number:05}");
        bed.upstream.update_experiment(&key, |e| {
            *e = e.clone().with_custom_field("domains", json!(null));
        });
    }
    assert_held(&app, "shrink").await;
    let held = only_held(&app).await;
    assert_eq!(held["reasons"][0]["subject"], "view varnish");
    assert_eq!(
        held["diff"]["experiments"]["changed"]
            .as_array()
            .unwrap()
            .len(),
        6
    );
    app.stop().await;
}

#[tokio::test]
async fn another_source_goes_on_being_published() {
    let bed = bed();
    let other = stitchd::cli::demo::upstream::Upstream::start(0).unwrap();
    other.set_features(json!({"other": {"defaultValue": 1}}));
    let second = format!(
        "\n[[sources]]\nid = \"other\"\nenvironment = \"{ENVIRONMENT}\"\napi_host = \"{}\"\nclient_key = \"sdk-demo\"\n\
         precedence = 1\npoll.interval = \"1h\"\npoll.streaming = false\n",
        other.base_url()
    );
    let mut bed = bed;
    bed.source_extra = second;
    let app = start(&bed).await;
    app.until_revision(1).await;
    crate::support::eventually("both are there", async || {
        (counts(&app).await.0 == ITEMS + 1).then_some(())
    })
    .await;
    keep_features(&bed, 6);
    assert_held(&app, "shrink").await;
    other.set_feature("more", feature(true));
    let report = app.admin_post("/admin/sources/other/poll", "").await.json();
    assert_eq!(report["outcome"], "published", "{report}");
    assert_eq!(counts(&app).await, (ITEMS + 2, ITEMS));
    assert_eq!(only_held(&app).await["source"], SOURCE);
    app.stop().await;
}

#[tokio::test]
async fn another_client_key_in_the_settings_is_nobodys_to_approve() {
    let bed = bed();
    let app = start(&bed).await;
    app.stop().await;
    bed.upstream.add_connection(Connection::new("sdk-other"));
    let replaced = bed.toml().replace(CLIENT_KEY, "sdk-other");
    let settings = settings::from_toml(&replaced, Profile::Test).unwrap();
    let app = TestApp::spawn(settings).await;
    settled(&app).await;
    assert_eq!(held(&app).await, [Value::Null; 0]);
    assert_eq!(counts(&app).await, (ITEMS, ITEMS));
    let answer = app.get("/api/features/sdk-other").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let former = app.get(&format!("/api/features/{CLIENT_KEY}")).await;
    assert_ne!(former.status, 200, "{former:?}");
    app.stop().await;
}

#[tokio::test]
async fn a_source_may_have_limits_of_its_own() {
    let mut bed = bed();
    bed.source_extra = "guards.max_removed_share = 0.9\n".to_owned();
    let app = start(&bed).await;
    keep_features(&bed, 3);
    assert_eq!(app.poll().await["outcome"], "published");
    keep_features(&bed, 0);
    assert_held(&app, "empty_features").await;
    app.stop().await;
}
