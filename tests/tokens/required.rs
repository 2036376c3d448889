//! `server.data_auth = "required"`, and what a server token sees where nothing is required.

use reqwest::{Method, Response, header::HeaderMap};
use serde_json::{Value, json};

use crate::{
    of_kind, scoped,
    support::{Bed, ENVIRONMENT, TestApp},
};

/// Our own routes that only servers may read then.
const ROUTES: [(&str, &str); 8] = [
    ("GET", "/v1/snapshot/production"),
    ("GET", "/v1/stream/production?events=1"),
    ("GET", "/api/v1/experiments"),
    ("GET", "/v1/decide?user_key=u"),
    ("GET", "/api/decide?user_key=u"),
    ("GET", "/decide?user_key=u"),
    ("POST", "/v1/decide/batch"),
    ("GET", "/v1/evaluate/feature-00001?user_key=u"),
];

async fn ask(app: &TestApp, method: &str, path: &str, secret: Option<&str>) -> Response {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let is_post = method == Method::POST;
    let mut request = app.http.request(method, format!("{}{path}", app.data));
    if let Some(secret) = secret {
        request = request.bearer_auth(secret);
    }
    if is_post {
        request = request.body(r#"{"units":[{"user_key":"u"}]}"#);
    }
    request.send().await.unwrap()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

async fn json(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn where_it_is_required_servers_alone_read() {
    let mut bed = Bed::new();
    bed.database_url = bed.database_url.clone();
    let toml = bed
        .toml()
        .replacen("workers = 2", "workers = 2\ndata_auth = \"required\"", 1);
    let settings = stitchd::settings::from_toml(&toml, stitchd::settings::Profile::Test).unwrap();
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    let (_, server) = app.token(&of_kind("server")).await;
    let (_, client) = app.token(&of_kind("client")).await;
    let (_, frontend) = app.token(&of_kind("frontend")).await;
    for (method, path) in ROUTES {
        let refused = ask(&app, method, path, None).await;
        assert_eq!(refused.status(), 401, "{path}");
        assert_eq!(text(refused.headers(), "cache-control"), "no-store");
        assert_eq!(
            ask(&app, method, path, Some("srv-none")).await.status(),
            401,
            "{path}"
        );
        for other in [
            &client,
            &frontend,
            &stitchd::cli::demo::upstream::CLIENT_KEY.to_owned(),
        ] {
            let refused = ask(&app, method, path, Some(other)).await;
            assert_eq!(refused.status(), 403, "{path} with {other}");
        }
        let answer = ask(&app, method, path, Some(&server)).await;
        assert_eq!(answer.status(), 200, "{path}");
        let cached = text(answer.headers(), "cache-control").to_owned();
        // No cache between may give one caller's answer to another.
        assert!(
            ["no-store", "private, no-cache"].contains(&&*cached),
            "{path}: {cached}"
        );
    }
    // The control plane asks for roles of its own.
    let decided = app.admin_get("/v1/decide?user_key=u").await;
    assert_eq!(decided.status, 200, "{decided:?}");
    // What has a key of its own, and what probes ask, stays as it is.
    let features = format!("/api/features/{}", stitchd::cli::demo::upstream::CLIENT_KEY);
    for path in [features.as_str(), "/livez", "/readyz", "/healthcheck"] {
        assert_eq!(ask(&app, "GET", path, None).await.status(), 200, "{path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_server_token_is_for_its_environment_and_where_none_is_named_means_that() {
    let mut bed = Bed::new();
    bed.extra = format!(
        "[[sources]]\nid = \"other\"\nenvironment = \"staging\"\nkind = \"file\"\npath = \"{}\"\n",
        bed.dir.path().join("staging.json").display()
    );
    let payload = json!({"features": {"only-staging": {"defaultValue": 1}}}).to_string();
    std::fs::write(bed.dir.path().join("staging.json"), payload).unwrap();
    let app = bed.start_loaded().await;
    let staging = app.handles.board.environment("staging").unwrap();
    staging
        .subscribe()
        .wait_for(|revision| *revision > 0)
        .await
        .unwrap();
    let mut body = of_kind("server");
    body["environment"] = json!("staging");
    let (_, secret) = app.token(&body).await;
    let path = "/v1/evaluate/only-staging";
    let answer = json(ask(&app, "GET", path, Some(&secret)).await).await;
    assert_eq!(answer["value"], 1);
    assert_eq!(
        json(ask(&app, "GET", path, None).await).await["value"],
        Value::Null
    );
    for path in [
        format!("/v1/snapshot/{ENVIRONMENT}"),
        format!("/v1/decide?user_key=u&env={ENVIRONMENT}"),
    ] {
        assert_eq!(
            ask(&app, "GET", &path, Some(&secret)).await.status(),
            403,
            "{path}"
        );
        assert_eq!(ask(&app, "GET", &path, None).await.status(), 200, "{path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn documents_of_one_scope_have_bytes_and_tags_of_their_own() {
    let bed = Bed::new();
    let feature =
        |project: &str| json!({"defaultValue": project, "metadata": {"projects": [project]}});
    bed.upstream.set_feature("mine", feature("shop"));
    bed.upstream.set_feature("theirs", feature("blog"));
    let app = bed.start_loaded().await;
    let (_, shop) = app.token(&scoped("server", &["shop"])).await;
    let (_, client) = app.token(&scoped("client", &["shop"])).await;
    let path = format!("/v1/snapshot/{ENVIRONMENT}");
    let whole = app.get(&path).await;
    let part = ask(&app, "GET", &path, Some(&shop)).await;
    let tag = text(part.headers(), "etag").to_owned();
    assert_eq!(text(part.headers(), "cache-control"), "private, no-cache");
    assert_ne!(whole.etag.as_deref(), Some(&*tag));
    let part = json(part).await;
    assert_eq!(part["revision"], whole.json()["revision"]);
    let keys: Vec<_> = part["features"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["mine"]);
    let again = app
        .http
        .get(format!("{}{path}", app.data))
        .bearer_auth(&shop);
    let again = again.header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(again.status(), 304);

    let features = format!("/api/features/{client}");
    let before = app.get(&features).await;
    assert_eq!(
        before.json()["features"],
        json!({"mine": {"defaultValue": "shop", "metadata": {"projects": ["shop"]}}})
    );
    // News of another project is none for this one; SDKs are told by date and tag.
    bed.upstream.set_feature("theirs", feature("other"));
    app.poll().await;
    let after = app.get(&features).await;
    assert_eq!((&after.etag, &after.body), (&before.etag, &before.body));
    bed.upstream.set_feature(
        "mine",
        json!({"defaultValue": 2, "metadata": {"projects": ["shop"]}}),
    );
    app.poll().await;
    let changed = app.get(&features).await;
    assert_ne!(changed.json()["dateUpdated"], after.json()["dateUpdated"]);
    app.stop().await;
}

#[tokio::test]
async fn what_holds_every_project_is_not_for_a_part() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    let (_, shop) = app.token(&scoped("server", &["shop"])).await;
    for path in ["/api/v1/experiments", "/v1/decide?user_key=u&explain=true"] {
        let refused = ask(&app, "GET", path, Some(&shop)).await;
        assert_eq!(refused.status(), 403, "{path}");
    }
    app.stop().await;
}
