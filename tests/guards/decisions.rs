//! What operators decide, and what is decided without them.

use serde_json::{Value, json};
use stitchd::cli::demo::upstream::{ExperimentExt as _, feature, many_experiments, many_features};

use crate::{
    stand::{
        ITEMS, approve, assert_held, bed, counts, decide, guards, held, keep_experiments,
        keep_features, metric, only_held, start,
    },
    support::{Bed, ENVIRONMENT, SOURCE, TestApp},
};

async fn last_audit(app: &TestApp) -> Value {
    app.admin_get("/admin/audit?limit=1").await.json()["entries"][0].clone()
}

#[tokio::test]
async fn an_approved_input_is_published_and_stays() {
    let bed = bed();
    let app = start(&bed).await;
    keep_features(&bed, 2);
    keep_experiments(&bed, 2);
    assert_held(&app, "shrink").await;
    let digest = only_held(&app).await["digest"].clone();
    let body = json!({"reason": "spring cleaning", "digest": digest});
    let answer = decide(&app, "approve", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = json!({"source": SOURCE, "outcome": "published", "revision": 2});
    assert_eq!(answer.json(), expected);
    assert_eq!(counts(&app).await, (2, 2));
    assert_eq!(held(&app).await, [Value::Null; 0]);
    let entry = last_audit(&app).await;
    assert_eq!(entry["action"], "environment.held.approve");
    assert_eq!(entry["target"], format!("{ENVIRONMENT}/{SOURCE}"));
    assert_eq!(
        (&entry["reason"], &entry["result"]),
        (&json!("spring cleaning"), &json!("published"))
    );
    assert_eq!(app.poll().await["outcome"], "unchanged");
    app.stop().await;
    let app = start(&bed).await;
    assert_eq!(counts(&app).await, (2, 2));
    app.stop().await;
}

/// What the upstream says to be unchanged is then what was before the approval: it must be asked without a validator.
#[tokio::test]
async fn an_upstream_that_goes_back_after_an_approval_is_believed() {
    let bed = bed();
    let app = start(&bed).await;
    keep_features(&bed, 2);
    assert_held(&app, "shrink").await;
    approve(&app).await;
    bed.upstream.set_features(many_features(ITEMS, 3));
    crate::support::eventually("all features are back", async || {
        app.poll().await;
        (counts(&app).await.0 == ITEMS).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn emptiness_can_be_approved() {
    let bed = bed();
    let app = start(&bed).await;
    keep_features(&bed, 0);
    keep_experiments(&bed, 0);
    assert_held(&app, "empty_features").await;
    assert_eq!(approve(&app).await["outcome"], "published");
    assert_eq!(counts(&app).await, (0, 0));
    app.stop().await;
}

#[tokio::test]
async fn an_empty_first_load_can_be_approved() {
    let bed = Bed::new();
    bed.upstream.set_features(json!({}));
    bed.upstream.set_experiments(Vec::new());
    let app = bed.start().await;
    crate::stand::settled(&app).await;
    let path = format!("/v1/snapshot/{ENVIRONMENT}");
    assert_eq!(app.get(&path).await.status, 503);
    assert_eq!(only_held(&app).await["reasons"][0]["guard"], "empty_source");
    let answer = approve(&app).await;
    assert_eq!(
        (&answer["outcome"], &answer["revision"]),
        (&json!("published"), &json!(1))
    );
    assert_eq!(counts(&app).await, (0, 0));
    assert_eq!(app.poll().await["outcome"], "unchanged");
    app.stop().await;
}

#[tokio::test]
async fn a_decision_needs_a_reason_and_the_input_that_was_seen() {
    let bed = bed();
    let app = start(&bed).await;
    let answer = decide(&app, "approve", &json!({"reason": "no idea"})).await;
    assert_eq!((answer.status, &answer.json()["held"]), (404, &json!([])));
    keep_features(&bed, 2);
    assert_held(&app, "shrink").await;
    for fate in ["approve", "discard"] {
        for body in [json!({}), json!({"reason": " "})] {
            let answer = decide(&app, fate, &body).await;
            assert_eq!(
                (answer.status, &answer.json()["field"]),
                (400, &json!("reason"))
            );
        }
        let body = json!({"reason": "seen yesterday", "digest": "00"});
        let answer = decide(&app, fate, &body).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (409, &json!("held_changed"))
        );
        assert_eq!(last_audit(&app).await["result"], "failed: held_changed");
    }
    let elsewhere = "/admin/environments/nowhere/held";
    assert_eq!(app.admin_get(elsewhere).await.status, 404);
    let path = format!("/admin/environments/{ENVIRONMENT}/held/other/approve");
    let answer = app.admin_post(&path, r#"{"reason":"x"}"#).await;
    assert_eq!(
        (answer.status, &answer.json()["held"]),
        (404, &json!([SOURCE]))
    );
    assert_eq!(counts(&app).await.0, ITEMS);
    app.stop().await;
}

#[tokio::test]
async fn a_discarded_input_alarms_nobody_and_is_never_taken_by_itself() {
    let mut bed = bed();
    bed.extra = "[guards]\nauto_accept_after_polls = 2\n".to_owned();
    let app = start(&bed).await;
    let before = app.served().await;
    keep_features(&bed, 6);
    assert_held(&app, "shrink").await;
    let answer = decide(&app, "discard", &json!({"reason": "a broken export"})).await;
    let expected = json!({"source": SOURCE, "outcome": "discarded", "revision": 1});
    assert_eq!(answer.json(), expected);
    assert_eq!(last_audit(&app).await["action"], "environment.held.discard");
    for _ in 0..4 {
        assert_eq!(app.poll().await["outcome"], "held");
    }
    let held = only_held(&app).await;
    assert_eq!(
        (&held["discarded"], &held["repeats"]),
        (&json!(true), &json!(4))
    );
    assert_eq!(held["auto_accept_after"], Value::Null);
    assert_eq!(app.status().await["environments"][ENVIRONMENT]["held"], 0);
    assert_eq!(app.admin_get("/readyz").await.json()["degraded"], json!([]));
    assert_eq!(before, app.served().await);
    // Another input is another matter, and the same one later is still discarded.
    bed.upstream.set_features(many_features(ITEMS, 3));
    assert_eq!(app.poll().await["outcome"], "unchanged");
    keep_features(&bed, 6);
    assert_eq!(app.poll().await["outcome"], "held");
    assert_eq!(only_held(&app).await["discarded"], true);
    keep_features(&bed, 5);
    assert_held(&app, "shrink").await;
    assert_eq!(only_held(&app).await["discarded"], false);
    app.stop().await;
}

#[tokio::test]
async fn an_approval_ends_a_discard() {
    let bed = bed();
    let all = Value::Object(bed.upstream.features().into_iter().collect());
    let app = start(&bed).await;
    keep_features(&bed, 6);
    assert_held(&app, "shrink").await;
    for fate in ["discard", "approve"] {
        let answer = decide(&app, fate, &json!({"reason": "on second thoughts"})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    bed.upstream.set_features(all);
    assert_eq!(app.poll().await["outcome"], "published");
    keep_features(&bed, 6);
    assert_held(&app, "shrink").await;
    assert_eq!(only_held(&app).await["discarded"], false);
    app.stop().await;
}

#[tokio::test]
async fn a_discarded_input_stays_discarded_after_a_restart() {
    let mut bed = bed();
    bed.extra = "[guards]\nauto_accept_after_polls = 2\n".to_owned();
    let app = start(&bed).await;
    keep_features(&bed, 6);
    assert_held(&app, "shrink").await;
    let answer = decide(&app, "discard", &json!({"reason": "a broken export"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    app.stop().await;
    let app = start(&bed).await;
    let before = app.served().await;
    for _ in 0..4 {
        assert_eq!(app.poll().await["outcome"], "held");
        assert_eq!(only_held(&app).await["discarded"], true);
    }
    assert_eq!(before, app.served().await);
    assert_eq!(app.status().await["environments"][ENVIRONMENT]["held"], 0);
    let trips = metric(&app, "stitchd_guard_trips_total", ",guard=\"shrink\"").await;
    let is_told = trips.is_some_and(|trips| trips > 0.0);
    assert!(!is_told, "somebody is told again");
    keep_features(&bed, 5);
    assert_held(&app, "shrink").await;
    assert_eq!(only_held(&app).await["discarded"], false);
    app.stop().await;
}

#[tokio::test]
async fn a_held_override_file_is_approved_as_what_it_is() {
    let mut bed = bed();
    let path = bed.dir.path().join("flags.json");
    std::fs::write(&path, r#"{"one": 1, "two": 2}"#).unwrap();
    bed.extra = format!("[evaluation]\noverride_file = \"{}\"\n", path.display());
    let app = bed.start_loaded().await;
    std::fs::write(&path, "{}").unwrap();
    let source = format!("override-{ENVIRONMENT}");
    let poll = format!("/admin/sources/{source}/poll");
    let report = app.admin_post(&poll, "").await.json();
    assert_eq!(report["outcome"], "held", "{report}");
    let approve = format!("/admin/environments/{ENVIRONMENT}/held/{source}/approve");
    let answer = app.admin_post(&approve, r#"{"reason":"all gone"}"#).await;
    assert_eq!(answer.json()["outcome"], "published", "{answer:?}");
    assert_eq!(counts(&app).await, (0, 0));
    app.stop().await;
}

#[tokio::test]
async fn what_would_empty_something_is_never_taken_by_itself() {
    let mut bed = bed();
    bed.extra =
        "[guards]\nauto_accept_after_polls = 2\ngrowth_floor_bytes = 1000\nmax_growth = 1.5\n"
            .to_owned();
    let app = start(&bed).await;
    // Nothing runs any more.
    let archived = many_experiments(ITEMS).into_iter();
    let archived = archived.map(|experiment| experiment.with_archived(true));
    bed.upstream.set_experiments(archived.collect());
    for _ in 0..4 {
        assert_held(&app, "shrink").await;
        assert_eq!(only_held(&app).await["auto_accept_after"], Value::Null);
    }
    // A list that has grown too much hides that a consumer would be shown nothing.
    let renamed = many_experiments(2 * ITEMS).into_iter();
    let renamed = renamed.map(|experiment| experiment.with_custom_field("domains", json!(null)));
    bed.upstream.set_experiments(renamed.collect());
    for _ in 0..4 {
        assert_held(&app, "growth").await;
        let held = only_held(&app).await;
        assert!(guards(&held).contains(&"empty_view"), "{held}");
        assert_eq!(held["auto_accept_after"], Value::Null);
    }
    app.stop().await;
}

#[tokio::test]
async fn what_comes_often_enough_is_taken_by_itself_but_for_emptiness() {
    let mut bed = bed();
    bed.source_extra = "guards.auto_accept_after_polls = 2\n".to_owned();
    let app = start(&bed).await;
    keep_features(&bed, 6);
    assert_held(&app, "shrink").await;
    assert_eq!(only_held(&app).await["auto_accept_after"], 2);
    assert_held(&app, "shrink").await;
    // Something else comes in between: counting begins anew.
    bed.upstream.set_feature("more", feature(1));
    assert_held(&app, "shrink").await;
    assert_held(&app, "shrink").await;
    let report = app.poll().await;
    assert_eq!(report["outcome"], "published", "{report}");
    assert_eq!(counts(&app).await, (7, ITEMS));
    assert_eq!(held(&app).await, [Value::Null; 0]);
    keep_features(&bed, 0);
    for _ in 0..4 {
        assert_held(&app, "empty_features").await;
    }
    assert_eq!(only_held(&app).await["auto_accept_after"], Value::Null);
    app.stop().await;
}
