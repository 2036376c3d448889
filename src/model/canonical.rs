//! JSON text of which there is exactly one spelling per value.
//!
//! Object members are sorted by key (by code point), nothing is indented, numbers are spelt as `serde_json` spells them.
//! Equal values therefore have equal bytes and equal hashes, in whatever order an upstream happened to send them.

use std::{fmt, sync::Arc};

use serde_json::Value;

/// Canonical JSON text; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CanonicalJson(Arc<str>);

impl CanonicalJson {
    /// Spells `value` canonically.
    pub fn from_value(value: &Value) -> Self {
        let mut text = String::new();
        write_value(value, &mut text);
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
    // Serialising a `str` cannot fail: it is neither a map with odd keys nor an I/O writer.
    out.push_str(&serde_json::to_string(text).expect("a string always serialises"));
}

/// Appends the canonical spelling of `value`.
pub fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => {
            use fmt::Write as _;
            write!(out, "{number}").expect("writing to a String cannot fail");
        }
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (i, (key, member)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_value(member, out);
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
