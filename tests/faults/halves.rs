//! Half failures: one part's news are published, and the report says what is missing.

use serde_json::json;
use stitchd::cli::demo::upstream::{Connection, ExperimentExt as _, Fault, Route, experiment};

use crate::{
    stand::{self, DISCOVER, SMALL_BODIES, assert_report, has_feature, snapshot},
    support::Bed,
};

/// Faults that reach different layers: wire, status, shape, meaning, emptiness.
fn faults() -> [(Fault, &'static str); 5] {
    [
        (Fault::Reset, "reset"),
        (Fault::Status(500), "http_status"),
        (Fault::EmptyObject, "bad_shape"),
        (Fault::GzipBomb, "too_large"),
        (Fault::Html, "not_json"),
    ]
}

#[tokio::test]
async fn the_payloads_news_do_not_wait_for_the_list() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[SMALL_BODIES]).await;
    for (number, (fault, code)) in faults().into_iter().enumerate() {
        let (news, late) = (format!("news-{number}"), format!("late-{number}"));
        bed.upstream.set_feature(&news, json!({"defaultValue": 1}));
        bed.upstream.upsert_experiment(experiment(&late));
        bed.upstream.set_fault(Route::Experiments, fault);
        let why = format!("experiments: {code}: ");
        let report = app.poll().await;
        assert_report(&report, "published", &["experiments"], &why);
        assert_eq!(report["revision"], app.revision());
        assert!(has_feature(&app, &news).await);
        assert!(!stand::experiments(&app).await.contains(&late));
        assert_report(&app.poll().await, "unchanged", &["experiments"], &why);
        bed.upstream.clear_all();
        assert_report(&app.poll().await, "published", &[], "");
        assert!(stand::experiments(&app).await.contains(&late));
    }
    app.stop().await;
}

#[tokio::test]
async fn the_lists_news_do_not_wait_for_the_payload() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[SMALL_BODIES]).await;
    for (number, (fault, code)) in faults().into_iter().enumerate() {
        let (late, news) = (format!("late-{number}"), format!("news-{number}"));
        bed.upstream.set_feature(&late, json!({"defaultValue": 1}));
        bed.upstream.upsert_experiment(experiment(&news));
        bed.upstream.set_fault(Route::Features, fault);
        let why = format!("payload: {code}: ");
        assert_report(&app.poll().await, "published", &["payload"], &why);
        assert!(stand::experiments(&app).await.contains(&news));
        assert!(!has_feature(&app, &late).await);
        bed.upstream.clear_all();
        assert_report(&app.poll().await, "published", &[], "");
        assert!(has_feature(&app, &late).await);
    }
    app.stop().await;
}

/// An emptied half is held; the other half's news are out, which is the outcome, and both are told.
#[tokio::test]
async fn an_emptied_half_does_not_hold_the_other() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    bed.upstream.set_fault(Route::Experiments, Fault::EmptyList);
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    let why = "experiments: empty_experiments: ";
    assert_report(&app.poll().await, "published", &["experiments"], why);
    assert!(has_feature(&app, "news").await);
    assert_eq!(stand::experiments(&app).await.len(), 2);
    bed.upstream.clear_all();

    bed.upstream
        .set_fault(Route::Features, Fault::EmptyFeatures);
    bed.upstream.upsert_experiment(experiment("news"));
    assert_report(
        &app.poll().await,
        "published",
        &["payload"],
        "payload: empty_features: ",
    );
    assert_eq!(stand::experiments(&app).await.len(), 3);
    bed.upstream.clear_all();

    // A renamed field empties a view: the list is left out, the payload is not.
    for key in ["news", "sticky-header-2026", "search-box-2026"] {
        bed.upstream.update_experiment(key, |e| {
            *e = e.clone().with_custom_field("domains", json!(null));
        });
    }
    bed.upstream.set_feature("more", json!({"defaultValue": 1}));
    assert_report(
        &app.poll().await,
        "published",
        &["experiments"],
        "experiments: empty_view: ",
    );
    assert!(has_feature(&app, "more").await);
    let kept = snapshot(&app).await["experiments"][0]["customFields"]["domains"].clone();
    assert_eq!(kept, "en.wikipedia.org");
    app.stop().await;
}

/// Both halves fail in different ways: nothing arrived, and both reasons are told.
#[tokio::test]
async fn two_failed_halves_are_a_failure_with_two_reasons() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    bed.upstream.set_fault(Route::Features, Fault::Html);
    bed.upstream
        .set_fault(Route::Experiments, Fault::Status(401));
    let report = app.poll().await;
    assert_report(
        &report,
        "failed",
        &["experiments", "payload"],
        "payload: not_json: ",
    );
    assert!(
        stand::reason(&report).contains("experiments: unauthorized: "),
        "{report}"
    );
    bed.upstream
        .set_fault(Route::Experiments, Fault::Status(429));
    let report = app.poll().await;
    assert_report(
        &report,
        "failed",
        &["experiments", "payload"],
        "rate_limited: 60 s left",
    );
    assert!(
        stand::reason(&report).contains("payload: not_json: "),
        "{report}"
    );
    app.stop().await;
}

/// Without the list of connections nothing is known to be whole: the age goes on counting from the last full success.
#[tokio::test]
async fn a_half_failure_is_no_success() {
    for (route, changes) in [
        (Route::Features, &[][..]),
        (Route::Experiments, &[]),
        (Route::Connections, &[DISCOVER]),
    ] {
        let bed = Bed::new();
        let app = stand::start(&bed, changes).await;
        let last_success = stand::source_status(&app).await["last_success"].clone();
        assert!(last_success.is_string());
        bed.upstream.set_fault(route, Fault::Status(500));
        app.poll().await;
        let source = stand::source_status(&app).await;
        assert_eq!(source["last_success"], last_success, "{route:?}");
        bed.upstream.clear_all();
        app.poll().await;
        let source = stand::source_status(&app).await;
        assert_ne!(source["last_success"], last_success, "{route:?}");
        assert!(source["last_error"].is_null(), "{route:?}");
        app.stop().await;
    }
}

/// Two connections are two parts: one's news do not wait for the other, and an emptied one is held by itself.
#[tokio::test]
async fn one_connection_of_two_fails_by_itself() {
    let bed = Bed::new();
    bed.upstream.add_connection(Connection::new("sdk-two"));
    bed.upstream
        .set_connection_features("sdk-two", json!({"two": {"defaultValue": 1}}));
    let list = "connections = [{ key = \"sdk-demo\" }, { key = \"sdk-two\" }]";
    let app = stand::start(&bed, &[("client_key = \"sdk-demo\"", list)]).await;
    assert!(has_feature(&app, "two").await);
    for (number, (body, outcome, code)) in [
        ("<html>", "published", "not_json"),
        ("{}", "published", "bad_shape"),
        ("{\"features\":7}", "published", "malformed"),
        ("{\"features\":{}}", "published", "empty_features"),
    ]
    .into_iter()
    .enumerate()
    {
        let news = format!("news-{number}");
        bed.upstream.set_payload("sdk-two", body);
        bed.upstream.set_feature(&news, json!({"defaultValue": 1}));
        let why = format!("payload: {code}: ");
        assert_report(&app.poll().await, outcome, &["payload"], &why);
        assert!(has_feature(&app, &news).await && has_feature(&app, "two").await);
    }
    bed.upstream.clear_payload("sdk-two");
    assert_report(&app.poll().await, "unchanged", &[], "");
    app.stop().await;
}
