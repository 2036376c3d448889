//! What was judged, approved or lost before a start, and what the start makes of it.

use sea_orm::{ConnectionTrait as _, Database};
use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{ExperimentExt as _, many_experiments, many_features},
    store::StoredInput,
};

use crate::{
    stand::{
        ITEMS, approve, assert_held, bed, counts, guards, held, keep_experiments, keep_features,
        only_held, start,
    },
    support::{Bed, ENVIRONMENT, TestApp, eventually, store},
};

const VARNISH: &str = "/api/v1/experiments?authority=varnish&format=config";

/// Renames the custom field that the edge's view is made of.
fn rename_domains(bed: &Bed) {
    let renamed = many_experiments(ITEMS).into_iter();
    let renamed = renamed.map(|experiment| experiment.with_custom_field("domains", json!(null)));
    bed.upstream.set_experiments(renamed.collect());
}

async fn order(app: &TestApp, method: reqwest::Method, body: &Value) {
    let url = format!("{}/admin/environments/{ENVIRONMENT}/pin", app.admin);
    let request = app.http.request(method, url).body(body.to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);
}

async fn assert_nothing_held(app: &TestApp) {
    assert_eq!(held(app).await, [Value::Null; 0]);
    assert_eq!(app.status().await["environments"][ENVIRONMENT]["held"], 0);
}

#[tokio::test]
async fn a_view_approved_as_empty_stays_approved_while_an_older_revision_is_pinned() {
    let bed = bed();
    let app = start(&bed).await;
    let full = app.get(VARNISH).await.body;
    rename_domains(&bed);
    assert_held(&app, "empty_view").await;
    assert_eq!(approve(&app).await["revision"], 2);
    order(
        &app,
        reqwest::Method::POST,
        &json!({"revision": 1, "reason": "as before"}),
    )
    .await;
    assert_eq!(app.get(VARNISH).await.body, full);
    app.stop().await;

    let app = start(&bed).await;
    let report = app.poll().await;
    assert_eq!(report["outcome"], "unchanged", "{report}");
    assert_nothing_held(&app).await;
    assert_eq!(app.get(VARNISH).await.body, full);
    order(&app, reqwest::Method::DELETE, &json!({"reason": "mended"})).await;
    assert_eq!(
        app.get(VARNISH).await.body,
        "{}",
        "the newest accepted content"
    );
    app.stop().await;
}

/// Takes a source's stored input for the one of this bed, with none beside it in the backup.
async fn put_input(bed: &Bed, input: StoredInput) {
    let kept = store(&bed.database_url, &bed.dir.path().join("backup"));
    let packed = kept.pack_input(input).await.unwrap();
    kept.database().upsert_input(&packed).await.unwrap();
    kept.close().await.unwrap();
    std::fs::remove_dir_all(bed.dir.path().join("backup/inputs")).unwrap();
}

async fn input_of(bed: &Bed) -> StoredInput {
    let kept = store(&bed.database_url, &bed.dir.path().join("backup"));
    let input = kept.database().load_inputs().await.unwrap().remove(0);
    kept.close().await.unwrap();
    input.unpack().unwrap()
}

/// A process may be killed between keeping what was approved and publishing it.
#[tokio::test]
async fn an_approved_input_without_its_revision_is_served_at_the_next_start() {
    let before = bed();
    start(&before).await.stop().await;
    let after = bed();
    let app = start(&after).await;
    rename_domains(&after);
    assert_held(&app, "empty_view").await;
    approve(&app).await;
    app.stop().await;
    let mut input = input_of(&after).await;
    input.accepted_at_ms += 60_000;
    put_input(&before, input).await;
    rename_domains(&before);
    let app = start(&before).await;
    eventually("what was approved is served", async || {
        (app.get(VARNISH).await.body == "{}").then_some(())
    })
    .await;
    assert_eq!(app.poll().await["outcome"], "unchanged");
    assert_nothing_held(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn settings_that_would_empty_a_view_wait_for_an_approval() {
    let mut bed = bed();
    start(&bed).await.stop().await;
    bed.source_extra = "fields.domains = \"hosts\"\n".to_owned();
    let app = start(&bed).await;
    for _ in 0..2 {
        assert_held(&app, "empty_view").await;
        let held = only_held(&app).await;
        assert_eq!(held["parts"], json!(["experiments"]));
        assert_eq!(held["auto_accept_after"], Value::Null);
    }
    assert_ne!(app.get(VARNISH).await.body, "{}");
    assert_eq!(approve(&app).await["outcome"], "published");
    assert_eq!(app.get(VARNISH).await.body, "{}");
    assert_eq!(app.poll().await["outcome"], "unchanged");
    assert_nothing_held(&app).await;
    app.stop().await;
    let app = start(&bed).await;
    assert_eq!(
        (app.poll().await["outcome"].clone(), app.revision()),
        (json!("unchanged"), 2)
    );
    app.stop().await;
}

#[tokio::test]
async fn other_settings_and_news_together_empty_no_view() {
    let mut bed = bed();
    start(&bed).await.stop().await;
    bed.source_extra = "fields.domains = \"hosts\"\n".to_owned();
    keep_features(&bed, ITEMS - 1);
    let app = start(&bed).await;
    assert_held(&app, "empty_view").await;
    assert_eq!(counts(&app).await, (ITEMS, ITEMS));
    // Experiments that have the field by its new name end it.
    let renamed = many_experiments(ITEMS).into_iter();
    let renamed = renamed.map(|e| e.with_custom_field("hosts", json!("en.wikipedia.org")));
    bed.upstream.set_experiments(renamed.collect());
    assert_eq!(app.poll().await["outcome"], "published");
    assert_eq!(counts(&app).await, (ITEMS - 1, ITEMS));
    assert_nothing_held(&app).await;
    app.stop().await;
}

/// Deletes the stored inputs and leaves the revisions.
async fn lose_inputs(bed: &Bed) {
    let database = Database::connect(&bed.database_url).await.unwrap();
    let deleted = database.execute_unprepared("DELETE FROM source_inputs");
    assert_eq!(deleted.await.unwrap().rows_affected(), 1);
    database.close().await.unwrap();
    std::fs::remove_dir_all(bed.dir.path().join("backup/inputs")).unwrap();
}

#[tokio::test]
async fn a_lost_input_lets_nobody_empty_what_is_live() {
    let bed = bed();
    let app = start(&bed).await;
    let before = app.served().await;
    app.stop().await;
    lose_inputs(&bed).await;
    keep_features(&bed, 0);
    keep_experiments(&bed, 0);
    let app = start(&bed).await;
    assert_held(&app, "empty_features").await;
    assert_eq!(
        guards(&only_held(&app).await),
        ["empty_features", "empty_experiments"]
    );
    assert_eq!(before, app.served().await);
    // Half of it is no better, and what was there before ends it.
    bed.upstream.set_features(many_features(ITEMS, 3));
    assert_held(&app, "empty_experiments").await;
    bed.upstream.set_experiments(many_experiments(ITEMS));
    assert_eq!(app.poll().await["outcome"], "unchanged");
    assert_nothing_held(&app).await;
    assert_eq!(before, app.served().await);
    app.stop().await;
    // With the input here again, everything is as ever.
    let app = start(&bed).await;
    assert_eq!(before, app.served().await);
    keep_features(&bed, 6);
    assert_held(&app, "shrink").await;
    app.stop().await;
}

#[tokio::test]
async fn emptiness_after_a_lost_input_can_be_approved() {
    let bed = bed();
    start(&bed).await.stop().await;
    lose_inputs(&bed).await;
    keep_features(&bed, 0);
    let app = start(&bed).await;
    assert_held(&app, "empty_features").await;
    assert_eq!(approve(&app).await["outcome"], "published");
    assert_eq!(counts(&app).await, (0, ITEMS));
    assert_eq!(app.poll().await["outcome"], "unchanged");
    app.stop().await;
}

/// As a release that refuses what an older one has accepted.
#[tokio::test]
async fn an_input_of_which_a_part_cannot_be_read_is_not_served_by_halves() {
    let bed = bed();
    let app = start(&bed).await;
    let before = app.served().await;
    app.stop().await;
    let mut input = input_of(&bed).await;
    let text = String::from_utf8(input.body.to_vec()).unwrap();
    let (head, list) = text.split_at(text.rfind("{\"experiments\"").unwrap());
    input.body = format!("{head} {}", &list[1..]).into();
    put_input(&bed, input).await;
    bed.upstream.go_down().await.unwrap();
    let app = start(&bed).await;
    let report = app.poll().await;
    assert_eq!(report["outcome"], "failed", "{report}");
    assert_eq!(before, app.served().await);
    bed.upstream.come_back().unwrap();
    keep_experiments(&bed, 0);
    assert_held(&app, "empty_experiments").await;
    bed.upstream.set_experiments(many_experiments(ITEMS));
    assert_eq!(app.poll().await["outcome"], "unchanged");
    assert_eq!((before, app.revision()), (app.served().await, 1));
    app.stop().await;
}
