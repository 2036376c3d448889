//! What was judged or approved before a start, and what the start makes of it.

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{ExperimentExt as _, many_experiments},
    store::StoredInput,
};

use crate::{
    stand::{ITEMS, approve, assert_held, bed, counts, held, keep_features, only_held, start},
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
