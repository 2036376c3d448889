//! The first publish: when it happens, when it does not, and that it happens once.

use serde_json::json;
use stitchd::cli::demo::upstream::{Connection, Fault, Route, experiment};

use crate::{
    stand::{
        self, DISCOVER, PAYLOAD_ONLY, assert_never_loaded, assert_report, assert_served, settled,
    },
    support::{Bed, TestApp},
};

/// A start that is not waited for, but whose first poll is.
async fn started(bed: &Bed, changes: &[stand::Change<'_>]) -> TestApp {
    let app = TestApp::spawn(stand::settings(bed, changes)).await;
    settled(&app).await;
    app
}

#[tokio::test]
async fn it_waits_for_both_parts_whichever_is_late() {
    for (late, part) in [
        (Route::Experiments, "experiments"),
        (Route::Features, "payload"),
    ] {
        let bed = Bed::new();
        bed.upstream.set_fault(late, Fault::Status(500));
        let app = started(&bed, &[]).await;
        assert_never_loaded(&app).await;
        for _ in 0..2 {
            let report = app.poll().await;
            assert_report(
                &report,
                "failed",
                &[part],
                &format!("{part}: http_status: "),
            );
            assert!(
                stand::reason(&report).contains("the first publish waits for"),
                "{report}"
            );
            assert!(report["revision"].is_null(), "{report}");
            assert_never_loaded(&app).await;
        }
        assert_eq!(app.admin_get("/readyz").await.status, 503);
        bed.upstream.clear_fault(late);
        assert_report(&app.poll().await, "published", &[], "");
        assert_served(&app.served().await);
        assert_report(&app.poll().await, "unchanged", &[], "");
        assert_eq!(app.revision(), 1);
        assert_eq!(app.admin_get("/readyz").await.status, 200);
        app.stop().await;
    }
}

/// Each half arrives in another process: what the first one took in was kept.
#[tokio::test]
async fn its_halves_may_come_in_different_starts() {
    let bed = Bed::new();
    bed.upstream.set_fault(Route::Experiments, Fault::Reset);
    let app = started(&bed, &[]).await;
    assert_never_loaded(&app).await;
    app.stop().await;
    bed.upstream.clear_all();
    bed.upstream.set_fault(Route::Features, Fault::Reset);
    let app = started(&bed, &[]).await;
    app.until_revision(1).await;
    assert_served(&app.served().await);
    assert_report(
        &app.poll().await,
        "unchanged",
        &["payload"],
        "payload: reset: ",
    );
    assert_eq!(app.revision(), 1);
    app.stop().await;
}

#[tokio::test]
async fn it_waits_for_every_listed_connection() {
    let bed = Bed::new();
    let list = "connections = [{ key = \"sdk-demo\" }, { key = \"sdk-two\" }]";
    let app = started(&bed, &[("client_key = \"sdk-demo\"", list)]).await;
    assert_never_loaded(&app).await;
    let report = app.poll().await;
    assert_report(&report, "failed", &["payload"], "payload: unrecoverable: ");
    bed.upstream.add_connection(Connection::new("sdk-two"));
    assert_report(&app.poll().await, "published", &[], "");
    assert_eq!(app.revision(), 1);
    app.stop().await;
}

#[tokio::test]
async fn it_waits_for_the_list_of_connections() {
    let bed = Bed::new();
    bed.upstream
        .set_fault(Route::Connections, Fault::Status(500));
    let app = started(&bed, &[DISCOVER]).await;
    assert_never_loaded(&app).await;
    let report = app.poll().await;
    assert_report(
        &report,
        "failed",
        &["connections"],
        "connections: http_status: ",
    );
    bed.upstream.clear_all();
    assert_report(&app.poll().await, "published", &[], "");
    assert_eq!(app.revision(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_first_poll_that_fails_altogether_serves_nothing() {
    let bed = Bed::new();
    bed.upstream.go_down().await.unwrap();
    let app = started(&bed, &[]).await;
    assert_never_loaded(&app).await;
    let report = app.poll().await;
    assert_report(
        &report,
        "failed",
        &["experiments", "payload"],
        "payload: refused: ",
    );
    let status = app.status().await;
    assert!(status["environments"]["production"]["revision"].is_null());
    assert!(
        status["sources"]["gb"]["age_seconds"].is_null(),
        "never loaded has no age"
    );
    bed.upstream.come_back().unwrap();
    assert_report(&app.poll().await, "published", &[], "");
    app.stop().await;
}

/// Dates and screenshot addresses that differ in every answer included.
#[tokio::test]
async fn a_repeated_first_start_publishes_exactly_one_revision() {
    let bed = Bed::new();
    bed.upstream.set_volatile(true);
    let mut first = None;
    for _ in 0..4 {
        let app = stand::start(&bed, &[]).await;
        for _ in 0..3 {
            assert_report(&app.poll().await, "unchanged", &[], "");
        }
        assert_eq!(app.revision(), 1);
        let served = app.served().await;
        assert_served(&served);
        stand::assert_unmoved("start", first.get_or_insert(served.clone()), &served);
        app.stop().await;
    }
}

#[tokio::test]
async fn an_empty_first_load_is_held() {
    for changes in [&[][..], &[PAYLOAD_ONLY]] {
        let bed = Bed::new();
        bed.upstream.set_features(json!({}));
        bed.upstream.set_experiments(Vec::new());
        let app = started(&bed, changes).await;
        for _ in 0..2 {
            assert_never_loaded(&app).await;
            let report = app.poll().await;
            assert_report(&report, "held", &["payload"], "empty_source");
            assert!(stand::reason(&report).contains("allow_empty"), "{report}");
            assert!(report["revision"].is_null(), "{report}");
        }
        let status = app.status().await;
        assert_eq!(status["environments"]["production"]["held"], 1);
        app.stop().await;
        // Held is not forgotten by a restart into being served.
        let app = started(&bed, changes).await;
        assert_never_loaded(&app).await;
        bed.upstream.set_feature("one", json!({"defaultValue": 1}));
        assert_report(&app.poll().await, "published", &[], "");
        assert_served(&app.served().await);
        let status = app.status().await;
        assert_eq!(status["environments"]["production"]["held"], 0);
        app.stop().await;
    }
}

#[tokio::test]
async fn a_first_load_with_something_in_it_is_served() {
    let bed = Bed::new();
    bed.upstream.set_features(json!({}));
    bed.upstream.set_experiments(vec![experiment("only")]);
    let app = started(&bed, &[]).await;
    assert_eq!(app.revision(), 1);
    app.stop().await;

    let bed = Bed::new();
    bed.upstream.set_experiments(Vec::new());
    let app = started(&bed, &[]).await;
    assert_eq!(app.revision(), 1);
    let map = app
        .get("/api/v1/experiments?authority=varnish&format=config")
        .await;
    assert_eq!((map.status, &map.body[..]), (200, &b"{}"[..]));
    app.stop().await;
}

#[tokio::test]
async fn an_empty_first_load_that_is_allowed_is_served_as_empty() {
    let mut bed = Bed::new();
    bed.source_extra = "allow_empty = true".to_owned();
    bed.upstream.set_features(json!({}));
    bed.upstream.set_experiments(Vec::new());
    let app = stand::start(&bed, &[]).await;
    assert_served(&app.served().await);
    for (query, body) in [
        ("authority=varnish&format=config", "{}"),
        ("authority=mediawiki&format=config", "[]"),
        ("format=analytics", "[]"),
    ] {
        let answer = app.get(&format!("/api/v1/experiments?{query}")).await;
        assert_eq!(
            (answer.status, &answer.body[..]),
            (200, body.as_bytes()),
            "{query}"
        );
    }
    assert_report(&app.poll().await, "unchanged", &[], "");
    bed.upstream.set_feature("one", json!({"defaultValue": 1}));
    assert_report(&app.poll().await, "published", &[], "");
    // Allowed is the first load only: what was there may not vanish.
    bed.upstream.set_features(json!({}));
    assert_report(
        &app.poll().await,
        "held",
        &["payload"],
        "payload: empty_features: ",
    );
    assert!(stand::has_feature(&app, "one").await);
    app.stop().await;
}
