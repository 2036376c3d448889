//! The whole configuration of an environment, for anybody.
//!
//! Definitions are canonical JSON already, so they are copied, not parsed: 10,000 features are one pass over 8 MB.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::model::{CanonicalJson, Sourced, Stitched};

/// Bytes around a definition: quotes and colon of its key, `,"source":""`, separators.
const PER_ITEM_BYTES: usize = 24;

/// The snapshot from `"features":` to the closing brace; environment and revision go before it.
pub fn snapshot_tail(stitched: &Stitched) -> Bytes {
    let mut out = Vec::with_capacity(estimated_bytes(stitched));
    out.extend_from_slice(b"\"features\":{");
    for (i, (key, feature)) in stitched.features.iter().enumerate() {
        separate(i, &mut out);
        write_key(key, &mut out);
        write_sourced(&feature.item.definition, &feature.source, &mut out);
    }
    out.extend_from_slice(b"},\"experiments\":[");
    for (i, experiment) in stitched.experiments.iter().enumerate() {
        separate(i, &mut out);
        write_sourced(&experiment.item.definition, &experiment.source, &mut out);
    }
    out.extend_from_slice(b"],\"auto_experiments\":[");
    for (i, experiment) in stitched.auto_experiments.iter().enumerate() {
        separate(i, &mut out);
        write_sourced(&experiment.item, &experiment.source, &mut out);
    }
    out.extend_from_slice(b"],\"saved_groups\":{");
    write_by_id(&stitched.saved_groups, &mut out);
    out.extend_from_slice(b"},\"contextual_bandits\":{");
    write_by_id(&stitched.contextual_bandits, &mut out);
    out.extend_from_slice(b"},\"overrides\":[]}");
    out.into()
}

/// About the size of the result, so that memory is asked for once.
fn estimated_bytes(stitched: &Stitched) -> usize {
    fn item<T>(key: &str, definition: &CanonicalJson, sourced: &Sourced<T>) -> usize {
        key.len() + definition.as_str().len() + sourced.source.len() + PER_ITEM_BYTES
    }
    let features = stitched.features.iter();
    let experiments = stitched.experiments.iter();
    let auto_experiments = stitched.auto_experiments.iter();
    let by_id = stitched
        .saved_groups
        .iter()
        .chain(&stitched.contextual_bandits);
    features
        .map(|(key, feature)| item(key, &feature.item.definition, feature))
        .chain(experiments.map(|experiment| item("", &experiment.item.definition, experiment)))
        .chain(auto_experiments.map(|experiment| item("", &experiment.item, experiment)))
        .chain(by_id.map(|(id, value)| id.len() + value.as_str().len() + PER_ITEM_BYTES))
        .sum::<usize>()
        + 256
}

fn write_by_id(values: &BTreeMap<Arc<str>, CanonicalJson>, out: &mut Vec<u8>) {
    for (i, (id, value)) in values.iter().enumerate() {
        separate(i, out);
        write_key(id, out);
        out.extend_from_slice(value.as_str().as_bytes());
    }
}

/// Writes a definition with the member `source` added at its end.
fn write_sourced(definition: &CanonicalJson, source: &str, out: &mut Vec<u8>) {
    let text = definition.as_str();
    let Some(members) = text.strip_suffix('}') else {
        // Not an object, so there is nothing to add a member to.
        out.extend_from_slice(text.as_bytes());
        return;
    };
    out.extend_from_slice(members.as_bytes());
    if members != "{" {
        out.push(b',');
    }
    out.extend_from_slice(b"\"source\":");
    write_text(source, out);
    out.push(b'}');
}

fn write_key(key: &str, out: &mut Vec<u8>) {
    write_text(key, out);
    out.push(b':');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        model::Feature,
        views::test_support::{experiment, sourced},
    };

    fn feature(definition: &Value, source: &str) -> Sourced<Arc<Feature>> {
        let definition = CanonicalJson::from_value(definition);
        Sourced {
            source: source.into(),
            item: Arc::new(Feature {
                definition,
                parents: Vec::new(),
            }),
        }
    }

    #[test]
    fn an_empty_environment_has_every_member() {
        assert_eq!(
            snapshot_tail(&Stitched::default()),
            r#""features":{},"experiments":[],"auto_experiments":[],"saved_groups":{},"contextual_bandits":{},"overrides":[]}"#
        );
    }

    #[test]
    fn every_item_but_groups_and_bandits_knows_its_source() {
        let value = CanonicalJson::from_value(&json!(["1"]));
        let stitched = Stitched {
            features: [
                ("a\"b".into(), feature(&json!({}), "s1")),
                (
                    "c".into(),
                    feature(&json!({"defaultValue": {"x": {}}}), "s\"2"),
                ),
            ]
            .into(),
            experiments: vec![sourced(experiment("b")), sourced(experiment("a"))],
            auto_experiments: vec![Sourced {
                source: "s1".into(),
                item: CanonicalJson::from_value(&json!({"key": "auto"})),
            }],
            saved_groups: [("g".into(), value.clone())].into(),
            contextual_bandits: [("b".into(), value)].into(),
            ..Stitched::default()
        };
        let tail = snapshot_tail(&stitched);
        assert_eq!(
            tail,
            r#""features":{"a\"b":{"source":"s1"},"c":{"defaultValue":{"x":{}},"source":"s\"2"}},"experiments":[{"trackingKey":"b","source":"growthbook-prod"},{"trackingKey":"a","source":"growthbook-prod"}],"auto_experiments":[{"key":"auto","source":"s1"}],"saved_groups":{"g":["1"]},"contextual_bandits":{"b":["1"]},"overrides":[]}"#
        );
        let whole = [b"{", &tail[..]].concat();
        serde_json::from_slice::<Value>(&whole).unwrap();
        assert!(tail.len() <= estimated_bytes(&stitched));
    }
}
