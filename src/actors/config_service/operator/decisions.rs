//! What operators decided about an environment, as it is kept: one register per decision.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{CanonicalJson, Forced, Override};
pub(super) use crate::store::PIN;

/// How the registers of overrides begin; kind and key follow.
const OVERRIDE: &str = "override:";

/// A revision that is served whatever the sources deliver. The store reads `revision`, to keep it from being deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Whose content.
    pub revision: u64,
    /// Why, in the operator's words.
    pub reason: String,
    /// Name of the operator's token.
    pub by: String,
    /// Since when, in Unix milliseconds.
    pub at_ms: i64,
}

/// An override as kept; a newer release may keep more of it.
#[derive(Serialize, Deserialize)]
struct StoredOverride {
    id: String,
    kind: String,
    key: String,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    value: Option<Value>,
    reason: String,
    author: String,
    created_at_ms: i64,
    expires_at_ms: Option<i64>,
}

/// A value that is null is a value, and not an absent one.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decisions {
    pub(super) pin: Option<Pin>,
    /// Sorted by kind and key, each target once.
    pub(super) overrides: Vec<Override>,
}

impl Decisions {
    /// Reads them. What cannot be read, or is of a kind that this release does not know, is left out.
    pub(super) fn read(registers: &BTreeMap<String, Value>) -> Self {
        let pin = registers.get(PIN);
        let overrides = registers
            .iter()
            .filter(|(name, _)| name.starts_with(OVERRIDE));
        Self {
            pin: pin.and_then(|pin| Pin::deserialize(pin).ok()),
            overrides: overrides
                .filter_map(|(_, value)| read_override(value))
                .collect(),
        }
    }
}

/// Register of an override.
pub(super) fn register_of(forced: &Override) -> String {
    format!("{OVERRIDE}{}:{}", forced.kind(), forced.key)
}

/// A pin as kept.
pub(super) fn pin_value(pin: &Pin) -> Value {
    serde_json::to_value(pin).expect("a pin has string keys only")
}

/// An override as kept.
pub(super) fn override_value(forced: &Override) -> Value {
    let stored = StoredOverride {
        id: forced.id.clone(),
        kind: forced.kind().to_owned(),
        key: forced.key.to_string(),
        value: match &forced.forced {
            Forced::Value(value) => Some(value.to_value()),
            Forced::Off => None,
        },
        reason: forced.reason.clone(),
        author: forced.author.clone(),
        created_at_ms: forced.created_at_ms,
        expires_at_ms: forced.expires_at_ms,
    };
    serde_json::to_value(stored).expect("an override has string keys only")
}

fn read_override(value: &Value) -> Option<Override> {
    let stored = StoredOverride::deserialize(value).ok()?;
    let forced = match (stored.kind.as_str(), &stored.value) {
        ("feature", Some(value)) => Forced::Value(CanonicalJson::from_value(value)),
        ("experiment", None) => Forced::Off,
        _ => return None,
    };
    Some(Override {
        id: stored.id,
        key: stored.key.into(),
        forced,
        reason: stored.reason,
        author: stored.author,
        created_at_ms: stored.created_at_ms,
        expires_at_ms: stored.expires_at_ms,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn forced(key: &str, forced: Forced) -> Override {
        Override {
            id: "1".to_owned(),
            key: key.into(),
            forced,
            reason: "r".to_owned(),
            author: "ada".to_owned(),
            created_at_ms: 1,
            expires_at_ms: Some(2),
        }
    }

    #[test]
    fn decisions_come_back_as_they_were_and_null_is_a_value() {
        let pin = Pin {
            revision: 7,
            reason: "r".to_owned(),
            by: "ada".to_owned(),
            at_ms: 3,
        };
        let overrides = [
            forced("e:1", Forced::Off),
            forced("a", Forced::Value(CanonicalJson::from_value(&Value::Null))),
            forced(
                "b",
                Forced::Value(CanonicalJson::from_value(&json!({"x": [1.5]}))),
            ),
        ];
        let mut registers: BTreeMap<String, Value> = overrides
            .iter()
            .map(|forced| (register_of(forced), override_value(forced)))
            .collect();
        registers.insert(PIN.to_owned(), pin_value(&pin));
        let read = Decisions::read(&registers);
        assert_eq!(read.pin, Some(pin));
        assert_eq!(read.overrides, overrides);
    }

    #[test]
    fn what_is_not_known_here_is_left_out() {
        let registers = [
            (PIN.to_owned(), json!({"later": 1})),
            ("override:segment:x".to_owned(), json!({"kind": "segment"})),
            ("override:feature:x".to_owned(), json!(7)),
            ("discarded:gb".to_owned(), json!("hash")),
        ];
        assert_eq!(Decisions::read(&registers.into()), Decisions::default());
    }
}
