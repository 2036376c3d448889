//! What a payload means, as one hash: the same for the same items, in whatever order and spelling they came.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{Payload, item};
use crate::model::CanonicalJson;

/// Hashes the items as they are served, and the members that are unknown here as they came.
pub(super) fn digest(payload: &Payload, others: &[(Cow<'_, str>, &RawValue)]) -> [u8; 32] {
    let mut hash = Hash(Sha256::new());
    hash.number(payload.features.len());
    for (key, feature) in &payload.features {
        hash.text(key);
        hash.text(feature.definition.as_str());
    }
    // The order of auto experiments is that of their evaluation.
    hash.number(payload.auto_experiments.len());
    for experiment in &payload.auto_experiments {
        hash.text(experiment.as_str());
    }
    for items in [&payload.saved_groups, &payload.contextual_bandits] {
        hash.items(items);
    }
    let others: BTreeMap<&str, &RawValue> = others
        .iter()
        .map(|(key, value)| (key.as_ref(), *value))
        .collect();
    hash.number(others.len());
    for (key, value) in others {
        hash.text(key);
        // What is too large or too deep to be read is passed on all the same; then its spelling counts too.
        match item(value, "") {
            Ok(json) => hash.text(CanonicalJson::from_json(&json).as_str()),
            Err(_) => hash.text(value.get()),
        }
    }
    hash.0.finalize().into()
}

/// Every part with its length before it, so that no two sequences of parts look the same.
struct Hash(Sha256);

impl Hash {
    fn number(&mut self, number: usize) {
        self.0.update((number as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text.as_bytes());
    }

    fn items(&mut self, items: &BTreeMap<Arc<str>, CanonicalJson>) {
        self.number(items.len());
        for (id, value) in items {
            self.text(id);
            self.text(value.as_str());
        }
    }
}
