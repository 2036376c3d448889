//! GrowthBook's SDK webhook.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use stitchd::{cli::demo::upstream::Route, clock};

use crate::{
    stand::{WEBHOOK_SECRET, features, hmac, metric, post, pushed, start},
    support::{Answer, Bed, SOURCE, TestApp, eventually},
};

const BODY: &str = r#"{"type":"payload.changed","timestamp":"2026-02-02T00:00:00.000Z"}"#;

fn now() -> i64 {
    clock::now_ms() / 1000
}

/// Sends as GrowthBook does.
async fn send(app: &TestApp, id: &str, at: i64) -> Answer {
    let message = format!("{id}.{at}.{BODY}");
    let signature = STANDARD.encode(hmac(WEBHOOK_SECRET, message.as_bytes()));
    send_signed(app, SOURCE, (id, at), &format!("v1,{signature}")).await
}

async fn send_signed(
    app: &TestApp,
    source: &str,
    (id, at): (&str, i64),
    signature: &str,
) -> Answer {
    let at = at.to_string();
    let headers = [
        ("content-type", "application/json"),
        ("webhook-id", id),
        ("webhook-timestamp", &*at),
        ("webhook-signature", signature),
        ("webhook-sdk-key", "sdk-demo"),
    ];
    let path = format!("/webhooks/growthbook/{source}");
    post(app, &path, &headers, BODY).await
}

async fn count(app: &TestApp, outcome: &str) -> u64 {
    let line = format!("stitchd_webhooks_total{{source=\"{SOURCE}\",outcome=\"{outcome}\"}}");
    metric(app, &line).await
}

#[tokio::test]
async fn a_webhook_polls_at_once_and_the_same_one_again_does_not() {
    let bed = Bed::new();
    let (from, to) = pushed("");
    let app = start(&bed, &[(from, &to)]).await;
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    let answer = send(&app, "msg_1", now()).await;
    assert_eq!(
        (answer.status, &answer.json()["outcome"]),
        (200, &json!("polling"))
    );
    app.until_revision(2).await;
    assert!(
        features(&app).await.json()["features"]
            .get("news")
            .is_some()
    );

    let polls = bed.upstream.request_count(Route::Features);
    let answer = send(&app, "msg_1", now()).await;
    assert_eq!(
        (answer.status, &answer.json()["outcome"]),
        (200, &json!("duplicate"))
    );
    // An order is carried out behind whatever the webhook would have begun.
    app.poll().await;
    assert_eq!(bed.upstream.request_count(Route::Features), polls + 1);
    assert_eq!(
        (count(&app, "polling").await, count(&app, "duplicate").await),
        (1, 1)
    );
    app.stop().await;
}

#[tokio::test]
async fn what_is_not_signed_or_not_recent_does_nothing() {
    let bed = Bed::new();
    let (from, to) = pushed("");
    let app = start(&bed, &[(from, &to)]).await;
    let polls = bed.upstream.request_count(Route::Features);
    let good = STANDARD.encode(hmac(
        WEBHOOK_SECRET,
        format!("msg_1.{}.{BODY}", now()).as_bytes(),
    ));
    for signature in [
        "",
        "v1,",
        "v1,AAAA",
        &good,
        &format!("v2,{good}"),
        "whsec_00",
    ] {
        let answer = send_signed(&app, SOURCE, ("msg_1", now() + 1000), signature).await;
        assert_eq!(answer.status, 401, "{signature}");
        assert_eq!(
            answer.body,
            r#"{"status":401,"error":"Signatures do not match!"}"#
        );
    }
    let answer = send_signed(&app, SOURCE, ("", now()), &format!("v1,{good}")).await;
    assert_eq!(answer.status, 401);
    for at in [now() - 3600, now() + 3600, 0, -1, i64::MAX] {
        let answer = send(&app, "msg_2", at).await;
        assert_eq!(answer.status, 401, "{at}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("webhook-timestamp"), "{error}");
    }
    let answer = send_signed(&app, "nobody", ("msg_1", now()), &good).await;
    assert_eq!(
        (answer.status, &answer.json()["known"]),
        (404, &json!([SOURCE]))
    );
    assert_eq!(bed.upstream.request_count(Route::Features), polls);
    assert_eq!(
        (
            count(&app, "bad_signature").await,
            count(&app, "too_old").await
        ),
        (7, 5)
    );
    app.stop().await;
}

#[tokio::test]
async fn while_paused_a_webhook_is_answered_and_ignored() {
    let bed = Bed::new();
    let (from, to) = pushed("");
    let app = start(&bed, &[(from, &to)]).await;
    app.admin_post(&format!("/admin/sources/{SOURCE}/pause"), "")
        .await;
    let polls = bed.upstream.request_count(Route::Features);
    let answer = send(&app, "msg_1", now()).await;
    assert_eq!(
        (answer.status, &answer.json()["outcome"]),
        (200, &json!("ignored_paused"))
    );
    assert_eq!(count(&app, "ignored_paused").await, 1);
    app.poll().await;
    assert_eq!(bed.upstream.request_count(Route::Features), polls + 1);
    app.stop().await;
}

#[tokio::test]
async fn a_source_without_secret_says_which_setting_is_missing() {
    let bed = Bed::new();
    let app = start(&bed, &[]).await;
    let answer = send(&app, "msg_1", now()).await;
    assert_eq!(answer.status, 400);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("webhook_secret"), "{error}");
    app.stop().await;
}

/// Webhooks are enough where no schedule is wanted.
#[tokio::test]
async fn a_source_that_is_never_polled_by_schedule_is_polled_by_webhook() {
    let bed = Bed::new();
    let (from, to) = pushed("");
    let unscheduled = ("poll.interval = \"1h\"", "poll.enabled = false");
    let app = TestApp::spawn(crate::stand::settings(&bed, &[(from, &to), unscheduled])).await;
    assert_eq!(app.revision(), 0);
    assert_eq!(send(&app, "msg_1", now()).await.status, 200);
    app.until_revision(1).await;
    eventually("the poll is told of", async || {
        let status = app.status().await;
        (status["sources"][SOURCE]["last_outcome"] == "published").then_some(())
    })
    .await;
    app.stop().await;
}
