//! The demo's upstream on the wire: a faithful GrowthBook, and a faithful liar.

#![expect(clippy::unwrap_used, reason = "a failed test is the report")]

use std::time::Duration;

use aes::Aes128;
use base64::{Engine, engine::general_purpose::STANDARD};
use cbc::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use stitchd::cli::demo::{
    content, script,
    upstream::{
        CLIENT_KEY, Connection, Encoding, ExperimentExt, Fault, Route, SECRET_KEY, Shift, Upstream,
        experiment, feature, many_experiments, many_features,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Base64 of `0123456789abcdef`.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

/// Long enough for anything that is meant to happen.
const SOON: Duration = Duration::from_secs(10);

mod lies;
mod lists;
mod payloads;
mod streams;

/// A body read as JSON.
trait Read {
    async fn value(self) -> Value;
}

impl Read for Response {
    async fn value(self) -> Value {
        serde_json::from_slice(&self.bytes().await.unwrap()).unwrap()
    }
}

fn upstream() -> Upstream {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let upstream = Upstream::start(0).unwrap();
    upstream.set_features(json!({"dark-mode": {"defaultValue": false}}));
    upstream
}

fn client() -> Client {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

async fn payload(upstream: &Upstream) -> Response {
    let url = format!("{}/api/features/{CLIENT_KEY}", upstream.base_url());
    client().get(url).send().await.unwrap()
}

async fn rest(upstream: &Upstream, path_and_query: &str) -> Response {
    let url = format!("{}/api/v1/{path_and_query}", upstream.base_url());
    let request = client().get(url).bearer_auth(SECRET_KEY);
    request.send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// Sends a request by hand and reads until the connection ends.
async fn raw(upstream: &Upstream, path: &str, headers: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream.addr()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn requests_are_remembered() {
    let upstream = upstream();
    payload(&upstream).await;
    rest(&upstream, "experiments?limit=100").await;
    upstream.until_requests(Route::Experiments, 1).await;
    assert_eq!(upstream.request_count(Route::Features), 1);
    let requests = upstream.requests();
    assert_eq!(requests[1].path_and_query, "/api/v1/experiments?limit=100");
    assert_eq!(requests[1].route, Some(Route::Experiments));
    let bearer = format!("Bearer {SECRET_KEY}");
    assert_eq!(requests[1].header("authorization"), Some(bearer.as_str()));
    upstream.clear_requests();
    assert_eq!(upstream.request_count(Route::Features), 0);
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let upstream = upstream();
    let mut stream = TcpStream::connect(upstream.addr()).await.unwrap();
    // Two requests in one write: the second is answered from what was read ahead.
    let request = b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(text.contains("{\"status\":200,\"healthy\":true}HTTP/1.1 404 Not Found"));
}

#[tokio::test]
async fn the_demo_changes_by_itself() {
    let upstream = upstream();
    content::fill(&upstream);
    let url = format!("{}/sub/{CLIENT_KEY}", upstream.base_url());
    let mut stream = client().get(url).send().await.unwrap();
    stream.chunk().await.unwrap();
    let task = script::spawn_script(&upstream, Duration::from_millis(10));
    for _ in 0..3 {
        let event = timeout(SOON, stream.chunk()).await.unwrap().unwrap();
        assert!(event.is_some());
    }
    upstream.stop().await;
    timeout(SOON, task).await.unwrap().unwrap();
}
