//! Well-formed, but empty where it was not: held. Empty because everything ended: served.

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{ExperimentExt as _, Upstream, experiment, many_features},
    clock,
};
use time::Duration;

use crate::{
    stand::{self, PAYLOAD_ONLY, assert_report, assert_unmoved},
    support::{Bed, ENVIRONMENT, SOURCE, TestApp},
};

const VARNISH: &str = "/api/v1/experiments?authority=varnish&format=config";
const MEDIAWIKI: &str = "/api/v1/experiments?authority=mediawiki&format=config";

async fn names(app: &TestApp) -> Vec<String> {
    let map = app.get(VARNISH).await.json();
    map.as_object().unwrap().keys().cloned().collect()
}

async fn held(app: &TestApp) -> Value {
    app.status().await["environments"]["production"]["held"].clone()
}

/// Emptied, polled twice and restarted: the same bytes; then mended.
async fn check(emptied: fn(&Upstream), mended: fn(&Upstream), part: &str, code: &str) {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    let before = app.served().await;
    emptied(&bed.upstream);
    let why = format!("{part}: {code}: ");
    for _ in 0..2 {
        let report = app.poll().await;
        assert_report(&report, "held", &[part], &why);
        assert_eq!(report["revision"], 1);
        assert_unmoved(code, &before, &app.served().await);
        assert_eq!(held(&app).await, 1);
    }
    assert_eq!(stand::source_status(&app).await["last_outcome"], "held");
    app.stop().await;

    let app = stand::start(&bed, &[]).await;
    assert_unmoved(code, &before, &app.served().await);
    assert_report(&app.poll().await, "held", &[part], &why);
    assert_unmoved(code, &before, &app.served().await);
    mended(&bed.upstream);
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    assert_report(&app.poll().await, "published", &[], "");
    assert_eq!(held(&app).await, 0);
    app.stop().await;
}

fn no_features(upstream: &Upstream) {
    upstream.set_features(json!({}));
}

fn no_experiments(upstream: &Upstream) {
    upstream.set_experiments(Vec::new());
}

fn two_experiments(upstream: &Upstream) {
    upstream.set_experiments(vec![experiment("sticky-header-2026"), experiment("other")]);
}

fn renamed(upstream: &Upstream, field: &str) {
    for key in ["sticky-header-2026", "search-box-2026"] {
        upstream.update_experiment(key, |e| {
            let value = e["customFields"][field].clone();
            *e = e
                .clone()
                .with_custom_field(field, json!(null))
                .with_custom_field("renamed", value);
        });
    }
}

#[tokio::test]
async fn vanished_features_are_held() {
    let mended = |upstream: &Upstream| upstream.set_features(many_features(5, 3));
    check(no_features, mended, "payload", "empty_features").await;
}

#[tokio::test]
async fn vanished_experiments_are_held() {
    check(
        no_experiments,
        two_experiments,
        "experiments",
        "empty_experiments",
    )
    .await;
}

#[tokio::test]
async fn a_renamed_field_that_empties_a_view_is_held() {
    check(
        |u| renamed(u, "domains"),
        two_experiments,
        "experiments",
        "empty_view",
    )
    .await;
    check(
        |u| renamed(u, "wikis"),
        two_experiments,
        "experiments",
        "empty_view",
    )
    .await;
}

/// Both at once: each part has its own reason.
#[tokio::test]
async fn everything_vanished_is_held_part_by_part() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    let before = app.served().await;
    no_features(&bed.upstream);
    no_experiments(&bed.upstream);
    let report = app.poll().await;
    assert_report(
        &report,
        "held",
        &["experiments", "payload"],
        "payload: empty_features: ",
    );
    assert!(
        stand::reason(&report).contains("experiments: empty_experiments: "),
        "{report}"
    );
    assert_unmoved("all gone", &before, &app.served().await);
    app.stop().await;
}

#[tokio::test]
async fn vanished_features_of_a_source_without_experiments_are_held() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[PAYLOAD_ONLY]).await;
    let before = app.served().await;
    no_features(&bed.upstream);
    assert_report(
        &app.poll().await,
        "held",
        &["payload"],
        "payload: empty_features: ",
    );
    assert_unmoved("all gone", &before, &app.served().await);
    app.stop().await;
}

/// The view's only member leaves as it should: the view is empty, which is right.
async fn empties_rightly(change: fn(Value) -> Value) {
    let bed = Bed::new();
    let other = experiment("wiki-only").with_custom_field("domains", json!(null));
    let only = experiment("only-experiment").with_custom_field("wikis", json!(null));
    bed.upstream.set_experiments(vec![only, other]);
    let app = stand::start(&bed, &[]).await;
    assert_eq!(names(&app).await, ["only-experiment"]);
    bed.upstream
        .update_experiment("only-experiment", |e| *e = change(e.clone()));
    assert_report(&app.poll().await, "published", &[], "");
    let map = app.get(VARNISH).await;
    assert_eq!((map.status, &map.body[..]), (200, &b"{}"[..]));
    assert_eq!(app.get(MEDIAWIKI).await.json()[0]["name"], "wiki-only");
    assert_report(&app.poll().await, "unchanged", &[], "");
    app.stop().await;
}

#[tokio::test]
async fn a_view_whose_only_experiment_ended_a_day_ago_empties_rightly() {
    empties_rightly(|e| e.stopped_at(clock::now() - Duration::hours(25))).await;
}

#[tokio::test]
async fn a_view_whose_only_experiment_is_archived_empties_rightly() {
    empties_rightly(|e| e.with_archived(true)).await;
}

#[tokio::test]
async fn a_view_whose_only_experiment_is_a_draft_again_empties_rightly() {
    empties_rightly(|e| e.with_status("draft")).await;
}

/// That nothing runs any more is for somebody to confirm, although each experiment has ended as it should.
#[tokio::test]
async fn the_last_running_experiments_end_with_an_approval() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    let before = app.served().await;
    for key in ["sticky-header-2026", "search-box-2026"] {
        bed.upstream
            .update_experiment(key, |e| *e = e.clone().with_archived(true));
    }
    let why = "experiments: shrink: nothing is left of 2 running experiments";
    assert_report(&app.poll().await, "held", &["experiments"], why);
    assert_unmoved("nothing runs", &before, &app.served().await);
    let approve = format!("/admin/environments/{ENVIRONMENT}/held/{SOURCE}/approve");
    let answer = app.admin_post(&approve, r#"{"reason":"all done"}"#).await;
    assert_eq!(answer.json()["outcome"], "published");
    assert_eq!(app.get(VARNISH).await.body, "{}");
    assert_eq!(app.get(MEDIAWIKI).await.body, "[]");
    app.stop().await;
}

/// Ended less than a day ago: listed. The moment passes without any news from upstream: it falls off with a poll.
#[tokio::test]
async fn an_ended_experiment_falls_off_a_day_later_and_not_before() {
    let bed = Bed::new();
    let end = clock::now() - Duration::DAY + Duration::milliseconds(2500);
    bed.upstream
        .update_experiment("search-box-2026", |e| *e = e.clone().stopped_at(end));
    let app = stand::start(&bed, &[]).await;
    assert_eq!(names(&app).await, ["search-box-2026", "sticky-header-2026"]);
    assert_report(&app.poll().await, "unchanged", &[], "");
    let left = end + Duration::DAY - clock::now();
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    // While the upstream is down time stands still for its experiments.
    bed.upstream.go_down().await.unwrap();
    assert_eq!(app.poll().await["outcome"], "failed");
    assert_eq!(names(&app).await.len(), 2);
    bed.upstream.come_back().unwrap();
    assert_report(&app.poll().await, "published", &[], "");
    assert_eq!(names(&app).await, ["sticky-header-2026"]);
    assert_report(&app.poll().await, "unchanged", &[], "");
    app.stop().await;
}
