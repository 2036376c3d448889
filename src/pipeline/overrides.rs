//! The override file of development and test: a plain JSON object, flag → value.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Refusal;

/// Makes a payload of it: each flag is a feature whose default is the value.
pub fn to_payload(raw: &[u8]) -> Result<Bytes, Refusal> {
    let malformed = |message: String| Refusal::Malformed { message };
    let flags: Value = serde_json::from_slice(raw)
        .map_err(|error| malformed(format!("failed to read the override file: {error}")))?;
    let Value::Object(flags) = flags else {
        return Err(malformed(
            "the override file is not a JSON object of flag → value".to_owned(),
        ));
    };
    let features: Map<String, Value> = flags
        .into_iter()
        .map(|(key, value)| (key, json!({ "defaultValue": value })))
        .collect();
    Ok(json!({ "features": features }).to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_becomes_a_feature_and_false_is_kept() {
        let payload = to_payload(br#"{"a":false,"b":{"x":1}}"#).unwrap();
        assert_eq!(
            payload,
            r#"{"features":{"a":{"defaultValue":false},"b":{"defaultValue":{"x":1}}}}"#
        );
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for text in ["[]", "", "3", "{"] {
            assert_eq!(
                to_payload(text.as_bytes()).unwrap_err().code(),
                "malformed",
                "{text}"
            );
        }
    }
}
