//! Refusals that only an operator can end, and the waits between polls that fail.

use stitchd::cli::demo::upstream::{Connection, Fault, Route, SECRET_KEY};

use crate::{
    stand::{
        self, Change, DISCOVER, PAYLOAD_ONLY, assert_report, assert_unmoved, source_status,
        wait_seconds,
    },
    support::{Bed, PATIENCE, SOURCE, TestApp, eventually},
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

/// Polls every 100 ms and leaves what was refused for good alone for an hour.
const PATIENT: Change<'_> = (
    "poll.interval = \"1h\"",
    "poll.interval = \"100ms\"\npoll.jitter = 0.0\npoll.failure_backoff_max = \"1h\"",
);

/// How often paths that contain a text were asked for.
fn asked(bed: &Bed, text: &str) -> usize {
    let requests = bed.upstream.requests().into_iter();
    requests
        .filter(|request| request.path_and_query.contains(text))
        .count()
}

/// Waits for polls that begin from now on.
async fn polls(bed: &Bed, number: usize) {
    let there = bed.upstream.request_count(Route::Features);
    let more = bed
        .upstream
        .until_requests(Route::Features, there + number + 1);
    tokio::time::timeout(PATIENCE, more).await.unwrap();
}

/// Waits until the status says whether something is refused for good.
async fn until_permanent(app: &TestApp, is_permanent: bool) {
    let what = format!("permanent is {is_permanent}");
    eventually(&what, async || {
        let source = source_status(app).await;
        (source["permanent"] == is_permanent).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_revoked_secret_is_left_alone_while_the_payload_is_polled_on() {
    for wanted in ["poll", "resume"] {
        let bed = Bed::new();
        let app = stand::start(&bed, &[PATIENT]).await;
        bed.upstream.set_secret("another");
        until_permanent(&app, true).await;
        polls(&bed, 1).await;
        let before = asked(&bed, "/api/v1/experiments");
        polls(&bed, 5).await;
        assert_eq!(asked(&bed, "/api/v1/experiments"), before);
        let source = source_status(&app).await;
        assert_eq!(source["permanent"], true, "{source}");
        let error = source["last_error"].as_str().unwrap();
        assert!(error.starts_with("experiments: unauthorized: "), "{source}");

        // Whoever asks for it gets an answer of now.
        let order = format!("/admin/sources/{SOURCE}/{wanted}");
        assert_eq!(app.admin_post(&order, "").await.status, 200);
        let again = bed.upstream.until_requests(Route::Experiments, before + 1);
        tokio::time::timeout(PATIENCE, again).await.unwrap();
        polls(&bed, 5).await;
        assert_eq!(asked(&bed, "/api/v1/experiments"), before + 1, "{wanted}");

        // It is allowed again, which nobody tells us: only who asks finds out.
        bed.upstream.set_secret(SECRET_KEY);
        polls(&bed, 5).await;
        assert_eq!(asked(&bed, "/api/v1/experiments"), before + 1, "{wanted}");
        assert_eq!(source_status(&app).await["permanent"], true);
        assert_eq!(app.admin_post(&order, "").await.status, 200);
        until_permanent(&app, false).await;
        let there = asked(&bed, "/api/v1/experiments");
        let more = bed.upstream.until_requests(Route::Experiments, there + 3);
        tokio::time::timeout(PATIENCE, more).await.unwrap();
        assert_report(&app.poll().await, "unchanged", &[], "");
        app.stop().await;
    }
}

#[tokio::test]
async fn after_the_longest_backoff_a_refused_part_is_asked_again_by_itself() {
    let bed = Bed::new();
    let brief = (PATIENT.0, PATIENT.1.replace("\"1h\"", "\"1s\""));
    let app = stand::start(&bed, &[(brief.0, &brief.1)]).await;
    bed.upstream.set_secret("another");
    until_permanent(&app, true).await;
    let before = asked(&bed, "/api/v1/experiments");
    let again = bed.upstream.until_requests(Route::Experiments, before + 2);
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    bed.upstream.set_secret(SECRET_KEY);
    until_permanent(&app, false).await;
    app.stop().await;
}

/// One of two connections is removed: the other one, and the list of experiments, are asked for as ever.
#[tokio::test]
async fn a_removed_connection_is_left_alone_while_the_others_are_polled_on() {
    let bed = Bed::new();
    bed.upstream.add_connection(Connection::new("sdk-second"));
    let both = (
        "client_key = \"sdk-demo\"",
        "connections = [{ key = \"sdk-demo\" }, { key = \"sdk-second\" }]",
    );
    let app = stand::start(&bed, &[PATIENT, both]).await;
    bed.upstream.remove_connection("sdk-second");
    until_permanent(&app, true).await;
    polls(&bed, 1).await;
    let (removed, lists) = (
        asked(&bed, "sdk-second"),
        asked(&bed, "/api/v1/experiments"),
    );
    polls(&bed, 5).await;
    assert_eq!(asked(&bed, "sdk-second"), removed);
    assert!(asked(&bed, "/api/v1/experiments") > lists);
    assert_report(
        &app.poll().await,
        "unchanged",
        &["payload"],
        "payload: unrecoverable: ",
    );
    assert_eq!(asked(&bed, "sdk-second"), removed + 1);
    bed.upstream.add_connection(Connection::new("sdk-second"));
    assert_report(&app.poll().await, "unchanged", &[], "");
    until_permanent(&app, false).await;
    app.stop().await;
}

/// Discovered connections stay known while their list is refused, and the list is left alone as well.
#[tokio::test]
async fn a_refused_list_of_connections_is_left_alone_too() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[PATIENT, DISCOVER]).await;
    bed.upstream.set_secret("another");
    until_permanent(&app, true).await;
    polls(&bed, 1).await;
    let lists = |bed: &Bed| asked(bed, "/api/v1/sdk-connections");
    let before = lists(&bed);
    polls(&bed, 5).await;
    assert_eq!(lists(&bed), before);
    assert_report(
        &app.poll().await,
        "unchanged",
        &["connections", "experiments"],
        "connections: unauthorized: ",
    );
    assert_eq!(lists(&bed), before + 1);
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
