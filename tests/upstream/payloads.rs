//! SDK payloads: members, validators, keys, encryption, compression.

use super::*;

#[tokio::test]
async fn a_payload_has_what_sdks_expect() {
    let upstream = upstream();
    let response = payload(&upstream).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        header(&response, "content-type"),
        "application/json; charset=utf-8"
    );
    assert!(header(&response, "cache-control").starts_with("public, max-age=30,"));
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    assert!(header(&response, "etag").starts_with("W/\""));
    assert_eq!(header(&response, "x-sse-support"), "");
    let body: Value = response.value().await;
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["status", "features", "dateUpdated"]);
    assert_eq!(body["features"]["dark-mode"]["defaultValue"], false);
}

#[tokio::test]
async fn optional_members_appear_when_set() {
    let upstream = upstream();
    upstream.set_auto_experiments(Some(vec![json!({"key": "banner"})]));
    upstream.set_saved_groups(json!({"grp": ["a"]}));
    upstream.set_contextual_bandits(json!({"b": {"banditVersion": 1}}));
    let body: Value = payload(&upstream).await.value().await;
    assert_eq!(body["experiments"][0]["key"], "banner");
    assert_eq!(body["savedGroups"]["grp"][0], "a");
    assert_eq!(body["contextualBandits"]["b"]["banditVersion"], 1);
}

#[tokio::test]
async fn every_change_moves_date_and_validator() {
    let upstream = upstream();
    let mut seen = Vec::new();
    for value in 0..5 {
        upstream.set_feature("n", feature(value));
        let response = payload(&upstream).await;
        let etag = header(&response, "etag").to_owned();
        let body: Value = response.value().await;
        seen.push((etag, body["dateUpdated"].as_str().unwrap().to_owned()));
    }
    assert!(seen.windows(2).all(|pair| pair[0].0 != pair[1].0));
    assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1));
}

#[tokio::test]
async fn a_known_validator_gets_304_until_something_changes() {
    let upstream = upstream();
    let etag = header(&payload(&upstream).await, "etag").to_owned();
    let url = format!("{}/api/features/{CLIENT_KEY}", upstream.base_url());
    let ask = |tag: String| client().get(&url).header("if-none-match", tag).send();
    let response = ask(etag.clone()).await.unwrap();
    assert_eq!(response.status(), 304);
    assert_eq!(header(&response, "etag"), etag);
    let listed = format!("\"other\", {}", etag.trim_start_matches("W/"));
    assert_eq!(ask(listed).await.unwrap().status(), 304);
    assert_eq!(ask("\"other\"".to_owned()).await.unwrap().status(), 200);
    upstream.remove_feature("dark-mode");
    assert_eq!(ask(etag).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_volatile_upstream_never_says_the_same_twice() {
    let upstream = upstream();
    upstream.set_volatile(true);
    let first = payload(&upstream).await.text().await.unwrap();
    assert_ne!(first, payload(&upstream).await.text().await.unwrap());
    upstream.set_experiments(many_experiments(1));
    let first = rest(&upstream, "experiments").await.text().await.unwrap();
    let second = rest(&upstream, "experiments").await.text().await.unwrap();
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_bad_key_is_told_so_for_good() {
    let upstream = upstream();
    upstream.add_connection(Connection {
        remote_eval: true,
        ..Connection::new("sdk-remote")
    });
    for (key, error) in [
        ("sdk-unknown", "Invalid API Key"),
        (
            "sdk-remote",
            "Remote evaluation required for this connection",
        ),
    ] {
        let url = format!("{}/api/features/{key}", upstream.base_url());
        let response = client().get(url).send().await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(header(&response, "x-unrecoverable"), "1");
        let body: Value = response.value().await;
        assert_eq!(body, json!({"status": 400, "error": error}));
    }
    let twin = rest(&upstream, "sdk-payload/sdk-remote").await;
    assert_eq!(twin.status(), 200);
    upstream.remove_connection(CLIENT_KEY);
    assert_eq!(payload(&upstream).await.status(), 400);
}

#[tokio::test]
async fn an_encrypted_payload_opens_with_its_key() {
    let upstream = upstream();
    upstream.set_saved_groups(json!({"grp": ["a"]}));
    upstream.set_auto_experiments(Some(vec![json!({"key": "banner"})]));
    upstream.add_connection(Connection {
        encryption_key: Some(KEY.to_owned()),
        ..Connection::new(CLIENT_KEY)
    });
    let text = payload(&upstream).await.text().await.unwrap();
    assert_eq!(text, payload(&upstream).await.text().await.unwrap());
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["features"], json!({}));
    assert_eq!(body["experiments"], json!([]));
    assert_eq!(body.get("savedGroups"), None);
    let open = |member: &str| decrypt(body[member].as_str().unwrap(), KEY);
    assert_eq!(
        open("encryptedFeatures").unwrap()["dark-mode"]["defaultValue"],
        false
    );
    assert_eq!(open("encryptedExperiments").unwrap()[0]["key"], "banner");
    assert_eq!(open("encryptedSavedGroups").unwrap()["grp"][0], "a");
    upstream.set_fault(Route::Features, Fault::WrongEncryption);
    let body: Value = payload(&upstream).await.value().await;
    let sealed = body["encryptedFeatures"].as_str().unwrap();
    assert_eq!(decrypt(sealed, KEY), None);
}

fn decrypt(sealed: &str, key: &str) -> Option<Value> {
    let (vector, text) = sealed.split_once('.').unwrap();
    let key: [u8; 16] = STANDARD.decode(key).unwrap().try_into().unwrap();
    let vector: [u8; 16] = STANDARD.decode(vector).unwrap().try_into().unwrap();
    let text = STANDARD.decode(text).unwrap();
    let decryptor = cbc::Decryptor::<Aes128>::new(&key.into(), &vector.into());
    let plain = decryptor.decrypt_padded_vec::<Pkcs7>(&text).ok()?;
    serde_json::from_slice(&plain).ok()
}

#[tokio::test]
async fn connections_may_differ_and_be_overridden() {
    let upstream = upstream();
    upstream.add_connection(Connection::new("sdk-other"));
    upstream.set_connection_features("sdk-other", json!({"theirs": {"defaultValue": 1}}));
    let url = format!("{}/api/features/sdk-other", upstream.base_url());
    let other = async || {
        client()
            .get(&url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    assert!(other().await.contains("theirs"));
    assert!(
        !payload(&upstream)
            .await
            .text()
            .await
            .unwrap()
            .contains("theirs")
    );
    upstream.set_payload("sdk-other", "nonsense");
    assert_eq!(other().await, "nonsense");
    upstream.clear_payload("sdk-other");
    assert!(other().await.contains("theirs"));
}

#[tokio::test]
async fn large_payloads_are_compressed_as_asked() {
    let upstream = upstream();
    upstream.set_features(many_features(200, 3));
    let plain = payload(&upstream).await.bytes().await.unwrap();
    for (encoding, name) in [
        (Encoding::Gzip, "gzip"),
        (Encoding::Brotli, "br"),
        (Encoding::Zstd, "zstd"),
    ] {
        upstream.set_encodings(&[encoding]);
        let path = format!("/api/features/{CLIENT_KEY}");
        let accept = format!("Accept-Encoding: {name}\r\n");
        let answer = raw(&upstream, &path, &accept).await.unwrap();
        assert!(answer.len() < plain.len() / 3);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(&format!("Content-Encoding: {name}\r\n")));
        assert_eq!(payload(&upstream).await.bytes().await.unwrap(), plain);
        let refused = format!("Accept-Encoding: {name};q=0\r\n");
        assert!(raw(&upstream, &path, &refused).await.unwrap().len() > plain.len());
    }
}
