//! What a read of the data plane carries: headers, conditions, encodings, documents.

use actix_web::{rt, test as at};

use super::{Answer, CLIENT_KEY, PUBLISHED, Plane, Rig, SNAPSHOT, VARNISH, compress};
use crate::{clock, http::ROUTES};

const FRESH: &str = "public, max-age=0, must-revalidate, s-maxage=10, stale-while-revalidate=86400, stale-if-error=604800";

fn tag(rig: &Rig, document: &str) -> String {
    rig.snapshot
        .as_ref()
        .unwrap()
        .document(document)
        .unwrap()
        .tag
        .clone()
}

/// The headers that 200 and 304 share.
fn shared_headers(answer: &Answer) -> Vec<(&'static str, Option<String>)> {
    let names = [
        "etag",
        "last-modified",
        "cache-control",
        "vary",
        "surrogate-key",
        "x-config-revision",
        "x-config-published-at",
        "x-config-checked-at",
        "x-config-stale",
        "access-control-allow-origin",
    ];
    names
        .map(|name| (name, answer.header(name).map(str::to_owned)))
        .to_vec()
}

#[rt::test]
async fn a_snapshot_has_every_header_of_the_recipe() {
    let rig = Rig::loaded();
    let checked_at = clock::from_ms(clock::now_ms());
    rig.shared
        .handles
        .board
        .source("main")
        .unwrap()
        .set_last_success_ms(clock::to_ms(checked_at));
    let answer = rig.get(SNAPSHOT).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body,
        r#"{"environment":"production","revision":7,"features":{}}"#
    );
    let checked_at = crate::http::times::rfc3339(checked_at);
    let etag = format!("\"{}\"", tag(&rig, "snapshot"));
    let expected = [
        ("content-type", Some("application/json; charset=utf-8")),
        ("etag", Some(etag.as_str())),
        ("last-modified", Some("Fri, 20 Nov 2026 10:00:00 GMT")),
        ("cache-control", Some(FRESH)),
        ("vary", Some("Accept-Encoding")),
        (
            "surrogate-key",
            Some("cfg cfg-production cfg-production-snapshot"),
        ),
        ("x-config-revision", Some("7")),
        ("x-config-published-at", Some("2026-11-20T10:00:00.250Z")),
        ("x-config-checked-at", Some(checked_at.as_str())),
        ("x-config-stale", Some("0")),
        ("access-control-allow-origin", Some("*")),
        ("content-encoding", None),
        ("set-cookie", None),
        ("age", None),
        ("expires", None),
    ];
    for (name, value) in expected {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("x-request-id").is_some());
}

#[rt::test]
async fn staleness_changes_no_byte_and_no_tag() {
    let rig = Rig::loaded();
    let fresh = rig.get(SNAPSHOT).await;
    assert_eq!(fresh.header("x-config-checked-at"), None, "never checked");
    rig.shared
        .handles
        .board
        .source("main")
        .unwrap()
        .set_last_success_ms(1_000);
    let stale = rig.get(SNAPSHOT).await;
    assert_eq!((stale.status, &stale.body), (200, &fresh.body));
    assert_eq!(stale.header("etag"), fresh.header("etag"));
    assert_eq!(stale.header("x-config-stale"), Some("1"));
    assert_eq!(
        stale.header("x-config-checked-at"),
        Some("1970-01-01T00:00:01.000Z")
    );
    assert_eq!(
        stale.header("cache-control"),
        Some(FRESH.replace("s-maxage=10", "s-maxage=5").as_str())
    );
}

#[rt::test]
async fn a_client_that_has_the_document_gets_304_with_the_same_headers() {
    let rig = Rig::loaded();
    let full = rig.get(SNAPSHOT).await;
    let plain = tag(&rig, "snapshot");
    for sent in [
        format!("\"{plain}\""),
        format!("W/\"{plain}\""),
        format!("\"x\", \"{plain}\""),
        "*".to_owned(),
    ] {
        let answer = rig.get_with(SNAPSHOT, "if-none-match", &sent).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{sent}");
        assert_eq!(shared_headers(&answer), shared_headers(&full), "{sent}");
        assert_eq!(answer.header("content-length"), None);
    }
    // A tag of another encoding names the same document; the 304 repeats the tag that matched.
    let gzip = format!("\"{plain}-gzip\"");
    let answer = rig.get_with(SNAPSHOT, "if-none-match", &gzip).await;
    assert_eq!(
        (answer.status, answer.header("etag")),
        (304, Some(gzip.as_str()))
    );
    for sent in ["\"other\"", plain.as_str(), "\"\"", ""] {
        assert_eq!(
            rig.get_with(SNAPSHOT, "if-none-match", sent).await.status,
            200,
            "{sent}"
        );
    }
}

#[rt::test]
async fn a_date_counts_only_without_a_tag() {
    let rig = Rig::loaded();
    let check = async |since: &str, none_match: Option<&str>, expected: u16| {
        let mut request = at::TestRequest::get()
            .uri(SNAPSHOT)
            .insert_header(("if-modified-since", since));
        if let Some(tag) = none_match {
            request = request.insert_header(("if-none-match", tag));
        }
        assert_eq!(
            rig.send(Plane::Data, request).await.status,
            expected,
            "{since} {none_match:?}"
        );
    };
    check("Fri, 20 Nov 2026 10:00:00 GMT", None, 304).await;
    check("Fri, 20 Nov 2026 10:00:01 GMT", None, 304).await;
    check("Fri, 20 Nov 2026 09:59:59 GMT", None, 200).await;
    check("yesterday", None, 200).await;
    check("Fri, 20 Nov 2026 10:00:00 GMT", Some("\"other\""), 200).await;
    assert_eq!(PUBLISHED.second(), 0);
}

#[rt::test]
async fn compressed_copies_have_tags_of_their_own() {
    let rig = Rig::loaded();
    let before = rig.get_with(VARNISH, "accept-encoding", "gzip, br").await;
    assert_eq!(
        before.header("content-encoding"),
        None,
        "identity until the copies are made"
    );
    compress(rig.snapshot.as_ref().unwrap(), "varnish");
    let check = async |accept: &str, encoding: Option<&str>, suffix: &str, body: &str| {
        let answer = rig.get_with(VARNISH, "accept-encoding", accept).await;
        let etag = format!("\"{}{suffix}\"", tag(&rig, "varnish"));
        assert_eq!(answer.status, 200, "{accept}");
        assert_eq!(answer.header("content-encoding"), encoding, "{accept}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "{accept}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/json; charset=utf-8")
        );
        assert_eq!(answer.body, body.as_bytes(), "{accept}");
    };
    let plain = r#"{"sticky-header":{}}"#;
    check("gzip", Some("gzip"), "-gzip", "gzip bytes").await;
    check("br;q=0.9, zstd", Some("zstd"), "-zstd", "zstd bytes").await;
    check("gzip, deflate, br", Some("br"), "-br", "br bytes").await;
    check("identity", None, "", plain).await;
    check("identity;q=0, deflate", None, "", plain).await;
    check("gzip;q=0", None, "", plain).await;
}

#[rt::test]
async fn every_route_that_carries_configuration_is_probed() {
    let rig = Rig::loaded();
    let mut probed = 0;
    for path in ROUTES
        .iter()
        .flat_map(|route| (route.probes)("production", CLIENT_KEY))
    {
        let answer = rig.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("x-config-revision"), Some("7"), "{path}");
        assert!(answer.header("etag").is_some(), "{path}");
        probed += 1;
    }
    assert_eq!(probed, 6);
}

#[rt::test]
async fn experiments_are_chosen_by_authority_and_format() {
    let rig = Rig::loaded();
    let check = async |query: &str, document: &str| {
        let answer = rig.get(&format!("/api/v1/experiments{query}")).await;
        let etag = format!("\"{}\"", tag(&rig, document));
        assert_eq!(
            (answer.status, answer.header("etag")),
            (200, Some(etag.as_str())),
            "{query}"
        );
    };
    check("", "mediawiki").await;
    check("?authority=mediawiki", "mediawiki").await;
    check("?authority=mediawiki&format=config", "mediawiki").await;
    check("?authority=varnish", "varnish").await;
    check(
        "?authority=varnish&format=config&environment=production",
        "varnish",
    )
    .await;
    check("?format=analytics", "analytics").await;
    check("?authority=varnish&format=analytics", "analytics").await;
    check("?something=else", "mediawiki").await;
    for (query, field) in [
        ("?authority=nginx", "authority"),
        ("?format=xml", "format"),
        ("?format=a&format=b", "query"),
    ] {
        let answer = rig.get(&format!("/api/v1/experiments{query}")).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "bad_request"),
            "{query}"
        );
        assert_eq!(answer.json()["field"], field, "{query}");
    }
}
