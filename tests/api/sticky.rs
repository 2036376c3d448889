//! Sticky buckets of remote evaluation: kept over changes and restarts, shared with GrowthBook Proxy, done without when
//! their store is away.

use std::{env, net::TcpListener};

use redis::Commands as _;
use serde_json::{Value, json};

use crate::{
    eval::{evaluate, split, start},
    support::{
        Bed, TestApp,
        databases::{Backend, on_each},
        eventually,
        proxy::{Proxy, Wire},
        skipped,
    },
};

fn user(id: &str) -> Value {
    json!({"attributes": {"id": id, "country": "NL"}})
}

async fn value(app: &TestApp, id: &str) -> Value {
    evaluate(app, &user(id)).await["features"]["checkout"]["defaultValue"].clone()
}

/// How often something was counted.
async fn counted(app: &TestApp, outcome: &str) -> u64 {
    let metrics = app.admin_get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let name = format!("stitchd_sticky_buckets_total{{outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

async fn until_counted(app: &TestApp, outcome: &str, count: u64) {
    eventually(&format!("{count} {outcome}"), async || {
        (counted(app, outcome).await >= count).then_some(())
    })
    .await;
}

/// Evaluates before and after everybody would get the other variation.
async fn kept_over_a_change(bed: &Bed) {
    bed.upstream
        .set_features(json!({"checkout": split([1.0, 0.0])}));
    let app = start(bed).await;
    let before = app.revision();
    assert_eq!(value(&app, "early").await, "old");
    until_counted(&app, "written", 1).await;
    bed.upstream
        .set_features(json!({"checkout": split([0.0, 1.0])}));
    assert_eq!(app.poll().await["outcome"], "published");
    assert_eq!(value(&app, "early").await, "old");
    assert_eq!(value(&app, "late").await, "new");
    until_counted(&app, "written", 2).await;
    assert!(app.revision() > before);
    app.stop().await;

    let app = start(bed).await;
    let answer = evaluate(&app, &user("early")).await;
    let track = &answer["features"]["checkout"]["rules"][0]["tracks"][0];
    assert_eq!(track["result"]["value"], "old");
    assert_eq!(track["result"]["stickyBucketUsed"], true);
    app.stop().await;
}

#[tokio::test]
async fn a_database_keeps_what_a_unit_was_given() {
    on_each(async |backend: Backend| {
        let mut bed = Bed::new();
        bed.database_url.clone_from(&backend.url);
        bed.extra = "[sticky_buckets]\nengine = \"database\"\ntimeout = \"20s\"".to_owned();
        kept_over_a_change(&bed).await;
    })
    .await;
}

/// The Redis server of the tests and a prefix of its own; `None`, and a line that says so, where there is none.
#[expect(clippy::disallowed_methods, reason = "a test reads its environment")]
fn redis_server() -> Option<(String, String)> {
    let Ok(url) = env::var("STITCHD_TEST_REDIS") else {
        skipped("sticky buckets in Redis", "STITCHD_TEST_REDIS is not set");
        return None;
    };
    Some((
        url,
        format!("stitchd-test-{}:", uuid::Uuid::new_v4().simple()),
    ))
}

fn on_redis(url: &str, prefix: &str, timeout: &str) -> String {
    format!(
        "[sticky_buckets]\nengine = \"redis\"\nredis_url = \"{url}\"\nkey_prefix = \"{prefix}\"\ntimeout = \"{timeout}\"\nttl = \"1h\""
    )
}

#[tokio::test]
async fn redis_keeps_what_a_unit_was_given() {
    let Some((url, prefix)) = redis_server() else {
        return;
    };
    let mut bed = Bed::new();
    bed.extra = on_redis(&url, &prefix, "20s");
    kept_over_a_change(&bed).await;

    // What GrowthBook Proxy would read, and nothing else.
    let mut redis = redis::Client::open(url).unwrap().get_connection().unwrap();
    let document: String = redis.get(format!("{prefix}id||early")).unwrap();
    assert_eq!(
        document,
        r#"{"attributeName":"id","attributeValue":"early","assignments":{"checkout__0":"control"}}"#
    );
    let seconds: i64 = redis.ttl(format!("{prefix}id||early")).unwrap();
    assert!((1..=3600).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn documents_of_the_proxy_count() {
    let Some((url, prefix)) = redis_server() else {
        return;
    };
    let mut redis = redis::Client::open(url.as_str())
        .unwrap()
        .get_connection()
        .unwrap();
    let document = r#"{"attributeName":"id","attributeValue":"known","assignments":{"other__1":"x","checkout__0":"control"}}"#;
    let _: () = redis
        .set_ex(format!("{prefix}id||known"), document, 600)
        .unwrap();
    // What cannot be read is nobody's.
    let _: () = redis
        .set_ex(format!("{prefix}id||odd"), "not JSON", 600)
        .unwrap();
    let mut bed = Bed::new();
    bed.extra = on_redis(&url, &prefix, "20s");
    bed.upstream
        .set_features(json!({"checkout": split([0.0, 1.0])}));
    let app = start(&bed).await;
    assert_eq!(value(&app, "known").await, "old");
    assert_eq!(value(&app, "odd").await, "new");
    app.stop().await;
}

#[tokio::test]
async fn a_store_that_is_away_is_done_without() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("redis://{}", closed.local_addr().unwrap());
    drop(closed);
    // Accepts connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("redis://{}", silent.local_addr().unwrap());
    for url in [nobody, mute] {
        let mut bed = Bed::new();
        bed.extra = on_redis(&url, "", "50ms");
        bed.upstream
            .set_features(json!({"checkout": split([0.0, 1.0])}));
        let app = start(&bed).await;
        for _ in 0..3 {
            let answer = evaluate(&app, &user("u")).await;
            let result = &answer["features"]["checkout"]["rules"][0]["tracks"][0]["result"];
            assert_eq!(result["value"], "new");
            assert_eq!(result["stickyBucketUsed"], false);
        }
        until_counted(&app, "unavailable", 3).await;
        assert_eq!(counted(&app, "written").await, 0);
        app.stop().await;
    }
}

#[tokio::test]
async fn a_store_that_comes_back_is_used_again() {
    let Some((url, prefix)) = redis_server() else {
        return;
    };
    let authority = url.split_once("://").unwrap().1.split('/').next().unwrap();
    let server = authority.rsplit('@').next().unwrap();
    let mut found = tokio::net::lookup_host(server).await.unwrap();
    let proxy = Proxy::start(found.next().unwrap()).await;
    let mut bed = Bed::new();
    bed.extra = on_redis(
        &url.replace(server, &proxy.address.to_string()),
        &prefix,
        "2s",
    );
    bed.upstream
        .set_features(json!({"checkout": split([0.0, 1.0])}));
    let app = start(&bed).await;
    assert_eq!(value(&app, "first").await, "new");
    until_counted(&app, "written", 1).await;
    proxy.set(Wire::Cut);
    let before = counted(&app, "unavailable").await;
    eventually("the outage is noticed", async || {
        assert_eq!(value(&app, "second").await, "new");
        (counted(&app, "unavailable").await > before).then_some(())
    })
    .await;
    proxy.set(Wire::Pass);
    let written = counted(&app, "written").await;
    eventually("the store is used again", async || {
        let id = uuid::Uuid::new_v4().to_string();
        assert_eq!(value(&app, &id).await, "new");
        (counted(&app, "written").await > written).then_some(())
    })
    .await;
    app.stop().await;
}
