//! What a good payload looks like on both sides: bytes, encodings, conditions, redirects, keys.

use std::io::Read as _;

use secrecy::SecretString;
use stitchd::{
    settings::Source,
    sources::{Driver, FetchError, PartId, PartOutcome, Validators},
};

use crate::{
    helpers::{body, error, fetch, payload, source},
    upstream::{KEY, PAYLOAD, Upstream, gzip, json, reply},
};

#[tokio::test]
async fn a_payload_arrives_byte_for_byte_and_we_say_who_we_are() {
    let upstream = Upstream::start(|_, _| json(PAYLOAD)).await;
    let fetched = fetch(&source(&upstream)).await;
    assert_eq!(body(payload(&fetched)), PAYLOAD);
    assert!(fetched.connections_error.is_none() && fetched.streams.is_empty());
    let seen = upstream.seen.lock()[0].clone();
    assert_eq!(seen.path, format!("/api/features/{KEY}"));
    assert_eq!(
        seen.header("user-agent"),
        Some(concat!("stitchd/", env!("CARGO_PKG_VERSION")))
    );
    let accepted = seen.header("accept-encoding").unwrap();
    for coding in ["gzip", "br", "zstd"] {
        assert!(accepted.contains(coding), "{accepted}");
    }
    assert!(seen.header("authorization").is_none() && seen.header("if-none-match").is_none());
}

#[tokio::test]
async fn a_validator_of_a_200_brings_a_304() {
    let upstream = Upstream::start(|seen, number| match seen.header("if-none-match") {
        Some("W/\"7\"") => reply(304, "", ""),
        _ if number == 0 => reply(200, "etag: W/\"7\"\r\n", PAYLOAD),
        _ => reply(500, "etag: \"bad\"\r\n", ""),
    })
    .await;
    let driver = Driver::new(&source(&upstream)).unwrap();
    let first = driver.fetch(&Validators::new()).await;
    let PartOutcome::Fetched { validator, .. } = payload(&first) else {
        panic!("{first:?}");
    };
    assert_eq!(validator.as_deref(), Some("W/\"7\""));
    let part = PartId::Payload(KEY.to_owned());
    let known: Validators = [(part, validator.clone().unwrap())].into();
    assert!(matches!(
        payload(&driver.fetch(&known).await),
        PartOutcome::NotModified
    ));
    // The driver remembers none by itself: the body may have been refused.
    let fetched = driver.fetch(&Validators::new()).await;
    assert_eq!(error(payload(&fetched)).code(), "http_status");
    assert!(upstream.seen.lock()[2].header("if-none-match").is_none());
}

#[tokio::test]
async fn compressed_bodies_arrive_and_bombs_do_not() {
    let encoded = [
        ("gzip", gzip(PAYLOAD.as_bytes())),
        ("zstd", zstd::encode_all(PAYLOAD.as_bytes(), 3).unwrap()),
        ("br", {
            let mut out = Vec::new();
            let params = brotli::enc::BrotliEncoderParams::default();
            brotli::BrotliCompress(&mut PAYLOAD.as_bytes(), &mut out, &params).unwrap();
            out
        }),
    ];
    for (coding, bytes) in encoded {
        let upstream = Upstream::start(move |_, _| {
            reply(200, &format!("content-encoding: {coding}\r\n"), &bytes)
        })
        .await;
        assert_eq!(
            body(payload(&fetch(&source(&upstream)).await)),
            PAYLOAD,
            "{coding}"
        );
    }
    // 200 MB of blanks in 200 kB.
    let bomb = gzip(std::io::repeat(b' ').take(200_000_000));
    assert!(bomb.len() < 300_000);
    let upstream =
        Upstream::start(move |_, _| reply(200, "content-encoding: gzip\r\n", &bomb)).await;
    let fetched = fetch(&source(&upstream)).await;
    assert!(matches!(
        error(payload(&fetched)),
        FetchError::TooLarge {
            limit_bytes: 1_000_000
        }
    ));
}

#[tokio::test]
async fn a_large_payload_arrives_up_to_the_limit() {
    let text = format!("{{\"features\":\"{}\"}}", "x".repeat(1_000_000 - 15));
    assert_eq!(text.len(), 1_000_000);
    let sent = text.clone();
    let upstream = Upstream::start(move |_, _| json(&sent)).await;
    assert_eq!(body(payload(&fetch(&source(&upstream)).await)), text);
}

#[tokio::test]
async fn a_wrong_decryption_key_is_told_apart_from_a_right_one() {
    // GrowthBook's own case "Valid feature" (conformance file, `decrypt`).
    let sealed =
        "m5ylFM6ndyOJA2OPadubkw==.Uu7ViqgKEt/dWvCyhI46q088PkAEJbnXKf3KPZjf9IEQQ+A8fojNoxw4wIbPX3aj";
    let key = "Zvwv/+uhpFDznZ6SX28Yjg==";
    let body_text = format!(r#"{{"features":{{}},"encryptedFeatures":"{sealed}"}}"#);
    let upstream = Upstream::start(move |_, _| json(&body_text)).await;
    let with_key = |key: &str| Source {
        decryption_key: Some(SecretString::from(key)),
        ..source(&upstream)
    };
    assert_eq!(
        body(payload(&fetch(&with_key(key)).await)),
        r#"{"features":{"feature":{"defaultValue":true}},"encryptedFeatures":true}"#
    );
    let fetched = fetch(&with_key("AAAAAAAAAAAAAAAAAAAAAA==")).await;
    let text = error(payload(&fetched)).to_string();
    assert!(
        text.contains("sdk-tes…") && text.contains("`decryption_key`"),
        "{text}"
    );
}

#[tokio::test]
async fn redirects_stay_within_the_origin_and_end() {
    let upstream = Upstream::start(|seen, number| match number {
        _ if seen.path == "/moved" => json(PAYLOAD),
        _ => reply(302, "location: /moved\r\n", ""),
    })
    .await;
    assert_eq!(body(payload(&fetch(&source(&upstream)).await)), PAYLOAD);

    let other = Upstream::start(|_, _| json(PAYLOAD)).await;
    let location = format!("location: {}/api/features/x\r\n", other.url);
    let upstream = Upstream::start(move |_, _| reply(301, &location, "")).await;
    let fetched = fetch(&source(&upstream)).await;
    assert_eq!(
        error(payload(&fetched)).to_string(),
        format!("redirect refused: it leads to {}", other.url)
    );
    assert_eq!(
        other.count(),
        0,
        "the same host on another port is another origin"
    );

    let upstream = Upstream::start(|_, _| reply(302, "location: /again\r\n", "")).await;
    let fetched = fetch(&source(&upstream)).await;
    assert_eq!(
        error(payload(&fetched)).to_string(),
        "redirect refused: more than 5 in a row"
    );
    assert_eq!(upstream.count(), 6);
}
