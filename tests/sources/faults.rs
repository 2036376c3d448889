//! Each fault of an upstream has its error, and nothing secret in it.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::{
    helpers::{error, experiments, fetch, payload, source, with_rest},
    upstream::{KEY, PAYLOAD, Reply, Upstream, gzip, json, payload_or, reply},
};

/// On the wire: what never becomes a complete answer.
fn broken_answers() -> Vec<(&'static str, Reply)> {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"features\"";
    let half_chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"fea\r\n";
    let half_gzip = gzip(PAYLOAD.as_bytes());
    let half_gzip = &half_gzip[..half_gzip.len() / 2];
    let no_brotli = "not brotli at all";
    vec![
        ("timeout", Reply::Stay(Vec::new())),
        ("timeout", Reply::Stay(half.to_vec())),
        ("reset", Reply::Bytes(Vec::new())),
        ("reset", Reply::Bytes(half.to_vec())),
        ("reset", Reply::Bytes(half_chunk.to_vec())),
        (
            "bad_compression",
            reply(200, "content-encoding: gzip\r\n", half_gzip),
        ),
        (
            "bad_compression",
            reply(200, "content-encoding: br\r\n", no_brotli),
        ),
    ]
}

/// A status that is no success, or no success of ours.
fn refusals() -> Vec<(&'static str, Reply)> {
    let transient = r#"{"status":400,"error":"Failed to get features"}"#;
    let invalid_key = r#"{"status":400,"error":"Invalid API Key"}"#;
    let elsewhere = "location: http://localhost:1/api/features/x\r\n";
    vec![
        ("http_status", reply(400, "", transient)),
        (
            "unrecoverable",
            reply(400, "x-unrecoverable: 1\r\n", invalid_key),
        ),
        ("unauthorized", reply(401, "", "{}")),
        ("unauthorized", reply(403, "", "{}")),
        ("http_status", reply(404, "", "<html>")),
        ("rate_limited", reply(429, "", "{}")),
        ("http_status", reply(500, "", "")),
        ("http_status", reply(204, "", "")),
        ("http_status", reply(206, "", PAYLOAD)),
        ("http_status", reply(304, "etag: \"a\"\r\n", "")),
        ("redirect", reply(302, elsewhere, "")),
    ]
}

/// 200, with something that is no payload.
fn wrong_bodies() -> Vec<(&'static str, Reply)> {
    let html = reply(200, "content-type: text/html\r\n", "<!doctype html><p>hi");
    let huge = format!("{{\"features\":\"{}\"}}", "x".repeat(1_000_000));
    vec![
        ("not_json", json("")),
        ("not_json", json(&PAYLOAD[..30])),
        ("not_json", html),
        ("bad_shape", json("{}")),
        ("bad_shape", json("[]")),
        ("bad_shape", json(r#"{"status":400,"error":"Failed"}"#)),
        ("too_large", json(huge)),
        (
            "decryption",
            json(r#"{"features":{},"encryptedFeatures":"AAAA.AAAA"}"#),
        ),
    ]
}

#[tokio::test]
async fn every_fault_has_its_own_error() {
    let all = [broken_answers(), refusals(), wrong_bodies()];
    for (code, reply) in all.into_iter().flatten() {
        let upstream = Upstream::start(move |_, _| reply.clone()).await;
        let fetched = fetch(&source(&upstream)).await;
        let error = error(payload(&fetched));
        assert_eq!(error.code(), code, "{error:?}");
        assert_eq!(upstream.count(), 1, "{code}");
        assert!(!format!("{error} {error:?}").contains(KEY), "{error:?}");
    }
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:hush@{}", closed.local_addr().unwrap());
    drop(closed);
    let seen = Arc::default();
    let fetched = fetch(&source(&Upstream { url, seen })).await;
    let error = error(payload(&fetched));
    assert_eq!(error.code(), "refused");
    assert!(error.is_retryable() && !error.is_permanent());
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
}

#[tokio::test]
async fn upstreams_words_are_told_without_our_secrets() {
    let upstream = Upstream::start(|seen, _| {
        payload_or(seen, || {
            reply(401, "", r#"{"message":"bad key\n secret_abc"}"#)
        })
    })
    .await;
    let fetched = fetch(&with_rest(&upstream)).await;
    let error = error(experiments(&fetched));
    assert_eq!(
        error.to_string(),
        "upstream refused the credentials with 401: bad key  ***"
    );
    assert!(error.is_permanent() && !error.is_retryable());
}
