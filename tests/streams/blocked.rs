//! Readers that take nothing.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    open_narrow,
    support::{Bed, ENVIRONMENT, TestApp},
    value, within,
};

/// How many of them.
const BLOCKED: u64 = 8;
/// From the first byte that cannot be delivered to the end of the connection; the kernel takes a moment more.
const LIMIT: Duration = Duration::from_secs(2);
/// Until all of this has happened.
const PATIENCE: Duration = Duration::from_secs(30);

async fn scrape(app: &TestApp) -> String {
    let metrics = app.admin_get("/metrics").await;
    String::from_utf8(metrics.body.to_vec()).unwrap()
}

#[tokio::test]
async fn readers_that_take_nothing_are_dropped_and_counted_while_others_are_answered() {
    let bed = Bed::new();
    let mut settings = bed.settings();
    settings.server.blocked_limit = LIMIT;
    // Comments fill the small buffers of the readers within a second or two.
    settings.http.stream_keepalive = Duration::from_millis(5);
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;

    let mut healthy = app
        .http
        .get(format!("{}/v1/stream/{ENVIRONMENT}", app.data))
        .timeout(Duration::from_mins(2))
        .send()
        .await
        .unwrap();
    let host = app.data.strip_prefix("http://").unwrap();
    let blocked = join_all((0..BLOCKED).map(|_| open_narrow(host))).await;
    let blocked: Vec<_> = blocked.into_iter().map(Result::unwrap).collect();
    let opened = within(PATIENCE, async || {
        healthy.chunk().await.unwrap();
        let open = value(&scrape(&app).await, "stitchd_streams ");
        (open == Some(BLOCKED + 1)).then_some(())
    });
    opened.await.expect("the streams are open");

    let dropped = within(PATIENCE, async || {
        assert_eq!(
            app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await.status,
            200
        );
        // Only what is read makes room: this reader is no slower than the comments come.
        for _ in 0..20 {
            healthy.chunk().await.unwrap().expect("it goes on");
        }
        let scrape = scrape(&app).await;
        let counted = value(
            &scrape,
            "stitchd_connections_blocked_total{plane=\"data\"} ",
        );
        (counted == Some(BLOCKED)).then_some(scrape)
    });
    let scrape = dropped.await.expect("all of them are dropped and counted");
    assert_eq!(value(&scrape, "stitchd_streams "), Some(1));

    bed.upstream
        .set_feature("counter", json!({"defaultValue": 1}));
    assert_eq!(app.poll().await["outcome"], "published");
    let mut text = String::new();
    let told = within(PATIENCE, async || {
        let chunk = healthy.chunk().await.unwrap().expect("it goes on");
        text.push_str(&String::from_utf8_lossy(&chunk));
        text.contains("id: 2\n").then_some(())
    });
    told.await.expect("the healthy reader is told");
    drop(blocked);
    app.stop().await;
}
