//! JSON text of which there is exactly one spelling per value.
//!
//! Object members are sorted by key (by code point), nothing is indented, numbers are spelt as `serde_json` spells them.
//! Equal values therefore have equal bytes and equal hashes, in whatever order an upstream happened to send them.

use std::{fmt, sync::Arc};

use serde_json::Value;

use super::Json;

/// What a definition usually fits into, so that its text seldom has to move while it is written.
const TYPICAL_BYTES: usize = 1024;

/// Canonical JSON text; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CanonicalJson(Arc<str>);

impl CanonicalJson {
    /// Spells `value` canonically.
    pub fn from_value(value: &Value) -> Self {
        Self::from_json(&value.into())
    }

    /// Spells `json` canonically.
    pub fn from_json(json: &Json<'_>) -> Self {
        let mut text = String::with_capacity(TYPICAL_BYTES);
        write_json(json, &mut text);
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the text back.
    pub fn to_value(&self) -> Value {
        serde_json::from_str(&self.0).expect("canonical text was written from a value")
    }
}

impl fmt::Debug for CanonicalJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(text: &str, out: &mut String) {
    let is_plain = |byte| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return;
    }
    // Serialising a `str` cannot fail: it is neither a map with odd keys nor an I/O writer.
    out.push_str(&serde_json::to_string(text).expect("a string always serialises"));
}

/// Appends the canonical spelling of `json`, whose members are sorted already.
fn write_json(json: &Json<'_>, out: &mut String) {
    match json {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Number(number) => {
            use fmt::Write as _;
            write!(out, "{number}").expect("writing to a String cannot fail");
        }
        Json::Text(text) => write_string(text, out),
        Json::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        Json::Object(members) => {
            out.push('{');
            for (i, (key, member)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_json(member, out);
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let value: Value = serde_json::from_str(input).unwrap();
        assert_eq!(CanonicalJson::from_value(&value).as_str(), expected);
    }

    #[test]
    fn member_order_does_not_matter_and_array_order_does() {
        check(
            r#"{"b":1,"a":{"d":[2,1],"c":null}}"#,
            r#"{"a":{"c":null,"d":[2,1]},"b":1}"#,
        );
    }

    #[test]
    fn strings_are_escaped_and_numbers_keep_their_value() {
        check(
            r#"["\u0041\n\"", 1.50, 10, -0.0]"#,
            r#"["A\n\"",1.5,10,-0.0]"#,
        );
    }
}
