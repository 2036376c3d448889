//! What is answered for one flag and for all.

use serde_json::{Value, json};
use stitchd::cli::demo::upstream::CLIENT_KEY;

use crate::{
    stand::{PROJECT, all, bed, one, start},
    support::ENVIRONMENT,
};

/// What is expected of a flag: reason, variant, value; `None`: it has none.
fn expected() -> Vec<(&'static str, &'static str, &'static str, Option<Value>)> {
    vec![
        ("banner", "TARGETING_MATCH", "fr_pro", Some(json!("gold"))),
        ("blocked", "DISABLED", "default", None),
        ("button", "SPLIT", "treatment", Some(json!("green"))),
        ("by-company", "SPLIT", "fr_c", Some(json!(true))),
        ("list", "STATIC", "default", Some(json!([1, "two"]))),
        ("nothing", "STATIC", "default", None),
        (
            "object",
            "STATIC",
            "default",
            Some(json!({"size": 1.0, "deep": {"list": [null]}})),
        ),
        ("off", "STATIC", "default", Some(json!(false))),
        ("on", "STATIC", "default", Some(json!(true))),
        ("rollout", "SPLIT", "fr_s", Some(json!(3))),
    ]
}

#[tokio::test]
async fn one_flag_is_answered_with_reason_variant_value_and_metadata() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let context = json!({"targetingKey": "u-1", "plan": "pro", "company": "c"});
    for (key, reason, variant, value) in expected() {
        let seen = one(key).by(&secret).context(&context).of(&app).await;
        assert_eq!(seen.status, 200, "{seen:?}");
        let body = seen.json();
        assert_eq!(
            (&body["key"], &body["reason"], &body["variant"]),
            (&json!(key), &json!(reason), &json!(variant))
        );
        assert_eq!(body.get("value"), value.as_ref(), "{key}");
        assert_eq!(body["metadata"]["revision"], app.revision());
        assert_eq!(body["metadata"]["environment"], ENVIRONMENT);
    }
    let button = one("button").by(&secret).context(&context).of(&app).await;
    let metadata = &button.json()["metadata"];
    assert_eq!(
        (&metadata["source"], &metadata["experiment"]),
        (&json!("experiment"), &json!("button-2026"))
    );
    // No rule applies.
    let plain = one("banner").by(&secret).of(&app).await.json();
    assert_eq!(
        (&plain["reason"], &plain["value"]),
        (&json!("DEFAULT"), &json!("plain"))
    );
    app.stop().await;
}

#[tokio::test]
async fn all_flags_are_answered_at_once_like_one_by_one_and_sorted() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let context = json!({"targetingKey": "u-1", "plan": "pro", "company": "c"});
    let seen = all().by(&secret).context(&context).of(&app).await;
    assert_eq!(seen.status, 200);
    let (keys, mut sorted) = (seen.keys(), seen.keys());
    sorted.sort();
    sorted.dedup();
    assert_eq!(keys, sorted);
    assert_eq!(keys.len(), bed.upstream.features().len());
    for (key, ..) in expected() {
        let mut single = one(key).by(&secret).context(&context).of(&app).await.json();
        // Said once for all of them.
        let metadata = single["metadata"].as_object_mut().unwrap();
        metadata.shift_remove("revision");
        metadata.shift_remove("environment");
        assert_eq!(seen.flag(key), single);
    }
    let body = seen.json();
    assert_eq!(
        body["metadata"],
        json!({"environment": ENVIRONMENT, "revision": app.revision()})
    );
    assert_eq!(seen.revision(), app.revision());
    assert_eq!(body["eventStreams"][0]["type"], "sse");
    app.stop().await;
}

#[tokio::test]
async fn numbers_are_spelled_as_the_default_value_is() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for (key, plan, expected) in [
        ("whole", "free", "\"value\":1,"),
        ("whole", "pro", "\"value\":2,"),
        ("ratio", "free", "\"value\":0.5,"),
        ("ratio", "pro", "\"value\":2.0,"),
    ] {
        let context = json!({ "plan": plan });
        let single = one(key).by(&secret).context(&context).of(&app).await;
        assert!(single.text().contains(expected), "{key}: {}", single.text());
        let bulk = all().by(&secret).context(&context).of(&app).await;
        let (_, behind) = bulk
            .text()
            .split_once(&format!("{{\"key\":\"{key}\""))
            .unwrap();
        let (flag, _) = behind.split_once('}').unwrap();
        assert!(flag.contains(expected), "{key}: {flag}");
    }
    app.stop().await;
}

#[tokio::test]
async fn unknown_and_hidden_flags_are_not_found() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let spec = json!({"kind": "frontend", "projects": [PROJECT]});
    let (_, scoped) = app.token(&spec).await;
    let absent = one("absent").by(&secret).of(&app).await;
    assert_eq!(absent.status, 404);
    assert_eq!(absent.json()["key"], "absent");
    assert_eq!(one("banner").by(&scoped).of(&app).await.status, 404);
    let seen = one("in-shop").by(&scoped).of(&app).await;
    assert_eq!((seen.status, &seen.json()["value"]), (200, &json!("shop")));
    assert_eq!(all().by(&scoped).of(&app).await.keys(), ["in-shop"]);
    // The source's own key sees what its connection delivers.
    let by_connection = all().by(CLIENT_KEY).of(&app).await;
    assert_eq!(
        by_connection.keys(),
        all().by(&secret).of(&app).await.keys()
    );
    app.stop().await;
}

#[tokio::test]
async fn every_answer_names_the_revision_that_it_is_from() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let before = all().by(&secret).of(&app).await.revision();
    let after = bed.publish_news(&app, 1).await;
    assert!(after > before);
    assert_eq!(all().by(&secret).of(&app).await.revision(), after);
    for key in ["news", "absent"] {
        let seen = one(key).by(&secret).of(&app).await;
        assert_eq!(seen.revision(), after, "{key}");
    }
    app.stop().await;
}
