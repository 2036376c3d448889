//! Sizes: somebody is told at half of a limit, nothing is taken beyond it, and nothing doubles by itself.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::CLIENT_KEY,
    settings::{self, Profile},
};

use crate::{
    stand::{ITEMS, assert_held, bed, only_held, settled, start},
    support::{Bed, ENVIRONMENT, TestApp},
};

/// What is said to be near its limit: where, and the message.
async fn near(app: &TestApp) -> Vec<(String, String)> {
    let path = format!("/admin/environments/{ENVIRONMENT}/issues");
    let issues = app.admin_get(&path).await.json();
    let issues = issues["issues"].as_array().unwrap().iter();
    let near = issues.filter(|issue| issue["code"] == "near_limit");
    let text = |issue: &Value, member: &str| issue[member].as_str().unwrap().to_owned();
    near.map(|issue| (text(issue, "path"), text(issue, "message")))
        .collect()
}

#[tokio::test]
async fn a_body_over_half_of_its_limit_is_an_issue_and_one_over_it_is_refused() {
    let bed = Bed::new();
    let limited = bed.toml().replace("8000000", "40000");
    let payload = |padding: usize| {
        let feature = json!({"defaultValue": "x".repeat(padding)});
        json!({"features": {"long": feature}}).to_string()
    };
    bed.upstream.set_payload(CLIENT_KEY, payload(19_000));
    let settings = settings::from_toml(&limited, Profile::Test).unwrap();
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    settled(&app).await;
    assert_eq!(near(&app).await, []);
    let over_half = payload(25_000);
    let bytes = over_half.len();
    bed.upstream.set_payload(CLIENT_KEY, over_half);
    assert_eq!(app.poll().await["outcome"], "published");
    let message = format!("has {bytes} bytes; more than 40000 are refused");
    assert_eq!(near(&app).await, [("payload".to_owned(), message)]);
    let before = app.served().await;
    bed.upstream.set_payload(CLIENT_KEY, payload(40_000));
    let report = app.poll().await;
    assert_eq!(report["failed_parts"], json!(["payload"]), "{report}");
    assert_eq!(before, app.served().await);
    app.stop().await;
}

/// A payload with so many features, as short as they can be.
fn many(number: usize) -> String {
    let mut text = String::from("{\"features\":{");
    for i in 0..number {
        let comma = if i == 0 { "" } else { "," };
        write!(text, "{comma}\"{i}\":{{\"defaultValue\":1}}").unwrap();
    }
    text.push_str("}}");
    text
}

#[tokio::test]
async fn features_over_half_of_their_limit_are_an_issue_and_over_it_are_refused() {
    let bed = Bed::new();
    bed.upstream.set_payload(CLIENT_KEY, many(50_001));
    let app = start(&bed).await;
    let message = "has 50001 items; more than 100000 are refused".to_owned();
    assert_eq!(near(&app).await, [("features".to_owned(), message)]);
    let snapshot = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await;
    bed.upstream.set_payload(CLIENT_KEY, many(100_001));
    let report = app.poll().await;
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("too_many_items"), "{report}");
    let after = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await;
    assert_eq!(snapshot.body, after.body);
    app.stop().await;
}

/// The list is as long as before; what each consumer is shown of it is not.
#[tokio::test]
async fn what_a_consumer_is_shown_does_not_double_by_itself() {
    let mut bed = bed();
    bed.extra = "[guards]\ngrowth_floor_bytes = 500\n".to_owned();
    let set_status = |status: &str| {
        for number in 4..ITEMS {
            let key = format!("experiment-{number:05}");
            bed.upstream
                .update_experiment(&key, |e| e["status"] = json!(status));
        }
    };
    set_status("draft");
    let app = start(&bed).await;
    set_status("running");
    assert_held(&app, "growth").await;
    let held = only_held(&app).await;
    assert_eq!(held["parts"], json!(["experiments"]));
    let reasons = held["reasons"].as_array().unwrap();
    let growth = reasons.iter().filter(|reason| reason["guard"] == "growth");
    let subjects: BTreeSet<&str> = growth
        .map(|reason| reason["subject"].as_str().unwrap())
        .collect();
    let views = ["view analytics", "view mediawiki", "view varnish"];
    assert_eq!(subjects, BTreeSet::from(views));
    app.stop().await;
}
