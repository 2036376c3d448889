//! Payloads that GrowthBook pushes.

use std::time::Duration;

use serde_json::json;
use stitchd::cli::demo::upstream::{CLIENT_KEY, Connection, Fault, Route};

use crate::{
    stand::{
        ENCRYPTION_KEY, SIGNING_KEY, decrypt, features, hex, hmac, metric, post, pushed, start,
    },
    support::{Answer, Bed, SOURCE, TestApp},
};

const PUSHED: &str =
    r#"{"features":{"pushed":{"defaultValue":1.0}},"dateUpdated":"2026-02-02T00:00:00.000Z"}"#;

/// Pushes as GrowthBook does.
async fn push(app: &TestApp, body: &str) -> Answer {
    let signature = hex(&hmac(SIGNING_KEY, body.as_bytes()));
    push_signed(app, CLIENT_KEY, &signature, body).await
}

async fn push_signed(app: &TestApp, key: &str, signature: &str, body: &str) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("x-growthbook-api-key", key),
        ("x-growthbook-signature", signature),
    ];
    post(app, "/proxy/features", &headers, body.to_owned()).await
}

async fn count(app: &TestApp, outcome: &str) -> u64 {
    let line = format!("stitchd_pushes_total{{source=\"{SOURCE}\",outcome=\"{outcome}\"}}");
    metric(app, &line).await
}

#[tokio::test]
async fn a_signed_payload_is_served_at_once_and_unsigned_ones_never() {
    let bed = Bed::new();
    let (from, to) = pushed("");
    let app = start(&bed, &[(from, &to)]).await;
    let before = features(&app).await;
    let good = hex(&hmac(SIGNING_KEY, PUSHED.as_bytes()));
    for (key, signature, status, error) in [
        (CLIENT_KEY, "", 401, "Signatures do not match!"),
        (CLIENT_KEY, "00", 401, "Signatures do not match!"),
        (CLIENT_KEY, &good[2..], 401, "Signatures do not match!"),
        (
            CLIENT_KEY,
            "not hexadecimal",
            401,
            "Signatures do not match!",
        ),
        ("", &good, 401, "API key required"),
        ("sdk-unknown", &good, 400, "Invalid API Key"),
    ] {
        let answer = push_signed(&app, key, signature, PUSHED).await;
        let body = json!({"status": status, "error": error}).to_string();
        assert_eq!((answer.status, &answer.body[..]), (status, body.as_bytes()));
        assert_eq!(features(&app).await, before);
    }
    assert_eq!(count(&app, "bad_signature").await, 4);

    let answer = push(&app, PUSHED).await;
    assert_eq!(
        (answer.status, &answer.json()["outcome"]),
        (200, &json!("published"))
    );
    assert_eq!(answer.json()["message"], "Success");
    assert_eq!(features(&app).await.body, PUSHED);
    assert_eq!(push(&app, PUSHED).await.json()["outcome"], "unchanged");
    assert_eq!(
        (
            count(&app, "published").await,
            count(&app, "unchanged").await
        ),
        (1, 1)
    );

    // What the upstream has now is asked for without a validator: nobody knows what the push came from.
    bed.upstream.clear_requests();
    assert_eq!(app.poll().await["outcome"], "published");
    let requests = bed.upstream.requests();
    let asked = requests
        .iter()
        .find(|r| r.route == Some(Route::Features))
        .unwrap();
    assert_eq!(asked.header("if-none-match"), None);
    app.stop().await;
}

#[tokio::test]
async fn a_push_outlives_a_restart() {
    let bed = Bed::new();
    let (from, to) = pushed("");
    let app = start(&bed, &[(from, &to)]).await;
    assert_eq!(push(&app, PUSHED).await.status, 200);
    let served = app.served().await;
    app.stop().await;
    bed.upstream.go_down().await.unwrap();
    let app = TestApp::spawn(crate::stand::settings(&bed, &[(from, &to)])).await;
    assert_eq!(app.served().await, served);
    app.stop().await;
}

#[tokio::test]
async fn a_poll_that_began_before_a_push_never_replaces_it() {
    let bed = Bed::new();
    let (from, to) = pushed("");
    let slow = ("poll.timeout = \"1s\"", "poll.timeout = \"20s\"");
    let app = start(&bed, &[(from, &to), slow]).await;
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    bed.upstream.clear_requests();
    let delay = Fault::Delay(Duration::from_secs(1));
    bed.upstream.set_fault_times(Route::Features, delay, 1);
    let poll = async {
        let report = app.poll().await;
        assert_eq!(report["failed_parts"], json!([]), "{report}");
    };
    let overtake = async {
        bed.upstream.until_requests(Route::Features, 1).await;
        assert_eq!(push(&app, PUSHED).await.json()["outcome"], "published");
        assert_eq!(features(&app).await.body, PUSHED);
    };
    tokio::join!(poll, overtake);
    assert_eq!(features(&app).await.body, PUSHED);
    // The next one began after it.
    app.poll().await;
    assert!(
        features(&app).await.json()["features"]
            .get("news")
            .is_some()
    );
    app.stop().await;
}

#[tokio::test]
async fn guards_hold_for_pushes_too() {
    let bed = Bed::new();
    let (from, to) = pushed("");
    let app = start(&bed, &[(from, &to)]).await;
    let before = app.served().await;
    for body in [
        "",
        "[]",
        "{}",
        "<html>",
        r#"{"features":[]}"#,
        r#"{"features":{}"#,
    ] {
        let answer = push(&app, body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with("the payload was refused: "), "{error}");
    }
    let answer = push(&app, r#"{"features":{}}"#).await;
    assert_eq!(
        (answer.status, &answer.json()["outcome"]),
        (200, &json!("held"))
    );
    assert_eq!(app.served().await, before);
    assert_eq!(
        (count(&app, "refused").await, count(&app, "held").await),
        (6, 1)
    );
    app.stop().await;
}

#[tokio::test]
async fn while_paused_a_push_is_answered_and_ignored() {
    let bed = Bed::new();
    let (from, to) = pushed("");
    let app = start(&bed, &[(from, &to)]).await;
    let before = app.served().await;
    app.admin_post(&format!("/admin/sources/{SOURCE}/pause"), "")
        .await;
    let answer = push(&app, PUSHED).await;
    assert_eq!(
        (answer.status, &answer.json()["outcome"]),
        (200, &json!("ignored_paused"))
    );
    assert_eq!(app.served().await, before);
    assert_eq!(count(&app, "ignored_paused").await, 1);
    app.admin_post(&format!("/admin/sources/{SOURCE}/resume"), "")
        .await;
    assert_eq!(push(&app, PUSHED).await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_connection_without_signing_key_says_which_setting_is_missing_and_large_bodies_are_refused()
 {
    let bed = Bed::new();
    let app = start(&bed, &[]).await;
    let answer = push(&app, PUSHED).await;
    assert_eq!(answer.status, 400);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("Missing signing key") && error.contains("push_signing_key"));
    app.stop().await;

    let (from, to) = pushed("");
    let small = (
        "poll.max_body_bytes = 8000000",
        "poll.max_body_bytes = 100000",
    );
    let app = start(&bed, &[(from, &to), small]).await;
    let large = format!("{PUSHED}{}", " ".repeat(100_001));
    let answer = push(&app, &large).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (413, &json!("body_too_large"))
    );
    app.stop().await;
}

#[tokio::test]
async fn an_encrypted_connection_is_pushed_encrypted_and_one_connections_push_leaves_the_others() {
    let bed = Bed::new();
    bed.upstream.add_connection(Connection::new("sdk-other"));
    bed.upstream.add_connection(Connection {
        encryption_key: Some(ENCRYPTION_KEY.to_owned()),
        ..Connection::new(CLIENT_KEY)
    });
    let (from, to) = pushed(&format!(
        ", decryption_key = \"{ENCRYPTION_KEY}\" }}, {{ key = \"sdk-other\""
    ));
    let app = start(&bed, &[(from, &to)]).await;
    let other = app.get("/api/features/sdk-other").await;
    let current = features(&app).await.json();
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    // What a proxy in between would have: our own document of another process, say.
    let replica = Bed::new();
    let mut settings = crate::stand::settings(&bed, &[(from, &to)]);
    settings.database.url = Some(replica.database_url.clone().into());
    settings.backup.dir = replica.dir.path().join("backup");
    let newer = TestApp::spawn(settings).await;
    newer.until_revision(1).await;
    let body = features(&newer).await;
    newer.stop().await;

    let text = std::str::from_utf8(&body.body).unwrap();
    assert_eq!(push(&app, text).await.json()["outcome"], "published");
    let served = features(&app).await.json();
    assert_ne!(served["encryptedFeatures"], current["encryptedFeatures"]);
    assert_eq!(
        served["encryptedFeatures"],
        body.json()["encryptedFeatures"]
    );
    assert!(decrypt(served["encryptedFeatures"].as_str().unwrap()).contains("news"));
    assert_eq!(app.get("/api/features/sdk-other").await, other);
    app.stop().await;
}
