//! Unleash's Frontend API: how a feature's value is answered as a toggle.
//!
//! `true` is an enabled toggle, `false` and null are none. A value of any other type is an enabled toggle with a variant that
//! has it as its payload, zero and the empty text included: clients could not read them otherwise. The variant is called as
//! in [`super::ofrep`]; `impressionData` is true where an experiment decided.

use serde_json::{Value, json};

use super::{Answers, Flags, answers::Given};
use crate::eval::{Compiled, Context, definition::Feature, js, result::Source};

/// Renders everything that a feature can answer; nothing where the toggle is not enabled.
pub(super) fn answers(feature: &Feature) -> Answers {
    Answers::new(feature, |given| render(feature, given))
}

fn render(feature: &Feature, given: Given<'_>) -> Box<[u8]> {
    let payload = match given.value {
        Value::Null | Value::Bool(false) => return Box::default(),
        Value::Bool(true) => None,
        Value::String(text) => Some(("string", text.clone())),
        Value::Number(_) => Some(("number", js::json_text(given.value))),
        Value::Array(_) | Value::Object(_) => Some(("json", given.value.to_string())),
    };
    let variant = match payload {
        None => json!({"name": "disabled", "enabled": false, "feature_enabled": true}),
        Some((kind, value)) => json!({
            "name": given.variant(),
            "payload": {"type": kind, "value": value},
            "enabled": true,
            "feature_enabled": true,
        }),
    };
    let toggle = json!({
        "name": &*feature.key,
        "enabled": true,
        "variant": variant,
        "impressionData": given.source == Source::Experiment,
    });
    toggle.to_string().into_bytes().into()
}

impl Flags {
    /// Writes the enabled toggles among the flags at these positions, separated by commas.
    pub(in crate::eval) fn write_toggles(
        &self,
        compiled: &Compiled,
        context: &Context<'_>,
        at: &[u32],
        out: &mut Vec<u8>,
    ) {
        let mut is_first = true;
        self.evaluate(compiled, context, at, (), |flag, result, ()| {
            let toggle = flag.toggle.of(result);
            if toggle.is_empty() {
                return;
            }
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            out.extend_from_slice(toggle);
        });
    }
}
