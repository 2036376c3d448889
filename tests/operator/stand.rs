//! The service with connections of every kind, and how operators speak to it.

use aes::Aes128;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cbc::{
    Decryptor,
    cipher::{BlockModeDecrypt as _, KeyIvInit as _, block_padding::Pkcs7},
};
use reqwest::Method;
use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{CLIENT_KEY, Connection},
    settings::{Profile, from_toml},
};

use crate::support::{Answer, Bed, ENVIRONMENT, TestApp, answer, eventually};

/// 16 bytes in base64.
pub(crate) const ENCRYPTION_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
pub(crate) const SEALED: &str = "sdk-sealed";
pub(crate) const REMOTE: &str = "sdk-remote";
/// An experiment of a feature's rule, of the management API's list and of every consumer.
pub(crate) const EXPERIMENT: &str = "search-box-2026";

/// Gives an upstream a feature with rules, one with an experiment, an auto experiment, and three kinds of connection.
pub(crate) fn furnish(bed: &mut Bed) {
    let upstream = &bed.upstream;
    upstream.set_feature(
        "checkout",
        json!({"defaultValue": "old", "rules": [{"id": "fr_1", "force": "new"}]}),
    );
    upstream.set_feature(
        "search",
        json!({"defaultValue": 0, "rules": [{
            "id": "fr_2", "key": EXPERIMENT, "variations": [1, 2], "weights": [0.5, 0.5],
            "coverage": 1, "hashAttribute": "id", "hashVersion": 2,
        }]}),
    );
    let auto = json!({"key": "banner", "variations": [{}, {"css": "x"}], "weights": [0, 1], "coverage": 1,
        "hashAttribute": "id", "changeId": "vc_1"});
    upstream.set_auto_experiments(Some(vec![auto]));
    upstream.add_connection(Connection {
        encryption_key: Some(ENCRYPTION_KEY.to_owned()),
        ..Connection::new(SEALED)
    });
    upstream.add_connection(Connection {
        remote_eval: true,
        ..Connection::new(REMOTE)
    });
}

/// The bed's settings with all connections in them.
pub(crate) fn text(bed: &Bed) -> String {
    let connections = format!(
        "connections = [{{ key = \"{CLIENT_KEY}\" }}, {{ key = \"{SEALED}\", decryption_key = \"{ENCRYPTION_KEY}\" }}, {{ key = \"{REMOTE}\", remote_eval = true }}]"
    );
    bed.toml()
        .replacen(&format!("client_key = \"{CLIENT_KEY}\""), &connections, 1)
}

/// Starts the service on what is there, and waits for its first revision and poll.
pub(crate) async fn start(bed: &Bed) -> TestApp {
    start_with(&text(bed)).await
}

/// The same with connections that it has to discover.
pub(crate) async fn start_discovering(bed: &Bed) -> TestApp {
    let listed = format!("client_key = \"{CLIENT_KEY}\"");
    let text = bed.toml();
    start_with(&text.replacen(&listed, "connections = \"discover\"", 1)).await
}

/// Starts the service with these settings.
pub(crate) async fn start_with(text: &str) -> TestApp {
    let settings = from_toml(text, Profile::Test).unwrap_or_else(|error| panic!("{error}"));
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    eventually("the first poll has ended", async || {
        let status = app.status().await;
        (!status["sources"]["gb"]["last_outcome"].is_null()).then_some(())
    })
    .await;
    app
}

/// A bed that is furnished, and the service on it.
pub(crate) async fn loaded() -> (Bed, TestApp) {
    let mut bed = Bed::new();
    furnish(&mut bed);
    let app = start(&bed).await;
    (bed, app)
}

/// Asks the control plane something about the environment.
pub(crate) async fn ask(app: &TestApp, method: Method, path: &str, body: &Value) -> Answer {
    let url = format!("{}/admin/environments/{ENVIRONMENT}/{path}", app.admin);
    let request = app.http.request(method, url);
    let request = match body {
        Value::Null => request,
        body => request.body(body.to_string()),
    };
    answer(request.send().await.unwrap()).await
}

/// Sets an override; gives the answer's body.
pub(crate) async fn force(app: &TestApp, what: &Value) -> Value {
    let mut body = what.clone();
    body["reason"] = json!("it broke");
    let answer = ask(app, Method::POST, "overrides", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

pub(crate) fn feature(key: &str, value: impl Into<Value>) -> Value {
    json!({"kind": "feature", "key": key, "value": value.into()})
}

pub(crate) fn off(key: &str) -> Value {
    json!({"kind": "experiment", "key": key, "off": true})
}

pub(crate) async fn remove(app: &TestApp, id: &Value) -> Value {
    let path = format!("overrides/{}", id.as_str().unwrap());
    let answer = ask(app, Method::DELETE, &path, &Value::Null).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

pub(crate) async fn pin(app: &TestApp, revision: u64) -> Value {
    let body = json!({"revision": revision, "reason": "as on Tuesday"});
    let answer = ask(app, Method::POST, "pin", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

pub(crate) async fn unpin(app: &TestApp) -> Value {
    let answer = ask(app, Method::DELETE, "pin", &json!({"reason": "mended"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

pub(crate) async fn snapshot(app: &TestApp) -> Value {
    app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await.json()
}

/// A feature's default as the snapshot has it.
pub(crate) async fn default_of(app: &TestApp, key: &str) -> Value {
    snapshot(app).await["features"][key]["defaultValue"].clone()
}

/// The document of a connection's SDKs.
pub(crate) async fn features(app: &TestApp, client_key: &str) -> Value {
    let answer = app.get(&format!("/api/features/{client_key}")).await;
    assert_eq!(answer.status, 200, "{client_key}: {answer:?}");
    answer.json()
}

/// What a connection that is evaluated remotely is answered.
pub(crate) async fn evaluated(app: &TestApp, client_key: &str) -> Value {
    let url = format!("{}/api/eval/{client_key}", app.data);
    let body = json!({"attributes": {"id": "user-1"}}).to_string();
    let answer = answer(app.http.post(url).body(body).send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{client_key}: {answer:?}");
    answer.json()
}

/// A member of a document that is encrypted.
pub(crate) fn opened(document: &Value, member: &str) -> Value {
    let (iv, sealed) = document[member].as_str().unwrap().split_once('.').unwrap();
    let (iv, sealed) = (
        STANDARD.decode(iv).unwrap(),
        STANDARD.decode(sealed).unwrap(),
    );
    let key = STANDARD.decode(ENCRYPTION_KEY).unwrap();
    let cipher = Decryptor::<Aes128>::new_from_slices(&key, &iv).unwrap();
    serde_json::from_slice(&cipher.decrypt_padded_vec::<Pkcs7>(&sealed).unwrap()).unwrap()
}

/// The bytes of every route that carries configuration.
pub(crate) async fn bytes(app: &TestApp) -> Vec<(String, bytes::Bytes)> {
    let mut all = Vec::new();
    for (path, answer) in app.served().await {
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        // The snapshot shows its revision.
        if !path.starts_with("/v1/snapshot") {
            all.push((path, answer.body));
        }
    }
    for key in [SEALED] {
        let path = format!("/api/features/{key}");
        all.push((path.clone(), app.get(&path).await.body));
    }
    let mut shown = snapshot(app).await;
    shown.as_object_mut().unwrap().remove("revision");
    all.push(("snapshot".to_owned(), shown.to_string().into()));
    all
}
