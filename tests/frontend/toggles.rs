//! What is answered: the enabled toggles of a context, in whatever shape it comes.

use serde_json::{Value, json};

use crate::stand::{BASE, METRICS, PROJECT, bed, get, post, start};

#[tokio::test]
async fn only_enabled_toggles_are_listed_with_their_values_as_text() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let none = json!({"name": "disabled", "enabled": false, "feature_enabled": true});
    let variant = |name: &str, kind: &str, value: &str| {
        let payload = json!({"type": kind, "value": value});
        json!({"name": name, "payload": payload, "enabled": true, "feature_enabled": true})
    };
    let expected = [
        ("button", variant("treatment", "string", "green"), true),
        ("empty", variant("default", "string", ""), false),
        ("for-pro", none.clone(), false),
        ("in-shop", none.clone(), false),
        ("list", variant("default", "json", "[1,\"two\"]"), false),
        ("object", variant("default", "json", "{\"a\":[1.5]}"), false),
        ("on", none, false),
        ("ratio", variant("default", "number", "0.5"), false),
        ("text", variant("fr_t", "string", "gold"), false),
        ("zero", variant("default", "number", "0"), false),
    ];
    let body = json!({"context": {"userId": "u-1", "properties": {"plan": "pro"}}}).to_string();
    for ask in [
        get(&format!("{BASE}?userId=u-1&properties%5Bplan%5D=pro")),
        post(BASE, &body),
    ] {
        let seen = ask.by(&secret).of(&app).await;
        assert_eq!(seen.status, 200);
        let names = expected.each_ref().map(|(name, ..)| *name);
        assert_eq!(seen.names(), names);
        for (name, variant, has_impressions) in &expected {
            let toggle = seen.toggle(name).unwrap();
            assert_eq!(toggle["variant"], *variant, "{name}");
            assert_eq!(toggle["impressionData"], *has_impressions, "{name}");
        }
        assert_eq!(
            seen.header("x-config-revision"),
            Some(app.revision().to_string().as_str())
        );
    }
    app.stop().await;
}

#[tokio::test]
async fn a_query_is_read_in_every_spelling() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let has = async |query: &str, name: &str| {
        let seen = get(&format!("{BASE}{query}")).by(&secret).of(&app).await;
        assert_eq!(seen.status, 200, "{query}");
        seen.variant(name).is_some()
    };
    for query in [
        "?properties[plan]=pro",
        "?properties%5Bplan%5D=pro",
        "?properties%5bplan%5d=pro",
        "?plan=pro",
        "?sessionId=1&appName=web&environment=default&remoteAddress=::1&currentTime=2026-01-01&plan=pro",
    ] {
        assert!(has(query, "for-pro").await, "{query}");
    }
    for query in [
        "",
        "?",
        "?properties[plan]=free",
        "?plan=",
        "?properties=plan",
    ] {
        assert!(!has(query, "for-pro").await, "{query}");
    }
    assert!(has("?userId=u-7", "for-u-7").await);
    assert!(has("?userId=u-1&properties[id]=u-7", "for-u-7").await);
    assert!(!has("?userId=u-8", "for-u-7").await);
    assert!(has("?sessionId=s-1", "session").await);
    // A query has texts only, and the strict dialect compares none with a number.
    assert!(!has("?properties[age]=20", "adults").await);
    app.stop().await;
}

#[tokio::test]
async fn a_token_of_the_legacy_dialect_compares_texts_with_numbers() {
    let bed = bed();
    let (app, _) = start(&bed).await;
    let spec = json!({"kind": "frontend", "dialect": "legacy"});
    let (_, secret) = app.token(&spec).await;
    for (age, is_listed) in [("20", true), ("17", false)] {
        let path = format!("{BASE}?properties[age]={age}");
        let seen = get(&path).by(&secret).of(&app).await;
        assert_eq!(seen.variant("adults").is_some(), is_listed, "{age}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_body_is_read_nested_bare_and_empty() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let has = async |body: &str, name: &str| {
        let seen = post(BASE, body).by(&secret).of(&app).await;
        assert_eq!(seen.status, 200, "{body}");
        seen.variant(name).is_some()
    };
    for context in [
        json!({"properties": {"plan": "pro"}}),
        json!({"plan": "pro"}),
        json!({"userId": null, "sessionId": "", "properties": {"plan": "pro", "other": null}}),
    ] {
        assert!(has(&context.to_string(), "for-pro").await, "{context}");
        let nested = json!({ "context": context }).to_string();
        assert!(has(&nested, "for-pro").await, "{nested}");
    }
    for body in ["", " ", "{}", "{\"context\":{}}", "{\"context\":null}"] {
        assert!(!has(body, "for-pro").await, "{body}");
    }
    for user in [json!("u-7"), json!(null)] {
        let context = json!({"context": {"userId": user}}).to_string();
        assert_eq!(has(&context, "for-u-7").await, user == json!("u-7"));
    }
    // A body has numbers.
    let context = json!({"context": {"properties": {"age": 20}}}).to_string();
    assert!(has(&context, "adults").await);
    app.stop().await;
}

#[tokio::test]
async fn a_body_that_is_no_context_is_400() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for body in ["{", "[]", "7", "{\"context\":[]}", "{\"context\":\"u\"}"] {
        let seen = post(BASE, body).by(&secret).of(&app).await;
        assert_eq!(seen.status, 400, "{body}");
    }
    let large = json!({"context": {"userId": "x".repeat(1_050_000)}}).to_string();
    let seen = post(BASE, &large).by(&secret).of(&app).await;
    assert_eq!(seen.status, 413);
    app.stop().await;
}

#[tokio::test]
async fn get_and_post_answer_one_context_with_the_same_bytes() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let context = json!({"userId": "u-7", "sessionId": "s-1", "properties": {"plan": "pro"}});
    let by_get = get(&format!(
        "{BASE}?userId=u-7&sessionId=s-1&properties[plan]=pro"
    ));
    let by_get = by_get.by(&secret).of(&app).await;
    for body in [json!({ "context": context }), context] {
        let by_post = post(BASE, &body.to_string()).by(&secret).of(&app).await;
        assert_eq!(by_post.body, by_get.body);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_token_lists_what_its_projects_have() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let spec = |projects: Value| json!({"kind": "frontend", "projects": projects});
    for (projects, expected) in [
        (json!([PROJECT]), vec!["in-shop"]),
        (json!([PROJECT, "prj_x"]), vec!["in-shop"]),
        (json!(["prj_x"]), vec![]),
    ] {
        let (_, scoped) = app.token(&spec(projects.clone())).await;
        let begins = match projects.as_array().unwrap().len() {
            1 => format!("{}:production.v2_", projects[0].as_str().unwrap()),
            _ => "[]:production.v2_".to_owned(),
        };
        assert!(scoped.starts_with(&begins), "{begins}");
        let seen = get(BASE).by(&scoped).of(&app).await;
        assert_eq!(seen.names(), expected, "{projects}");
    }
    assert!(get(BASE).by(&secret).of(&app).await.names().len() > 5);
    app.stop().await;
}

#[tokio::test]
async fn slashes_that_clients_put_in_twice_are_taken_out() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for path in [
        "/api/frontend",
        "/api/frontend/",
        "//api/frontend",
        "/api//frontend//",
        "//api/frontend/?plan=pro",
    ] {
        let seen = get(path).by(&secret).of(&app).await;
        assert_eq!(seen.status, 200, "{path}");
        assert_eq!(seen.variant("for-pro").is_some(), path.contains('?'));
        assert_eq!(post(path, "").by(&secret).of(&app).await.status, 200);
    }
    for path in [
        METRICS,
        "/api/frontend//client/metrics",
        "//api/frontend/client//register/",
    ] {
        let seen = post(path, "{}").by(&secret).of(&app).await;
        assert_eq!(seen.status, 202, "{path}");
    }
    app.stop().await;
}
