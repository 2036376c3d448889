//! The documents that GrowthBook's SDKs read: for each connection the bytes that the upstream sent for it.
//!
//! Relaying is not evaluating: members unknown here, the order of keys and the spelling of numbers pass through
//! untouched, because an SDK may know more than we do. A document is written again only where it has to be: where an item
//! was quarantined, and where members are encrypted. Then everything else keeps its text.
//!
//! Encryption is AES-128-CBC with PKCS#7 padding, each member by itself, `base64(iv).base64(ciphertext)` (GrowthBook
//! sdk-js, `src/util.ts`). The IV is derived from key and plain text instead of drawn, so that the same content gives the
//! same bytes on every replica. Nothing is lost by that: equal plain texts are meant to be seen as equal here, their
//! entity tag says so anyway.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aes::Aes128;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cbc::{
    Decryptor, Encryptor,
    cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _, block_padding::Pkcs7},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::payload::{Payload, RawMembers, SEALED};
use crate::model::{CanonicalJson, canonical::write_string, snapshot::hex};

/// Nanoseconds in the millisecond to which upstream's dates are exact.
const NANOS_PER_MS: u32 = 1_000_000;

/// Key of an encrypted connection.
pub type EncryptionKey = [u8; 16];

/// Reads a key as GrowthBook shows it: base64 of 16 bytes.
pub fn encryption_key(text: &str) -> Option<EncryptionKey> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Whom a document is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// SDKs; members that came encrypted go out encrypted with this key.
    Features(Option<&'a EncryptionKey>),
    /// Remote evaluation in this process: always plain.
    Eval,
}

impl Form<'_> {
    /// Whether a payload cannot be written: it is encrypted and the key is not known.
    pub fn lacks_key(self, payload: &Payload) -> bool {
        payload.is_sealed && self == Form::Features(None)
    }
}

/// What a document means: equal for two documents of which the later brings no news.
///
/// Of a document whose key is not known only the part before the dot can be told, which is the meaning of its plain text.
pub fn content(payload: &Payload, form: Form<'_>) -> String {
    let plain = hex(&payload.digest);
    match form {
        Form::Features(Some(key)) if payload.is_sealed => {
            // 64 bits tell two keys apart and betray neither.
            format!("{plain}.{}", hex(&Sha256::digest(key)[..8]))
        }
        _ => plain,
    }
}

/// Writes the document of a connection, or gives the fetched bytes themselves where nothing in them has to change.
///
/// Expects that [`Form::lacks_key`] was asked: without a key encrypted members are left out.
pub fn render(raw: &Bytes, payload: &Payload, form: Form<'_>) -> Bytes {
    if payload.quarantined.is_empty() && !payload.is_sealed {
        return raw.clone();
    }
    // It was read once; a document that cannot be read again cannot exist.
    let Ok(RawMembers(members)) = serde_json::from_slice(raw) else {
        return raw.clone();
    };
    let texts = Texts::new(&members, payload);
    let mut out = String::with_capacity(raw.len() + raw.len() / 2);
    for (key, value) in &members {
        if let Some(text) = texts.member(key, value, form) {
            out.push(if out.is_empty() { '{' } else { ',' });
            write_string(key, &mut out);
            out.push(':');
            out.push_str(&text);
        }
    }
    out.push('}');
    out.shrink_to_fit();
    out.into()
}

/// The texts of the members that may change.
struct Texts<'a> {
    payload: &'a Payload,
    /// Plain members with bad items replaced; those of others are as they came.
    plain: BTreeMap<&'static str, Cow<'a, str>>,
    /// Plain members that came encrypted.
    sealed: BTreeSet<&'static str>,
}

impl<'a> Texts<'a> {
    fn new(members: &[(Cow<'_, str>, &'a RawValue)], payload: &'a Payload) -> Self {
        let (mut plain, mut sealed) = (BTreeMap::new(), BTreeSet::new());
        for (key, value) in members {
            let known = SEALED
                .iter()
                .find(|(encrypted, name)| key == encrypted || key == name);
            match known {
                Some((_, name)) if key == name => {
                    drop(plain.insert(*name, replaced(name, value, payload)));
                }
                Some((_, name)) if value.get() == "true" => drop(sealed.insert(*name)),
                _ => {}
            }
        }
        Self {
            payload,
            plain,
            sealed,
        }
    }

    /// The text of a member; `None`: it is left out.
    fn member(&self, key: &str, value: &'a RawValue, form: Form<'_>) -> Option<Cow<'_, str>> {
        if let Some((_, name)) = SEALED.iter().find(|(encrypted, _)| key == *encrypted) {
            if value.get() != "true" {
                return Some(value.get().into());
            }
            return match form {
                Form::Features(Some(encryption_key)) => {
                    let text = encrypt(encryption_key, name, self.plain.get(name)?);
                    Some(format!("\"{text}\"").into())
                }
                _ => None,
            };
        }
        if form != Form::Eval && self.sealed.contains(key) {
            // What the upstream itself leaves in the place of a member that it encrypts.
            return match key {
                "features" => Some("{}".into()),
                "experiments" => Some("[]".into()),
                _ => None,
            };
        }
        if let Some(text) = self.plain.get(key) {
            return Some(text.as_ref().into());
        }
        if key == "dateUpdated" && !self.payload.quarantined.is_empty() {
            return Some(moved(value, &self.payload.digest));
        }
        Some(value.get().into())
    }
}

/// The text of a member with its bad items replaced by their stand-ins or left out.
fn replaced<'a>(name: &str, value: &'a RawValue, payload: &Payload) -> Cow<'a, str> {
    let bad = &payload.quarantined;
    let features = |key: &str| Some(payload.features.get(key)?.definition.clone());
    let replaced = match name {
        "features" => members(value, &bad.features, features),
        "savedGroups" => members(value, &bad.saved_groups, |id| {
            payload.saved_groups.get(id).cloned()
        }),
        "contextualBandits" => members(value, &bad.contextual_bandits, |id| {
            payload.contextual_bandits.get(id).cloned()
        }),
        _ => items(value, &bad.auto_experiments),
    };
    replaced.map_or(value.get().into(), Into::into)
}

/// An object written again; `None` where nothing in it is bad.
fn members(
    value: &RawValue,
    bad: &BTreeSet<Arc<str>>,
    stand_in: impl Fn(&str) -> Option<CanonicalJson>,
) -> Option<String> {
    if bad.is_empty() {
        return None;
    }
    let RawMembers(members) = serde_json::from_str(value.get()).ok()?;
    let mut out = String::with_capacity(value.get().len());
    let mut written = BTreeSet::new();
    for (key, text) in &members {
        let canonical;
        let text = if bad.contains(key.as_ref()) {
            // A key that is there twice: its stand-in is written once.
            match stand_in(key).filter(|_| written.insert(key)) {
                Some(found) => {
                    canonical = found;
                    canonical.as_str()
                }
                None => continue,
            }
        } else {
            text.get()
        };
        out.push(if out.is_empty() { '{' } else { ',' });
        write_string(key, &mut out);
        out.push(':');
        out.push_str(text);
    }
    if out.is_empty() {
        out.push('{');
    }
    out.push('}');
    Some(out)
}

/// A list written again without its bad items; `None` where none is bad.
fn items(value: &RawValue, bad: &BTreeSet<usize>) -> Option<String> {
    if bad.is_empty() {
        return None;
    }
    let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
    let good = items.iter().enumerate().filter(|(i, _)| !bad.contains(i));
    let good: Vec<&str> = good.map(|(_, item)| item.get()).collect();
    Some(format!("[{}]", good.join(",")))
}

/// Another date for a document that is not what the upstream sent under this one: SDKs ignore a change under the same.
///
/// It moves within its own millisecond, by the content, so that replicas agree and no clock is asked.
pub(super) fn moved<'a>(date: &'a RawValue, digest: &[u8; 32]) -> Cow<'a, str> {
    let parsed = serde_json::from_str::<&str>(date.get())
        .ok()
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let Some(parsed) = parsed else {
        // Nothing that SDKs could compare (null), or nothing that can be moved.
        return date.get().into();
    };
    let [a, b, c, d, ..] = *digest;
    let within = 1 + u32::from_le_bytes([a, b, c, d]) % (NANOS_PER_MS - 1);
    let moved = parsed
        .replace_nanosecond(u32::from(parsed.millisecond()) * NANOS_PER_MS + within)
        .ok()
        .and_then(|moved| moved.format(&Rfc3339).ok());
    moved.map_or(date.get().into(), |text| format!("\"{text}\"").into())
}

/// Encrypts one member, the same way each time.
pub(super) fn encrypt(key: &EncryptionKey, name: &str, plain: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(name.as_bytes());
    mac.update(&[0]);
    mac.update(plain.as_bytes());
    let mut iv = [0; 16];
    iv.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    let cipher = Encryptor::<Aes128>::new(key.into(), &iv.into());
    let sealed = cipher.encrypt_padded_vec::<Pkcs7>(plain.as_bytes());
    let mut text = STANDARD.encode(iv);
    text.push('.');
    STANDARD.encode_string(&sealed, &mut text);
    text
}

/// Opens one member; `None`: not with this key.
pub(super) fn decrypt(key: &EncryptionKey, text: &str) -> Option<String> {
    let (iv, sealed) = text.split_once('.')?;
    let (iv, sealed) = (STANDARD.decode(iv).ok()?, STANDARD.decode(sealed).ok()?);
    let cipher = Decryptor::<Aes128>::new_from_slices(key, &iv).ok()?;
    let plain = cipher.decrypt_padded_vec::<Pkcs7>(&sealed).ok()?;
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests;
