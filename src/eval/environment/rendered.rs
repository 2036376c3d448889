//! The JSON text of an experiment's assignments, made before anybody asks.

use serde_json::{Map, Value, json};

use super::super::Experiment;

/// One assignment object per variation, one behind the other: `{"experiment_key", "experiment_id", "variant_key",
/// "variant_id", "payload"}`.
pub(super) struct Rendered {
    text: Box<[u8]>,
    /// Where each one ends.
    ends: Box<[usize]>,
    keys: Box<[Box<str>]>,
}

impl Rendered {
    /// An experiment of a feature's rule: the payload is the variation's value.
    pub(super) fn of_rule(experiment: &Experiment, listed: Option<&Map<String, Value>>) -> Self {
        let payloads = experiment.arms.iter().map(|arm| &arm.value);
        Self::new(experiment, listed, payloads)
    }

    /// An experiment that only the management API has: there is no payload.
    pub(super) fn of_listed(experiment: &Experiment, listed: &Map<String, Value>) -> Self {
        let payloads = experiment.arms.iter().map(|_| &Value::Null);
        Self::new(experiment, Some(listed), payloads)
    }

    fn new<'v>(
        experiment: &Experiment,
        listed: Option<&Map<String, Value>>,
        payloads: impl Iterator<Item = &'v Value>,
    ) -> Self {
        let id = listed.and_then(|listed| listed.get("id")?.as_str());
        let variations = listed.and_then(|listed| listed.get("variations")?.as_array());
        let variations = variations.map(Vec::as_slice).unwrap_or_default();
        let mut text = Vec::new();
        let mut ends = Vec::new();
        let keys: Box<[Box<str>]> = experiment.arms.iter().map(|arm| arm.key.clone()).collect();
        for ((position, key), payload) in keys.iter().enumerate().zip(payloads) {
            let assignment = json!({
                "experiment_key": &**experiment.key(),
                "experiment_id": id.unwrap_or(experiment.key()),
                "variant_key": &**key,
                "variant_id": variation_id(variations, position, key).unwrap_or(key),
                "payload": payload,
            });
            text.extend_from_slice(assignment.to_string().as_bytes());
            ends.push(text.len());
        }
        Self {
            text: text.into(),
            ends: ends.into(),
            keys,
        }
    }

    /// The assignment of a variation.
    pub(super) fn get(&self, variation: usize) -> &[u8] {
        let start = match variation {
            0 => 0,
            _ => self.ends[variation - 1],
        };
        &self.text[start..self.ends[variation]]
    }

    /// Number of variations.
    pub(super) fn variations(&self) -> usize {
        self.keys.len()
    }

    /// Position of the variation with this key.
    pub(super) fn position(&self, key: &str) -> Option<usize> {
        self.keys.iter().position(|known| **known == *key)
    }

    /// Keys of the variations.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &**key)
    }

    /// Bytes of the longest assignment.
    pub(super) fn longest(&self) -> usize {
        let longest = (0..self.variations()).map(|variation| self.get(variation).len());
        longest.max().unwrap_or_default()
    }
}

/// The management API's id of a variation: of the one with this key, else of the one in this place.
fn variation_id<'l>(listed: &'l [Value], position: usize, key: &str) -> Option<&'l str> {
    let with_key = listed
        .iter()
        .find(|variation| variation.get("key").and_then(Value::as_str) == Some(key));
    let variation = with_key.or_else(|| listed.get(position))?;
    variation
        .get("variationId")?
        .as_str()
        .filter(|id| !id.is_empty())
}
