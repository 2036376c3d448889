//! Overrides that end by themselves, and those that outlive the process.

use serde_json::{Value, json};

use crate::{
    stand::{EXPERIMENT, bytes, default_of, feature, force, loaded, off, snapshot, start},
    support::eventually,
};

#[tokio::test]
async fn an_override_ends_by_itself_and_that_is_a_revision() {
    let (_bed, app) = loaded().await;
    let before = bytes(&app).await;
    let mut body = feature("checkout", "fixed");
    body["expires_in"] = json!("1500ms");
    let set = force(&app, &body).await;
    assert!(set["expires_at"].is_string());
    assert_eq!(default_of(&app, "checkout").await, "fixed");
    app.until_revision(set["revision"].as_u64().unwrap() + 1)
        .await;
    assert_eq!(bytes(&app).await, before);
    assert_eq!(snapshot(&app).await["overrides"], json!([]));
    app.stop().await;
}

#[tokio::test]
async fn an_override_survives_a_restart_and_the_loss_of_database_and_upstream() {
    let (bed, app) = loaded().await;
    force(&app, &feature("checkout", "fixed")).await;
    force(&app, &off(EXPERIMENT)).await;
    let (before, revision) = (bytes(&app).await, app.revision());
    app.stop().await;
    bed.upstream.go_down().await.unwrap();
    let app = start(&bed).await;
    assert_eq!(
        (bytes(&app).await, app.revision()),
        (before.clone(), revision)
    );
    app.stop().await;
    // The database is gone for good: the backup alone has the decisions.
    for file in ["test.db", "test.db-wal", "test.db-shm"] {
        std::fs::remove_file(bed.dir.path().join(file)).ok();
    }
    let app = start(&bed).await;
    assert_eq!(bytes(&app).await, before);
    // A kill switch without upstream.
    let set = force(&app, &feature("feature-00001", true)).await;
    assert_eq!(set["durable"], true);
    assert_eq!(default_of(&app, "feature-00001").await, true);
    bed.upstream.come_back().unwrap();
    bed.upstream.set_feature("new", json!({"defaultValue": 1}));
    eventually("the news", async || {
        app.poll().await;
        (default_of(&app, "new").await == 1).then_some(())
    })
    .await;
    assert_eq!(default_of(&app, "checkout").await, "fixed");
    app.stop().await;
}

#[tokio::test]
async fn what_ended_while_the_service_was_down_is_over_when_it_is_back() {
    let (bed, app) = loaded().await;
    let mut body = feature("checkout", "fixed");
    body["expires_in"] = json!("1s");
    let set = force(&app, &body).await;
    app.stop().await;
    let ends = set["expires_at"].as_str().unwrap().to_owned();
    eventually("the end", async || (stitchd_now() > ends).then_some(())).await;
    let app = start(&bed).await;
    eventually("the old value", async || {
        (default_of(&app, "checkout").await == "old").then_some(())
    })
    .await;
    assert_eq!(snapshot(&app).await["overrides"], Value::Array(Vec::new()));
    app.stop().await;
}

/// Now, as answers spell it.
fn stitchd_now() -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    stitchd::clock::now().format(format).unwrap()
}
