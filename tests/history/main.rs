//! What was served before: lists, single revisions, differences, and decisions against them.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its doc is its name"
)]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod messages;
mod pages;
mod replay;

use serde_json::json;

use crate::support::{Answer, Bed, ENVIRONMENT, TestApp, eventually};

/// Has the upstream change and polls; gives the snapshot that is served then.
async fn publish(bed: &Bed, app: &TestApp, value: u64) -> Answer {
    bed.upstream
        .set_feature("counter", json!({"defaultValue": value}));
    let report = app.poll().await;
    // The poll of the start may have been first.
    let outcome = report["outcome"].as_str().unwrap();
    assert!(["published", "unchanged"].contains(&outcome), "{report}");
    snapshot(app).await
}

async fn snapshot(app: &TestApp) -> Answer {
    app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await
}

/// A service at this revision, and the snapshot that was served at each, the first one first.
async fn at_revision(bed: &Bed, revision: u64) -> (TestApp, Vec<Answer>) {
    let app = bed.start_loaded().await;
    let mut served = vec![snapshot(&app).await];
    while app.revision() < revision {
        served.push(publish(bed, &app, app.revision()).await);
        until_written(&app).await;
    }
    (app, served)
}

/// Waits until database and backup have everything.
async fn until_written(app: &TestApp) {
    eventually("nothing is left to write", async || {
        let status = app.status().await;
        (status["queues"]["store_pending"] == 0 && status["database"]["up"] == true).then_some(())
    })
    .await;
}
