//! A JSON value that borrows its strings from the text it was read from.
//!
//! What the pipeline looks into and then spells canonically: one pass over megabytes, nearly without allocations. Where
//! a value outlives its text, it is kept as [`super::CanonicalJson`] or [`serde_json::Value`].

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// A JSON value; deserialise it from a `&str` to have its strings borrowed.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number within the range of `f64`.
    Number(Number),
    /// A string; borrowed where it has no escapes.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Json<'a>>),
    /// An object.
    Object(Members<'a>),
}

/// The members of an object, sorted by key, each key once: of several, the last one counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Json<'a> {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(is_true) => Some(*is_true),
            _ => None,
        }
    }

    /// The items, if it is an array.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Self>> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The members, if it is an object.
    pub fn as_object(&self) -> Option<&Members<'a>> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn as_object_mut(&mut self) -> Option<&mut Members<'a>> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Levels of arrays and objects within each other; 0 for anything else.
    pub fn depth(&self) -> usize {
        let deepest = match self {
            Self::List(items) => items.iter().map(Self::depth).max(),
            Self::Object(members) => members.0.iter().map(|(_, member)| member.depth()).max(),
            _ => return 0,
        };
        1 + deepest.unwrap_or(0)
    }
}

impl<'a> Members<'a> {
    /// Sorts what was read; of equal keys the last one stays.
    fn new(mut members: Vec<(Cow<'a, str>, Json<'a>)>) -> Self {
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        // Keeps the first of equal ones, so the last one is moved there before.
        members.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        Self(members)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.0.binary_search_by(|(key, _)| (**key).cmp(name)).ok()
    }

    /// A member.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.position(name).map(|at| &self.0[at].1)
    }

    /// A member, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Json<'a>> {
        self.position(name).map(|at| &mut self.0[at].1)
    }

    /// Adds a member, or replaces the one of that name.
    pub fn insert(&mut self, name: &'a str, value: Json<'a>) {
        match self.0.binary_search_by(|(key, _)| (**key).cmp(name)) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (Cow::Borrowed(name), value)),
        }
    }

    /// Takes a member out, if it is there.
    pub fn remove(&mut self, name: &str) {
        if let Some(at) = self.position(name) {
            self.0.remove(at);
        }
    }

    /// Members in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(key, member)| (&**key, member))
    }

    /// A copy that borrows nothing.
    pub fn to_map(&self) -> Map<String, Value> {
        self.iter()
            .map(|(key, member)| (key.to_owned(), Value::from(member)))
            .collect()
    }
}

impl<'a> From<&'a Value> for Json<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(is_true) => Self::Bool(*is_true),
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(members) => {
                let members = members.iter();
                let borrowed = members.map(|(key, member)| (Cow::Borrowed(&**key), member.into()));
                Self::Object(Members::new(borrowed.collect()))
            }
        }
    }
}

impl From<&Json<'_>> for Value {
    fn from(json: &Json<'_>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(is_true) => Self::Bool(*is_true),
            Json::Number(number) => Self::Number(number.clone()),
            Json::Text(text) => Self::String(text.to_string()),
            Json::List(items) => Self::Array(items.iter().map(Self::from).collect()),
            Json::Object(members) => Self::Object(members.to_map()),
        }
    }
}

/// A string, borrowed where that is possible.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, is_true: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(is_true))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        let finite = Number::from_f64(number);
        finite
            .map(Json::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Key(key), member)) = map.next_entry::<Key<'de>, Json<'de>>()? {
            members.push((key, member));
        }
        Ok(Json::Object(Members::new(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_keys_the_last_one_counts_and_text_without_escapes_is_borrowed() {
        let json: Json<'_> =
            serde_json::from_str(r#"{"b":1,"a":"x","a":"y","a":"\u007a","c":[[null]]}"#).unwrap();
        let members = json.as_object().unwrap();
        let keys: Vec<&str> = members.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        assert_eq!(members.get("a"), Some(&Json::Text("z".into())));
        assert_eq!(json.depth(), 3);
        let text: Json<'_> = serde_json::from_str(r#""plain""#).unwrap();
        assert!(matches!(text, Json::Text(Cow::Borrowed("plain"))));
    }

    #[test]
    fn values_survive_both_ways() {
        let text = r#"{"a":[1,-2,1.5,-0.0,1e300,true,null,"\"\u0001"],"b":{}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let json: Json<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(Json::from(&value), json);
        assert_eq!(Value::from(&json), value);
    }
}
