//! An unmodified SDK that leaves evaluation to the service.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{CLIENT_KEY, Connection},
    settings::{Profile, from_toml},
};

use support::{Bed, TestApp, eventually, skipped};

const KEY: &str = "sdk-remote";

fn split(weights: [f64; 2]) -> Value {
    json!({"defaultValue": "none", "rules": [{
        "key": "checkout", "hashVersion": 2, "coverage": 1, "variations": ["old", "new"], "weights": weights,
        "meta": [{"key": "control"}, {"key": "treatment"}], "condition": {"country": "NL"}
    }]})
}

fn features(weights: [f64; 2]) -> Value {
    json!({
        "flag": {"defaultValue": false, "rules": [{"condition": {"country": "NL"}, "force": true}]},
        "checkout": split(weights)
    })
}

async fn start(bed: &Bed) -> TestApp {
    bed.upstream.add_connection(Connection {
        remote_eval: true,
        ..Connection::new(KEY)
    });
    let text = bed
        .toml()
        .replacen(&format!("client_key = \"{CLIENT_KEY}\""), "", 1)
        + &format!("[[sources.connections]]\nkey = \"{KEY}\"\nremote_eval = true\n");
    let settings = from_toml(&text, Profile::Test).unwrap_or_else(|error| panic!("{error}"));
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    app
}

/// What the SDK sees of these users; `None` where there is no SDK.
async fn ask(app: &TestApp, users: &Value, buckets: &str) -> Option<Value> {
    let Some(packages) = std::env::var_os("STITCHD_TEST_NODE") else {
        skipped(
            "remote evaluation for the SDK for JavaScript",
            "STITCHD_TEST_NODE is not set",
        );
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk_remote/remote.mjs");
    let mut command = tokio::process::Command::new("node");
    command
        .arg(script)
        .args([app.data.as_str(), KEY, &users.to_string(), buckets]);
    command
        .env("STITCHD_TEST_NODE", packages)
        .kill_on_drop(true);
    let output = command.stdin(Stdio::null()).output();
    let output = tokio::time::timeout(3 * support::PATIENCE, output);
    let output = output.await.expect("the SDK ends in time").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}")),
    )
}

#[tokio::test]
async fn an_sdk_sees_values_and_reports_exposures() {
    let bed = Bed::new();
    bed.upstream.set_features(features([0.0, 1.0]));
    let app = start(&bed).await;
    let users = json!([{"id": "u1", "country": "NL"}, {"id": "u2", "country": "FR"}, {"id": "u3", "country": "NL"}]);
    for buckets in ["none", "own"] {
        let Some(found) = ask(&app, &users, buckets).await else {
            break;
        };
        assert_eq!(found["success"], true, "{found}");
        assert_eq!(
            found["seen"],
            json!([
                {"checkout": "new", "flag": true}, {"checkout": "none", "flag": false}, {"checkout": "new", "flag": true}
            ])
        );
        let exposure = |unit: &str| json!({"key": "checkout", "variation": "treatment", "unit": unit, "sticky": false});
        assert_eq!(found["tracked"], json!([exposure("u1"), exposure("u3")]));
        assert_eq!(found["leaks"], false);
    }
    app.stop().await;
}

#[tokio::test]
async fn the_services_sticky_buckets_reach_the_sdk() {
    let mut bed = Bed::new();
    bed.extra = "[sticky_buckets]\nengine = \"database\"\ntimeout = \"20s\"".to_owned();
    bed.upstream.set_features(features([1.0, 0.0]));
    let app = start(&bed).await;
    let users = json!([{"id": "u1", "country": "NL"}]);
    if let Some(found) = ask(&app, &users, "none").await {
        assert_eq!(found["seen"][0]["checkout"], "old");
        let written = "stitchd_sticky_buckets_total{outcome=\"written\"} 1";
        eventually("the bucket is written", async || {
            let metrics = app.admin_get("/metrics").await.body;
            String::from_utf8_lossy(&metrics)
                .contains(written)
                .then_some(())
        })
        .await;
        bed.upstream.set_features(features([0.0, 1.0]));
        assert_eq!(app.poll().await["outcome"], "published");
        let found = ask(&app, &users, "none").await.unwrap();
        assert_eq!(found["seen"][0]["checkout"], "old");
        assert_eq!(found["tracked"][0]["sticky"], true);
    }
    app.stop().await;
}
