//! stitchd purges the cache by itself: what changes arrives at once, whatever `s-maxage` says, and nothing else moves.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;
use stitchd::cli::demo::upstream::{CLIENT_KEY, experiment};
use tokio::time::Instant;

use crate::{
    Stand, header, snapshot,
    support::{ENVIRONMENT, PATIENCE, eventually},
};

/// Every path under which readers ask, in each spelling of the README.
fn paths() -> Vec<String> {
    let mut paths = vec![snapshot(), format!("/api/features/{CLIENT_KEY}")];
    for query in [
        "",
        "authority=mediawiki&format=config",
        "authority=varnish&format=config",
        "format=analytics",
    ] {
        let mark = if query.is_empty() { "" } else { "?" };
        paths.push(format!("/api/v1/experiments{mark}{query}"));
        let and = if query.is_empty() { "" } else { "&" };
        paths.push(format!(
            "/api/v1/experiments?{query}{and}environment={ENVIRONMENT}"
        ));
    }
    paths
}

impl Stand {
    /// What a reader gets for each path, and whether it was a copy.
    async fn through(&self) -> BTreeMap<String, (Vec<u8>, bool)> {
        let mut bodies = BTreeMap::new();
        for path in paths() {
            let answer = self.get(&path).await;
            assert_eq!(answer.status(), 200, "{path}");
            let is_copy = header(answer.headers(), "x-cache") == "hit";
            bodies.insert(path, (answer.bytes().await.unwrap().to_vec(), is_copy));
        }
        bodies
    }

    async fn direct(&self, path: &str) -> Vec<u8> {
        self.app.get(path).await.body.to_vec()
    }

    /// Waits until a reader gets what the service serves.
    async fn until_current(&self, path: &str) {
        eventually(&format!("{path} is current"), async || {
            let through = self.get(path).await.bytes().await.unwrap().to_vec();
            (through == self.direct(path).await).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_change_arrives_at_once_in_every_spelling_and_leaves_the_rest_alone() {
    let Some(stand) = Stand::purging().await else {
        return;
    };
    stand.through().await;
    // All of them are copies now, and would be for an hour.
    for (path, (body, is_copy)) in stand.through().await {
        assert!(is_copy, "{path}");
        assert_eq!(body, stand.direct(&path).await, "{path}");
    }

    let before = stand.through().await;
    let since = Instant::now();
    stand.publish(1).await;
    stand.until_current(&snapshot()).await;
    let took = since.elapsed();
    assert!(took < PATIENCE / 4, "it took {took:?}");
    stand
        .until_current(&format!("/api/features/{CLIENT_KEY}"))
        .await;
    for (path, (body, is_copy)) in stand.through().await {
        if path.starts_with("/api/v1/experiments") {
            assert!(is_copy, "{path} was fetched for nothing");
            assert_eq!(body, before[&path].0, "{path}");
        } else {
            assert_ne!(body, before[&path].0, "{path}");
        }
    }

    let news = experiment("another-2026");
    stand.bed.upstream.upsert_experiment(news);
    assert_eq!(stand.app.poll().await["outcome"], "published");
    for path in paths() {
        stand.until_current(&path).await;
        let is_changed = stand.direct(&path).await != before[&path].0;
        assert!(is_changed, "{path} was to change");
    }
    stand.app.stop().await;
}

/// Readers call the cache by its public name, whoever purges by another, and parameters come in any order.
#[tokio::test]
async fn the_name_of_the_cache_and_the_order_of_parameters_do_not_matter() {
    let Some(stand) = Stand::purging().await else {
        return;
    };
    let path = "/api/v1/experiments?format=config&environment=production&authority=varnish";
    let public = [("host", "experiments.example.org")];
    let ask = async || {
        let answer = stand.ask(Method::GET, path, &public).await;
        assert_eq!(answer.status(), 200);
        let is_copy = header(answer.headers(), "x-cache") == "hit";
        (answer.bytes().await.unwrap().to_vec(), is_copy)
    };
    ask().await;
    let before = ask().await;
    assert!(before.1, "it is a copy");
    let news = experiment("another-2026");
    stand.bed.upstream.upsert_experiment(news);
    stand.app.poll().await;
    eventually("the news arrive", async || {
        (ask().await.0 != before.0).then_some(())
    })
    .await;
    assert_eq!(ask().await.0, stand.direct(path).await);
    stand.app.stop().await;
}

#[tokio::test]
async fn after_a_purge_every_client_reads_the_right_bytes_and_revalidates() {
    let Some(stand) = Stand::purging().await else {
        return;
    };
    for value in 1..=5 {
        stand.publish(value).await;
        stand.until_current(&snapshot()).await;
        let expected = stand.direct(&snapshot()).await;
        for accepted in ["gzip", "br", "br, gzip", "zstd, br", "identity"] {
            let headers = [("accept-encoding", accepted)];
            let answer = stand.ask(Method::GET, &snapshot(), &headers).await;
            assert_eq!(answer.status(), 200);
            let coding = header(answer.headers(), "content-encoding").to_owned();
            let etag = header(answer.headers(), "etag").to_owned();
            let body = answer.bytes().await.unwrap().to_vec();
            let body = match coding.as_str() {
                "" => body,
                "gzip" => unzipped(&body),
                other => panic!("{accepted} was answered in {other}"),
            };
            // Varnish stores gzip alone; whoever does not take it gets plain text.
            assert_eq!(coding == "gzip", accepted.contains("gzip"), "{accepted}");
            assert_eq!(body, expected, "{accepted}");
            let known = [("accept-encoding", accepted), ("if-none-match", &etag)];
            let answer = stand.ask(Method::GET, &snapshot(), &known).await;
            assert_eq!(answer.status(), 304, "{accepted}");
        }
    }
    stand.app.stop().await;
}

/// A purge without a change costs a question and no bytes.
#[tokio::test]
async fn a_purge_of_what_has_not_changed_is_answered_by_a_304() {
    let Some(stand) = Stand::new("1h").await else {
        return;
    };
    let first = stand.get(&snapshot()).await;
    let etag = header(first.headers(), "etag").to_owned();
    let body = first.bytes().await.unwrap();
    assert_eq!(not_modified(&stand).await, 0);
    for round in 1..=3 {
        assert_eq!(stand.purge().await.status(), 200);
        assert_eq!(not_modified(&stand).await, round);
        let again = stand.get(&snapshot()).await;
        assert_eq!(header(again.headers(), "etag"), etag);
        assert_eq!(again.bytes().await.unwrap(), body);
    }
    // What is not there is not fetched: nobody asked for it.
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let path = "/api/v1/experiments?format=analytics";
    assert_eq!(stand.ask(purge, path, &[]).await.status(), 200);
    let fetched = stand.get(path).await;
    assert_eq!(header(fetched.headers(), "x-cache"), "miss");
    stand.app.stop().await;
}

/// How often the service has answered 304 for the snapshot.
async fn not_modified(stand: &Stand) -> u64 {
    let metrics = stand.app.admin_get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let is_304 = |line: &&str| {
        line.contains("/v1/snapshot/{environment}") && line.contains("status=\"3xx\"")
    };
    let line = metrics.lines().find(is_304);
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_password_in_the_address_of_the_cache_does_not_keep_it_from_keeping() {
    let Some(stand) = Stand::new("1h").await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    stand.publish(2).await;
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let headers = [("authorization", "Basic bWU6aHVudGVyMg==")];
    let purged = stand.ask(purge, &snapshot(), &headers).await;
    assert_eq!(purged.status(), 200);
    let answer = stand.get(&snapshot()).await;
    assert_eq!(header(answer.headers(), "x-cache"), "hit");
    assert_eq!(stand.counter().await, 2);
    // With a revision that changes one feature in between, too.
    let feature = json!({"defaultValue": 3});
    stand.bed.upstream.set_feature("counter", feature);
    stand.app.poll().await;
    assert_eq!(stand.counter().await, 2, "nobody has purged");
    stand.app.stop().await;
}

fn unzipped(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut plain).unwrap();
    plain
}
