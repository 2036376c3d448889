//! The outer members of a JSON object, with their values as raw text.
//!
//! Values stay byte for byte what they were: `1.0` stays `1.0` and key order is kept at every depth.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::FetchError;

/// Members of one object in their order, repeated keys included.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object; `content_type` is for the error alone.
    pub(super) fn read(body: &'a [u8], content_type: &str) -> Result<Self, FetchError> {
        serde_json::from_slice(body).map_err(|error| FetchError::from_json(error, content_type))
    }

    /// The value of a key; of a repeated key the last, as in `JSON.parse`.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .rev()
            .find_map(|(name, value)| (name == key).then_some(*value))
    }

    /// The value of a key as a type; `None` where it is absent or `null`.
    pub(super) fn typed<T: Deserialize<'a>>(&self, key: &str) -> Result<Option<T>, FetchError> {
        let Some(raw) = self.get(key) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get()).map_err(|error| FetchError::Shape {
            message: format!("`{key}`: {error}"),
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Key(key), value)) = map.next_entry()? {
            members.push((key, value));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_raw_and_the_last_of_a_repeated_key_counts() {
        let members =
            Members::read(br#"{"a": 1.0 ,"\u0062":[1, 2],"a":{"z":1,"y":2}}"#, "").unwrap();
        assert_eq!(members.0.len(), 3);
        assert_eq!(members.get("a").unwrap().get(), r#"{"z":1,"y":2}"#);
        assert_eq!(members.get("b").unwrap().get(), "[1, 2]");
        assert!(members.get("c").is_none());
    }

    #[test]
    fn broken_text_and_other_kinds_are_told_apart() {
        let code = |text: &str| Members::read(text.as_bytes(), "").err().map(|e| e.code());
        for broken in [
            "",
            "<html>",
            r#"{"a":1"#,
            r#"{"a":1} x"#,
            "{\"a\":\"\u{1}\"}",
        ] {
            assert_eq!(code(broken), Some("not_json"), "{broken}");
        }
        for other in ["[]", "1", "null", "\"a\""] {
            assert_eq!(code(other), Some("bad_shape"), "{other}");
        }
        assert_eq!(code("{}"), None);
        let invalid = Members::read(b"{\"a\":\"\xff\"}", "").err();
        assert_eq!(invalid.unwrap().code(), "not_json");
    }
}
