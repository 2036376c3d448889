//! Signatures of what GrowthBook sends by itself, compared in constant time.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

/// An HMAC-SHA256 over `parts`, one after the other; the key is the secret's text as GrowthBook shows it.
fn mac(secret: &SecretString, parts: &[&[u8]]) -> Hmac<Sha256> {
    let key = secret.expose_secret().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

/// Whether `hex`, in either case, is the signature of `body`: how pushes are signed.
pub(super) fn is_push_signature(secret: &SecretString, body: &[u8], hex: &[u8]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    let signature: Option<Vec<u8>> = hex.chunks(2).map(pair).collect();
    signature.is_some_and(|signature| mac(secret, &[body]).verify_slice(&signature).is_ok())
}

/// Whether one of the signatures in `header` (`v1,<base64>`, separated by spaces) is that of a webhook.
pub(super) fn is_webhook_signature(
    secret: &SecretString,
    (id, timestamp): (&str, &str),
    body: &[u8],
    header: &str,
) -> bool {
    let signatures = header
        .split(' ')
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok());
    let mac = mac(
        secret,
        &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body],
    );
    // All of them are looked at, so that the time taken does not depend on which one fits.
    signatures.fold(false, |is_good, signature| {
        mac.clone().verify_slice(&signature).is_ok() | is_good
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_signed_over_the_raw_body() {
        // RFC 4231, test case 2.
        let secret = SecretString::from("Jefe");
        let body = b"what do ya want for nothing?";
        let good = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert!(is_push_signature(&secret, body, good.as_bytes()));
        assert!(is_push_signature(
            &secret,
            body,
            good.to_uppercase().as_bytes()
        ));
        for bad in [
            "",
            "5b",
            "zz",
            &good[1..],
            &good[..62],
            &good.replace("5bdc", "5bdd"),
        ] {
            assert!(!is_push_signature(&secret, body, bad.as_bytes()), "{bad}");
        }
        assert!(!is_push_signature(&secret, b"other", good.as_bytes()));
        assert!(!is_push_signature(
            &SecretString::from("jefe"),
            body,
            good.as_bytes()
        ));
    }

    #[test]
    fn webhooks_are_signed_with_id_and_time() {
        let secret = SecretString::from("wk_test");
        let whole = mac(&secret, &[b"msg_1.1700000000.{}"]);
        let good = format!("v1,{}", STANDARD.encode(whole.finalize().into_bytes()));
        let check =
            |head, body: &[u8], header: &str| is_webhook_signature(&secret, head, body, header);
        let head = ("msg_1", "1700000000");
        assert!(check(head, b"{}", &good));
        assert!(check(head, b"{}", &format!("v1,AAAA v2,x {good} junk")));
        assert!(!check(("msg_2", "1700000000"), b"{}", &good));
        assert!(!check(("msg_1", "1700000001"), b"{}", &good));
        assert!(!check(head, b"[]", &good));
        for bad in ["", "v1,", "v1", &good[3..], &good.replace("v1", "v2")] {
            assert!(!check(head, b"{}", bad), "{bad}");
        }
    }
}
