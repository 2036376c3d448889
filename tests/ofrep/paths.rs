//! Keys in paths, slashes that clients put in twice, methods, and what is not there.

use serde_json::json;

use crate::stand::{Ask, Asked, all, bed, one, start};

#[tokio::test]
async fn a_key_is_found_however_its_characters_are_sent() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for (path, key, value) in [
        ("shop%2Fcart%20total", "shop/cart total", "slash and space"),
        ("shop/cart%20total", "shop/cart total", "slash and space"),
        ("shop/cart total", "shop/cart total", "slash and space"),
        ("50%25", "50%", "percent"),
        ("a%252Fb", "a%2Fb", "no slash"),
        ("gr%C3%BC%C3%9Fe", "gr\u{fc}\u{df}e", "beyond ASCII"),
        ("%62anner", "banner", "plain"),
    ] {
        let seen = one(path).by(&secret).of(&app).await;
        assert_eq!(seen.status, 200, "{path}");
        let body = seen.json();
        assert_eq!(
            (&body["key"], &body["value"]),
            (&json!(key), &json!(value)),
            "{path}"
        );
    }
    app.stop().await;
}

#[tokio::test]
async fn a_key_that_is_not_there_is_named_as_it_was_meant() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for (path, key) in [
        ("a%2Fb", "a/b"),
        ("no%20such%22key", "no such\"key"),
        ("banner+", "banner+"),
        ("Banner", "Banner"),
        ("banner?x=1", "banner"),
    ] {
        let seen = one(path).by(&secret).of(&app).await;
        let expected = if key == "banner" { 200 } else { 404 };
        assert_eq!(seen.status, expected, "{path}");
        assert_eq!(seen.json()["key"], key, "{path}");
    }
    // No key is like that, so there is no flag of it.
    let odd = one("%FF%FE").by(&secret).of(&app).await;
    assert_eq!(odd.status, 404);
    app.stop().await;
}

#[tokio::test]
async fn superfluous_slashes_are_taken_out() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for path in [
        "//ofrep/v1/evaluate/flags",
        "/ofrep//v1/evaluate/flags/",
        "/ofrep/v1/evaluate///flags//",
    ] {
        let seen = Ask::at(Asked::All, path).by(&secret).of(&app).await;
        assert_eq!(seen.status, 200, "{path}");
    }
    for path in [
        "//ofrep/v1/evaluate/flags/banner",
        "/ofrep/v1//evaluate/flags//banner",
    ] {
        let seen = Ask::at(Asked::One, path).by(&secret).of(&app).await;
        assert_eq!(seen.json()["value"], "plain", "{path}");
    }
    let query = Ask::at(Asked::All, "//ofrep/v1/evaluate/flags")
        .by(&secret)
        .query(&[("flagConfigEtag", "\"other\"")]);
    assert_eq!(query.having("*").of(&app).await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn other_methods_are_405_and_what_the_protocol_gave_up_is_404() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for path in [
        "/ofrep/v1/evaluate/flags",
        "/ofrep/v1/evaluate/flags/banner",
    ] {
        let request = app.http.get(format!("{}{path}", app.data));
        let response = request.bearer_auth(&secret).send().await.unwrap();
        assert_eq!(response.status(), 405, "{path}");
        assert_eq!(response.headers()["allow"], "POST");
    }
    assert_eq!(app.get("/ofrep/v1/configuration").await.status, 404);
    app.stop().await;
}

#[tokio::test]
async fn a_browser_of_another_origin_may_ask_and_read_the_tag() {
    const ORIGIN: &str = "https://shop.example";
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for path in [
        "/ofrep/v1/evaluate/flags",
        "/ofrep/v1/evaluate/flags/banner",
        "//ofrep/v1/evaluate/flags",
    ] {
        let request = app
            .http
            .request(reqwest::Method::OPTIONS, format!("{}{path}", app.data))
            .header("origin", ORIGIN)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type,if-none-match,x-api-key",
            );
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {response:?}");
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_lowercase();
        assert_eq!(header("access-control-allow-origin"), "*");
        assert!(header("access-control-allow-methods").contains("post"));
        let allowed = header("access-control-allow-headers");
        for name in [
            "authorization",
            "content-type",
            "if-none-match",
            "x-api-key",
        ] {
            assert!(allowed.contains(name), "{allowed}");
        }
        assert!(header("access-control-max-age").parse::<u32>().unwrap() > 0);
    }
    let tag = all().by(&secret).of(&app).await.tag().to_owned();
    for (ask, status) in [
        (all().by(&secret), 200),
        (all().by(&secret).having(&tag), 304),
        (one("absent").by(&secret), 404),
        // A script must be able to tell what is wrong.
        (all(), 401),
    ] {
        let seen = ask.header("origin", ORIGIN).of(&app).await;
        assert_eq!(seen.status, status);
        assert_eq!(seen.header("access-control-allow-origin"), Some("*"));
        let exposed = seen.header("access-control-expose-headers").unwrap();
        for name in ["etag", "retry-after", "x-config-revision"] {
            assert!(exposed.to_lowercase().contains(name), "{exposed}");
        }
    }
    app.stop().await;
}
