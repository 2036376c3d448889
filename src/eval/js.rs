//! What JavaScript does with JSON values, as far as evaluation depends on it.
//!
//! GrowthBook's first SDK is written in JavaScript and every other one has to agree with it: how a number is spelled
//! decides a bucket, how strings are ordered decides a comparison. Nothing here knows about conditions or rules.

use std::{
    borrow::Cow,
    cmp::Ordering,
    fmt::{self, Write},
};

use serde_json::{Map, Value};

/// The JSON null that missing values are.
pub(super) static NULL: Value = Value::Null;

/// The empty text, which a missing hash value is.
pub(super) static EMPTY: Value = Value::String(String::new());

/// A JSON value as evaluation sees it: numbers are doubles, and a length needs no value of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Actual<'a> {
    Null,
    Bool(bool),
    Number(f64),
    String(&'a str),
    Array(&'a [Value]),
    Object(&'a Map<String, Value>),
}

impl<'a> From<&'a Value> for Actual<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => Self::String(text),
            Value::Array(items) => Self::Array(items),
            Value::Object(members) => Self::Object(members),
        }
    }
}

/// `!!value`.
pub(super) fn truthy(value: Actual<'_>) -> bool {
    match value {
        Actual::Null => false,
        Actual::Bool(flag) => flag,
        Actual::Number(number) => number != 0.0 && !number.is_nan(),
        Actual::String(text) => !text.is_empty(),
        Actual::Array(_) | Actual::Object(_) => true,
    }
}

/// The member if it is there and truthy.
pub(super) fn truthy_member<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| truthy((*value).into()))
}

/// Writes `String(number)`: the shortest digits that read back as the same double.
pub(super) fn write_number(out: &mut impl Write, number: f64) -> fmt::Result {
    if number.is_nan() {
        return out.write_str("NaN");
    }
    if let Some(whole) = whole_number(number) {
        return write!(out, "{whole}");
    }
    if number.is_infinite() {
        return out.write_str(if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
    }
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if number < 0.0 {
        out.write_char('-')?;
    }
    write_digits(out, &digits, exponent)
}

/// The number as an integer, if it is one that doubles tell apart. −0 is 0.
#[expect(
    clippy::cast_possible_truncation,
    reason = "it is whole and below 2^53"
)]
pub(super) fn whole_number(number: f64) -> Option<i64> {
    (number.abs() < 1e15 && number.fract() == 0.0).then_some(number as i64)
}

/// Writes `d.ddd × 10^exponent` in the notation that JavaScript chooses for it.
fn write_digits(out: &mut impl Write, digits: &str, exponent: i32) -> fmt::Result {
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or_default());
    if !(-7 < exponent && exponent < 21) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{first}{point}{rest}e{sign}{}", exponent.abs());
    }
    if exponent < 0 {
        return write!(out, "0.{}{digits}", zeros(-exponent - 1));
    }
    if count <= exponent + 1 {
        return write!(out, "{digits}{}", zeros(exponent + 1 - count));
    }
    let (whole, fraction) = digits.split_at(usize::try_from(exponent + 1).unwrap_or_default());
    write!(out, "{whole}.{fraction}")
}

/// `String(number)`.
pub(super) fn number_text(number: f64) -> String {
    let mut text = String::new();
    write_number(&mut text, number).expect("writing to a String cannot fail");
    text
}

/// `String(value)`.
pub(super) fn string(value: Actual<'_>) -> Cow<'_, str> {
    match value {
        Actual::Null => "null".into(),
        Actual::Bool(true) => "true".into(),
        Actual::Bool(false) => "false".into(),
        Actual::Number(number) => number_text(number).into(),
        Actual::String(text) => text.into(),
        Actual::Array(items) => {
            let mut joined = String::new();
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    joined.push(',');
                }
                if !item.is_null() {
                    joined.push_str(&string(item.into()));
                }
            }
            joined.into()
        }
        Actual::Object(_) => "[object Object]".into(),
    }
}

/// `Number(value)`.
pub(super) fn number(value: Actual<'_>) -> f64 {
    match value {
        Actual::Null => 0.0,
        Actual::Bool(flag) => f64::from(u8::from(flag)),
        Actual::Number(number) => number,
        Actual::String(text) => text_number(text),
        Actual::Array(_) => text_number(&string(value)),
        Actual::Object(_) => f64::NAN,
    }
}

/// White space and line ends of ECMAScript: Unicode's, without NEL and with the byte order mark.
fn is_space(c: char) -> bool {
    (c.is_whitespace() && c != '\u{85}') || c == '\u{feff}'
}

/// `Number(text)`.
fn text_number(text: &str) -> f64 {
    let text = text.trim_matches(is_space);
    if text.is_empty() {
        return 0.0;
    }
    if let Some((radix, digits)) = radix_prefix(text) {
        return whole(digits, radix).unwrap_or(f64::NAN);
    }
    match text {
        "Infinity" | "+Infinity" => return f64::INFINITY,
        "-Infinity" => return f64::NEG_INFINITY,
        _ => {}
    }
    // Rust also reads `inf` and `nan`.
    let is_decimal = |byte: u8| byte.is_ascii_digit() || b".eE+-".contains(&byte);
    if !text.bytes().all(is_decimal) {
        return f64::NAN;
    }
    text.parse().unwrap_or(f64::NAN)
}

fn radix_prefix(text: &str) -> Option<(u32, &str)> {
    let radix = match text.as_bytes().get(..2)? {
        b"0x" | b"0X" => 16,
        b"0o" | b"0O" => 8,
        b"0b" | b"0B" => 2,
        _ => return None,
    };
    Some((radix, &text[2..]))
}

/// The value of a run of digits; `None` when there are none or others.
fn whole(digits: &str, radix: u32) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    digits.chars().try_fold(0.0, |sum, digit| {
        Some(sum * f64::from(radix) + f64::from(digit.to_digit(radix)?))
    })
}

/// `parseInt(text)`; `None` for NaN.
pub(super) fn parse_int(text: &str) -> Option<f64> {
    let text = text.trim_start_matches(is_space);
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, text) = match radix_prefix(text) {
        Some((16, digits)) => (16, digits),
        _ => (10, text),
    };
    let end = text
        .find(|digit: char| !digit.is_digit(radix))
        .unwrap_or(text.len());
    let value = whole(&text[..end], radix)?;
    Some(if negative { -value } else { value })
}

/// The order of strings: by UTF-16 code unit, which differs from code points above U+FFFF.
pub(super) fn compare_text(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        return a.cmp(b);
    }
    a.encode_utf16().cmp(b.encode_utf16())
}

/// `text.toLowerCase()`.
pub(super) fn lower(text: &str) -> Cow<'_, str> {
    if text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return text.into();
    }
    text.to_lowercase().into()
}

/// The array index that a property name spells: `0`, `1`, `10`, but neither `01` nor `-1`.
pub(super) fn index(name: &str) -> Option<usize> {
    let canonical = name.len() == 1 || !name.starts_with('0');
    (canonical && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| name.parse().ok())
        .flatten()
}

/// An object's members in JavaScript's order: integer names rising, then the others as inserted.
pub(super) fn ordered(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<_> = members.iter().collect();
    let key = |name: &str| index(name).filter(|index| *index < u32::MAX as usize);
    if members.keys().any(|name| key(name).is_some()) {
        sorted.sort_by_key(|(name, _)| key(name).unwrap_or(usize::MAX));
    }
    sorted
}

/// Whether `JSON.stringify` gives the same for both: order of members included, spelling of numbers not.
pub(super) fn same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b))
        }
        (Value::Object(a), Value::Object(b)) => same_members(a, b),
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// [`same_json`] of two objects.
pub(super) fn same_members(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len()
        && ordered(a)
            .into_iter()
            .zip(ordered(b))
            .all(|((name, a), (other, b))| name == other && same_json(a, b))
}

/// `JSON.stringify(value)`.
pub(super) fn json_text(value: &Value) -> String {
    let mut text = String::new();
    write_json(&mut text, value);
    text
}

fn write_json(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) => {
            out.push_str(&number_text(number.as_f64().unwrap_or_default()));
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, member)) in ordered(members).into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_json(out, member);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_spelled_as_javascript_spells_them() {
        for (number, text) in [
            (1.0, "1"),
            (1.5, "1.5"),
            (-0.0, "0"),
            (-1.5, "-1.5"),
            (1e21, "1e+21"),
            (1.5e21, "1.5e+21"),
            (1e-7, "1e-7"),
            (0.000_002, "0.000002"),
            (1.23e-18, "1.23e-18"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (0.1, "0.1"),
            (12_345.678, "12345.678"),
        ] {
            assert_eq!(number_text(number), text);
        }
    }

    #[test]
    fn text_becomes_a_number_as_in_javascript() {
        for (text, expected) in [
            ("", 0.0),
            (" 5 ", 5.0),
            ("0x10", 16.0),
            ("5e0", 5.0),
            (".5", 0.5),
        ] {
            assert!(
                (text_number(text) - expected).abs() < f64::EPSILON,
                "{text}"
            );
        }
        for text in ["inf", "nan", "1_0", "abc", "-0x10", "."] {
            assert!(text_number(text).is_nan(), "{text}");
        }
    }

    #[test]
    fn integers_are_read_from_the_front() {
        assert_eq!(parse_int("2.054"), Some(2.0));
        assert_eq!(parse_int(" -1abc"), Some(-1.0));
        assert_eq!(parse_int("0x1f"), Some(31.0));
        assert_eq!(parse_int("foo"), None);
    }

    #[test]
    fn integer_names_come_first_in_json_text() {
        assert_eq!(
            json_text(&json!({"b": 1.0, "10": null, "2": ["x"]})),
            r#"{"2":["x"],"10":null,"b":1}"#
        );
        assert!(same_json(
            &json!({"a": 1, "1": 2}),
            &json!({"1": 2.0, "a": 1})
        ));
        assert!(!same_json(
            &json!({"a": 1, "b": 2}),
            &json!({"b": 2, "a": 1})
        ));
    }
}
