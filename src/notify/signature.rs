//! Signatures of webhooks that we send (Standard Webhooks 1.0, symmetric).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

/// The value of `webhook-signature`: HMAC-SHA256 over id, time and body, with dots between.
pub(super) fn sign(key: &SecretSlice<u8>, id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = key.expose_secret();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl dgst -sha256 -mac HMAC -macopt key:… -binary | base64`.
    #[test]
    fn a_signature_is_that_of_openssl() {
        let key = SecretSlice::from(b"0123456789abcdef0123456789abcdef".to_vec());
        assert_eq!(
            sign(&key, "msg_1", "1700000000", b"{\"a\":1}"),
            "v1,rkwp5YuvdrMkcu0ZhuMsXoTg44mHAr1Q0+FFgFpXsjY="
        );
    }
}
