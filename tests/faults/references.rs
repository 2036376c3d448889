//! What experiments refer to: saved groups and namespaces of the management API.

use serde_json::{Value, json};
use stitchd::cli::demo::upstream::experiment;

use crate::{
    stand::{self, assert_report, snapshot},
    support::Bed,
};

/// A running experiment for one saved group, in one namespace.
fn referring() -> Value {
    let mut item = experiment("for-members");
    item["phases"][0]["savedGroupTargeting"] =
        json!([{"matchType": "all", "savedGroups": ["grp_members"]}]);
    item["phases"][0]["namespace"] =
        json!({"namespaceId": "ns_checkout", "enabled": true, "ranges": [[0, 0.4]]});
    item
}

fn group(condition: &Value) -> Value {
    json!({"id": "grp_members", "type": "condition", "name": "Members", "dateCreated": "2026-01-01T00:00:00Z",
        "dateUpdated": "2026-01-01T00:00:00Z", "condition": condition.to_string()})
}

#[tokio::test]
async fn groups_and_namespaces_of_experiments_are_part_of_what_is_served() {
    let mut bed = Bed::new();
    // The guard holds what takes an experiment from all whom it is for; it is not what is tested here.
    bed.extra = "[guards]\nmax_changed_units_share = 1.0\n".to_owned();
    let namespace = json!({"id": "ns_checkout", "displayName": "Checkout", "description": "", "status": "active",
        "format": "multiRange", "hashAttribute": "company", "seed": "space"});
    let plan = json!({"plan": "pro"});
    bed.upstream.set_experiments(vec![referring()]);
    bed.upstream
        .set_references(vec![group(&plan)], vec![namespace]);
    let app = stand::start(&bed, &[]).await;
    let served = snapshot(&app).await;
    assert_eq!(
        served["saved_groups"]["grp_members"],
        json!({"type": "condition", "condition": plan})
    );
    let namespace = &served["experiments"][0]["phases"][0]["namespace"];
    assert_eq!(namespace["seed"], "space");
    assert_eq!(namespace["hashAttribute"], "company");
    let is_missing =
        async |app: &_| stand::has_issue(&stand::issues(app).await, "dangling_saved_group", "");
    assert!(!is_missing(&app).await);

    // A group that changes is news by itself; one that is gone is an issue.
    let plan = json!({"plan": "free"});
    bed.upstream.set_references(vec![group(&plan)], Vec::new());
    assert_report(&app.poll().await, "published", &[], "");
    let served = snapshot(&app).await;
    assert_eq!(served["saved_groups"]["grp_members"]["condition"], plan);
    bed.upstream.set_references(Vec::new(), Vec::new());
    assert_report(&app.poll().await, "published", &[], "");
    assert!(is_missing(&app).await);
    app.stop().await;
}
