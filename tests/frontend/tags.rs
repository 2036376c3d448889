//! Entity tags and 304, for both methods.

use serde_json::json;

use crate::stand::{Ask, BASE, PROJECT, bed, get, post, start};

/// The same user, asked for in both ways.
fn both() -> [Ask; 2] {
    let body = json!({"context": {"userId": "u-1", "properties": {"plan": "pro"}}});
    [
        get(&format!("{BASE}?userId=u-1&properties[plan]=pro")),
        post(BASE, &body.to_string()),
    ]
}

#[tokio::test]
async fn a_client_that_has_the_answer_gets_304_for_get_and_post() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for ask in both() {
        let ask = ask.by(&secret);
        let first = ask.of(&app).await;
        assert_eq!(first.status, 200);
        let tag = first.tag();
        for sent in [tag, &format!("W/{tag}"), &format!("\"a\", {tag}"), "*"] {
            let seen = ask.clone().having(sent).of(&app).await;
            assert_eq!((seen.status, seen.tag()), (304, tag), "{sent}");
        }
        // A client sends an empty one with its first request.
        for sent in ["", "\"other\""] {
            let seen = ask.clone().having(sent).of(&app).await;
            assert_eq!((seen.status, seen.tag()), (200, tag), "{sent:?}");
            assert_eq!(seen.body, first.body);
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn the_tag_changes_with_configuration_context_and_token() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let spec = json!({"kind": "frontend", "projects": [PROJECT]});
    let (_, scoped) = app.token(&spec).await;
    for ask in both() {
        let known = ask.clone().by(&secret).of(&app).await.tag().to_owned();
        let by_other = ask.clone().by(&scoped).having(&known).of(&app).await;
        assert_eq!(by_other.status, 200);
        bed.publish_news(&app, known.clone()).await;
        let seen = ask.by(&secret).having(&known).of(&app).await;
        assert_eq!(seen.status, 200);
        let payload = &seen.variant("news").unwrap()["payload"];
        assert_eq!(payload["value"], json!(known));
    }
    let known = get(BASE).by(&secret).of(&app).await.tag().to_owned();
    for path in ["?userId=u-1", "?sessionId=1", "?plan=pro"] {
        let other = get(&format!("{BASE}{path}")).by(&secret);
        assert_eq!(other.having(&known).of(&app).await.status, 200, "{path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_tag_is_the_same_after_a_restart() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let mut known = Vec::new();
    for ask in both() {
        known.push(ask.by(&secret).of(&app).await.tag().to_owned());
    }
    app.stop().await;
    let app = bed.start_loaded().await;
    for (ask, tag) in both().into_iter().zip(&known) {
        let ask = ask.by(&secret).having(tag);
        let seen = crate::support::eventually("the tokens are read", async || {
            let seen = ask.of(&app).await;
            (seen.status != 503).then_some(seen)
        });
        assert_eq!(seen.await.status, 304);
    }
    app.stop().await;
}
