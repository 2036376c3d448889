//! What clients report: taken whatever it looks like, and counted where it means something.

use serde_json::{Value, json};

use crate::{
    stand::{METRICS, PROJECT, REGISTER, bed, post, start},
    support::{ENVIRONMENT, TestApp},
};

/// Checks of a feature counted so far.
async fn counted(app: &TestApp, feature: &str, enabled: &str) -> u64 {
    let metrics = app.admin_get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let line = format!(
        "stitchd_feature_usage_total{{environment=\"{ENVIRONMENT}\",feature=\"{feature}\",enabled=\"{enabled}\"}} "
    );
    let found = text.lines().find_map(|found| found.strip_prefix(&line));
    found.map_or(0, |count| count.parse().unwrap())
}

/// How many series of usage there are.
async fn series(app: &TestApp) -> usize {
    let metrics = app.admin_get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let usage = text
        .lines()
        .filter(|line| line.starts_with("stitchd_feature_usage_total{"));
    usage.count()
}

fn report(toggles: &Value) -> String {
    json!({
        "appName": "web",
        "instanceId": "browser",
        "bucket": {"start": "2026-01-01T00:00:00.000Z", "stop": 1_767_225_630_000_i64, "toggles": toggles},
        "impactMetrics": [],
        "sdkVersion": "unleash-proxy-client:3.8.2",
        "platformName": null,
    })
    .to_string()
}

#[tokio::test]
async fn reported_checks_are_counted_by_feature_and_outcome() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let toggles = json!({
        "on": {"yes": 3, "no": 1, "variants": {"blue": 3}},
        "off": {"yes": 0, "no": 5, "variants": null},
        "text": {"yes": 2},
        "absent": {"yes": 9, "no": 9},
    });
    for times in 1..3 {
        let seen = post(METRICS, &report(&toggles)).by(&secret).of(&app).await;
        assert_eq!(seen.status, 202);
        for (feature, yes, no) in [
            ("on", 3, 1),
            ("off", 0, 5),
            ("text", 2, 0),
            ("absent", 0, 0),
        ] {
            assert_eq!(counted(&app, feature, "yes").await, times * yes);
            assert_eq!(counted(&app, feature, "no").await, times * no);
        }
    }
    // What is never reported has no series.
    assert_eq!(series(&app).await, 4);
    app.stop().await;
}

#[tokio::test]
async fn only_features_that_the_token_may_see_are_counted() {
    let bed = bed();
    let (app, _) = start(&bed).await;
    let spec = json!({"kind": "frontend", "projects": [PROJECT]});
    let (_, scoped) = app.token(&spec).await;
    let toggles = json!({"on": {"yes": 1, "no": 1}, "in-shop": {"yes": 7, "no": 0}});
    let seen = post(METRICS, &report(&toggles)).by(&scoped).of(&app).await;
    assert_eq!(seen.status, 202);
    assert_eq!(counted(&app, "in-shop", "yes").await, 7);
    assert_eq!(series(&app).await, 1);
    app.stop().await;
}

#[tokio::test]
async fn odd_reports_are_taken_and_count_for_nothing() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for odd in [
        "",
        "{",
        "null",
        "[]",
        "\"report\"",
        "{}",
        "{\"appName\":\"web\"}",
        "{\"appName\":\"web\",\"bucket\":null}",
        "{\"appName\":\"web\",\"bucket\":[]}",
        "{\"appName\":7,\"bucket\":{\"start\":null,\"toggles\":null}}",
        "{\"bucket\":{\"toggles\":[\"on\"]}}",
        "{\"bucket\":{\"toggles\":{\"on\":null,\"off\":3,\"text\":[]}}}",
        "{\"bucket\":{\"toggles\":{\"on\":{\"yes\":-1,\"no\":\"2\"},\"off\":{\"yes\":1.5}}}}",
        "\u{fc}\u{0}",
    ] {
        for path in [METRICS, REGISTER] {
            let seen = post(path, odd).by(&secret).of(&app).await;
            assert_eq!(seen.status, 202, "{path}: {odd}");
        }
    }
    assert_eq!(series(&app).await, 0);
    // Neither does the type of the body matter, nor a count that nobody can have made.
    let body = report(&json!({"on": {"yes": u64::MAX, "no": 0}}));
    let seen = post(METRICS, &body).header("content-type", "text/plain");
    assert_eq!(seen.by(&secret).of(&app).await.status, 202);
    assert_eq!(counted(&app, "on", "yes").await, 1_000_000_000);
    app.stop().await;
}
