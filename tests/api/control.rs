//! Pause, resume and forced polls.

use serde_json::json;

use crate::support::{Bed, SOURCE};

#[tokio::test]
async fn a_first_poll_publishes_one_revision_and_a_second_finds_nothing_new() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    let report = app.poll().await;
    assert_eq!(report["outcome"], "unchanged");
    assert_eq!(report["revision"], 1);
    assert_eq!(report["failed_parts"], json!([]));
    bed.upstream.set_feature("new", json!({"defaultValue": 1}));
    let report = app.poll().await;
    assert_eq!(
        (&report["outcome"], &report["revision"]),
        (&json!("published"), &json!(2))
    );
    let snapshot = app.get("/v1/snapshot/production").await.json();
    assert_eq!(
        snapshot["features"]["new"],
        json!({"defaultValue": 1, "source": SOURCE})
    );
    app.stop().await;
}

#[tokio::test]
async fn a_paused_source_is_polled_only_on_demand_and_stays_paused_over_a_restart() {
    let mut bed = Bed::new();
    bed.source_extra = "poll.interval = \"100ms\"".to_owned();
    let text = bed.toml().replacen("poll.interval = \"1h\"", "", 1);
    let settings =
        || stitchd::settings::from_toml(&text, stitchd::settings::Profile::Test).unwrap();
    let app = crate::support::TestApp::spawn(settings()).await;
    app.until_revision(1).await;
    let paused = app
        .admin_post(
            &format!("/admin/sources/{SOURCE}/pause"),
            r#"{"reason":"freeze"}"#,
        )
        .await;
    assert_eq!(paused.json(), json!({"source": SOURCE, "state": "paused"}));
    bed.upstream.set_feature("late", json!({"defaultValue": 1}));
    app.stop().await;

    bed.upstream.clear_requests();
    let app = crate::support::TestApp::spawn(settings()).await;
    let status = app.status().await;
    assert_eq!(status["sources"][SOURCE]["state"], "paused");
    assert_eq!(status["sources"][SOURCE]["paused"]["reason"], "freeze");
    assert_eq!(bed.upstream.requests().len(), 0);
    assert_eq!(app.poll().await["outcome"], "published");
    let resumed = app
        .admin_post(&format!("/admin/sources/{SOURCE}/resume"), "")
        .await;
    assert_eq!(resumed.json()["state"], "running");
    bed.upstream
        .set_feature("later", json!({"defaultValue": 1}));
    app.until_revision(3).await;
    app.stop().await;
}
