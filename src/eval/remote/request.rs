//! What a remote evaluation is asked for.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Most attributes, forced variations and forced features of one request, each; GrowthBook Proxy's limit.
pub const REQUEST_KEYS_MAX: usize = 1000;

/// A user and what is forced on them: `{"attributes","forcedVariations","forcedFeatures","url"}`, all optional.
#[derive(Clone, Debug, Default)]
pub struct RemoteRequest<'a> {
    /// The user's attributes.
    pub attributes: Map<String, Value>,
    /// Index of a variation by experiment key.
    pub forced_variations: Map<String, Value>,
    /// Value by feature key.
    pub forced_features: Map<String, Value>,
    /// Page that the user is on.
    pub url: Option<Cow<'a, str>>,
}

/// Why a request cannot be read. The text names the member; it never carries values, which may identify people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRequest(String);

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRequest {}

impl<'a> RemoteRequest<'a> {
    /// Reads a request's body. Nothing at all is a user of whom nothing is known.
    ///
    /// Fails for text that is not JSON, for members of a wrong type, and above [`REQUEST_KEYS_MAX`].
    pub fn parse(body: &'a [u8]) -> Result<Self, BadRequest> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // A text in the place of the object would be quoted by the parser.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(BadRequest("the body is not a JSON object".to_owned()));
        }
        serde_json::from_slice(body).map_err(|error| BadRequest(error.to_string()))
    }
}

/// Names of the members, as far as they mean something.
#[derive(Deserialize)]
enum Member {
    #[serde(rename = "attributes")]
    Attributes,
    #[serde(rename = "forcedVariations")]
    ForcedVariations,
    #[serde(rename = "forcedFeatures")]
    ForcedFeatures,
    #[serde(rename = "url")]
    Url,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for RemoteRequest<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = RemoteRequest<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut request = RemoteRequest::default();
        while let Some(member) = members.next_key()? {
            match member {
                Member::Attributes => {
                    let what = "`attributes` is not a JSON object of at most 1000 members";
                    let attributes: Option<Limited> = read(members.next_value(), what)?;
                    request.attributes = attributes.map(|members| members.0).unwrap_or_default();
                }
                Member::ForcedVariations => {
                    let what =
                        "`forcedVariations` is not a JSON object of at most 1000 whole numbers";
                    let forced: Option<Limited> = read(members.next_value(), what)?;
                    let forced = forced.map(|members| members.0).unwrap_or_default();
                    if !forced.values().all(is_index) {
                        return Err(A::Error::custom(what));
                    }
                    request.forced_variations = forced;
                }
                Member::ForcedFeatures => {
                    let what =
                        "`forcedFeatures` is not a list of at most 1000 pairs of a key and a value";
                    let forced: Option<Pairs> = read(members.next_value(), what)?;
                    request.forced_features = forced.map(|pairs| pairs.0).unwrap_or_default();
                }
                Member::Url => {
                    let url: Option<Text<'de>> = read(members.next_value(), "`url` is not a text")?;
                    request.url = url.map(|text| text.0);
                }
                Member::Other => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(request)
    }
}

/// What was read, or an error that says what it should have been: the parser's own would quote what is there.
fn read<T, E: serde::de::Error>(value: Result<T, E>, what: &str) -> Result<T, E> {
    match value {
        Ok(value) => Ok(value),
        Err(_) => Err(E::custom(what)),
    }
}

fn is_index(value: &Value) -> bool {
    value.as_f64().is_some_and(|index| index.fract() == 0.0)
}

/// A text, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object of at most [`REQUEST_KEYS_MAX`] members.
struct Limited(Map<String, Value>);

impl<'de> Deserialize<'de> for Limited {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Limited;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Limited, A::Error> {
                let mut found = Map::new();
                while let Some((name, value)) = members.next_entry()? {
                    found.insert(name, value);
                    check(found.len())?;
                }
                Ok(Limited(found))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A list of `[key, value]`, at most [`REQUEST_KEYS_MAX`]; of several with one key the last counts.
struct Pairs(Map<String, Value>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of pairs of a feature's key and its value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Pairs, A::Error> {
                let mut found = Map::new();
                let mut count = 0;
                while let Some((key, value)) = items.next_element::<(String, Value)>()? {
                    found.insert(key, value);
                    count += 1;
                    check(count)?;
                }
                Ok(Pairs(found))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

fn check<E: serde::de::Error>(keys: usize) -> Result<(), E> {
    if keys > REQUEST_KEYS_MAX {
        return Err(E::custom("too many"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_may_leave_out_everything() {
        for body in [
            "",
            " \n",
            "{}",
            r#"{"attributes":null,"url":null,"forcedFeatures":null,"other":[1]}"#,
        ] {
            let request = RemoteRequest::parse(body.as_bytes()).unwrap();
            assert!(
                request.attributes.is_empty() && request.forced_features.is_empty(),
                "{body}"
            );
            assert!(
                request.forced_variations.is_empty() && request.url.is_none(),
                "{body}"
            );
        }
    }

    #[test]
    fn the_last_of_several_forced_values_counts() {
        let body = br#"{"forcedFeatures":[["a",1],["b",null],["a",{"x":2}]],"forcedVariations":{"e":1},"url":"\u0061"}"#;
        let request = RemoteRequest::parse(body).unwrap();
        assert_eq!(
            Value::from(request.forced_features),
            json!({"a": {"x": 2}, "b": null})
        );
        assert_eq!(Value::from(request.forced_variations), json!({"e": 1}));
        assert_eq!(request.url.as_deref(), Some("a"));
    }

    #[test]
    fn wrong_types_are_refused() {
        for body in [
            "[]",
            "null",
            "1",
            "{",
            r#"{"attributes":[]}"#,
            r#"{"attributes":"x"}"#,
            r#"{"forcedFeatures":{}}"#,
            r#"{"forcedFeatures":[["a"]]}"#,
            r#"{"forcedFeatures":[[1,2]]}"#,
            r#"{"forcedFeatures":[["a",1,2]]}"#,
            r#"{"forcedVariations":[1]}"#,
            r#"{"forcedVariations":{"e":"1"}}"#,
            r#"{"forcedVariations":{"e":0.5}}"#,
            r#"{"url":1}"#,
            "{} {}",
        ] {
            assert!(RemoteRequest::parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn keys_are_counted() {
        for (count, is_fine) in [(REQUEST_KEYS_MAX, true), (REQUEST_KEYS_MAX + 1, false)] {
            let members: Map<String, Value> = (0..count)
                .map(|key| (format!("k{key}"), 1.into()))
                .collect();
            let pairs: Vec<Value> = (0..count).map(|key| json!([key.to_string(), 1])).collect();
            for body in [
                json!({"attributes": members.clone()}),
                json!({"forcedVariations": members}),
                json!({"forcedFeatures": pairs}),
            ] {
                let body = body.to_string();
                assert_eq!(
                    RemoteRequest::parse(body.as_bytes()).is_ok(),
                    is_fine,
                    "{count}"
                );
            }
        }
    }
}
