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

use std::{
    path::Path,
    process::{Command, Stdio},
};

use growthbook_rust::client::{GrowthBookClientBuilder, GrowthBookClientTrait as _};
use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{CLIENT_KEY, Connection},
    settings::{Profile, from_toml},
};

use support::{Bed, TestApp, eventually, process::Process, skipped};

const ENCRYPTION_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const FEATURE: &str = "watched";
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk");

/// A command that runs an SDK, or `None` where it is not installed.
fn sdk(variable: &str, command: impl Fn(&str) -> Command) -> Option<Command> {
    let Ok(place) = std::env::var(variable) else {
        skipped("sdk", &format!("{variable} is not set"));
        return None;
    };
    Some(command(&place))
}

fn javascript() -> Option<Command> {
    sdk("STITCHD_TEST_NODE", |folder| {
        let mut command = Command::new("node");
        let modules = Path::new(folder).join("node_modules");
        command.arg(format!("{SCRIPTS}/client.js"));
        command.env("NODE_PATH", modules);
        command
    })
}

fn python() -> Option<Command> {
    sdk("STITCHD_TEST_PYTHON", |python| {
        let mut command = Command::new(python);
        command.arg(format!("{SCRIPTS}/client.py"));
        command
    })
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
async fn told(process: &mut Process, value: &str) {
    let line = json!({ "value": value }).to_string();
    eventually(&format!("the SDK tells {line}"), async || {
        assert!(
            process.is_running(),
            "the SDK ended: {:#?} {:#?}",
            process.out(),
            process.log()
        );
        process.out().contains(&line).then_some(())
    })
    .await;
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
async fn loads_and_follows(mut command: Command, encrypted: bool) -> (Bed, TestApp, Process) {
    let (bed, app) = start(encrypted).await;
    let key = if encrypted { ENCRYPTION_KEY } else { "" };
    command.args([&app.data, CLIENT_KEY, key, FEATURE]);
    let mut process = Process::start_with_stdin(&mut command, Stdio::piped());
    told(&mut process, "first").await;
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
    told(&mut process, "second").await;
    (bed, app, process)
}

#[tokio::test]
async fn javascript_loads_features_and_a_streamed_change() {
    let Some(command) = javascript() else { return };
    let (_bed, app, process) = loads_and_follows(command, false).await;
    drop(process);
    app.stop().await;
}

#[tokio::test]
async fn javascript_reads_an_encrypted_connection() {
    let Some(command) = javascript() else { return };
    let (_bed, app, process) = loads_and_follows(command, true).await;
    drop(process);
    app.stop().await;
}

#[tokio::test]
async fn python_loads_features_revalidates_and_follows() {
    let Some(command) = python() else { return };
    let (_bed, app, process) = loads_and_follows(command, false).await;
    let revalidated = answers(&app, "/api/features/{client_key}", "3xx").await;
    assert!(revalidated > 0, "its second request was not answered 304");
    drop(process);
    app.stop().await;
}

#[tokio::test]
async fn python_reads_an_encrypted_connection() {
    let Some(command) = python() else { return };
    let (_bed, app, process) = loads_and_follows(command, true).await;
    drop(process);
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
