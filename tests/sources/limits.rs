//! Retries, rate limits and time limits.

use std::time::Duration;

use stitchd::{
    settings::Connections,
    sources::{Driver, PartOutcome, Validators},
};
use tokio::time::{sleep, timeout};

use crate::{
    helpers::{body, error, experiments, fetch, payload, source, with_rest},
    upstream::{PAYLOAD, Reply, Upstream, json, page_of, payload_or, reply},
};

#[tokio::test]
async fn outages_are_retried_and_refusals_are_not() {
    for (status, headers, tries) in [
        (500, "", 3),
        (400, "", 3),
        (404, "", 3),
        (400, "x-unrecoverable: 1\r\n", 1),
        (401, "", 1),
        (429, "retry-after: 30\r\n", 1),
        (503, "retry-after: 3600\r\n", 1),
    ] {
        let upstream = Upstream::start(move |_, _| reply(status, headers, "{}")).await;
        let mut source = source(&upstream);
        source.poll.retries = 2;
        let fetched = fetch(&source).await;
        let error = error(payload(&fetched));
        assert_eq!(upstream.count(), tries, "{status} {headers}: {error}");
    }
}

#[tokio::test]
async fn a_retry_that_succeeds_is_a_success() {
    let upstream = Upstream::start(|_, number| match number {
        0 => reply(500, "", ""),
        1 => Reply::Bytes(Vec::new()),
        _ => json(PAYLOAD),
    })
    .await;
    let mut source = source(&upstream);
    source.poll.retries = 2;
    assert_eq!(body(payload(&fetch(&source).await)), PAYLOAD);
    assert_eq!(upstream.count(), 3);
}

#[tokio::test]
async fn during_retry_after_nothing_is_sent() {
    let upstream = Upstream::start(|_, number| match number {
        0 => reply(429, "retry-after: 1\r\n", "{}"),
        _ => json(PAYLOAD),
    })
    .await;
    let driver = Driver::new(&source(&upstream)).unwrap();
    for _ in 0..5 {
        let fetched = driver.fetch(&Validators::new()).await;
        let left = error(payload(&fetched)).retry_after().unwrap();
        assert!(left <= Duration::from_secs(1), "{left:?}");
    }
    assert_eq!(upstream.count(), 1);
    sleep(Duration::from_millis(1050)).await;
    let fetched = driver.fetch(&Validators::new()).await;
    assert_eq!(body(payload(&fetched)), PAYLOAD);
}

#[tokio::test]
async fn a_limit_on_the_management_api_leaves_the_payloads_alone() {
    let upstream = Upstream::start(|seen, _| {
        payload_or(seen, || {
            reply(429, "retry-after: 60\r\nratelimit-reset: 7\r\n", "{}")
        })
    })
    .await;
    let driver = Driver::new(&with_rest(&upstream)).unwrap();
    for _ in 0..3 {
        let fetched = driver.fetch(&Validators::new()).await;
        assert_eq!(body(payload(&fetched)), PAYLOAD);
        let left = error(experiments(&fetched)).retry_after().unwrap();
        assert!(left <= Duration::from_secs(7), "{left:?}");
    }
    assert_eq!(upstream.count(), 4);
}

#[tokio::test]
async fn a_short_budget_skips_the_list_and_never_the_payload() {
    let upstream = Upstream::start(|seen, _| {
        payload_or(seen, || {
            let headers =
                "ratelimit-limit: 60\r\nratelimit-remaining: 1\r\nratelimit-reset: 50\r\n";
            reply(200, headers, r#"{"experiments":[],"total":0}"#)
        })
    })
    .await;
    let driver = Driver::new(&with_rest(&upstream)).unwrap();
    let first = driver.fetch(&Validators::new()).await;
    assert_eq!(body(experiments(&first)), r#"{"experiments":[],"total":0}"#);
    let second = driver.fetch(&Validators::new()).await;
    assert!(matches!(experiments(&second), PartOutcome::Skipped));
    assert_eq!(body(payload(&second)), PAYLOAD);
}

#[tokio::test]
async fn an_unending_upstream_cannot_hold_a_fetch() {
    let upstream = Upstream::start(|seen, _| {
        let offset = seen.offset();
        let page = page_of(offset..offset + 1, 1_000_000);
        Reply::Late(Duration::from_millis(20), Box::new(page))
    })
    .await;
    let mut source = with_rest(&upstream);
    source.poll.timeout = Duration::from_millis(50);
    source.connections = Connections::List(Vec::new());
    source.client_key = String::new();
    let driver = Driver::new(&source).unwrap();
    let fetched = timeout(
        driver.fetch_time_max() + Duration::from_millis(300),
        driver.fetch(&Validators::new()),
    )
    .await
    .unwrap();
    assert_eq!(error(experiments(&fetched)).code(), "timeout");
}
