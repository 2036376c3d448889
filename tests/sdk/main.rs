//! GrowthBook's own SDKs, unmodified, against the running service.
//!
//! The JavaScript and the Python one run as programs of their own, in `STITCHD_TEST_NODE` (a folder with `node_modules`)
//! and with `STITCHD_TEST_PYTHON` (a Python that has the SDK); `.ci/run` installs both. The Rust one is linked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test reads its own environment"
)]

#[path = "../support/mod.rs"]
mod support;

use std::process::Command;

use growthbook_rust::client::{GrowthBookClientBuilder, GrowthBookClientTrait as _};
use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{CLIENT_KEY, Connection},
    settings::{Profile, from_toml},
};

use support::{
    Bed, TestApp, eventually,
    programs::{self, Program},
};

const ENCRYPTION_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const FEATURE: &str = "watched";

fn javascript() -> Option<Command> {
    programs::node("sdk", "sdk/client.js")
}

fn python() -> Option<Command> {
    programs::python("sdk", "sdk/client.py")
}

/// An upstream with one feature to watch, and the service; `encrypted`: its connection is.
async fn start(encrypted: bool) -> (Bed, TestApp) {
    let bed = Bed::new();
    bed.upstream
        .set_feature(FEATURE, json!({"defaultValue": "first"}));
    let mut text = bed.toml();
    if encrypted {
        bed.upstream.add_connection(Connection {
            encryption_key: Some(ENCRYPTION_KEY.to_owned()),
            ..Connection::new(CLIENT_KEY)
        });
        let with_key = format!("decryption_key = \"{ENCRYPTION_KEY}\"\nclient_key =");
        text = text.replacen("client_key =", &with_key, 1);
    }
    let app = TestApp::spawn(from_toml(&text, Profile::Test).unwrap()).await;
    app.until_revision(1).await;
    (bed, app)
}

/// Waits until an SDK has told this value.
async fn told(program: &mut Program, value: &str) {
    let expected = json!({ "value": value });
    let what = format!("the SDK tells {expected}");
    program.line(&what, |line| *line == expected).await;
}

/// Answers with this status class to one route so far.
async fn answers(app: &TestApp, route: &str, class: &str) -> u64 {
    let metrics = app.admin_get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let line = format!(
        "stitchd_http_requests_total{{plane=\"data\",route=\"{route}\",status=\"{class}\"}} "
    );
    let found = text.lines().find_map(|found| found.strip_prefix(&line));
    found.map_or(0, |count| count.parse().unwrap())
}

/// Features load, and a change arrives by the stream.
async fn loads_and_follows(mut command: Command, encrypted: bool) -> (Bed, TestApp, Program) {
    let (bed, app) = start(encrypted).await;
    let key = if encrypted { ENCRYPTION_KEY } else { "" };
    command.args([&app.data, CLIENT_KEY, key, FEATURE]);
    let mut program = Program::start(command);
    told(&mut program, "first").await;
    // The SDK opens its stream by itself, some time after it has loaded.
    eventually("it follows", async || {
        let metrics = app.admin_get("/metrics").await;
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        text.contains("\nstitchd_streams 1\n").then_some(())
    })
    .await;
    let change = json!({"defaultValue": "second"});
    bed.upstream.set_feature(FEATURE, change);
    let report: Value = app.poll().await;
    assert_eq!(report["outcome"], "published", "{report}");
    told(&mut program, "second").await;
    (bed, app, program)
}

#[tokio::test]
async fn javascript_loads_features_and_a_streamed_change() {
    let Some(command) = javascript() else { return };
    let (_bed, app, program) = loads_and_follows(command, false).await;
    drop(program);
    app.stop().await;
}

#[tokio::test]
async fn javascript_reads_an_encrypted_connection() {
    let Some(command) = javascript() else { return };
    let (_bed, app, program) = loads_and_follows(command, true).await;
    drop(program);
    app.stop().await;
}

#[tokio::test]
async fn python_loads_features_revalidates_and_follows() {
    let Some(command) = python() else { return };
    let (_bed, app, program) = loads_and_follows(command, false).await;
    let revalidated = answers(&app, "/api/features/{client_key}", "3xx").await;
    assert!(revalidated > 0, "its second request was not answered 304");
    drop(program);
    app.stop().await;
}

#[tokio::test]
async fn python_reads_an_encrypted_connection() {
    let Some(command) = python() else { return };
    let (_bed, app, program) = loads_and_follows(command, true).await;
    drop(program);
    app.stop().await;
}

#[tokio::test]
async fn rust_loads_features_plain_and_encrypted() {
    for encrypted in [false, true] {
        let (_bed, app) = start(encrypted).await;
        let mut builder = GrowthBookClientBuilder::new()
            .api_url(app.data.clone())
            .client_key(CLIENT_KEY.to_owned());
        if encrypted {
            builder = builder.decryption_key(ENCRYPTION_KEY.to_owned());
        }
        let client = builder.build().await.unwrap();
        let value = client.feature_result(FEATURE, None).value;
        assert_eq!(value, json!("first"), "encrypted: {encrypted}");
        app.stop().await;
    }
}
