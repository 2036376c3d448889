//! What the receiver of a webhook gets.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    OF_A_FEATURE, SECRET, Stand, metric,
    support::receiver::{Manner, Received},
    targets, until_target,
};

/// Checks a webhook as the standard tells receivers to; gives its body.
fn verified(request: &Received) -> Value {
    assert_eq!(request.method, "POST");
    assert_eq!(request.target, "/hook");
    assert_eq!(request.header("content-type"), "application/json");
    let (id, timestamp) = (
        request.header("webhook-id"),
        request.header("webhook-timestamp"),
    );
    let now = stitchd::clock::now().unix_timestamp();
    assert!((now - timestamp.parse::<i64>().unwrap()).abs() < 300);
    let signed = [id.as_bytes(), timestamp.as_bytes(), &request.body].join(&b'.');
    let key = STANDARD.decode(&SECRET["whsec_".len()..]).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(&signed);
    let signature = request.header("webhook-signature");
    let signature = signature.strip_prefix("v1,").unwrap();
    let signature = STANDARD.decode(signature).unwrap();
    mac.verify_slice(&signature).unwrap();
    serde_json::from_slice(&request.body).unwrap()
}

fn revisions(requests: &[Received]) -> Vec<u64> {
    let revision = |request| verified(request)["data"]["revision"].as_u64().unwrap();
    requests.iter().map(revision).collect()
}

#[tokio::test]
async fn a_webhook_is_signed_and_says_what_was_published() {
    let stand = Stand::new().await;
    stand.publish(1).await;
    stand.until_told(&OF_A_FEATURE, 1).await;
    let body = verified(&stand.hook.requests()[0]);
    let snapshot = stand.app.get("/v1/snapshot/production").await;
    let status = stand.app.status().await;
    let timestamp = body["timestamp"].as_str().unwrap();
    assert!(
        timestamp.starts_with("20") && timestamp.ends_with('Z'),
        "{body}"
    );
    assert_eq!(
        body,
        json!({
            "type": "revision.published",
            "timestamp": timestamp,
            "data": {
                "environment": "production",
                "revision": stand.app.revision(),
                "etag": snapshot.etag.unwrap(),
                "hash": status["environments"]["production"]["hash"],
                "cause": "poll gb",
                "changed": OF_A_FEATURE,
            },
        })
    );
    stand.app.stop().await;
}

#[tokio::test]
async fn a_webhook_is_sent_again_under_the_same_id_and_not_before_its_time() {
    let stand = Stand::new().await;
    let later = Manner::With(503, "retry-after: 2".to_owned());
    let manners = [
        Manner::Status(500),
        later,
        Manner::Close,
        Manner::Status(204),
    ];
    stand.hook.set_each(&manners);
    stand.publish(1).await;
    let requests = stand.hook.until(4).await;
    let id = requests[0].header("webhook-id");
    for request in &requests {
        verified(request);
        assert_eq!(request.header("webhook-id"), id);
        assert_eq!(request.body, requests[0].body);
    }
    let waited = requests[2].at - requests[1].at;
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    stand.publish(2).await;
    let requests = stand.hook.until(5).await;
    assert_ne!(requests[4].header("webhook-id"), id);
    assert!(targets(&stand.app).await[1]["last_error"].is_null());
    stand.app.stop().await;
}

#[tokio::test]
async fn a_refusal_is_final_and_no_redirect_is_followed() {
    let stand = Stand::new().await;
    let elsewhere = format!("location: {}/hook", stand.cache.url());
    for (manner, says) in [
        (Manner::Status(410), "answered 410"),
        (
            Manner::With(307, elsewhere),
            "answered 307; redirects are not followed",
        ),
    ] {
        stand.hook.take();
        stand.hook.set(manner);
        let value = stand.app.revision();
        stand.publish(value).await;
        until_target(&stand.app, 1, says, |target| target["last_error"] == says).await;
        assert_eq!(stand.hook.requests().len(), 1);
    }
    let asked = stand.cache.asked();
    assert!(
        asked.iter().all(|line| line.starts_with("PURGE")),
        "{asked:?}"
    );
    // The next one goes its own way.
    stand.hook.take();
    stand.hook.set(Manner::Status(200));
    stand.publish(1000).await;
    stand.hook.until(1).await;
    until_target(&stand.app, 1, "it is well", |t| t["last_error"].is_null()).await;
    stand.app.stop().await;
}

#[tokio::test]
async fn who_falls_far_behind_loses_the_oldest_and_it_is_counted() {
    const WAITING: usize = 64;
    const MORE: usize = 9;
    let stand = Stand::new().await;
    stand.hook.set(Manner::Hang);
    stand.publish(1).await;
    stand.hook.until(1).await;
    for value in 2..=(WAITING + MORE) as u64 {
        stand.publish(value).await;
    }
    let newest = stand.app.revision();
    let counter = |outcome: &str| {
        format!(
            "stitchd_webhooks_sent_total{{target=\"{}/hook\",outcome=\"{outcome}\"}}",
            stand.hook.url()
        )
    };
    until_target(&stand.app, 1, "the queue is full", |target| {
        target["queued"] == WAITING
    })
    .await;
    let dropped = metric(&stand.app, &counter("dropped")).await;
    assert_eq!(dropped, Some(MORE as u64));
    stand.hook.take();
    stand.hook.set(Manner::Status(200));
    let got = revisions(&stand.hook.until(WAITING).await);
    let expected: Vec<u64> = (newest + 1 - WAITING as u64..=newest).collect();
    assert_eq!(got, expected);
    stand.until_idle().await;
    stand.app.stop().await;
}
