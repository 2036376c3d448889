//! Bodies as lenient clients send them, and those that cannot be read.

use serde_json::{Value, json};

use crate::stand::{all, bed, one, start};

#[tokio::test]
async fn an_empty_body_and_a_missing_context_mean_an_empty_context() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let expected = all().by(&secret).context(&json!({})).of(&app).await;
    for body in [
        "",
        " \r\n",
        "{}",
        "{\"context\":null}",
        "{\"context\":{\"targetingKey\":null}, \"other\": 1}",
    ] {
        let seen = all().by(&secret).body(body).of(&app).await;
        assert_eq!(seen.status, 200, "{body:?}");
        assert_eq!(seen.json()["flags"], expected.json()["flags"], "{body:?}");
        let seen = one("banner").by(&secret).body(body).of(&app).await;
        assert_eq!(
            (seen.status, &seen.json()["value"]),
            (200, &json!("plain")),
            "{body:?}"
        );
    }
    app.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_400_with_the_protocols_code() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for (body, code) in [
        ("{", "PARSE_ERROR"),
        ("null and void", "PARSE_ERROR"),
        ("[]", "PARSE_ERROR"),
        ("\"text\"", "PARSE_ERROR"),
        ("{\"context\":[]}", "INVALID_CONTEXT"),
        ("{\"context\":\"user\"}", "INVALID_CONTEXT"),
        ("{\"context\":{\"targetingKey\":7}}", "INVALID_CONTEXT"),
        ("{\"context\":{\"targetingKey\":{}}}", "INVALID_CONTEXT"),
    ] {
        let bulk = all().by(&secret).body(body).of(&app).await;
        let single = one("banner").by(&secret).body(body).of(&app).await;
        for (seen, key) in [(bulk, Value::Null), (single, json!("banner"))] {
            assert_eq!(seen.status, 400, "{body}");
            assert_eq!(seen.json()["errorCode"], code, "{body}");
            assert_eq!(seen.json()["key"], key, "{body}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn a_missing_targeting_key_fails_only_flags_that_split_by_it() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let failing = async |context: Value| -> Vec<String> {
        let seen = all().by(&secret).context(&context).of(&app).await;
        assert_eq!(seen.status, 200);
        let mut failing = Vec::new();
        for key in seen.keys() {
            let bulk = seen.flag(&key);
            if key.contains([' ', '%']) {
                continue;
            }
            let single = one(&key).by(&secret).context(&context).of(&app).await;
            assert_eq!(
                bulk["errorCode"],
                single.json()["errorCode"],
                "one by one and at once are the same"
            );
            if bulk["errorCode"] == "TARGETING_KEY_MISSING" {
                assert_eq!(single.status, 400);
                failing.push(key);
            }
        }
        failing
    };
    assert_eq!(failing(json!({})).await, ["button", "rollout"]);
    assert_eq!(
        failing(json!({"targetingKey": "", "plan": "pro"})).await,
        ["button", "elsewhere", "rollout"]
    );
    assert!(failing(json!({"targetingKey": "u"})).await.is_empty());
    // The attribute itself will do.
    assert!(failing(json!({"id": "u", "plan": "pro"})).await.is_empty());
    app.stop().await;
}

#[tokio::test]
async fn a_flag_that_fails_does_not_fail_the_others() {
    let bed = bed();
    let cycle = json!([{"id": "cyclic", "condition": {"value": true}}]);
    bed.upstream.set_feature(
        "cyclic",
        json!({"defaultValue": true, "rules": [{"id": "fr_1", "parentConditions": cycle, "force": true}]}),
    );
    let (app, secret) = start(&bed).await;
    let seen = all().by(&secret).of(&app).await;
    assert_eq!(seen.status, 200);
    assert_eq!(seen.flag("cyclic")["errorCode"], "GENERAL");
    assert_eq!(seen.flag("on")["value"], true);
    let single = one("cyclic").by(&secret).of(&app).await;
    assert_eq!(
        (single.status, &single.json()["errorCode"]),
        (400, &json!("GENERAL"))
    );
    app.stop().await;
}

#[tokio::test]
async fn a_large_context_is_taken_and_a_too_large_one_is_413() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let context =
        |bytes: usize| json!({"targetingKey": "u", "plan": "pro", "text": "x".repeat(bytes)});
    let seen = all().by(&secret).context(&context(500_000)).of(&app).await;
    assert_eq!(seen.flag("banner")["value"], "gold");
    let again = all().by(&secret).context(&context(500_000));
    let again = again.having(seen.tag()).of(&app).await;
    assert_eq!(again.status, 304);
    let seen = all()
        .by(&secret)
        .context(&context(1_050_000))
        .of(&app)
        .await;
    assert_eq!(seen.status, 413);
    app.stop().await;
}
