//! A source's accepted input: the raw bytes it was made from, what stands in for its bad items, and how both rest.
//!
//! At rest it is one header line of JSON, then the raw bytes of every part, one after the other. Reading it back runs
//! the parts through [`super::validate`] again, so that a newer version of stitchd sees them with its own eyes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    FieldNames, Refusal, guard::Content, payload::ExperimentList, payload::Payload, validate,
};
use crate::model::CanonicalJson;

/// One SDK connection's accepted payload.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadPart {
    /// The bytes as fetched.
    pub raw: Bytes,
    /// What they mean.
    pub payload: Arc<Payload>,
}

/// The accepted list of experiments.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentsPart {
    /// The bytes as fetched.
    pub raw: Bytes,
    /// What they mean.
    pub list: Arc<ExperimentList>,
}

/// Everything accepted from one source so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceInput {
    /// Payloads by client key.
    pub payloads: BTreeMap<String, PayloadPart>,
    /// Experiments, where the source has a management API.
    pub experiments: Option<ExperimentsPart>,
    /// How it was read when it was judged, as one word: read otherwise it may mean something that nobody has judged.
    pub reading: Option<String>,
}

impl SourceInput {
    /// Reads a payload; `None` where it means what the accepted one means.
    ///
    /// Fails when the document is refused.
    pub fn read_payload(
        &self,
        source: &str,
        key: &str,
        raw: &Bytes,
    ) -> Result<Option<Content>, Refusal> {
        let old = self.payloads.get(key);
        if old.is_some_and(|part| part.raw == *raw) {
            return Ok(None);
        }
        let old = old.map(|part| &*part.payload);
        let new = validate::payload(source, raw, old)?;
        // Same meaning: the allocated one stays with its bytes, which are those that are served and stored.
        Ok((old != Some(&new)).then(|| {
            let part = PayloadPart {
                raw: raw.clone(),
                payload: Arc::new(new),
            };
            Content::Payload(key.to_owned(), part)
        }))
    }

    /// Reads a list of experiments; `None` where it means what the accepted one means: then only its bytes are taken.
    ///
    /// Fails when the document is refused; then nothing has changed.
    pub fn read_experiments(
        &mut self,
        source: &str,
        raw: &Bytes,
        fields: &FieldNames,
    ) -> Result<Option<Content>, Refusal> {
        if let Some(old) = &self.experiments
            && old.raw == *raw
        {
            return Ok(None);
        }
        let old = self.experiments.as_ref().map(|part| &*part.list);
        let new = validate::experiments(source, raw, old, fields)?;
        if let Some(old) = &mut self.experiments
            && *old.list == new
        {
            old.raw = raw.clone();
            return Ok(None);
        }
        Ok(Some(Content::Experiments(ExperimentsPart {
            raw: raw.clone(),
            list: Arc::new(new),
        })))
    }

    /// Puts what was read in its place.
    pub fn put(&mut self, content: &Content) {
        match content {
            Content::Payload(key, part) => drop(self.payloads.insert(key.clone(), part.clone())),
            Content::Experiments(part) => self.experiments = Some(part.clone()),
            Content::Removed(keys) => self.payloads.retain(|key, _| !keys.contains(key)),
        }
    }

    /// The same with these parts in their places.
    #[must_use]
    pub fn with(&self, contents: &[Content]) -> Self {
        let mut input = self.clone();
        for content in contents {
            input.put(content);
        }
        input
    }

    /// Reads a payload and puts it in its place; `true` when its meaning changed.
    ///
    /// Fails when the document is refused; then nothing has changed.
    pub fn take_payload(&mut self, source: &str, key: &str, raw: &Bytes) -> Result<bool, Refusal> {
        let news = self.read_payload(source, key, raw)?;
        Ok(news.inspect(|content| self.put(content)).is_some())
    }

    /// Reads a list of experiments and puts it in its place; `true` when its meaning changed.
    ///
    /// Fails when the document is refused; then nothing has changed.
    pub fn take_experiments(
        &mut self,
        source: &str,
        raw: &Bytes,
        fields: &FieldNames,
    ) -> Result<bool, Refusal> {
        let news = self.read_experiments(source, raw, fields)?;
        Ok(news.inspect(|content| self.put(content)).is_some())
    }

    /// Spells the input for storage.
    pub fn to_bytes(&self) -> Bytes {
        let mut header = Header {
            version: 1,
            payloads: Vec::new(),
            experiments: None,
            reading: self.reading.clone(),
        };
        let mut raw = Vec::new();
        for (key, part) in &self.payloads {
            let payload = &part.payload;
            let stand_in = |key: &Arc<str>| {
                let feature = payload.features.get(key)?;
                Some((key.to_string(), feature.definition.to_value()))
            };
            let bad = &payload.quarantined;
            header.payloads.push(PayloadHeader {
                key: key.clone(),
                bytes: part.raw.len(),
                last_good: payload.from_last_good.iter().filter_map(stand_in).collect(),
                last_good_groups: stand_ins(&bad.saved_groups, &payload.saved_groups),
                last_good_bandits: stand_ins(&bad.contextual_bandits, &payload.contextual_bandits),
            });
            raw.extend_from_slice(&part.raw);
        }
        if let Some(part) = &self.experiments {
            let is_stand_in = |id: &String| part.list.from_last_good.contains(id);
            let of = part
                .list
                .experiments
                .iter()
                .filter(|experiment| is_stand_in(&experiment.id));
            header.experiments = Some(ExperimentsHeader {
                bytes: part.raw.len(),
                last_good: of
                    .map(|experiment| experiment.definition.to_value())
                    .collect(),
            });
            raw.extend_from_slice(&part.raw);
        }
        let mut bytes =
            serde_json::to_vec(&header).expect("the header has string keys and finite numbers");
        bytes.push(b'\n');
        bytes.extend_from_slice(&raw);
        bytes.into()
    }

    /// Reads an input back. Parts that this version refuses are left out; why is in the second value.
    pub fn from_bytes(source: &str, bytes: &Bytes, fields: &FieldNames) -> (Self, Vec<String>) {
        let mut input = Self::default();
        let mut notes = Vec::new();
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let header: Header = match serde_json::from_slice(&bytes[..end]) {
            Ok(header) => header,
            Err(error) => return (input, vec![format!("its header cannot be read: {error}")]),
        };
        input.reading = header.reading;
        let mut at = (end + 1).min(bytes.len());
        let mut cut = |length: usize| {
            let from = at;
            at = at.saturating_add(length).min(bytes.len());
            bytes.slice(from..at)
        };
        for part in header.payloads {
            let raw = cut(part.bytes);
            let stand_ins = json!({
                "features": part.last_good,
                "savedGroups": part.last_good_groups,
                "contextualBandits": part.last_good_bandits,
            })
            .to_string();
            let restored = validate::payload(source, stand_ins.as_bytes(), None)
                .and_then(|last_good| validate::payload(source, &raw, Some(&last_good)));
            match restored {
                Ok(payload) => {
                    let payload = Arc::new(payload);
                    input
                        .payloads
                        .insert(part.key, PayloadPart { raw, payload });
                }
                Err(refusal) => notes.push(refusal.to_string()),
            }
        }
        if let Some(part) = header.experiments {
            let raw = cut(part.bytes);
            let stand_ins = json!({ "experiments": part.last_good }).to_string();
            let restored = validate::experiments(source, stand_ins.as_bytes(), None, fields)
                .and_then(|last_good| {
                    validate::experiments(source, &raw, Some(&last_good), fields)
                });
            match restored {
                Ok(list) => {
                    input.experiments = Some(ExperimentsPart {
                        raw,
                        list: Arc::new(list),
                    });
                }
                Err(refusal) => notes.push(refusal.to_string()),
            }
        }
        (input, notes)
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    payloads: Vec<PayloadHeader>,
    experiments: Option<ExperimentsHeader>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reading: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct PayloadHeader {
    key: String,
    bytes: usize,
    last_good: BTreeMap<String, Value>,
    #[serde(default)]
    last_good_groups: BTreeMap<String, Value>,
    #[serde(default)]
    last_good_bandits: BTreeMap<String, Value>,
}

/// What stands in for bad items, as far as anything does.
fn stand_ins(
    bad: &BTreeSet<Arc<str>>,
    items: &BTreeMap<Arc<str>, CanonicalJson>,
) -> BTreeMap<String, Value> {
    let stand_in = |id: &Arc<str>| Some((id.to_string(), items.get(id)?.to_value()));
    bad.iter().filter_map(stand_in).collect()
}

#[derive(Serialize, Deserialize)]
struct ExperimentsHeader {
    bytes: usize,
    last_good: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> FieldNames {
        FieldNames::default()
    }

    fn payload(features: &Value) -> Bytes {
        json!({ "features": features }).to_string().into()
    }

    #[test]
    fn a_bad_feature_is_served_from_its_last_good_version_even_after_a_restart() {
        let mut input = SourceInput::default();
        assert!(
            input
                .take_payload(
                    "s",
                    "k",
                    &payload(&json!({"a": {"defaultValue": 1}, "b": {}}))
                )
                .unwrap()
        );
        let bad = payload(&json!({"a": {"rules": 7}, "b": {"defaultValue": 2}}));
        assert!(input.take_payload("s", "k", &bad).unwrap());
        input.reading = Some("r".to_owned());
        let (restored, notes) = SourceInput::from_bytes("s", &input.to_bytes(), &fields());
        assert_eq!(notes, Vec::<String>::new());
        for input in [&input, &restored] {
            let payload = &input.payloads["k"].payload;
            assert_eq!(
                payload.features["a"].definition.as_str(),
                r#"{"defaultValue":1}"#
            );
            assert_eq!(
                payload.features["b"].definition.as_str(),
                r#"{"defaultValue":2}"#
            );
            assert_eq!(payload.from_last_good, [Arc::from("a")]);
            assert_eq!(payload.issues[0].path, "features.a.rules");
        }
        assert_eq!(restored, input);
    }

    #[test]
    fn a_new_date_alone_is_no_news() {
        let mut input = SourceInput::default();
        let dated = |date: &str| {
            Bytes::from(json!({"features": {"a": {}}, "dateUpdated": date}).to_string())
        };
        assert!(input.take_payload("s", "k", &dated("2026-01-01")).unwrap());
        assert!(!input.take_payload("s", "k", &dated("2026-01-02")).unwrap());
    }
}
