//! Refusals that only an operator can end, and the waits between polls that fail.

use stitchd::cli::demo::upstream::{Fault, Route};

use crate::{
    stand::{
        self, Change, PAYLOAD_ONLY, assert_report, assert_unmoved, source_status, wait_seconds,
    },
    support::{Bed, SOURCE},
};

/// Ten seconds between polls, two minutes at most while failing, no jitter.
const SCHEDULE: Change<'_> = (
    "poll.interval = \"1h\"",
    "poll.interval = \"10s\"\npoll.jitter = 0.0\npoll.failure_backoff_max = \"2m\"",
);

#[track_caller]
fn assert_wait(source: &serde_json::Value, seconds: f64) {
    let wait = wait_seconds(source);
    // The wait counts from the poll's end, the attempt from its start.
    assert!(
        (seconds - 0.5..seconds + 5.0).contains(&wait),
        "{wait} s instead of {seconds}: {source}"
    );
}

#[tokio::test]
async fn a_refusal_for_good_is_permanent_waits_longest_and_goes_on_serving() {
    for (fault, code) in [
        (Fault::Status(401), "unauthorized"),
        (Fault::Status(403), "unauthorized"),
        (Fault::Unrecoverable, "unrecoverable"),
    ] {
        let bed = Bed::new();
        let app = stand::start(&bed, &[SCHEDULE, PAYLOAD_ONLY]).await;
        let before = app.served().await;
        bed.upstream.set_fault(Route::Features, fault);
        bed.upstream.clear_requests();
        let report = app.poll().await;
        assert_report(
            &report,
            "failed",
            &["payload"],
            &format!("payload: {code}: "),
        );
        assert_eq!(
            bed.upstream.request_count(Route::Features),
            1,
            "{code}: no retry helps"
        );
        let source = source_status(&app).await;
        assert_eq!(source["permanent"], true, "{code}");
        assert_eq!(source["state"], "running", "{code}");
        assert_eq!(source["last_error"], report["reason"], "{code}");
        assert_wait(&source, 120.0);
        assert_unmoved(code, &before, &app.served().await);
        assert_eq!(app.admin_get("/readyz").await.status, 200, "{code}");

        bed.upstream.clear_all();
        assert_report(&app.poll().await, "unchanged", &[], "");
        let source = source_status(&app).await;
        assert_eq!(source["permanent"], false, "{code}");
        assert!(source["last_error"].is_null(), "{code}");
        assert_wait(&source, 10.0);
        app.stop().await;
    }
}

/// A key that was removed upstream, and a secret that was changed there: no fault is set, it is how they answer.
#[tokio::test]
async fn a_removed_connection_and_a_changed_secret_are_permanent() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[SCHEDULE]).await;
    let before = app.served().await;
    bed.upstream.set_secret("another");
    // The payload arrives: its schedule is not slowed down by the refusal of the list.
    assert_report(
        &app.poll().await,
        "unchanged",
        &["experiments"],
        "experiments: unauthorized: ",
    );
    let source = source_status(&app).await;
    assert_eq!(source["permanent"], true);
    assert_wait(&source, 10.0);

    bed.upstream.remove_connection("sdk-demo");
    let report = app.poll().await;
    assert_report(
        &report,
        "failed",
        &["experiments", "payload"],
        "payload: unrecoverable: ",
    );
    assert!(
        stand::reason(&report).contains("experiments: unauthorized: "),
        "{report}"
    );
    assert!(
        !report.to_string().contains("sdk-demo"),
        "keys are masked: {report}"
    );
    let source = source_status(&app).await;
    assert_eq!(source["permanent"], true);
    assert_wait(&source, 120.0);
    assert_unmoved("both", &before, &app.served().await);
    app.stop().await;
}

#[tokio::test]
async fn a_400_without_a_word_is_transient() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[SCHEDULE, PAYLOAD_ONLY]).await;
    bed.upstream.clear_requests();
    bed.upstream.set_fault(Route::Features, Fault::Status(400));
    assert_report(
        &app.poll().await,
        "failed",
        &["payload"],
        "payload: http_status: ",
    );
    let source = source_status(&app).await;
    assert_eq!(source["permanent"], false);
    assert_wait(&source, 10.0);
    assert_eq!(
        bed.upstream.request_count(Route::Features),
        2,
        "it is tried again"
    );
    // Once only: the retry within the poll succeeds.
    bed.upstream
        .set_fault_times(Route::Features, Fault::Status(400), 1);
    assert_report(&app.poll().await, "unchanged", &[], "");
    app.stop().await;
}

#[tokio::test]
async fn waits_double_while_polls_fail_and_a_success_resets_them() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[SCHEDULE, PAYLOAD_ONLY]).await;
    assert_wait(&source_status(&app).await, 10.0);
    bed.upstream.set_fault(Route::Features, Fault::Status(500));
    for (streak, seconds) in [
        (1, 10.0),
        (2, 20.0),
        (3, 40.0),
        (4, 80.0),
        (5, 120.0),
        (6, 120.0),
    ] {
        // Forced polls ignore the backoff, and count.
        assert_eq!(app.poll().await["outcome"], "failed");
        let source = source_status(&app).await;
        assert_eq!(source["failure_streak"], streak);
        assert_wait(&source, seconds);
    }
    // So does a resume: it polls at once.
    bed.upstream.clear_requests();
    let resumed = app
        .admin_post(&format!("/admin/sources/{SOURCE}/resume"), "")
        .await;
    assert_eq!(resumed.json()["state"], "running");
    bed.upstream.until_requests(Route::Features, 2).await;
    bed.upstream.clear_all();
    assert_eq!(app.poll().await["outcome"], "unchanged");
    let source = source_status(&app).await;
    assert_eq!(source["failure_streak"], 0);
    assert_wait(&source, 10.0);
    app.stop().await;
}

/// A held input is no failure of the upstream: it is asked as often as ever.
#[tokio::test]
async fn a_held_input_does_not_slow_the_schedule_down() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[SCHEDULE]).await;
    bed.upstream.set_features(serde_json::json!({}));
    for _ in 0..3 {
        assert_eq!(app.poll().await["outcome"], "held");
        let source = source_status(&app).await;
        assert_eq!(source["failure_streak"], 0);
        assert_wait(&source, 10.0);
    }
    app.stop().await;
}
