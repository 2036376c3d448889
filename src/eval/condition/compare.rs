//! Equality and order of values, in both dialects.

use std::{borrow::Cow, cmp::Ordering};

use super::{
    super::{
        Dialect,
        js::{self, Actual},
    },
    Literal,
};

/// Whether a value equals a literal of a condition.
#[expect(clippy::float_cmp, reason = "equality is the question")]
pub(super) fn equals(
    dialect: Dialect,
    literal: &Literal,
    actual: Actual<'_>,
    folded: bool,
) -> bool {
    match (literal, actual) {
        (Literal::Null, actual) => matches!(actual, Actual::Null),
        (Literal::Json(json), actual) => same_json(json, actual),
        (Literal::String { lower, .. }, Actual::String(actual)) if folded => {
            **lower == *js::lower(actual)
        }
        (Literal::String { text, .. }, Actual::String(actual)) => **text == *actual,
        (Literal::Number(number), Actual::Number(actual)) => *number == actual,
        (Literal::Bool(flag), Actual::Bool(actual)) => *flag == actual,
        _ if dialect == Dialect::Strict => false,
        (Literal::String { lower, .. }, actual) if folded => {
            **lower == *js::string(actual).to_lowercase()
        }
        (Literal::String { text, .. }, actual) => **text == *js::string(actual),
        (Literal::Number(number), actual) => *number == js::number(actual),
        (Literal::Bool(flag), actual) => {
            !matches!(actual, Actual::Null) && js::truthy(actual) == *flag
        }
    }
}

fn same_json(json: &serde_json::Value, actual: Actual<'_>) -> bool {
    use serde_json::Value;
    match (json, actual) {
        (Value::Array(items), Actual::Array(actual)) => {
            items.len() == actual.len()
                && items
                    .iter()
                    .zip(actual)
                    .all(|(item, actual)| js::same_json(item, actual))
        }
        (Value::Object(members), Actual::Object(actual)) => js::same_members(members, actual),
        _ => false,
    }
}

/// JavaScript's `===`: same type and equal; lists and objects never.
pub(super) fn identical(literal: &Literal, actual: Actual<'_>) -> bool {
    !matches!(literal, Literal::Json(_)) && equals(Dialect::Strict, literal, actual, false)
}

/// How a value orders against an operand; `None` where they have no order.
pub(super) fn order(dialect: Dialect, actual: Actual<'_>, operand: Actual<'_>) -> Option<Ordering> {
    match (actual, operand) {
        (Actual::Number(actual), Actual::Number(operand)) => actual.partial_cmp(&operand),
        (Actual::String(actual), Actual::String(operand)) => {
            Some(js::compare_text(actual, operand))
        }
        _ if dialect == Dialect::Strict => None,
        _ => match (primitive(actual), primitive(operand)) {
            (Some(actual), Some(operand)) => Some(js::compare_text(&actual, &operand)),
            _ => js::number(actual).partial_cmp(&js::number(operand)),
        },
    }
}

/// The text that JavaScript compares by; `None` for what it compares as a number.
fn primitive(actual: Actual<'_>) -> Option<Cow<'_, str>> {
    match actual {
        Actual::String(_) | Actual::Array(_) | Actual::Object(_) => Some(js::string(actual)),
        _ => None,
    }
}
