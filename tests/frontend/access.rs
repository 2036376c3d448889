//! Who is answered, and with which status the others are not.

use reqwest::Method;
use serde_json::json;
use stitchd::cli::demo::upstream::{CLIENT_KEY, Fault, Route};

use crate::{
    stand::{Ask, BASE, METRICS, REGISTER, bed, get, post, start},
    support::eventually,
};

/// A question to every route.
fn everything() -> [Ask; 4] {
    [
        get(BASE),
        post(BASE, "{}"),
        post(METRICS, "{}"),
        post(REGISTER, "{\"appName\":\"web\"}"),
    ]
}

#[tokio::test]
async fn a_token_is_taken_with_and_without_a_scheme() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let mut secrets = vec![secret, CLIENT_KEY.to_owned()];
    for kind in ["client", "server"] {
        secrets.push(app.token(&json!({ "kind": kind })).await.1);
    }
    for secret in &secrets {
        for shown in [
            secret.clone(),
            format!("Bearer {secret}"),
            format!("bearer {secret}"),
        ] {
            for ask in everything() {
                let status = ask.by(&shown).of(&app).await.status;
                assert!(matches!(status, 200 | 202), "{status} for {shown}");
            }
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn a_token_that_does_not_count_is_401_with_a_message() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let (id, revoked) = app.token(&json!({"kind": "frontend"})).await;
    let answer = app.admin_delete(&format!("/admin/tokens/{id}")).await;
    assert_eq!(answer.status, 200);
    let spec = json!({"kind": "frontend", "expires_in": "1ms"});
    let (_, expired) = app.token(&spec).await;
    eventually("its time is over", async || {
        let status = get(BASE).by(&expired).of(&app).await.status;
        (status == 401).then_some(())
    })
    .await;
    for ask in everything() {
        assert_eq!(ask.of(&app).await.status, 401);
        for odd in [
            "",
            "*:production.unknown",
            "default:development.unleash-insecure-frontend-api-token",
            &secret[1..],
            &revoked,
            &expired,
        ] {
            let seen = ask.clone().by(odd).of(&app).await;
            assert_eq!(seen.status, 401, "{odd}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn before_the_first_load_it_is_503_and_never_a_status_that_has_clients_go_quiet() {
    let bed = bed();
    bed.upstream.set_fault(Route::Features, Fault::Status(500));
    let app = bed.start().await;
    let (_, secret) = app.token(&json!({"kind": "frontend"})).await;
    for ask in [get(BASE), post(BASE, "{}"), get(BASE).having("*")] {
        assert_eq!(ask.by(&secret).of(&app).await.status, 503);
    }
    // There is nothing to count yet, and nothing wrong with the report.
    let report = json!({"appName": "web", "bucket": {"toggles": {"on": {"yes": 1}}}});
    let seen = post(METRICS, &report.to_string())
        .by(&secret)
        .of(&app)
        .await;
    assert_eq!(seen.status, 202);
    bed.upstream.clear_fault(Route::Features);
    eventually("it is loaded", async || {
        app.poll().await;
        let status = get(BASE).by(&secret).of(&app).await.status;
        (status == 200).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_token_over_its_limit_is_429() {
    let mut bed = bed();
    bed.extra = "[rate_limit]\nclasses = [{name = \"slow\", requests_per_second = 1}]".to_owned();
    let (app, secret) = start(&bed).await;
    let spec = json!({"kind": "frontend", "rate_class": "slow"});
    let (_, slow) = app.token(&spec).await;
    for ask in everything() {
        let seen = eventually("the limit is reached", async || {
            let seen = ask.clone().by(&slow).of(&app).await;
            (seen.status == 429).then_some(seen)
        })
        .await;
        assert_eq!(seen.header("retry-after"), Some("1"));
        let seen = ask.by(&secret).of(&app).await;
        assert!(matches!(seen.status, 200 | 202));
    }
    app.stop().await;
}

#[tokio::test]
async fn a_get_with_a_content_type_is_answered() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let ask = get(BASE).header("content-type", "application/json");
    let seen = ask.by(&secret).having("").of(&app).await;
    assert_eq!(seen.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_browser_of_another_origin_may_ask_and_read_the_tag() {
    const ORIGIN: &str = "https://shop.example";
    const HEADERS: &str = "accept,authorization,content-type,if-none-match,unleash-appname,unleash-connection-id,unleash-sdk";
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for (path, method) in [
        (BASE, "GET"),
        (BASE, "POST"),
        ("//api/frontend/", "GET"),
        (METRICS, "POST"),
        (REGISTER, "POST"),
    ] {
        let request = app
            .http
            .request(Method::OPTIONS, format!("{}{path}", app.data))
            .header("origin", ORIGIN)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", HEADERS);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {response:?}");
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_lowercase();
        assert_eq!(header("access-control-allow-origin"), "*");
        assert!(header("access-control-allow-methods").contains(&method.to_lowercase()));
        let allowed = header("access-control-allow-headers");
        let mut missing = HEADERS.split(',').filter(|name| !allowed.contains(name));
        assert_eq!(missing.next(), None, "{allowed}");
        assert!(header("access-control-max-age").parse::<u32>().unwrap() > 0);
    }
    let tag = get(BASE).by(&secret).of(&app).await.tag().to_owned();
    for (ask, status) in [
        (get(BASE).by(&secret), 200),
        (get(BASE).by(&secret).having(&tag), 304),
        (post(METRICS, "{}").by(&secret), 202),
        (get(BASE), 401),
    ] {
        let seen = ask.header("origin", ORIGIN).of(&app).await;
        assert_eq!(seen.status, status);
        assert_eq!(seen.header("access-control-allow-origin"), Some("*"));
        let exposed = seen.header("access-control-expose-headers").unwrap();
        assert!(exposed.to_lowercase().contains("etag"), "{exposed}");
    }
    app.stop().await;
}

#[tokio::test]
async fn what_unleash_has_beside_it_is_not_there() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let status = async |method: Method, path: &str| {
        let request = app.http.request(method, format!("{}{path}", app.data));
        let response = request.header("authorization", &secret).send().await;
        response.unwrap().status().as_u16()
    };
    assert_eq!(status(Method::DELETE, BASE).await, 405);
    assert_eq!(status(Method::GET, METRICS).await, 405);
    for path in [
        "/api/frontend/features/on",
        "/api/frontend/all",
        "/api/frontendx",
    ] {
        assert_eq!(status(Method::GET, path).await, 404, "{path}");
    }
    app.stop().await;
}
