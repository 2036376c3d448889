//! OpenFeature remote evaluation (OFREP 0.3): how a feature's value is answered.
//!
//! | GrowthBook's source | reason | variant |
//! |---|---|---|
//! | `defaultValue`, a feature without rules | `STATIC` | `default` |
//! | `defaultValue` | `DEFAULT` | `default` |
//! | `force` | `TARGETING_MATCH`; `SPLIT` where the rule takes a share | the rule's id, else `force` |
//! | `experiment` | `SPLIT` | the variation's key |
//! | `prerequisite` | `DISABLED`, without a value: the caller's default counts | `default` |
//! | `cyclicPrerequisite` | the error `GENERAL` | |
//!
//! A value of null is not sent: the caller's default counts. Numbers are whole or not as the feature's default is, because
//! clients tell the two apart by their spelling. `metadata` has no nesting and no null.

use serde_json::{Map, Number, Value, json};

use super::{Answers, Flags, UnitWatch, answers::Given};
use crate::eval::{
    Compiled, Context,
    definition::{Action, Feature},
    js::{self, Actual},
    result::Source,
};

/// Ends the metadata and the answer, both left open by what is rendered.
const END: &[u8] = b"}}";

/// Renders everything that a feature can answer, up to the end of its metadata.
pub(super) fn answers(feature: &Feature) -> Answers {
    Answers::new(feature, |given| render(feature, given))
}

/// What is answered for a flag that splits users by a targeting key that is not there; open as above.
pub(super) fn unit_missing(key: &str) -> Box<[u8]> {
    let details = "the flag splits users by their targeting key, and the context has none";
    failure(key, "TARGETING_KEY_MISSING", details)
}

fn failure(key: &str, code: &str, details: &str) -> Box<[u8]> {
    open(&json!({
        "key": key,
        "errorCode": code,
        "errorDetails": details,
        "metadata": {"source": "error"},
    }))
}

fn render(feature: &Feature, given: Given<'_>) -> Box<[u8]> {
    if given.source == Source::CyclicPrerequisite {
        return failure(
            &feature.key,
            "GENERAL",
            "the flag's prerequisites lead back to it, or cost too much",
        );
    }
    let mut metadata = Map::new();
    metadata.insert("source".into(), given.source.as_str().into());
    if let Some(id) = given.rule_id() {
        metadata.insert("ruleId".into(), id.into());
    }
    if let Some(Action::Experiment(experiment)) = given.rule.map(|rule| &rule.action) {
        metadata.insert("experiment".into(), (**experiment.key()).into());
    }
    let mut answer = Map::new();
    answer.insert("key".into(), (*feature.key).into());
    answer.insert("reason".into(), reason(feature, given).into());
    answer.insert("variant".into(), given.variant().into());
    if !given.value.is_null() {
        answer.insert("value".into(), spelled(given.value, &feature.default));
    }
    answer.insert("metadata".into(), metadata.into());
    open(&answer.into())
}

fn reason(feature: &Feature, given: Given<'_>) -> &'static str {
    match given.source {
        Source::DefaultValue if feature.rules.is_empty() => "STATIC",
        Source::DefaultValue => "DEFAULT",
        Source::Force => match given.rule.map(|rule| &rule.action) {
            Some(Action::Force(force)) if force.rollout.is_some() => "SPLIT",
            _ => "TARGETING_MATCH",
        },
        Source::Experiment => "SPLIT",
        Source::Prerequisite => "DISABLED",
        Source::Override | Source::UnknownFeature | Source::CyclicPrerequisite => "UNKNOWN",
    }
}

/// A value with its numbers whole or not, as the default is; other values, and fractions of a whole flag, stay.
fn spelled(value: &Value, default: &Value) -> Value {
    let (Value::Number(number), Value::Number(default)) = (value, default) else {
        return value.clone();
    };
    let is_whole = !default.is_f64();
    let Some(double) = number.as_f64() else {
        return value.clone();
    };
    if !is_whole {
        return Number::from_f64(double).map_or_else(|| value.clone(), Value::Number);
    }
    match js::whole_number(double).filter(|_| number.is_f64()) {
        Some(whole) => whole.into(),
        None => value.clone(),
    }
}

/// The text of an answer without what closes its metadata and itself.
fn open(answer: &Value) -> Box<[u8]> {
    let mut text = answer.to_string().into_bytes();
    debug_assert!(text.ends_with(END));
    text.truncate(text.len() - END.len());
    text.into()
}

impl Flags {
    /// Writes the answers for flags at these positions, separated by commas.
    pub(in crate::eval) fn write_ofrep(
        &self,
        compiled: &Compiled,
        context: &Context<'_>,
        at: &[u32],
        out: &mut Vec<u8>,
    ) {
        let mut is_first = true;
        let mut write = |answer: &[u8]| {
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            out.extend_from_slice(answer);
            out.extend_from_slice(END);
        };
        if has_unit(context) {
            self.evaluate(compiled, context, at, (), |flag, result, ()| {
                write(flag.ofrep.of(result));
            });
            return;
        }
        let watch = UnitWatch {
            compiled,
            is_missing: false,
        };
        self.evaluate(compiled, context, at, watch, |flag, result, watch| {
            let is_missing = std::mem::take(&mut watch.is_missing);
            write(if is_missing {
                &flag.unit_missing
            } else {
                flag.ofrep.of(result)
            });
        });
    }

    /// Writes the answer for one flag, with further members of its metadata (`,"name":value…`); `false`: it is an error.
    pub(in crate::eval) fn write_ofrep_one(
        &self,
        compiled: &Compiled,
        context: &Context<'_>,
        at: u32,
        metadata: &str,
        out: &mut Vec<u8>,
    ) -> bool {
        let start = out.len();
        self.write_ofrep(compiled, context, &[at], out);
        out.truncate(out.len() - END.len());
        // Keys come first, so a flag's own text cannot stand in this place.
        let key = js::json_text(&(*self.0[at as usize].key).into());
        let behind_key = start + "{\"key\":".len() + key.len();
        let is_error = out[behind_key..].starts_with(b",\"errorCode\"");
        out.extend_from_slice(metadata.as_bytes());
        out.extend_from_slice(END);
        !is_error
    }
}

/// Whether the user has something to be split by where a rule names nothing else.
fn has_unit(context: &Context<'_>) -> bool {
    let unit = context.attributes.get(super::UNIT_ATTRIBUTE);
    unit.is_some_and(|unit| match Actual::from(unit) {
        Actual::String(text) => !text.is_empty(),
        Actual::Number(number) => number != 0.0,
        _ => false,
    })
}
