//! How an experiment divides its units, read from wherever it is defined, so that two versions of it can be compared.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    eval::{Range, bucket_ranges},
    model::{Experiment, Feature, Status},
};

/// An experiment's way to divide its units.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::pipeline) struct Split {
    /// Tracking key.
    pub(in crate::pipeline) key: String,
    /// Changes where units are meant to be divided anew: phase and bucket versions.
    pub(super) generation: Value,
    /// Seed, hash attribute and hash version.
    pub(super) hash: Value,
    /// By variation, in the order of hashing.
    pub(super) weights: Vec<f64>,
    /// The buckets of each variation; none in the list, where they follow from weights and coverage.
    pub(super) ranges: Vec<Range>,
}

/// The experiments in a feature's rules.
pub(super) fn rule_experiments(key: &Arc<str>, feature: &Feature) -> Vec<Split> {
    // Most features have none; then nothing is parsed.
    if !feature.definition.as_str().contains("\"variations\":[") {
        return Vec::new();
    }
    let definition = feature.definition.to_value();
    let rules = definition.get("rules").and_then(Value::as_array);
    let rules = rules.into_iter().flatten();
    rules.filter_map(|rule| of_rule(key, rule)).collect()
}

/// Reads an auto experiment; `None` where it does not run.
pub(in crate::pipeline) fn of_auto(experiment: &Value) -> Option<Split> {
    let text = |name: &str| experiment.get(name).and_then(Value::as_str);
    let key = text("key")?;
    let is_running = text("status").is_none_or(|status| status == "running");
    of_rule(key, experiment).filter(|_| is_running)
}

/// Reads `[[start, end], …]`.
pub(in crate::pipeline) fn ranges(value: &Value) -> Option<Vec<Range>> {
    let range = |range: &Value| Some((range.get(0)?.as_f64()?, range.get(1)?.as_f64()?));
    value.as_array()?.iter().map(range).collect()
}

/// The weights that ranges of their own amount to.
fn shares(ranges: &[Range]) -> Vec<f64> {
    let lengths = ranges.iter().map(|(start, end)| (end - start).max(0.0));
    let total: f64 = lengths.clone().sum();
    lengths
        .map(|length| length / total.max(f64::MIN_POSITIVE))
        .collect()
}

/// Reads the rule of a feature; `None` for one that is no experiment.
pub(in crate::pipeline) fn of_rule(feature: &str, rule: &Value) -> Option<Split> {
    let variations = rule.get("variations")?.as_array()?.len();
    // A force before the variations makes them unreachable, as SDKs see it.
    if rule.get("force").is_some() {
        return None;
    }
    let text = |name: &str| rule.get(name).and_then(Value::as_str);
    let key = text("key").unwrap_or(feature);
    let weights = rule.get("weights").and_then(Value::as_array);
    let weights: Option<Vec<f64>> =
        weights.map(|list| list.iter().filter_map(Value::as_f64).collect());
    #[expect(
        clippy::cast_precision_loss,
        reason = "there are at most some thousand variations"
    )]
    let even = || vec![1.0 / variations.max(1) as f64; variations];
    let given = rule.get("ranges").and_then(ranges);
    let weights = match &given {
        Some(given) => shares(given),
        None => weights
            .filter(|weights| weights.len() == variations)
            .unwrap_or_else(even),
    };
    let coverage = rule.get("coverage").and_then(Value::as_f64).unwrap_or(1.0);
    Some(Split {
        key: key.to_owned(),
        generation: json!([
            rule.get("phase"),
            rule.get("bucketVersion"),
            rule.get("minBucketVersion")
        ]),
        hash: json!({
            "seed": text("seed").unwrap_or(key),
            "hashAttribute": text("hashAttribute").unwrap_or("id"),
            "hashVersion": rule.get("hashVersion").and_then(Value::as_f64).unwrap_or(1.0),
        }),
        ranges: given.unwrap_or_else(|| bucket_ranges(variations, coverage, Some(&weights))),
        weights,
    })
}

/// Reads an experiment of the management API; `None` where it does not run.
pub(super) fn of_listed(experiment: &Experiment) -> Option<Split> {
    if experiment.status != Status::Running || experiment.archived {
        return None;
    }
    let phase = experiment.current_phase()?;
    let definition = experiment.definition.to_value();
    let weight = |id: &str| {
        let part = phase.split.iter().find(|(variation, _)| variation == id);
        part.map_or(0.0, |(_, weight)| *weight)
    };
    let variations = experiment.variations.iter();
    Some(Split {
        key: experiment.tracking_key.clone(),
        generation: json!([
            phase.started.map(time::OffsetDateTime::unix_timestamp),
            definition.get("bucketVersion"),
            definition.get("minBucketVersion")
        ]),
        hash: json!({
            "seed": phase.seed,
            "hashAttribute": experiment.hash_attribute,
            "hashVersion": f64::from(experiment.hash_version),
        }),
        weights: variations.map(|variation| weight(&variation.id)).collect(),
        ranges: Vec::new(),
    })
}
