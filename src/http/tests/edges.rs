//! What else the data plane answers: errors, methods, CORS, request ids, consumers, streams, readiness.

use actix_web::{http::Method, rt, test as at};
use serde_json::json;

use super::{CLIENT_KEY, Plane, Rig, SNAPSHOT, VARNISH, settings};
use crate::http::ROUTES;

#[rt::test]
async fn unknown_environments_and_paths_are_problems_that_no_cache_keeps() {
    let rig = Rig::loaded();
    for path in [
        "/v1/snapshot/staging",
        "/v1/stream/staging",
        "/api/v1/experiments?environment=staging",
    ] {
        let answer = rig.get(path).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (404, "unknown_environment"),
            "{path}"
        );
        assert_eq!(answer.json()["known"], json!(["production"]));
    }
    for path in [
        "/",
        "/v1",
        "/v1/snapshot",
        "/v1/snapshot/",
        "/admin/status",
        "/metrics",
    ] {
        let answer = rig.get(path).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (404, "unknown_path"),
            "{path}"
        );
    }
}

#[rt::test]
async fn before_the_first_load_reads_are_503_and_nothing_keeps_that() {
    let rig = Rig::never_loaded();
    for path in ROUTES
        .iter()
        .flat_map(|route| (route.probes)("production", CLIENT_KEY))
    {
        let answer = rig.get(&path).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (503, "not_loaded"),
            "{path}"
        );
        assert_eq!(answer.header("retry-after"), Some("5"));
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(answer.json()["request_id"], id);
    }
}

#[rt::test]
async fn other_methods_are_405_with_allow() {
    let rig = Rig::loaded();
    let check = async |method: &str, path: &str, allow: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = at::TestRequest::default().method(method.clone()).uri(path);
        let answer = rig.send(Plane::Data, request).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (405, "method_not_allowed"),
            "{method} {path}"
        );
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    };
    for method in ["POST", "PUT", "DELETE", "PURGE", "BAN", "OPTIONS"] {
        check(method, SNAPSHOT, "GET, HEAD").await;
        check(method, VARNISH, "GET, HEAD").await;
    }
    check("HEAD", "/v1/stream/production", "GET").await;
}

#[rt::test]
async fn any_origin_may_read_and_caches_need_not_tell_origins_apart() {
    let rig = Rig::loaded();
    let request = at::TestRequest::default()
        .method(Method::OPTIONS)
        .uri(SNAPSHOT)
        .insert_header(("origin", "https://shop.example"))
        .insert_header(("access-control-request-method", "GET"))
        .insert_header(("access-control-request-headers", "if-none-match"));
    let preflight = rig.send(Plane::Data, request).await;
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight.header("access-control-max-age"), Some("86400"));
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        Some("if-none-match")
    );
    assert_eq!(preflight.header("access-control-allow-credentials"), None);
    let methods = preflight.header("access-control-allow-methods").unwrap();
    assert!(
        ["GET", "HEAD", "POST", "OPTIONS"]
            .iter()
            .all(|method| methods.contains(method)),
        "{methods}"
    );
    let answer = rig
        .get_with(SNAPSHOT, "origin", "https://shop.example")
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(
        answer
            .headers
            .get_all("access-control-allow-origin")
            .count(),
        1
    );
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(
        ["etag", "x-config-revision", "retry-after"]
            .iter()
            .all(|name| exposed.contains(name)),
        "{exposed}"
    );
}

#[rt::test]
async fn listed_origins_are_told_apart() {
    let mut settings = settings();
    settings.http.cors_origins = vec!["https://shop.example".to_owned()];
    let rig = Rig::new(&settings, Rig::loaded().snapshot);
    let listed = rig
        .get_with(SNAPSHOT, "origin", "https://shop.example")
        .await;
    assert_eq!(
        listed.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    assert_eq!(listed.header("vary"), Some("Accept-Encoding, Origin"));
    let foreign = rig
        .get_with(SNAPSHOT, "origin", "https://evil.example")
        .await;
    assert_eq!(
        (
            foreign.status,
            foreign.header("access-control-allow-origin")
        ),
        (200, None)
    );
    assert_eq!(
        rig.get(SNAPSHOT)
            .await
            .header("access-control-allow-origin"),
        None
    );
}

#[rt::test]
async fn a_request_id_is_repeated_if_it_is_a_word_and_made_otherwise() {
    let rig = Rig::loaded();
    let given = rig.get_with(SNAPSHOT, "x-request-id", "deploy-1.2_A").await;
    assert_eq!(given.header("x-request-id"), Some("deploy-1.2_A"));
    for bad in ["two words", "", "a\"b", &"x".repeat(65)] {
        let made = rig.get_with(SNAPSHOT, "x-request-id", bad).await;
        let made = made.header("x-request-id").unwrap();
        assert!(!made.is_empty() && made != bad, "{bad}");
    }
}

#[rt::test]
async fn consumers_that_name_themselves_are_remembered() {
    let rig = Rig::loaded();
    rig.get_with(VARNISH, "x-experiment-config-poller", "cp1001.example")
        .await;
    rig.get_with(
        "/api/v1/experiments",
        "x-experiment-config-poller",
        "mw1.example",
    )
    .await;
    rig.get_with(VARNISH, "x-experiment-config-poller", "not a host")
        .await;
    rig.get_with(VARNISH, "user-agent", "nobody").await;
    let seen: Vec<_> = rig
        .shared
        .consumers
        .list()
        .into_iter()
        .map(|c| (c.host, c.authority, c.revision))
        .collect();
    assert_eq!(
        seen,
        [
            ("cp1001.example".to_owned(), "varnish", 7),
            ("mw1.example".to_owned(), "mediawiki", 7)
        ]
    );
}

#[rt::test]
async fn streams_above_the_limit_are_refused_and_counted() {
    let rig = Rig::loaded();
    let held = (
        rig.shared.streams.acquire().unwrap(),
        rig.shared.streams.acquire().unwrap(),
    );
    let answer = rig.get("/v1/stream/production").await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "too_many_streams")
    );
    assert!(
        rig.shared
            .metrics
            .encode()
            .contains("stitchd_streams_refused_total 1")
    );
    drop(held);
    rig.shared.end_streams();
    let answer = rig.get("/v1/stream/production").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/event-stream"))
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
}

#[rt::test]
async fn readiness_follows_the_snapshot_and_lists_what_is_degraded() {
    let rig = Rig::loaded();
    let ready = rig.get("/readyz").await;
    assert_eq!(
        (ready.status, ready.header("cache-control")),
        (200, Some("no-store"))
    );
    let degraded = json!([
        "source `main` was never loaded",
        "actor `store` is down",
        "actor `config` is down"
    ]);
    let body =
        json!({ "status": "ready", "environments": { "production": 7 }, "degraded": degraded });
    assert_eq!(ready.json(), body);
    rig.shared.begin_stop();
    assert_eq!(rig.get("/readyz").await.status, 503);
    assert_eq!(
        rig.get(SNAPSHOT).await.status,
        200,
        "requests are answered to the end"
    );
    let empty = Rig::never_loaded().get("/readyz").await;
    assert_eq!(
        (empty.status, empty.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(empty.json()["status"], "not ready");
    assert_eq!(Rig::never_loaded().get("/livez").await.status, 200);
}
