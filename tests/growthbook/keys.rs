//! Which requests stand for which key: the path alone.

use stitchd::cli::demo::upstream::{CLIENT_KEY, Connection};

use crate::{
    stand::{path, start},
    support::{Bed, answer},
};

#[tokio::test]
async fn no_header_or_query_makes_one_keys_payload_appear_under_another() {
    let bed = Bed::new();
    bed.upstream.add_connection(Connection::new("sdk-other"));
    bed.upstream
        .set_payload("sdk-other", r#"{"features":{"other":{}}}"#);
    let line = format!("connections = [{{ key = \"{CLIENT_KEY}\" }}, {{ key = \"sdk-other\" }}]");
    let app = start(&bed, &[("client_key = \"sdk-demo\"", &line)]).await;
    let (mine, other) = (
        app.get(&path(CLIENT_KEY)).await,
        app.get(&path("sdk-other")).await,
    );
    assert_ne!(mine.body, other.body);
    for (name, value) in [
        ("x-growthbook-api-key", "sdk-other"),
        ("authorization", "Bearer sdk-other"),
        ("host", "sdk-other"),
        ("forwarded", "host=sdk-other;proto=http"),
        ("x-forwarded-for", "sdk-other"),
        ("x-forwarded-host", "sdk-other"),
        ("x-forwarded-prefix", "/api/features/sdk-other"),
        ("x-original-url", "/api/features/sdk-other"),
        ("referer", "http://x/api/features/sdk-other"),
        ("cookie", "client_key=sdk-other"),
        ("x-growthbook-signature", "00"),
    ] {
        for (key, expected) in [(CLIENT_KEY, &mine), ("sdk-other", &other)] {
            let request = app.http.get(format!("{}{}", app.data, path(key)));
            let got = answer(request.header(name, value).send().await.unwrap()).await;
            assert_eq!(got, *expected, "{name} under {key}");
        }
        let request = app.http.get(format!("{}{}", app.data, path("sdk-nobody")));
        let got = answer(request.header(name, value).send().await.unwrap()).await;
        assert_eq!(
            got.body, r#"{"status":400,"error":"Invalid API Key"}"#,
            "{name}"
        );
    }
    for query in [
        "?key=sdk-other",
        "?client_key=sdk-other",
        "?project=sdk-other",
    ] {
        assert_eq!(app.get(&format!("{}{query}", path(CLIENT_KEY))).await, mine);
    }
    app.stop().await;
}

#[tokio::test]
async fn growthbook_takes_us_for_its_proxy_from_the_first_moment() {
    let bed = Bed::new();
    bed.upstream.go_down().await.unwrap();
    let app = bed.start().await;
    let answer = app.get("/healthcheck").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() < 500, "GrowthBook reads no more");
    let body = answer.json();
    assert_eq!(body["ok"], true);
    assert!(
        body["proxyVersion"]
            .as_str()
            .unwrap()
            .starts_with("stitchd-")
    );
    let features = app.get(&path(CLIENT_KEY)).await;
    assert_eq!(features.status, 503);
    assert_eq!(
        features.json()["error"],
        "nothing was loaded for this environment yet"
    );
    assert_eq!(app.get("/sub/sdk-demo").await.status, 503);
    app.stop().await;
}
