//! When polls happen: forced ones, one in flight and one waiting, pause and resume, the upstream's event stream.

use std::time::Duration;

use serde_json::json;
use stitchd::cli::demo::upstream::{Fault, Route};
use tokio::join;

use crate::{
    stand::{self, OFTEN, STREAMING, assert_report, has_feature, quiet_moment},
    support::{Bed, SOURCE, TestApp, eventually},
};

const LATE: Fault = Fault::Delay(Duration::from_millis(300));

async fn order(app: &TestApp, verb: &str) -> String {
    let answer = app
        .admin_post(&format!("/admin/sources/{SOURCE}/{verb}"), "")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["state"].as_str().unwrap().to_owned()
}

/// The upstream answers as of the moment it was asked, but late: the poll in flight cannot see the change.
#[tokio::test]
async fn a_call_during_a_poll_waits_for_the_next_and_sees_what_was_changed_before_it() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    bed.upstream.clear_requests();
    bed.upstream.set_fault(Route::Features, LATE);
    let second = async {
        bed.upstream.until_requests(Route::Features, 1).await;
        bed.upstream.set_feature("news", json!({"defaultValue": 1}));
        join!(app.poll(), app.poll(), app.poll())
    };
    let (first, (a, b, c)) = join!(app.poll(), second);
    assert_report(&first, "unchanged", &[], "");
    for report in [a, b, c] {
        assert_report(&report, "published", &[], "");
        assert_eq!(report["revision"], 2);
    }
    // One in flight, one for all who waited.
    assert_eq!(bed.upstream.request_count(Route::Features), 2);
    app.stop().await;
}

#[tokio::test]
async fn two_calls_at_once_both_see_what_was_changed_before_them() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    for number in 0..5 {
        let news = format!("news-{number}");
        bed.upstream.set_feature(&news, json!({"defaultValue": 1}));
        let (a, b) = join!(app.poll(), app.poll());
        let outcomes = [
            a["outcome"].as_str().unwrap(),
            b["outcome"].as_str().unwrap(),
        ];
        assert!(outcomes.contains(&"published"), "{outcomes:?}");
        assert_eq!(
            (&a["revision"], &b["revision"]),
            (&json!(number + 2), &json!(number + 2))
        );
        assert!(has_feature(&app, &news).await);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_pause_stops_the_schedule_and_a_forced_poll_works_all_the_same() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[OFTEN]).await;
    bed.upstream.until_requests(Route::Features, 4).await;
    assert_eq!(order(&app, "pause").await, "paused");
    assert!(stand::source_status(&app).await["next_poll"].is_null());
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    bed.upstream.clear_requests();
    quiet_moment().await;
    assert_eq!(bed.upstream.requests().len(), 0);

    assert_report(&app.poll().await, "published", &[], "");
    assert!(has_feature(&app, "news").await);
    let source = stand::source_status(&app).await;
    assert_eq!(
        (&source["state"], &source["next_poll"]),
        (&json!("paused"), &json!(null))
    );
    bed.upstream.clear_requests();
    quiet_moment().await;
    assert_eq!(
        bed.upstream.requests().len(),
        0,
        "a forced poll ends no pause"
    );

    assert_eq!(order(&app, "pause").await, "paused");
    assert_eq!(order(&app, "resume").await, "running");
    bed.upstream.until_requests(Route::Features, 3).await;
    bed.upstream.set_feature("more", json!({"defaultValue": 1}));
    app.until_revision(3).await;
    app.stop().await;
}

/// A scheduled poll that is in flight brings nothing any more once the source is paused; a forced one does.
#[tokio::test]
async fn a_pause_ends_a_scheduled_poll_and_lets_a_forced_one_finish() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[OFTEN]).await;
    bed.upstream.clear_requests();
    bed.upstream.set_fault(Route::Features, LATE);
    bed.upstream.until_requests(Route::Features, 1).await;
    bed.upstream.clear_requests();
    // The next one is asked for after this change.
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    bed.upstream.until_requests(Route::Features, 1).await;
    assert_eq!(order(&app, "pause").await, "paused");
    quiet_moment().await;
    assert_eq!(app.revision(), 1);

    bed.upstream.clear_requests();
    let pause = async {
        bed.upstream.until_requests(Route::Features, 1).await;
        order(&app, "pause").await
    };
    let (report, state) = join!(app.poll(), pause);
    assert_report(&report, "published", &[], "");
    assert_eq!(state, "paused");
    app.stop().await;
}

#[tokio::test]
async fn resume_polls_at_once() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    order(&app, "pause").await;
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    order(&app, "resume").await;
    app.until_revision(2).await;
    assert!(has_feature(&app, "news").await);
    app.stop().await;
}

#[tokio::test]
async fn a_source_without_a_schedule_is_polled_on_demand() {
    let bed = Bed::new();
    let off = (
        "poll.interval = \"1h\"",
        "poll.interval = \"100ms\"\npoll.enabled = false",
    );
    let app = TestApp::spawn(stand::settings(&bed, &[off])).await;
    assert_eq!(stand::source_status(&app).await["state"], "disabled");
    stand::assert_never_loaded(&app).await;
    quiet_moment().await;
    assert_eq!(bed.upstream.requests().len(), 0);
    assert_report(&app.poll().await, "published", &[], "");
    bed.upstream.clear_requests();
    quiet_moment().await;
    assert_eq!(bed.upstream.requests().len(), 0);
    app.stop().await;
}

#[tokio::test]
async fn a_disabled_source_is_not_polled_at_all() {
    let mut bed = Bed::new();
    bed.source_extra = "enabled = false".to_owned();
    let app = TestApp::spawn(bed.settings()).await;
    let answer = app
        .admin_post(&format!("/admin/sources/{SOURCE}/poll"), "")
        .await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!(stand::source_status(&app).await["state"], "disabled");
    assert_eq!(bed.upstream.requests().len(), 0);
    app.stop().await;
}

async fn until_streams(bed: &Bed, count: usize) {
    eventually("the streams are open", async || {
        (bed.upstream.open_streams() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_event_of_the_upstream_triggers_a_poll_at_once() {
    let bed = Bed::new();
    bed.upstream.enable_streaming();
    let app = stand::start(&bed, &[STREAMING]).await;
    until_streams(&bed, 1).await;
    for revision in 2..5 {
        let news = format!("news-{revision}");
        bed.upstream.set_feature(&news, json!({"defaultValue": 1}));
        app.until_revision(revision).await;
        assert!(has_feature(&app, &news).await);
    }
    app.stop().await;
}

/// The stream says that there are news; what they are is taken from the payload, through all checks.
#[tokio::test]
async fn what_an_event_carries_is_not_believed() {
    let bed = Bed::new();
    bed.upstream.enable_streaming();
    let app = stand::start(&bed, &[STREAMING]).await;
    until_streams(&bed, 1).await;
    let before = app.served().await;
    bed.upstream.clear_requests();
    bed.upstream
        .send_to_streams("sdk-demo", "event: features\ndata: {\"features\":{}}\n\n");
    bed.upstream.until_requests(Route::Features, 1).await;
    assert_report(&app.poll().await, "unchanged", &[], "");
    stand::assert_unmoved("event", &before, &app.served().await);
    app.stop().await;
}

#[tokio::test]
async fn a_pause_stops_the_stream_and_resume_opens_it_again() {
    let bed = Bed::new();
    bed.upstream.enable_streaming();
    let app = stand::start(&bed, &[STREAMING]).await;
    until_streams(&bed, 1).await;
    order(&app, "pause").await;
    until_streams(&bed, 0).await;
    bed.upstream.clear_requests();
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    quiet_moment().await;
    assert_eq!(bed.upstream.requests().len(), 0);
    assert_eq!(app.revision(), 1);
    // A forced poll works and opens no stream.
    assert_report(&app.poll().await, "published", &[], "");
    quiet_moment().await;
    assert_eq!(bed.upstream.open_streams(), 0);
    order(&app, "resume").await;
    until_streams(&bed, 1).await;
    bed.upstream.set_feature("more", json!({"defaultValue": 1}));
    app.until_revision(3).await;
    app.stop().await;
}

/// Polling goes on as the safety net: a stream that says nothing hides nothing.
#[tokio::test]
async fn a_silent_stream_hides_no_news() {
    let bed = Bed::new();
    bed.upstream.enable_streaming();
    bed.upstream.set_fault(Route::Stream, Fault::Status(500));
    let app = stand::start(&bed, &[STREAMING, OFTEN]).await;
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    app.until_revision(2).await;
    assert!(has_feature(&app, "news").await);
    app.stop().await;
}

/// Polls that fail move the schedule away; a forced one and the recovery bring it back.
#[tokio::test]
async fn failing_polls_thin_out() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[OFTEN, stand::PAYLOAD_ONLY]).await;
    bed.upstream.set_fault(Route::Features, Fault::Status(401));
    eventually("the refusal is noticed", async || {
        let source = stand::source_status(&app).await;
        (source["permanent"] == true).then_some(())
    })
    .await;
    bed.upstream.clear_requests();
    quiet_moment().await;
    assert_eq!(
        bed.upstream.requests().len(),
        0,
        "the longest backoff is not 100 ms"
    );
    bed.upstream.clear_all();
    assert_report(&app.poll().await, "unchanged", &[], "");
    bed.upstream.until_requests(Route::Features, 4).await;
    app.stop().await;
}

/// An event that comes during a poll is not lost: another poll follows, and nobody has to ask.
#[tokio::test]
async fn an_event_during_a_poll_triggers_another() {
    let bed = Bed::new();
    bed.upstream.enable_streaming();
    let app = stand::start(&bed, &[STREAMING]).await;
    until_streams(&bed, 1).await;
    bed.upstream.clear_requests();
    bed.upstream.set_fault(Route::Features, LATE);
    let change = async {
        bed.upstream.until_requests(Route::Features, 1).await;
        bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    };
    let (report, ()) = join!(app.poll(), change);
    assert_report(&report, "unchanged", &[], "");
    app.until_revision(2).await;
    assert!(has_feature(&app, "news").await);
    app.stop().await;
}
