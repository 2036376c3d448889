//! The routes of GrowthBook's SDKs: keys, error shapes, headers.

use actix_web::{rt, test as at};

use super::{Answer, CLIENT_KEY, FEATURES, Plane, REMOTE_KEY, Rig};

/// 400 with the body that the proxy has.
#[track_caller]
fn assert_refused(answer: &Answer, error: &str, unrecoverable: Option<&str>) {
    let body = format!("{{\"status\":400,\"error\":\"{error}\"}}");
    assert_eq!((answer.status, &answer.body[..]), (400, body.as_bytes()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-unrecoverable"), unrecoverable);
    assert_eq!(answer.header("etag"), None);
}

#[rt::test]
async fn a_payload_comes_with_the_headers_of_other_documents_and_the_offer_of_a_stream() {
    let rig = Rig::loaded();
    let answer = rig.get(FEATURES).await;
    assert_eq!(answer.status, 200);
    assert_eq!(&answer.body[..], br#"{"status":200,"features":{}}"#);
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("x-config-revision", "7"),
        ("x-sse-support", "enabled"),
        ("access-control-allow-origin", "*"),
        (
            "surrogate-key",
            "cfg cfg-production cfg-production-features/sdk-main",
        ),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let etag = answer.header("etag").unwrap().to_owned();
    let again = rig.get_with(FEATURES, "if-none-match", &etag).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("x-sse-support"), Some("enabled"));
    let head = at::TestRequest::default()
        .method(actix_web::http::Method::HEAD)
        .uri(FEATURES);
    let head = rig.send(Plane::Data, head).await;
    assert_eq!((head.status, head.header("etag")), (200, Some(&*etag)));
}

#[rt::test]
async fn a_browser_may_read_what_its_sdk_needs() {
    let rig = Rig::loaded();
    let answer = rig
        .get_with(FEATURES, "origin", "https://example.org")
        .await;
    let exposed = answer.header("access-control-expose-headers").unwrap();
    for name in ["etag", "x-sse-support", "x-unrecoverable"] {
        assert!(
            exposed.split(',').any(|word| word.trim() == name),
            "{name} is not in {exposed}"
        );
    }
}

#[rt::test]
async fn keys_that_are_not_served_are_refused_as_the_proxy_does() {
    let rig = Rig::loaded();
    for key in ["sdk-other", "varnish", "snapshot", "sdk-main%2F..", "%00"] {
        let answer = rig.get(&format!("/api/features/{key}")).await;
        assert_refused(&answer, "Invalid API Key", Some("1"));
    }
    let answer = rig.get(&format!("/api/features/{REMOTE_KEY}")).await;
    assert_refused(
        &answer,
        "Failed to get features (remote eval not supported)",
        None,
    );
    assert_eq!(answer.header("x-sse-support"), None);
}

#[rt::test]
async fn an_unknown_key_is_unknown_before_the_first_load_too() {
    let rig = Rig::never_loaded();
    let answer = rig.get("/api/features/sdk-other").await;
    assert_refused(&answer, "Invalid API Key", Some("1"));
    let answer = rig.get(FEATURES).await;
    assert_eq!(answer.json()["error"], answer.json()["detail"]);
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "not_loaded")
    );
    assert_eq!(answer.header("retry-after"), Some("5"));
}

#[rt::test]
async fn no_header_makes_one_keys_payload_appear_under_another() {
    let rig = Rig::loaded();
    let other = "/api/features/sdk-other";
    for (name, value) in [
        ("x-growthbook-api-key", CLIENT_KEY),
        ("authorization", "Bearer sdk-main"),
        ("host", "sdk-main"),
        ("x-forwarded-host", "sdk-main"),
        ("x-forwarded-uri", FEATURES),
        ("x-original-url", FEATURES),
        ("x-rewrite-url", FEATURES),
        ("x-http-method-override", "POST"),
        ("cookie", "key=sdk-main"),
    ] {
        let answer = rig.get_with(other, name, value).await;
        assert_refused(&answer, "Invalid API Key", Some("1"));
        let value = value.replace("sdk-main", "sdk-other");
        let answer = rig.get_with(FEATURES, name, &value).await;
        assert_eq!(answer.status, 200, "{name}");
    }
    for query in ["?key=sdk-main", "?client_key=sdk-main", "?project=x"] {
        let answer = rig.get(&format!("{other}{query}")).await;
        assert_refused(&answer, "Invalid API Key", Some("1"));
    }
}
