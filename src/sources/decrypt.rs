//! Checks a payload's outer shape and decrypts its members in place.
//!
//! AES-128-CBC with PKCS#7 padding, `base64(iv).base64(ciphertext)`, each member encrypted by itself
//! (GrowthBook sdk-js, `src/util.ts`). There is no authentication tag, so a wrong key is known by its garbage.

use aes::Aes128;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cbc::{
    Decryptor,
    cipher::{BlockModeDecrypt as _, KeyIvInit as _, block_padding::Pkcs7},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::value::RawValue;

use super::{FetchError, json::Members};

/// Encrypted members, each with the plain one that it replaces.
const ENCRYPTED: [(&str, &str); 4] = [
    ("encryptedFeatures", "features"),
    ("encryptedExperiments", "experiments"),
    ("encryptedSavedGroups", "savedGroups"),
    ("encryptedContextualBandits", "contextualBandits"),
];

/// What is known about a payload's sender.
pub(super) struct Opener {
    /// For errors: the client key, masked, or the file.
    pub(super) label: String,
    /// Base64 of 16 bytes.
    pub(super) decryption_key: Option<SecretString>,
    /// For errors.
    pub(super) content_type: String,
}

impl Opener {
    /// Gives the payload with plain members; one without encrypted members is given back as it is.
    ///
    /// Fails when the body is not an object, has neither `features` nor `encryptedFeatures`, or cannot be decrypted.
    pub(super) fn open(&self, body: Bytes) -> Result<Bytes, FetchError> {
        let members = Members::read(&body, &self.content_type)?;
        let mut plain = Vec::new();
        for (encrypted, name) in ENCRYPTED {
            // GrowthBook's SDKs take the empty text for "not encrypted".
            let Some(text) = members
                .typed::<String>(encrypted)?
                .filter(|text| !text.is_empty())
            else {
                continue;
            };
            plain.push((encrypted, name, self.decrypt(encrypted, &text)?));
        }
        let has_features = members.get("features").is_some()
            || plain.iter().any(|(_, name, _)| *name == "features");
        if !has_features {
            return Err(FetchError::Shape {
                message: "the payload has no `features`".to_owned(),
            });
        }
        if plain.is_empty() {
            return Ok(body);
        }
        Ok(splice(&members, &plain).into())
    }

    fn decrypt(&self, member: &str, text: &str) -> Result<Box<RawValue>, FetchError> {
        let fail = |message: String| FetchError::Decryption {
            connection: self.label.clone(),
            message,
        };
        let Some(key) = &self.decryption_key else {
            return Err(fail(format!(
                "`{member}` is encrypted and no key is known; set `decryption_key`"
            )));
        };
        let key = STANDARD
            .decode(key.expose_secret())
            .ok()
            .filter(|key| key.len() == 16)
            .ok_or_else(|| fail("`decryption_key` is not the base64 of 16 bytes".to_owned()))?;
        let wrong = || fail(format!("`decryption_key` does not open `{member}`"));
        let (iv, ciphertext) = text
            .split_once('.')
            .and_then(|(iv, rest)| Some((STANDARD.decode(iv).ok()?, STANDARD.decode(rest).ok()?)))
            .ok_or_else(|| {
                fail(format!(
                    "`{member}` is not two base64 texts joined by a dot"
                ))
            })?;
        let plain = Decryptor::<Aes128>::new_from_slices(&key, &iv)
            .ok()
            .and_then(|cipher| cipher.decrypt_padded_vec::<Pkcs7>(&ciphertext).ok())
            .ok_or_else(wrong)?;
        serde_json::from_slice(&plain).map_err(|_garbage| wrong())
    }
}

/// Writes the object again: plain texts in the place of their member, or else before the encrypted one.
///
/// `true` stays in the place of what was encrypted, so that whoever passes the document on knows what to encrypt again;
/// an upstream cannot send that itself, see [`Opener::open`].
fn splice(members: &Members<'_>, plain: &[(&str, &str, Box<RawValue>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, raw) in &members.0 {
        if !ENCRYPTED.iter().any(|(encrypted, _)| encrypted == key) {
            let replaced = plain.iter().find(|(_, name, _)| name == key);
            write(
                key,
                replaced.map_or(raw.get(), |(_, _, text)| text.get()),
                &mut out,
            );
            continue;
        }
        if let Some((_, name, text)) = plain.iter().find(|(encrypted, _, _)| encrypted == key) {
            if members.get(name).is_none() {
                write(name, text.get(), &mut out);
            }
            write(key, "true", &mut out);
        }
    }
    out.push(b'}');
    out
}

fn write(key: &str, text: &str, out: &mut Vec<u8>) {
    out.push(if out.is_empty() { b'{' } else { b',' });
    out.extend_from_slice(serde_json::Value::from(key).to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use cbc::{Encryptor, cipher::BlockModeEncrypt as _};

    use super::*;

    const KEY: &str = "Zvwv/+uhpFDznZ6SX28Yjg==";

    fn seal(text: &str) -> String {
        let key = STANDARD.decode(KEY).unwrap();
        let iv = [7; 16];
        let cipher = Encryptor::<Aes128>::new_from_slices(&key, &iv).unwrap();
        let sealed = cipher.encrypt_padded_vec::<Pkcs7>(text.as_bytes());
        format!("{}.{}", STANDARD.encode(iv), STANDARD.encode(sealed))
    }

    fn open(body: &str, key: Option<&str>) -> Result<String, FetchError> {
        let opener = Opener {
            label: "sdk-ab…".to_owned(),
            decryption_key: key.map(SecretString::from),
            content_type: "application/json".to_owned(),
        };
        opener
            .open(Bytes::copy_from_slice(body.as_bytes()))
            .map(|body| String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn a_plain_payload_keeps_every_byte() {
        let body = "{ \"status\":200, \"features\" : {\"a\":{\"defaultValue\":1.0}} }\n";
        assert_eq!(open(body, None).unwrap(), body);
        assert_eq!(open(body, Some(KEY)).unwrap(), body);
    }

    #[test]
    fn encrypted_members_are_replaced_in_place_and_the_rest_keeps_its_text() {
        let body = format!(
            r#"{{"status":200,"features":{{}},"encryptedFeatures":"{}","x":[1.0, 2],"encryptedSavedGroups":"{}","encryptedExperiments":""}}"#,
            seal(r#"{"a":{"defaultValue": 1.0}}"#),
            seal(r#"{"g":["u"]}"#),
        );
        assert_eq!(
            open(&body, Some(KEY)).unwrap(),
            r#"{"status":200,"features":{"a":{"defaultValue": 1.0}},"encryptedFeatures":true,"x":[1.0, 2],"savedGroups":{"g":["u"]},"encryptedSavedGroups":true}"#
        );
    }

    #[test]
    fn what_cannot_be_decrypted_says_what_to_do_and_shows_no_key() {
        let body = format!(
            r#"{{"features":{{}},"encryptedFeatures":"{}"}}"#,
            seal("{}")
        );
        let text = |key| open(&body, key).unwrap_err().to_string();
        assert_eq!(
            text(None),
            "failed to decrypt the payload of `sdk-ab…`: `encryptedFeatures` is encrypted and no key is known; set `decryption_key`"
        );
        assert!(
            text(Some("AAAAAAAAAAAAAAAAAAAAAA==")).ends_with("does not open `encryptedFeatures`")
        );
        assert!(text(Some("short")).ends_with("is not the base64 of 16 bytes"));
        for broken in ["nodot", "!.!", "AAAA.AAAA"] {
            let body = format!(r#"{{"features":{{}},"encryptedFeatures":"{broken}"}}"#);
            assert_eq!(
                open(&body, Some(KEY)).unwrap_err().code(),
                "decryption",
                "{broken}"
            );
        }
    }

    #[test]
    fn a_document_that_is_no_payload_is_refused() {
        let code = |body: &str| open(body, Some(KEY)).unwrap_err().code();
        assert_eq!(code("{}"), "bad_shape");
        assert_eq!(
            code(r#"{"status":400,"error":"Failed to get features"}"#),
            "bad_shape"
        );
        for other in ["1", "true"] {
            let body = format!(r#"{{"features":{{}},"encryptedFeatures":{other}}}"#);
            assert_eq!(code(&body), "bad_shape", "{other}");
        }
        assert_eq!(code("[]"), "bad_shape");
        assert_eq!(code("<!doctype html>"), "not_json");
    }
}
