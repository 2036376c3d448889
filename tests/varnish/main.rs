//! A real Varnish with the VCL that is shipped, in front of the real service.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod kept;
mod passed;
mod purged;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use reqwest::{Method, Response, header::HeaderMap};
use serde_json::{Value, json};

use crate::{
    cache::{Behind, Change, Origin, Varnish, varnishd},
    support::{Bed, ENVIRONMENT, TestApp, eventually},
};

/// The service behind Varnish.
struct Stand {
    bed: Bed,
    app: TestApp,
    origin: Origin,
    varnish: Varnish,
}

/// What is not the same for every test.
#[derive(Default)]
struct Setup<'a> {
    s_maxage: &'a str,
    stale_if_error: Option<&'a str>,
    /// Pieces of the VCL.
    changes: &'a [Change<'a>],
    /// stitchd itself purges the cache.
    purges: bool,
}

impl Stand {
    /// `None` where there is no Varnish.
    async fn new(s_maxage: &str) -> Option<Self> {
        Self::with(Setup {
            s_maxage,
            ..Setup::default()
        })
        .await
    }

    /// A cache whose copies outlive every test, and a service that purges it.
    async fn purging() -> Option<Self> {
        Self::with(Setup {
            s_maxage: "1h",
            purges: true,
            ..Setup::default()
        })
        .await
    }

    async fn with(setup: Setup<'_>) -> Option<Self> {
        let varnishd = varnishd()?;
        let origin = Origin::start(Behind::Nobody).await;
        let varnish = Varnish::start(&varnishd, &origin, setup.changes).await;
        let mut bed = Bed::new();
        let s_maxage = setup.s_maxage;
        let stale_if_error = setup.stale_if_error.unwrap_or("7d");
        let targets = if setup.purges {
            vec![varnish.url.as_str()]
        } else {
            Vec::new()
        };
        bed.extra = format!(
            "[http]\ns_maxage = \"{s_maxage}\"\nstale_s_maxage = \"{s_maxage}\"\nstale_if_error = \"{stale_if_error}\"\n[publish]\npurge_targets = {targets:?}"
        );
        let app = bed.start_loaded().await;
        origin.set(Behind::Service(address(&app)));
        varnish.until_origin_is(true).await;
        Some(Self {
            bed,
            app,
            origin,
            varnish,
        })
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let url = format!("{}{path}", self.varnish.url);
        let mut request = self.app.http.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn purge(&self) -> Response {
        let purge = Method::from_bytes(b"PURGE").unwrap();
        self.ask(purge, &snapshot(), &[]).await
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, &[]).await
    }

    /// The counter in the snapshot, as Varnish serves it.
    async fn counter(&self) -> Value {
        let answer = self.get(&snapshot()).await;
        assert_eq!(answer.status(), 200);
        let body = answer.bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["features"]["counter"]["defaultValue"].clone()
    }

    async fn publish(&self, value: u64) {
        let feature = json!({"defaultValue": value});
        self.bed.upstream.set_feature("counter", feature);
        self.app.poll().await;
    }
}

fn snapshot() -> String {
    format!("/v1/snapshot/{ENVIRONMENT}")
}

fn address(app: &TestApp) -> SocketAddr {
    app.data.trim_start_matches("http://").parse().unwrap()
}

async fn json(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn what_was_served_goes_on_while_stitchd_is_stopped() {
    let Some(stand) = Stand::new("1s").await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    stand.app.stop().await;
    stand.origin.set(Behind::Nobody);
    let Stand {
        bed,
        origin,
        varnish,
        ..
    } = stand;
    varnish.until_origin_is(false).await;
    let client = support::client();
    let url = format!("{}{}", varnish.url, snapshot());
    // Past the time to live and past the ten seconds for which everybody gets an old copy.
    let aged = eventually("the copy is old", async || {
        let answer = client.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let age: u64 = header(answer.headers(), "age").parse().unwrap();
        (age > 12).then_some(answer)
    })
    .await;
    assert!(aged.text().await.unwrap().contains("\"defaultValue\":1"));

    // Back with news: they arrive without a purge.
    bed.upstream
        .set_feature("counter", json!({"defaultValue": 2}));
    let app = bed.start().await;
    app.poll().await;
    origin.set(Behind::Service(address(&app)));
    eventually("the news arrive", async || {
        let text = client.get(&url).send().await.unwrap().text().await.unwrap();
        text.contains("\"defaultValue\":2").then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn an_error_status_never_takes_the_place_of_a_good_copy() {
    let Some(stand) = Stand::new("1s").await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    for status in [500, 502, 503] {
        stand.origin.set(Behind::Status(status));
        let aged = async || {
            let answer = stand.get(&snapshot()).await;
            assert_eq!(answer.status(), 200, "while the origin answers {status}");
            let age: u64 = header(answer.headers(), "age").parse().unwrap();
            (age > 2).then_some(())
        };
        eventually("the copy is past its time to live", aged).await;
        assert_eq!(stand.counter().await, 1);
        // A purge that finds the origin broken loses nothing either.
        assert_eq!(stand.purge().await.status(), 200);
        assert_eq!(stand.counter().await, 1);
    }
    stand.origin.set(Behind::Service(address(&stand.app)));
    stand.app.stop().await;
}

#[tokio::test]
async fn a_change_arrives_within_its_time_without_a_purge_and_at_once_with_it() {
    let Some(stand) = Stand::new("1s").await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    stand.publish(2).await;
    let published = Instant::now();
    eventually("the change arrives by itself", async || {
        (stand.counter().await == 2).then_some(())
    })
    .await;
    // A second, that of the request that has it fetched, and what a machine without a free processor adds.
    let waited = published.elapsed();
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    stand.app.stop().await;

    // With a time to live that no test waits for.
    let Some(stand) = Stand::new("1h").await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    stand.publish(2).await;
    assert_eq!(stand.counter().await, 1, "it is the cached copy");
    assert_eq!(stand.purge().await.status(), 200);
    assert_eq!(stand.counter().await, 2);
    stand.app.stop().await;
}

#[tokio::test]
async fn copies_are_revalidated_and_compressed_and_a_client_gets_its_304() {
    let Some(stand) = Stand::new("1s").await else {
        return;
    };
    let first = stand.get(&snapshot()).await;
    let etag = header(first.headers(), "etag").to_owned();
    assert!(!etag.is_empty());
    let plain = first.bytes().await.unwrap();

    // The copy outlives its time to live by 304s of the service: the age starts again, the validator stays.
    eventually("the copy is revalidated", async || {
        let answer = stand.get(&snapshot()).await;
        assert_eq!(header(answer.headers(), "etag"), etag);
        let metrics = stand.app.admin_get("/metrics").await;
        let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
        let is_304 = |line: &&str| {
            line.contains("/v1/snapshot/{environment}")
                && line.contains("status=\"3xx\"")
                && !line.ends_with(" 0")
        };
        metrics.lines().find(is_304).map(|_| ())
    })
    .await;

    let known = stand
        .ask(Method::GET, &snapshot(), &[("if-none-match", &etag)])
        .await;
    assert_eq!(known.status(), 304);
    let packed = stand
        .ask(Method::GET, &snapshot(), &[("accept-encoding", "gzip")])
        .await;
    assert_eq!(header(packed.headers(), "content-encoding"), "gzip");
    let packed = packed.bytes().await.unwrap();
    assert!(packed.len() < plain.len());
    let mut unpacked = Vec::new();
    std::io::copy(
        &mut flate2::read::GzDecoder::new(&packed[..]),
        &mut unpacked,
    )
    .unwrap();
    assert_eq!(unpacked, plain);
    stand.app.stop().await;
}

#[tokio::test]
async fn streams_pass_through() {
    let Some(stand) = Stand::new("1h").await else {
        return;
    };
    let mut stream = stand.get(&format!("/v1/stream/{ENVIRONMENT}")).await;
    let headers = stream.headers();
    assert_eq!(header(headers, "content-type"), "text/event-stream");
    stand.publish(7).await;
    let wanted = format!("\"revision\":{}", stand.app.revision());
    let mut seen = String::new();
    while !seen.contains(&wanted) {
        let chunk = tokio::time::timeout(support::PATIENCE, stream.chunk()).await;
        let chunk = chunk.expect("an event in time").unwrap();
        seen += &String::from_utf8_lossy(&chunk.expect("the stream goes on"));
    }
    drop(stream);
    stand.app.stop().await;
}

#[tokio::test]
async fn strangers_do_not_purge() {
    let own_machine = "\"localhost\";\n    \"127.0.0.1\";\n    \"::1\";";
    let setup = Setup {
        s_maxage: "1h",
        changes: &[(own_machine, "\"192.0.2.1\";")],
        ..Setup::default()
    };
    let Some(stand) = Stand::with(setup).await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    stand.publish(2).await;
    let refused = stand.purge().await;
    assert_eq!(refused.status(), 403);
    assert_eq!(stand.counter().await, 1);
    stand.app.stop().await;
}
