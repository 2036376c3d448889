//! The upstream's rate limits: asked for quiet, nothing is sent; with a short budget, the list is read less often.

use std::time::Duration;

use serde_json::json;
use stitchd::cli::demo::upstream::{CLIENT_KEY, Connection, Fault, Route, experiment};

use crate::{
    stand::{self, assert_report, assert_unmoved, has_feature, reason},
    support::{Bed, eventually},
};

fn refusal(status: u16, value: &str) -> Fault {
    let value = value.to_owned();
    Fault::RetryAfter { status, value }
}

/// Seconds left, of a report that says how many.
fn seconds_left(report: &serde_json::Value) -> u64 {
    let said = reason(report).strip_prefix("rate_limited: ");
    let said = said.unwrap_or_else(|| panic!("{report}"));
    said.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn while_quiet_is_asked_for_nothing_is_sent() {
    for status in [429, 503] {
        let bed = Bed::new();
        let app = stand::start(&bed, &[]).await;
        let before = app.served().await;
        bed.upstream.set_feature("news", json!({"defaultValue": 1}));
        bed.upstream
            .set_fault(Route::Features, refusal(status, "60"));
        bed.upstream
            .set_fault(Route::Experiments, refusal(status, "60"));
        assert_eq!(seconds_left(&app.poll().await), 60);
        bed.upstream.clear_all();
        bed.upstream.clear_requests();
        for _ in 0..3 {
            let report = app.poll().await;
            assert_report(
                &report,
                "failed",
                &["experiments", "payload"],
                "rate_limited: ",
            );
            assert!((50..=60).contains(&seconds_left(&report)), "{report}");
            assert_eq!(report["revision"], 1);
        }
        assert_eq!(bed.upstream.requests().len(), 0, "{status}");
        assert_unmoved("quiet", &before, &app.served().await);
        let source = stand::source_status(&app).await;
        assert_eq!(source["permanent"], false);
        assert!(
            source["last_error"]
                .as_str()
                .unwrap()
                .starts_with("rate_limited: ")
        );
        app.stop().await;
    }
}

#[tokio::test]
async fn when_the_quiet_is_over_the_next_poll_brings_the_news() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    bed.upstream.set_fault(Route::Features, refusal(429, "1"));
    let report = app.poll().await;
    assert_report(
        &report,
        "unchanged",
        &["payload"],
        "payload: rate_limited: ",
    );
    bed.upstream.clear_all();
    eventually("the quiet is over", async || {
        (app.poll().await["outcome"] == "published").then_some(())
    })
    .await;
    assert!(has_feature(&app, "news").await);
    app.stop().await;
}

/// The next scheduled poll keeps away as long as the upstream asked.
#[tokio::test]
async fn the_schedule_obeys_too() {
    let bed = Bed::new();
    let often = (
        "poll.interval = \"1h\"",
        "poll.interval = \"10s\"\npoll.jitter = 0.0",
    );
    let app = stand::start(&bed, &[often, stand::PAYLOAD_ONLY]).await;
    bed.upstream.set_fault(Route::Features, refusal(429, "300"));
    assert_eq!(seconds_left(&app.poll().await), 300);
    let wait = stand::wait_seconds(&stand::source_status(&app).await);
    assert!((299.0..306.0).contains(&wait), "{wait}");
    app.stop().await;
}

#[tokio::test]
async fn a_limit_on_the_list_leaves_the_payload_alone() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    bed.upstream
        .set_fault(Route::Experiments, refusal(429, "60"));
    for number in 0..4 {
        let news = format!("news-{number}");
        bed.upstream.set_feature(&news, json!({"defaultValue": 1}));
        let report = app.poll().await;
        assert_report(
            &report,
            "published",
            &["experiments"],
            "experiments: rate_limited: ",
        );
        assert!(has_feature(&app, &news).await);
        if number == 0 {
            bed.upstream.clear_all();
            bed.upstream.clear_requests();
        }
    }
    assert_eq!(bed.upstream.request_count(Route::Experiments), 0);
    assert_eq!(bed.upstream.request_count(Route::Features), 3);
    app.stop().await;
}

/// Thirty forced polls with room for ten requests: the list gets them, no more, and each poll is a success.
#[tokio::test]
async fn a_short_budget_thins_out_the_list_and_provokes_no_429() {
    let bed = Bed::new();
    bed.upstream.set_rate_limit(10, Duration::from_mins(1));
    let app = stand::start(&bed, &[]).await;
    bed.upstream.upsert_experiment(experiment("news"));
    for number in 0..30 {
        let news = format!("news-{number}");
        bed.upstream.set_feature(&news, json!({"defaultValue": 1}));
        assert_report(&app.poll().await, "published", &[], "");
        assert!(has_feature(&app, &news).await);
    }
    let lists = bed.upstream.request_count(Route::Experiments);
    assert!((5..=10).contains(&lists), "{lists} reads of the list");
    assert_eq!(bed.upstream.request_count(Route::Features), 31);
    assert!(stand::experiments(&app).await.contains(&"news".to_owned()));
    let source = stand::source_status(&app).await;
    assert!(
        source["age_seconds"].as_f64().unwrap() < 10.0,
        "a thinned list is no failure"
    );
    app.stop().await;
}

/// A remote evaluation payload shares the limit with the lists, and goes first.
#[tokio::test]
async fn a_payload_that_shares_the_limit_goes_first() {
    let bed = Bed::new();
    bed.upstream.add_connection(Connection {
        remote_eval: true,
        ..Connection::new(CLIENT_KEY)
    });
    let remote = "connections = [{ key = \"sdk-demo\", remote_eval = true }]";
    let often = (
        stand::OFTEN.0,
        "poll.interval = \"2s\"\npoll.enabled = false",
    );
    bed.upstream.set_rate_limit(40, Duration::from_mins(1));
    let settings = stand::settings(&bed, &[("client_key = \"sdk-demo\"", remote), often]);
    let app = crate::support::TestApp::spawn(settings).await;
    // 30 polls of 2 s each fit into the window: 30 requests are put aside, 10 are for the list.
    for number in 0..28 {
        let report = app.poll().await;
        assert_eq!(report["failed_parts"], json!([]), "{number}: {report}");
    }
    assert_eq!(bed.upstream.request_count(Route::SdkPayload), 28);
    let lists = bed.upstream.request_count(Route::Experiments);
    assert!((1..=10).contains(&lists), "{lists} reads of the list");
    app.stop().await;
}
