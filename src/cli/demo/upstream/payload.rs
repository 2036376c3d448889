//! SDK payloads: what one connection is given.
//!
//! A payload is rendered once per change, so that its bytes, its ciphertexts and its validator stay as they are in between, as
//! with GrowthBook's own payload cache.

use std::sync::LazyLock;

use aes::Aes128;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cbc::cipher::{BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::state::{Connection, Content};

/// GrowthBook's dates: milliseconds and `Z`.
const ISO: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A moment as GrowthBook writes it.
pub(super) fn iso(at: OffsetDateTime) -> String {
    at.format(ISO)
        .expect("every component of the format exists in a date with time")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    status: u16,
    features: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    experiments: Option<&'a [Value]>,
    date_updated: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_groups: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contextual_bandits: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted_features: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted_experiments: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted_saved_groups: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted_contextual_bandits: Option<String>,
}

/// The payload of a connection; `None` where its encryption key is no key.
pub(super) fn render(content: &Content, connection: &Connection, salt: u64) -> Option<Bytes> {
    let plain = Payload {
        status: 200,
        features: content.features_of(&connection.key),
        experiments: content.auto_experiments.as_deref(),
        date_updated: iso(content.date_updated + time::Duration::milliseconds(salt.cast_signed())),
        saved_groups: content.saved_groups.as_ref(),
        contextual_bandits: content.contextual_bandits.as_ref(),
        encrypted_features: None,
        encrypted_experiments: None,
        encrypted_saved_groups: None,
        encrypted_contextual_bandits: None,
    };
    let payload = match &connection.encryption_key {
        Some(key) => encrypted(plain, key, salt)?,
        None => return Some(text(&plain).into()),
    };
    Some(text(&payload).into())
}

fn encrypted<'a>(plain: Payload<'a>, key: &str, salt: u64) -> Option<Payload<'a>> {
    static NO_FEATURES: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let cipher = Cipher::new(key, salt)?;
    Some(Payload {
        encrypted_features: Some(cipher.seal(&text(plain.features))),
        encrypted_experiments: plain.experiments.map(|part| cipher.seal(&text(part))),
        encrypted_saved_groups: plain.saved_groups.map(|part| cipher.seal(&text(part))),
        encrypted_contextual_bandits: plain
            .contextual_bandits
            .map(|part| cipher.seal(&text(part))),
        features: &NO_FEATURES,
        experiments: plain.experiments.map(|_| &[][..]),
        saved_groups: None,
        contextual_bandits: None,
        ..plain
    })
}

fn text<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("JSON values with string keys always have a text")
}

/// AES-128-CBC with PKCS#7 padding, as GrowthBook's SDKs read it.
struct Cipher {
    key: [u8; 16],
    salt: u64,
}

impl Cipher {
    fn new(key: &str, salt: u64) -> Option<Self> {
        let key = STANDARD.decode(key).ok()?.try_into().ok()?;
        Some(Self { key, salt })
    }

    /// `base64(iv).base64(ciphertext)`.
    ///
    /// The vector follows from the content, so that the same content has the same bytes.
    fn seal(&self, plain: &str) -> String {
        let digest = Sha256::new()
            .chain_update(self.key)
            .chain_update(self.salt.to_le_bytes())
            .chain_update(plain)
            .finalize();
        let mut vector = [0; 16];
        vector.copy_from_slice(&digest[..16]);
        let encryptor = cbc::Encryptor::<Aes128>::new(&self.key.into(), &vector.into());
        let sealed = encryptor.encrypt_padded_vec::<Pkcs7>(plain.as_bytes());
        format!("{}.{}", STANDARD.encode(vector), STANDARD.encode(sealed))
    }
}

/// A weak validator as Express makes them: length in hex, 27 characters of digest.
pub(super) fn weak_etag(body: &[u8]) -> String {
    let digest = STANDARD.encode(Sha256::digest(body));
    format!("W/\"{:x}-{}\"", body.len(), &digest[..27])
}

/// Whether `If-None-Match` names the validator, compared weakly.
pub(super) fn matches_etag(if_none_match: &str, etag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let etag = bare(etag);
    if_none_match
        .split(',')
        .any(|tag| tag.trim() == "*" || bare(tag) == etag)
}
