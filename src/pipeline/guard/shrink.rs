//! Too much is gone: features, running experiments, what a consumer or a connection is shown.
//!
//! A feature that is still there but says nothing any more is gone, too: every value of it would be null.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{Guard, Rules, Shown, Trip, percent, splits::rule_experiments};
use crate::{
    model::{Experiment, Feature, Sourced, Status, Stitched},
    pipeline::Payload,
};

/// How much of something is gone.
#[derive(Clone, Copy)]
struct Removal {
    before: usize,
    removed: usize,
    /// How many of the removed are there and blank.
    blank: usize,
    /// Whether nothing being left is too much however little there was.
    is_emptied: bool,
}

impl Removal {
    fn new(before: usize, removed: usize) -> Self {
        Self {
            before,
            removed,
            blank: 0,
            is_emptied: false,
        }
    }

    fn trip(self, rules: &Rules, subject: &str, what: &str) -> Option<Trip> {
        let Self {
            before, removed, ..
        } = self;
        let (share, is_too_much) = rules.gone(removed, before);
        let is_nothing_left = self.is_emptied && removed > 0;
        if removed == 0 || !(is_too_much || is_nothing_left) {
            return None;
        }
        let limit = percent(rules.max_removed_share);
        let message = match (is_nothing_left, self.blank) {
            (true, 0) => format!("nothing is left of {before} {what}"),
            (true, blank) => format!("nothing is left of {before} {what}: {blank} are blank"),
            (false, blank) => format!(
                "{removed} of {before} {what} ({}) are {}; at most {limit} may go at once",
                percent(share),
                gone(removed, blank)
            ),
        };
        Some(Trip {
            guard: Guard::Shrink,
            subject: subject.to_owned(),
            message,
            before: json!(before),
            after: json!(before - removed),
            limit: json!(rules.max_removed_share),
        })
    }
}

fn gone(removed: usize, blank: usize) -> &'static str {
    match blank {
        0 => "gone",
        _ if blank == removed => "blank",
        _ => "gone or blank",
    }
}

/// Features by key.
type Features<'a> = BTreeMap<&'a str, &'a Feature>;

/// What is gone of features, or says nothing any more.
fn features(before: &Features<'_>, after: &Features<'_>) -> Removal {
    let mut removal = Removal::new(before.len(), 0);
    for (key, old) in before {
        let Some(new) = after.get(key) else {
            removal.removed += 1;
            continue;
        };
        if new.definition != old.definition && is_blank(new) && !is_blank(old) {
            removal.removed += 1;
            removal.blank += 1;
        }
    }
    let says_something = |side: &Features<'_>| side.values().any(|feature| !is_blank(feature));
    removal.is_emptied = removal.removed > 0
        && (after.is_empty() || !says_something(after) && says_something(before));
    removal
}

/// Whether a feature has neither a default nor a rule.
fn is_blank(feature: &Feature) -> bool {
    let definition = feature.definition.to_value();
    let default = definition.get("defaultValue");
    let rules = definition.get("rules").and_then(Value::as_array);
    default.is_none_or(Value::is_null) && rules.is_none_or(Vec::is_empty)
}

/// The features and running experiments that an environment has of a source.
pub(super) fn environment(
    rules: &Rules,
    source: &Arc<str>,
    before: &Stitched,
    after: &Stitched,
) -> Vec<Trip> {
    let [old, new] = [before, after].map(|side| features_of(source, side));
    let features = features(&old, &new);
    let [old, new] = [before, after].map(|side| running(side, |of| of == source));
    let experiments = Removal {
        is_emptied: new.is_empty(),
        ..Removal::new(old.len(), old.difference(&new).count())
    };
    // All differences are this source's: what others no longer have, it took by defining the same keys.
    let others = running(before, |of| of != source);
    let left = running(after, |_| true);
    let taken = Removal {
        is_emptied: others.is_disjoint(&left),
        ..Removal::new(others.len(), others.difference(&left).count())
    };
    // Where the list has some, it says what runs.
    let last = if old.is_empty() && new.is_empty() {
        last_in_payload(source, before, after)
    } else {
        None
    };
    let trips = [
        features.trip(rules, "features", "features"),
        experiments.trip(rules, "experiments", "running experiments"),
        taken.trip(rules, "experiments", "running experiments of other sources"),
        last.and_then(|last| last.trip(rules, "experiments", "experiments of the payload")),
    ];
    trips.into_iter().flatten().collect()
}

fn features_of<'a>(source: &Arc<str>, stitched: &'a Stitched) -> Features<'a> {
    let features = stitched.features.iter();
    features
        .filter(|(_, feature)| feature.source == *source)
        .map(|(key, feature)| (&**key, &*feature.item))
        .collect()
}

/// The experiments in a source's rules and its auto experiments, where none of them is left.
fn last_in_payload(source: &Arc<str>, before: &Stitched, after: &Stitched) -> Option<Removal> {
    let auto = |side: &Stitched| {
        let auto = side.auto_experiments.iter();
        auto.filter(|experiment| experiment.source == *source)
            .count()
    };
    if in_rules_of(source, after).next().is_some() || auto(after) > 0 {
        return None;
    }
    let keys: BTreeSet<String> = in_rules_of(source, before).collect();
    let number = keys.len() + auto(before);
    Some(Removal {
        is_emptied: true,
        ..Removal::new(number, number)
    })
}

/// Tracking keys of the experiments in a source's rules.
fn in_rules_of(source: &Arc<str>, stitched: &Stitched) -> impl Iterator<Item = String> {
    let features = stitched.features.iter();
    let of_it = features.filter(move |(_, feature)| feature.source == *source);
    let experiments = of_it.flat_map(|(key, feature)| rule_experiments(key, &feature.item));
    experiments.map(|experiment| experiment.key)
}

/// Tracking keys of the running experiments of some sources.
fn running(stitched: &Stitched, is_theirs: impl Fn(&Arc<str>) -> bool) -> BTreeSet<&str> {
    let is_running = |experiment: &&Sourced<Arc<Experiment>>| {
        let item = &experiment.item;
        is_theirs(&experiment.source) && item.status == Status::Running && !item.archived
    };
    let experiments = stitched.experiments.iter().filter(is_running);
    experiments
        .map(|experiment| experiment.item.tracking_key.as_str())
        .collect()
}

/// One connection's features, the experiments in their rules, and its auto experiments.
pub(super) fn payload(
    rules: &Rules,
    subject: &str,
    before: &Payload,
    after: &Payload,
) -> Vec<Trip> {
    let [old, new] = [before, after].map(|payload| -> Features<'_> {
        let features = payload.features.iter();
        features.map(|(key, f)| (&**key, &**f)).collect()
    });
    let features = features(&old, &new);
    let auto = before.auto_experiments.len();
    let auto = Removal::new(auto, auto.saturating_sub(after.auto_experiments.len()));
    let trips = [
        features.trip(rules, subject, "features"),
        in_rules(rules, subject, before, after),
        auto.trip(rules, subject, "auto experiments"),
    ];
    trips.into_iter().flatten().collect()
}

/// Experiments that are in the rules of features: those of an upstream that blanks its rules are all over.
fn in_rules(rules: &Rules, subject: &str, before: &Payload, after: &Payload) -> Option<Trip> {
    let is_same = |key: &Arc<str>, payload: &Payload, other: &Payload| {
        payload.features.get(key).map(|f| &f.definition)
            == other.features.get(key).map(|f| &f.definition)
    };
    let mut gone = BTreeSet::new();
    for (key, feature) in &before.features {
        if !is_same(key, before, after) {
            gone.extend(rule_experiments(key, feature).into_iter().map(|e| e.key));
        }
    }
    if gone.is_empty() {
        return None;
    }
    for (key, feature) in &after.features {
        if gone.is_empty() {
            return None;
        }
        for experiment in rule_experiments(key, feature) {
            gone.remove(&experiment.key);
        }
    }
    let all: BTreeSet<String> = before
        .features
        .iter()
        .flat_map(|(key, feature)| rule_experiments(key, feature))
        .map(|experiment| experiment.key)
        .collect();
    Removal::new(all.len(), gone.len()).trip(rules, subject, "experiments in rules")
}

/// One consumer's view. Being emptied is `empty_view`'s to judge: a view whose only experiment has ended empties rightly.
pub(super) fn view(rules: &Rules, before: &Shown, after: &Shown) -> Option<Trip> {
    let is_gone = |name: &&String| after.members.binary_search(name).is_err();
    let gone = before.members.iter().filter(is_gone).count();
    let subject = format!("view {}", before.name);
    Removal::new(before.members.len(), gone).trip(rules, &subject, "experiments shown")
}

/// The connections of a source.
pub(super) fn connections(rules: &Rules, before: usize, removed: usize) -> Option<Trip> {
    let removal = Removal {
        is_emptied: removed >= before,
        ..Removal::new(before, removed)
    };
    removal.trip(rules, "connections", "connections")
}

#[cfg(test)]
mod tests;
