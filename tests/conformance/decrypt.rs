//! GrowthBook's encryption, for cases that come encrypted.

use aes::Aes128;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cbc::{
    Decryptor,
    cipher::{BlockModeDecrypt as _, KeyIvInit as _, block_padding::Pkcs7},
};

/// The plain text of `base64(iv).base64(ciphertext)`, whatever it says; `None` where the key does not open it.
pub(crate) fn decrypt(text: &str, key: &str) -> Option<String> {
    let (iv, ciphertext) = text.split_once('.')?;
    let iv = STANDARD.decode(iv).ok()?;
    let key = STANDARD.decode(key).ok()?;
    let ciphertext = STANDARD.decode(ciphertext).ok()?;
    let cipher = Decryptor::<Aes128>::new_from_slices(&key, &iv).ok()?;
    let plain = cipher.decrypt_padded_vec::<Pkcs7>(&ciphertext).ok()?;
    String::from_utf8(plain).ok()
}
