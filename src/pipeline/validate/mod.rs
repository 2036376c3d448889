//! Looks at every item of a document: a bad one is quarantined, and its last good version takes its place.
//!
//! A *bad* item is one that cannot be represented: not an object, a known member of the wrong type, numbers that are
//! not finite, over a limit, nested too deeply. Whatever is merely odd (unknown members and operators, weights that do
//! not add up) is served, with a warning.

mod condition;
mod digest;
mod experiment;
mod feature;
mod limits;
mod members;
mod references;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::value::RawValue;

use super::{
    FieldNames, Refusal, adapt,
    payload::{ExperimentList, Payload, RawExperiments, RawMembers, RawPayload, SEALED},
};
use crate::model::{CanonicalJson, Experiment, Issue, Json, Status};
use condition::KnownGroups;
pub use limits::{DEPTH_MAX, ITEM_BYTES_MAX, ITEMS_MAX, KEY_BYTES_MAX, VARIATIONS_MAX};
use limits::{item, measured_item, within_limits};
use references::Namespaces;

/// Why one item cannot be served: where in it, and what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadItem {
    /// Path within the item, such as `.rules[1].weights`; empty for the item itself.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) message: String,
}

impl BadItem {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// Reads an SDK payload. `last_good` supplies the versions that stand in for bad features.
///
/// Fails when the document as a whole is not a payload.
pub fn payload(source: &str, raw: &[u8], last_good: Option<&Payload>) -> Result<Payload, Refusal> {
    let document: RawPayload<'_> = read(raw, "payload")?;
    let mut payload = Payload::default();
    let groups = document
        .saved_groups
        .map_or_else(Vec::new, |members| members.0);
    let bandits = document
        .contextual_bandits
        .map_or_else(Vec::new, |members| members.0);
    let autos = document.experiments.unwrap_or_default();
    payload.issues = within_limits(
        source,
        &[
            ("features", document.features.0.len()),
            ("savedGroups", groups.len()),
            ("contextualBandits", bandits.len()),
            ("experiments", autos.len()),
        ],
    )?;

    let known_groups = KnownGroups::new(groups.iter().map(|(id, _)| &**id));
    let none = BTreeMap::new();
    let (old_groups, old_bandits) =
        last_good.map_or((&none, &none), |p| (&p.saved_groups, &p.contextual_bandits));
    let (issues, bad) = (&mut payload.issues, &mut payload.quarantined);
    payload.saved_groups = opaque(
        source,
        "saved_groups",
        &groups,
        old_groups,
        (issues, &mut bad.saved_groups),
        condition::saved_group_warning,
    );
    payload.contextual_bandits = opaque(
        source,
        "contextual_bandits",
        &bandits,
        old_bandits,
        (issues, &mut bad.contextual_bandits),
        |_, value| {
            value
                .as_object()
                .is_none()
                .then(|| "is not an object".to_owned())
        },
    );
    features(
        source,
        &document.features,
        &known_groups,
        last_good,
        &mut payload,
    );
    auto_experiments(source, &autos, &known_groups, &mut payload);
    payload.issues.sort_unstable();
    payload.is_sealed = document.others.iter().any(|(key, value)| {
        SEALED.iter().any(|(sealed, _)| sealed == key) && value.get() == "true"
    });
    payload.digest = digest::digest(&payload, &document.others);
    Ok(payload)
}

fn features(
    source: &str,
    members: &RawMembers<'_>,
    groups: &KnownGroups<'_>,
    last_good: Option<&Payload>,
    payload: &mut Payload,
) {
    for (key, raw) in &members.0 {
        let path = || format!("features.{key}");
        let outcome = measured_item(raw, key).and_then(|(value, near)| {
            let (feature, mut warnings) = feature::read(value, groups)?;
            warnings.extend(near);
            Ok((feature, warnings))
        });
        match outcome {
            Ok((feature, warnings)) => {
                let of_item = |w: (&'static str, BadItem)| {
                    Issue::warning(w.0, source, path() + &w.1.path, w.1.message)
                };
                payload.issues.extend(warnings.into_iter().map(of_item));
                payload.quarantined.features.remove(key.as_ref());
                if payload
                    .features
                    .insert(key.as_ref().into(), Arc::new(feature))
                    .is_some()
                {
                    let message = "is there twice; the last one counts";
                    payload
                        .issues
                        .push(Issue::warning("duplicate_key", source, path(), message));
                }
            }
            Err(bad) => {
                let old = last_good.and_then(|p| p.features.get_key_value(key.as_ref()));
                let fate = if old.is_some() {
                    "its last good version is served"
                } else {
                    "it is left out"
                };
                let message = format!("{}; {fate}", bad.message);
                payload.issues.push(Issue::error(
                    "quarantined",
                    source,
                    path() + &bad.path,
                    message,
                ));
                payload.quarantined.features.insert(key.as_ref().into());
                if let Some((key, feature)) = old {
                    payload
                        .features
                        .insert(Arc::clone(key), Arc::clone(feature));
                    payload.from_last_good.push(Arc::clone(key));
                }
            }
        }
    }
    payload.from_last_good.sort_unstable();
    payload.from_last_good.dedup();
}

/// Items that are carried without being understood here: saved groups, contextual bandits.
fn opaque(
    source: &str,
    collection: &'static str,
    members: &[(std::borrow::Cow<'_, str>, &RawValue)],
    last_good: &BTreeMap<Arc<str>, CanonicalJson>,
    (issues, quarantined): (&mut Vec<Issue>, &mut BTreeSet<Arc<str>>),
    odd: impl Fn(&str, &Json<'_>) -> Option<String>,
) -> BTreeMap<Arc<str>, CanonicalJson> {
    let mut items = BTreeMap::new();
    for (id, raw) in members {
        let path = || format!("{collection}.{id}");
        match item(raw, id) {
            Ok(value) => {
                if let Some(message) = odd(id, &value) {
                    issues.push(Issue::warning("odd_definition", source, path(), message));
                }
                quarantined.remove(id.as_ref());
                items.insert(Arc::from(id.as_ref()), CanonicalJson::from_json(&value));
            }
            Err(bad) => {
                issues.push(Issue::error(
                    "quarantined",
                    source,
                    path() + &bad.path,
                    bad.message,
                ));
                quarantined.insert(id.as_ref().into());
                if let Some((id, old)) = last_good.get_key_value(id.as_ref()) {
                    items.insert(Arc::clone(id), old.clone());
                }
            }
        }
    }
    items
}

fn auto_experiments(
    source: &str,
    items: &[&RawValue],
    groups: &KnownGroups<'_>,
    payload: &mut Payload,
) {
    for (i, raw) in items.iter().enumerate() {
        match item(raw, "").and_then(|value| feature::read_auto_experiment(value, groups)) {
            Ok(definition) => payload.auto_experiments.push(definition),
            Err(bad) => {
                payload.quarantined.auto_experiments.insert(i);
                let path = format!("auto_experiments[{i}]{}", bad.path);
                let message = format!("{}; it is left out", bad.message);
                payload
                    .issues
                    .push(Issue::error("quarantined", source, path, message));
            }
        }
    }
}

/// Reads a list of experiments. `last_good` supplies the versions that stand in for bad ones.
///
/// Fails when the document as a whole is not a list of experiments.
pub fn experiments(
    source: &str,
    raw: &[u8],
    last_good: Option<&ExperimentList>,
    fields: &FieldNames,
) -> Result<ExperimentList, Refusal> {
    let document: RawExperiments<'_> = read(raw, "list of experiments")?;
    let mut list = ExperimentList {
        issues: within_limits(
            source,
            &[
                ("experiments", document.experiments.len()),
                ("savedGroups", document.saved_groups.len()),
                ("namespaces", document.namespaces.len()),
                ("features", document.features.as_ref().map_or(0, Vec::len)),
            ],
        )?,
        feature_projects: match &document.features {
            Some(listed) => listed
                .iter()
                .map(|feature| (Arc::clone(&feature.id), Arc::clone(&feature.project)))
                .collect(),
            None => last_good.map_or_else(BTreeMap::new, |list| list.feature_projects.clone()),
        },
        ..ExperimentList::default()
    };
    let namespaces = Namespaces::new(&document.namespaces);
    let mut read = Vec::with_capacity(document.experiments.len());
    for (i, raw) in document.experiments.iter().enumerate() {
        let outcome = measured_item(raw, "").and_then(|(value, mut near)| {
            let experiment = experiment::read(namespaces.complete(value))?;
            near.extend(limits::near_variations("", experiment.variations.len()));
            Ok((experiment, near))
        });
        match outcome {
            Ok((mut experiment, near)) => {
                adapt::adapt(&mut experiment, fields);
                let path = format!("experiments.{}", experiment.tracking_key);
                let of_item = |(code, bad): (&'static str, BadItem)| {
                    Issue::warning(code, source, path.clone() + &bad.path, bad.message)
                };
                list.issues.extend(near.into_iter().map(of_item));
                read.push(Arc::new(experiment));
            }
            Err(bad) => {
                let id = experiment::id_of(raw);
                let same_id = |old: &&Arc<Experiment>| Some(&old.id) == id.as_ref();
                let old = last_good.and_then(|list| list.experiments.iter().find(same_id));
                let path = match (&old, &id) {
                    (Some(old), _) => format!("experiments.{}{}", old.tracking_key, bad.path),
                    (None, Some(id)) => format!("experiments.{id}{}", bad.path),
                    (None, None) => format!("experiments[{i}]{}", bad.path),
                };
                let fate = if old.is_some() {
                    "its last good version is served"
                } else {
                    "it is left out"
                };
                let message = format!("{}; {fate}", bad.message);
                list.issues
                    .push(Issue::error("quarantined", source, path, message));
                if let Some(old) = old {
                    list.from_last_good.push(old.id.clone());
                    read.push(Arc::clone(old));
                }
            }
        }
    }
    one_per_tracking_key(source, read, &mut list);
    references::saved_groups(source, &document.saved_groups, last_good, &mut list);
    list.from_last_good.sort_unstable();
    list.issues.sort_unstable();
    Ok(list)
}

/// Two experiments with one tracking key: running before others, then the later update, then the smaller id.
fn one_per_tracking_key(source: &str, mut read: Vec<Arc<Experiment>>, list: &mut ExperimentList) {
    let rank = |e: &Experiment| {
        let is_live = e.status == Status::Running && !e.archived;
        (
            std::cmp::Reverse(is_live),
            std::cmp::Reverse(e.updated),
            e.id.clone(),
        )
    };
    read.sort_by(|a, b| (&a.tracking_key, rank(a)).cmp(&(&b.tracking_key, rank(b))));
    let mut seen = BTreeSet::new();
    for experiment in read {
        if seen.insert(experiment.tracking_key.clone()) {
            list.experiments.push(experiment);
            continue;
        }
        let path = format!("experiments.{}", experiment.tracking_key);
        let message = format!(
            "experiment `{}` has a tracking key that another one uses; it is left out",
            experiment.id
        );
        list.issues.push(Issue::error(
            "duplicate_tracking_key",
            source,
            path,
            message,
        ));
    }
}

fn read<'a, T: serde::Deserialize<'a>>(raw: &'a [u8], what: &str) -> Result<T, Refusal> {
    serde_json::from_slice(raw).map_err(|error| Refusal::Malformed {
        message: format!("failed to read the {what}: {error}"),
    })
}

#[cfg(test)]
mod tests;
