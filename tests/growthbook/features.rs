//! The documents themselves: bytes, meaning, encryption, quarantine, restarts.

use serde_json::{Value, json};
use stitchd::cli::demo::upstream::{CLIENT_KEY, Connection};

use crate::{
    stand::{ENCRYPTION_KEY, decrypt, features, path, start},
    support::{Bed, TestApp, client, eventually},
};

const DISCOVER: (&str, &str) = ("client_key = \"sdk-demo\"", "connections = \"discover\"");

fn set(bed: &Bed, body: &str) {
    bed.upstream.set_payload(CLIENT_KEY, body.to_owned());
}

async fn poll(app: &TestApp, outcome: &str) {
    let report = app.poll().await;
    assert_eq!(report["outcome"], outcome, "{report}");
}

#[tokio::test]
async fn the_upstreams_own_bytes_are_served_and_stay_until_they_mean_something_else() {
    let bed = Bed::new();
    let body = "{ \"zeta\": {\"new\":1.0},\n\"features\":{\"b\":{\"defaultValue\":1.0,\"later\":1e2},\"a\":{\"y\":1,\"x\":2}},\"status\":200,\"dateUpdated\":\"2026-01-01T00:00:00.000Z\"}\n";
    set(&bed, body);
    let app = start(&bed, &[]).await;
    let first = features(&app).await;
    assert_eq!(first.body, body);

    for same in [
        body.replace("2026-01-01", "2026-01-02"),
        body.replace("\"y\":1,\"x\":2", "\"x\":2, \"y\":1"),
        body.replace("\"status\":200,", ""),
    ] {
        set(&bed, &same);
        poll(&app, "unchanged").await;
        assert_eq!(features(&app).await, first);
    }
    let mut last = first;
    for other in [
        body.replace("\"new\":1.0", "\"new\":2.0"),
        body.replace("\"later\":1e2", "\"later\":1e3"),
    ] {
        set(&bed, &other);
        poll(&app, "published").await;
        let now = features(&app).await;
        assert_eq!(now.body, other);
        assert_ne!(now.etag, last.etag);
        last = now;
    }
    app.stop().await;
}

#[tokio::test]
async fn nothing_goes_upstream_and_unknown_keys_do_not_either() {
    let bed = Bed::new();
    let app = start(&bed, &[]).await;
    bed.upstream.clear_requests();
    for number in 0..50 {
        assert_eq!(app.get(&path(CLIENT_KEY)).await.status, 200);
        let answer = app.get(&path(&format!("sdk-unknown-{number}"))).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.body, r#"{"status":400,"error":"Invalid API Key"}"#);
        let answer = app.get(&format!("/sub/sdk-unknown-{number}")).await;
        assert_eq!(answer.body, r#"{"status":400,"error":"Invalid API Key"}"#);
    }
    assert_eq!(bed.upstream.requests().len(), 0);
    app.stop().await;
}

#[tokio::test]
async fn a_key_may_have_any_characters() {
    let bed = Bed::new();
    // The upstream knows it as it is written in a path.
    bed.upstream.add_connection(Connection::new("sdk%2Fa%25"));
    let (key, listed) = ("sdk/a%", format!("client_key = \"{CLIENT_KEY}\""));
    let connections = format!("connections = [{{ key = \"{key}\" }}]");
    let text = bed.toml().replacen(&listed, &connections, 1);
    let settings = stitchd::settings::from_toml(&text, stitchd::settings::Profile::Test);
    let app = TestApp::spawn(settings.unwrap()).await;
    app.until_revision(1).await;
    let answer = app.get("/api/features/sdk%2Fa%25").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["features"].is_object());
    app.stop().await;
}

#[tokio::test]
async fn compressed_bodies_have_tags_of_their_own() {
    let bed = Bed::new();
    let app = start(&bed, &[]).await;
    let identity = features(&app).await;
    let http = client();
    for coding in ["gzip", "br", "zstd"] {
        let (etag, body) = eventually(coding, async || {
            let request = http.get(format!("{}{}", app.data, path(CLIENT_KEY)));
            let answer = request
                .header("accept-encoding", coding)
                .send()
                .await
                .unwrap();
            let headers = answer.headers().clone();
            if headers.get("content-encoding")?.to_str().ok() != Some(coding) {
                return None;
            }
            Some((headers["etag"].clone(), answer.bytes().await.unwrap()))
        })
        .await;
        assert_ne!(Some(etag.to_str().unwrap()), identity.etag.as_deref());
        let plain = match coding {
            "gzip" => {
                use std::io::Read as _;
                let mut plain = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(&body[..]);
                decoder.read_to_end(&mut plain).unwrap();
                plain
            }
            "br" => {
                let mut plain = Vec::new();
                brotli::BrotliDecompress(&mut &body[..], &mut plain).unwrap();
                plain
            }
            _ => zstd::decode_all(&body[..]).unwrap(),
        };
        assert_eq!(identity.body, plain);
        let request = http.get(format!("{}{}", app.data, path(CLIENT_KEY)));
        let request = request.header("accept-encoding", coding);
        let again = request.header("if-none-match", etag).send().await.unwrap();
        assert_eq!(again.status(), 304, "{coding}");
    }
    app.stop().await;
}

fn encrypted(bed: &Bed) -> (&'static str, String) {
    bed.upstream.add_connection(Connection {
        encryption_key: Some(ENCRYPTION_KEY.to_owned()),
        ..Connection::new(CLIENT_KEY)
    });
    let line = format!("client_key = \"sdk-demo\"\ndecryption_key = \"{ENCRYPTION_KEY}\"");
    (DISCOVER.0, line)
}

#[tokio::test]
async fn an_encrypted_connection_is_encrypted_again_alike_on_every_replica() {
    let (bed, replica) = (Bed::new(), Bed::new());
    bed.upstream.set_saved_groups(json!({"g": ["1"]}));
    let line = encrypted(&bed);
    let change = [(line.0, line.1.as_str())];
    let app = start(&bed, &change).await;
    let first = features(&app).await;
    let document = first.json();
    assert_eq!(document["features"], json!({}));
    let plain: Value =
        serde_json::from_str(&decrypt(document["encryptedFeatures"].as_str().unwrap())).unwrap();
    assert_eq!(plain, Value::Object(bed.upstream.features()));
    let groups = decrypt(document["encryptedSavedGroups"].as_str().unwrap());
    assert_eq!(groups, r#"{"g":["1"]}"#);
    assert!(document.get("savedGroups").is_none());

    // Another IV from the upstream, and another date: no news.
    bed.upstream.set_volatile(true);
    poll(&app, "unchanged").await;
    assert_eq!(features(&app).await, first);

    let mut settings = crate::stand::settings(&bed, &change);
    settings.database.url = Some(replica.database_url.clone().into());
    settings.backup.dir = replica.dir.path().join("backup");
    let other = TestApp::spawn(settings).await;
    other.until_revision(1).await;
    let theirs = features(&other).await.json();
    for member in ["encryptedFeatures", "encryptedSavedGroups"] {
        assert_eq!(theirs[member], document[member], "{member}");
    }
    other.stop().await;
    app.stop().await;
}

#[tokio::test]
async fn a_quarantined_feature_is_replaced_in_its_place_and_the_date_moves() {
    let bed = Bed::new();
    let body = r#"{"dateUpdated":"2026-01-01T00:00:00.500Z","features":{"b":{"defaultValue":1.0},"a":{"defaultValue":"old"}}}"#;
    set(&bed, body);
    let app = start(&bed, &[]).await;
    let bad = body.replace(r#"{"defaultValue":"old"}"#, r#"{"rules":7}"#);
    set(&bed, &bad);
    poll(&app, "unchanged").await;
    assert_eq!(features(&app).await.body, body);

    // The same bad item with other news beside it, under the same date.
    set(&bed, &bad.replace("1.0", "2.0"));
    poll(&app, "published").await;
    let served = features(&app).await;
    let text = std::str::from_utf8(&served.body).unwrap();
    assert!(
        text.ends_with(r#","features":{"b":{"defaultValue":2.0},"a":{"defaultValue":"old"}}}"#),
        "{text}"
    );
    let date = served.json()["dateUpdated"].as_str().unwrap().to_owned();
    assert!(date.starts_with("2026-01-01T00:00:00.500"), "{date}");
    assert_ne!(date, "2026-01-01T00:00:00.500Z");
    app.stop().await;
    std::fs::remove_file(bed.dir.path().join("test.db")).unwrap();
    bed.upstream.go_down().await.unwrap();
    let app = bed.start().await;
    assert_eq!(features(&app).await, served, "from the backup alone");
    app.stop().await;
}

/// Everything about every connection is there again without the upstream, discovered connections included.
#[tokio::test]
async fn discovered_connections_outlive_a_restart_and_end_with_their_removal() {
    let bed = Bed::new();
    let _line = encrypted(&bed);
    bed.upstream.add_connection(Connection::new("sdk-plain"));
    bed.upstream.add_connection(Connection {
        remote_eval: true,
        ..Connection::new("sdk-remote")
    });
    bed.upstream.add_connection(Connection {
        environment: "dev".to_owned(),
        ..Connection::new("sdk-dev")
    });
    let app = start(&bed, &[DISCOVER]).await;
    let keys = [CLIENT_KEY, "sdk-plain", "sdk-remote", "sdk-dev"];
    let ask = async |app: &TestApp| {
        let mut answers = Vec::new();
        for key in keys {
            answers.push(app.get(&path(key)).await);
        }
        answers
    };
    let before = ask(&app).await;
    let statuses: Vec<u16> = before.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 400, 400]);
    assert!(before[2].body.ends_with(b"(remote eval not supported)\"}"));
    assert!(before[3].body.ends_with(b"\"Invalid API Key\"}"));
    app.stop().await;

    bed.upstream.go_down().await.unwrap();
    let app = TestApp::spawn(crate::stand::settings(&bed, &[DISCOVER])).await;
    let mut after = ask(&app).await;
    // Whether it is ours cannot be told before the list is read; that must not sound final.
    assert_eq!(after.pop().unwrap().status, 503);
    assert_eq!(after, before[..3]);
    let report = app.poll().await;
    assert_eq!(report["outcome"], "failed", "{report}");
    assert_eq!(ask(&app).await[..3], before[..3]);

    bed.upstream.come_back().unwrap();
    poll(&app, "unchanged").await;
    assert_eq!(ask(&app).await, before);
    bed.upstream.remove_connection("sdk-plain");
    poll(&app, "published").await;
    let removed = app.get(&path("sdk-plain")).await;
    assert_eq!(removed.body, r#"{"status":400,"error":"Invalid API Key"}"#);
    assert_eq!(app.get(&path(CLIENT_KEY)).await, before[0]);
    app.stop().await;
}

#[tokio::test]
async fn another_encryption_key_encrypts_anew() {
    let bed = Bed::new();
    let _line = encrypted(&bed);
    let app = start(&bed, &[DISCOVER]).await;
    let before = features(&app).await;
    bed.upstream.add_connection(Connection {
        encryption_key: Some("ZmVkY2JhOTg3NjU0MzIxMA==".to_owned()),
        ..Connection::new(CLIENT_KEY)
    });
    poll(&app, "published").await;
    assert_ne!(features(&app).await.etag, before.etag);
    let _line = encrypted(&bed);
    poll(&app, "published").await;
    assert_eq!(
        features(&app).await.json()["encryptedFeatures"],
        before.json()["encryptedFeatures"]
    );
    app.stop().await;
}
