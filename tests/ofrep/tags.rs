//! Entity tags and 304.

use serde_json::{Value, json};

use crate::{
    stand::{Ask, PROJECT, all, bed, start},
    support::{Bed, TestApp, eventually},
};

/// The question of the user that these tests are about.
fn ask(secret: &str) -> Ask {
    all().by(secret).context(&user())
}

fn user() -> Value {
    json!({"targetingKey": "u-1", "plan": "pro", "nested": {"a": 1, "b": [1.5, null]}})
}

async fn tag(app: &TestApp, ask: &Ask) -> String {
    ask.of(app).await.tag().to_owned()
}

#[tokio::test]
async fn a_client_that_has_the_answer_gets_304() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let first = ask(&secret).of(&app).await;
    let tag = first.tag();
    for sent in [
        tag.to_owned(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        format!("W/\"a,b\" ,W/{tag}, \"c\""),
        "*".to_owned(),
    ] {
        let seen = ask(&secret).having(&sent).of(&app).await;
        assert_eq!(seen.status, 304, "{sent}");
        assert_eq!((seen.tag(), seen.revision()), (tag, first.revision()));
    }
    let twice = ask(&secret).having("\"other\"").having(tag);
    assert_eq!(twice.of(&app).await.status, 304);
    for sent in ["", "\"other\"", tag.trim_matches('"'), "W/"] {
        let seen = ask(&secret).having(sent).of(&app).await;
        assert_eq!((seen.status, seen.tag()), (200, tag), "{sent}");
        assert_eq!(seen.body, first.body);
    }
    app.stop().await;
}

#[tokio::test]
async fn the_tag_changes_with_context_and_token_and_not_with_the_spelling() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let own = tag(&app, &ask(&secret)).await;
    let spelled =
        r#" {"context":{"nested":{"b":[1.5,null],"a":1},"plan":"pro","targetingKey":"u-1"}}"#;
    assert_eq!(tag(&app, &all().by(&secret).body(spelled)).await, own);
    let mut seen = vec![own.clone()];
    for (name, value) in [
        ("targetingKey", json!("u-2")),
        ("plan", json!("free")),
        ("nested", json!({"a": 1, "b": [1.5]})),
        ("attribute-of-no-rule", json!(1)),
    ] {
        let mut context = user();
        context[name] = value;
        let other = all().by(&secret).context(&context);
        seen.push(tag(&app, &other).await);
        assert_eq!(other.having(&own).of(&app).await.status, 200, "{name}");
    }
    seen.push(tag(&app, &all().by(&secret)).await);
    for projects in [json!(["*"]), json!([PROJECT]), json!([PROJECT, "prj_x"])] {
        let spec = json!({"kind": "client", "projects": projects});
        let (_, other) = app.token(&spec).await;
        seen.push(tag(&app, &ask(&other)).await);
        let known = ask(&other).having(&own).of(&app).await;
        assert_eq!(known.status, 200, "{projects}");
    }
    let number = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), number, "each answer has a tag of its own");
    app.stop().await;
}

#[tokio::test]
async fn the_tag_changes_with_the_configuration() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let mut known = tag(&app, &ask(&secret)).await;
    for value in 1..4 {
        bed.publish_news(&app, value).await;
        let seen = ask(&secret).having(&known).of(&app).await;
        assert_eq!(seen.status, 200);
        assert_eq!(seen.flag("news")["value"], value);
        assert_ne!(seen.tag(), known);
        seen.tag().clone_into(&mut known);
        assert_eq!(ask(&secret).having(&known).of(&app).await.status, 304);
    }
    app.stop().await;
}

#[tokio::test]
async fn the_tag_is_the_same_after_a_restart() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    bed.publish_news(&app, 1).await;
    let before = ask(&secret).of(&app).await;
    app.stop().await;
    let app = bed.start().await;
    let after = eventually("the tokens are read", async || {
        let seen = ask(&secret).having(before.tag()).of(&app).await;
        (seen.status != 503).then_some(seen)
    })
    .await;
    assert_eq!((after.status, after.tag()), (304, before.tag()));
    assert_eq!(ask(&secret).of(&app).await.body, before.body);
    app.stop().await;
}

/// A second replica: the same database and upstream, a backup of its own.
async fn second(bed: &Bed) -> (TestApp, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let own = format!("{}/backup", bed.dir.path().display());
    let text = bed.toml();
    assert!(text.contains(&own));
    let text = text.replacen(&own, &format!("{}/backup", dir.path().display()), 1);
    let settings = stitchd::settings::from_toml(&text, stitchd::settings::Profile::Test).unwrap();
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    (app, dir)
}

#[tokio::test]
async fn the_tag_is_the_same_on_every_replica() {
    let bed = bed();
    let (first, secret) = start(&bed).await;
    let (second, _dir) = second(&bed).await;
    let (_, made) = second
        .token(&json!({"kind": "frontend", "projects": [PROJECT]}))
        .await;
    for secret in [&secret, &made] {
        let seen = eventually("both replicas know the token", async || {
            let seen = [ask(secret).of(&first).await, ask(secret).of(&second).await];
            seen.iter().all(|seen| seen.status == 200).then_some(seen)
        })
        .await;
        assert_eq!(seen[0].tag(), seen[1].tag());
        assert_eq!(seen[0].body, seen[1].body);
        let known = ask(secret).having(seen[0].tag()).of(&second).await;
        assert_eq!(known.status, 304);
    }
    first.stop().await;
    second.stop().await;
}
