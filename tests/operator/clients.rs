//! An override shows to clients of every protocol, each asked as its clients ask.

use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use stitchd::cli::demo::upstream::CLIENT_KEY;

use crate::{
    stand::{EXPERIMENT, SEALED, feature, features, force, loaded, off, opened, remove},
    support::{TestApp, answer, blocks::Blocks},
};

const SWITCH: &str = "feature-00001";

async fn token(app: &TestApp, kind: &str) -> String {
    app.token(&json!({ "kind": kind })).await.1
}

async fn post(app: &TestApp, path: &str, secret: &str, body: &Value) -> Value {
    let request = app.http.post(format!("{}{path}", app.data));
    let request = request.header(AUTHORIZATION, format!("Bearer {secret}"));
    let request = request.header("content-type", "application/json");
    let answer = answer(request.body(body.to_string()).send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

#[tokio::test]
async fn clients_of_openfeature_see_an_override() {
    let (_bed, app) = loaded().await;
    let secret = token(&app, "server").await;
    let context = json!({"context": {"targetingKey": "user-1"}});
    let seen = async || {
        let path = "/ofrep/v1/evaluate/flags";
        let one = post(&app, &format!("{path}/checkout"), &secret, &context).await;
        let all = post(&app, path, &secret, &context).await;
        let mut flags = all["flags"].as_array().unwrap().iter();
        let among_all = flags.find(|flag| flag["key"] == "checkout").unwrap();
        assert_eq!(one["value"], among_all["value"]);
        one["value"].clone()
    };
    assert_eq!(seen().await, "new");
    let set = force(&app, &feature("checkout", "fixed")).await;
    assert_eq!(seen().await, "fixed");
    remove(&app, &set["id"]).await;
    assert_eq!(seen().await, "new");
    app.stop().await;
}

#[tokio::test]
async fn clients_of_unleash_see_an_override() {
    let (_bed, app) = loaded().await;
    let secret = token(&app, "frontend").await;
    let is_on = async || {
        let body = json!({"context": {"userId": "user-1"}});
        let all = post(&app, "/api/frontend", &secret, &body).await;
        let mut toggles = all["toggles"].as_array().unwrap().iter();
        toggles.any(|toggle| toggle["name"] == SWITCH)
    };
    for value in [true, false, true] {
        force(&app, &feature(SWITCH, value)).await;
        assert_eq!(is_on().await, value);
    }
    app.stop().await;
}

#[tokio::test]
async fn the_document_of_a_scope_shows_an_override() {
    let (_bed, app) = loaded().await;
    let secret = token(&app, "client").await;
    let before = features(&app, &secret).await;
    let set = force(&app, &feature("checkout", "fixed")).await;
    let forced = force(&app, &off(EXPERIMENT)).await;
    let shown = features(&app, &secret).await;
    assert_eq!(
        shown["features"]["checkout"],
        json!({"defaultValue": "fixed"})
    );
    assert_eq!(shown["features"]["search"]["rules"], json!([]));
    remove(&app, &set["id"]).await;
    remove(&app, &forced["id"]).await;
    assert_eq!(
        features(&app, &secret).await["features"],
        before["features"]
    );
    app.stop().await;
}

#[tokio::test]
async fn streams_of_connections_bring_an_override_encrypted_ones_too() {
    let (_bed, app) = loaded().await;
    let mut streams = Vec::new();
    for key in [CLIENT_KEY, SEALED] {
        let request = app.http.get(format!("{}/sub/{key}", app.data));
        streams.push(Blocks::open(request, None).await);
    }
    force(&app, &feature("checkout", "fixed")).await;
    let mut brought = Vec::new();
    for stream in &mut streams {
        let data = loop {
            let block = stream.next().await.expect("the stream goes on");
            let data = block.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(data) = data.filter(|data| !data.is_empty()) {
                break serde_json::from_str::<Value>(data).unwrap();
            }
        };
        brought.push(data);
    }
    let fixed = json!({"defaultValue": "fixed"});
    assert_eq!(brought[0]["features"]["checkout"], fixed);
    let sealed = opened(&brought[1], "encryptedFeatures");
    assert_eq!(sealed["checkout"], fixed);
    drop(streams);
    app.stop().await;
}

#[tokio::test]
async fn a_batch_of_units_has_nobody_in_an_experiment_that_is_off() {
    let (_bed, app) = loaded().await;
    let takes = async || {
        let units = json!({"units": [{"user_key": "user-1"}, {"user_key": "user-2"}]});
        let told = post(&app, "/v1/decide/batch", "", &units).await;
        assert_eq!(told["results"].as_array().unwrap().len(), 2);
        told["results"].to_string().contains(EXPERIMENT)
    };
    assert!(takes().await);
    let set = force(&app, &off(EXPERIMENT)).await;
    assert!(!takes().await);
    remove(&app, &set["id"]).await;
    assert!(takes().await);
    app.stop().await;
}
