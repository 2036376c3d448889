//! The service with connections of every kind, and what the tests ask of it.

use aes::Aes128;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cbc::{
    Decryptor,
    cipher::{BlockModeDecrypt as _, KeyIvInit as _, block_padding::Pkcs7},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use stitchd::{
    cli::demo::upstream::CLIENT_KEY,
    settings::{Profile, Settings, from_toml},
};

use crate::support::{Answer, Bed, TestApp, answer};

/// 16 bytes in base64.
pub(crate) const ENCRYPTION_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
/// With which GrowthBook signs pushes here.
pub(crate) const SIGNING_KEY: &str = "push-signing-key";
/// With which it signs webhooks.
pub(crate) const WEBHOOK_SECRET: &str = "wk_0123456789abcdef";

/// Whatever is pushed or polled here is meant, however small or large it is.
const GUARDS: &str = "[guards]\nmax_removed_share = 1.0\nmax_growth = 1000000.0\n[[sources]]";

/// The bed's settings with some lines changed.
pub(crate) fn settings(bed: &Bed, changes: &[(&str, &str)]) -> Settings {
    let mut text = bed.toml().replacen("[[sources]]", GUARDS, 1);
    for (from, to) in changes {
        assert!(text.contains(from), "the bed has no line `{from}`");
        text = text.replacen(from, to, 1);
    }
    from_toml(&text, Profile::Test).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Starts the service with some lines changed and waits for its first revision.
pub(crate) async fn start(bed: &Bed, changes: &[(&str, &str)]) -> TestApp {
    let app = TestApp::spawn(settings(bed, changes)).await;
    app.until_revision(1).await;
    // The poll that published must have ended: a forced one would otherwise wait for it and come a second time.
    crate::support::eventually("the first poll has ended", async || {
        let status = app.status().await;
        (!status["sources"]["gb"]["last_outcome"].is_null()).then_some(())
    })
    .await;
    app
}

/// One connection that may be pushed to, with these further keys.
pub(crate) fn pushed(more: &str) -> (&'static str, String) {
    let line = format!(
        "connections = [{{ key = \"{CLIENT_KEY}\", push_signing_key = \"{SIGNING_KEY}\"{more} }}]\nwebhook_secret = \"{WEBHOOK_SECRET}\""
    );
    ("client_key = \"sdk-demo\"", line)
}

pub(crate) fn path(key: &str) -> String {
    format!("/api/features/{key}")
}

/// The payload as an SDK gets it.
pub(crate) async fn features(app: &TestApp) -> Answer {
    let answer = app.get(&path(CLIENT_KEY)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// The plain text of a member that went out encrypted.
pub(crate) fn decrypt(text: &str) -> String {
    let (iv, sealed) = text.split_once('.').unwrap();
    let (iv, sealed) = (
        STANDARD.decode(iv).unwrap(),
        STANDARD.decode(sealed).unwrap(),
    );
    let key = STANDARD.decode(ENCRYPTION_KEY).unwrap();
    let cipher = Decryptor::<Aes128>::new_from_slices(&key, &iv).unwrap();
    let plain = cipher.decrypt_padded_vec::<Pkcs7>(&sealed).unwrap();
    String::from_utf8(plain).unwrap()
}

pub(crate) fn hmac(key: &str, message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    stitchd::model::snapshot::hex(bytes)
}

/// Posts with headers.
pub(crate) async fn post(
    app: &TestApp,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = app.http.post(format!("{}{path}", app.data));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body: Bytes = body.into();
    answer(request.body(body).send().await.unwrap()).await
}

/// The value of a counter with these labels; 0 where it is not there yet.
pub(crate) async fn metric(app: &TestApp, line: &str) -> u64 {
    let answer = app.admin_get("/metrics").await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let found = text
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.map_or(0, |value| value.parse().unwrap())
}
