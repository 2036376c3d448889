//! Who did what: every control action leaves an entry, refused ones too, and none is ever lost or changed.

use serde_json::{Value, json};

use crate::support::{Bed, SOURCE, TestApp, answer, databases::on_each, eventually};

const TOKENS: &str = r#"
    [admin]
    tokens = [
        {name = "eva", role = "viewer", secret = "eva-secret"},
        {name = "otto", role = "operator", secret = "otto-secret"},
    ]
"#;

/// A source that is there and disabled, beside the one that runs.
const IDLE: &str = r#"
    [[sources]]
    id = "idle"
    environment = "elsewhere"
    enabled = false
    api_host = "http://127.0.0.1:9"
    client_key = "sdk-idle"
"#;

fn bed(database_url: &str) -> Bed {
    Bed {
        database_url: database_url.to_owned(),
        extra: TOKENS.to_owned(),
        source_extra: IDLE.to_owned(),
        ..Bed::new()
    }
}

async fn post(app: &TestApp, path: &str, body: &str, token: Option<&str>) -> u16 {
    let mut request = app.http.post(format!("{}{path}", app.admin));
    if let Some(token) = token {
        request = request.bearer_auth(format!("{token}-secret"));
    }
    let sent = request.body(body.to_owned()).send().await.unwrap();
    sent.status().as_u16()
}

async fn entries(app: &TestApp, query: &str) -> Vec<Value> {
    let url = format!("{}/admin/audit?{query}", app.admin);
    let listed = app.http.get(url).bearer_auth("eva-secret").send().await;
    let listed = answer(listed.unwrap()).await;
    assert_eq!(listed.status, 200, "{listed:?}");
    let page = listed.json();
    assert!(page.get("error").is_none(), "{page}");
    page["entries"].as_array().unwrap().clone()
}

/// The entries as `actor action target result`, oldest first.
fn lines(entries: &[Value]) -> Vec<String> {
    let text = |entry: &Value, member: &str| entry[member].as_str().unwrap().to_owned();
    let members = ["actor", "action", "target", "result"];
    let line = |entry: &Value| members.map(|member| text(entry, member)).join(" ");
    entries.iter().rev().map(line).collect()
}

/// What is there, asked for by who did what to what; and mistakes in the question.
async fn check_filters(app: &TestApp, name: &str) {
    for (query, number) in [
        ("actor=otto", 4),
        ("actor=eva&action=source.pause", 1),
        ("target=idle", 1),
        ("action=source.poll&target=gb", 0),
        ("actor=otto&limit=2", 2),
    ] {
        assert_eq!(entries(app, query).await.len(), number, "{name}: {query}");
    }
    for (query, field) in [
        ("limit=x", "limit"),
        ("limit=0", "limit"),
        ("actr=x", "actr"),
    ] {
        let url = format!("{}/admin/audit?{query}", app.admin);
        let refused = app.http.get(url).bearer_auth("eva-secret").send().await;
        let refused = answer(refused.unwrap()).await;
        assert_eq!(
            (refused.status, &refused.json()["field"]),
            (400, &json!(field))
        );
    }
}

#[tokio::test]
async fn every_control_action_is_recorded_refused_ones_too_and_outlives_the_process() {
    on_each(async |backend| {
        let name = backend.name;
        let bed = bed(&backend.url);
        let app = bed.start_loaded().await;
        let pause = format!("/admin/sources/{SOURCE}/pause");
        for (path, body, token, status) in [
            (
                pause.as_str(),
                r#"{"reason":"release freeze"}"#,
                Some("otto"),
                200,
            ),
            (&pause, "", None, 401),
            (&pause, "", Some("wrong"), 401),
            (&pause, "", Some("eva"), 403),
            (&pause, r#"{"reason":1}"#, Some("otto"), 400),
            ("/admin/sources/nope/pause", "", Some("otto"), 404),
            ("/admin/sources/idle/poll", "", Some("otto"), 409),
            ("/admin/resume", "", Some("eva"), 403),
        ] {
            assert_eq!(
                post(&app, path, body, token).await,
                status,
                "{name}: {path}"
            );
        }
        let expected = [
            "otto source.pause gb ok",
            "unknown source.pause gb failed: unauthorized",
            "unknown source.pause gb failed: unauthorized",
            "eva source.pause gb failed: forbidden",
            "otto source.pause gb failed: bad_request",
            "otto source.pause nope failed: unknown_source",
            "otto source.poll idle failed: source_disabled",
            "eva source.resume * failed: forbidden",
        ];
        // What nobody is known to have asked is written behind the answer.
        let written = async || {
            let all = entries(&app, "").await;
            let is_written = all.len() == expected.len() && all.iter().all(|e| e["id"].is_i64());
            is_written.then_some(all)
        };
        let all = eventually("all are written", written).await;
        let mut found = lines(&all);
        let mut sorted = expected.map(str::to_owned).to_vec();
        found.sort();
        sorted.sort();
        assert_eq!(found, sorted, "{name}");
        let first = &all[all.len() - 1];
        assert_eq!(first["reason"], "release freeze", "{name}");
        assert_eq!(first["role"], "operator", "{name}");
        app.stop().await;

        let app = bed.start().await;
        assert_eq!(entries(&app, "").await, all, "{name}");
        check_filters(&app, name).await;
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn strangers_cannot_fill_the_audit() {
    let database = crate::support::databases::sqlite();
    let app = bed(&database.url).start_loaded().await;
    for _ in 0..150 {
        assert_eq!(post(&app, "/admin/pause", "", None).await, 401);
    }
    let listed = entries(&app, "action=source.pause&limit=1000").await;
    assert!((1..=61).contains(&listed.len()), "{}", listed.len());
    app.stop().await;
}
