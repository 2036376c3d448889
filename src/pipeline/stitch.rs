//! Merges all sources of one environment: precedence per key, a source on every item, collisions as issues.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use time::OffsetDateTime;

use super::{
    adapt, groups, namespaces,
    payload::{ExperimentList, Payload},
    projects,
};
use crate::model::{CanonicalJson, Experiment, Issue, Sourced, Stitched};

/// One source's part in a stitch.
#[derive(Clone, Debug)]
pub struct StitchInput {
    /// Source id.
    pub source: Arc<str>,
    /// The higher one wins; equal ones go by id.
    pub precedence: i32,
    /// Payloads by connection, in the order of the settings: of one source, the first connection wins.
    pub payloads: Vec<Arc<Payload>>,
    /// Experiments of the management API, where the source has one.
    pub experiments: Option<Arc<ExperimentList>>,
    /// Time of the source's last successful poll: what "ended less than 24 hours ago" is counted from.
    pub checked_at: OffsetDateTime,
}

/// Merges `inputs`, in whatever order they come.
pub fn stitch(environment: &str, inputs: &[StitchInput]) -> Stitched {
    let mut inputs: Vec<&StitchInput> = inputs.iter().collect();
    inputs.sort_by(|a, b| {
        b.precedence
            .cmp(&a.precedence)
            .then_with(|| a.source.cmp(&b.source))
    });
    let mut stitched = Stitched {
        environment: environment.to_owned(),
        sources: inputs
            .iter()
            .map(|input| input.source.to_string())
            .collect(),
        ..Stitched::default()
    };
    let mut experiments: BTreeMap<&str, Sourced<Arc<Experiment>>> = BTreeMap::new();
    for input in &inputs {
        for (i, payload) in input.payloads.iter().enumerate() {
            merge_payload(input, payload, i == 0, &mut stitched);
        }
        let Some(list) = &input.experiments else {
            continue;
        };
        stitched.issues.extend(list.issues.iter().cloned());
        for experiment in &list.experiments {
            let key = experiment.tracking_key.as_str();
            if let Some(winner) = experiments.get(key) {
                stitched
                    .issues
                    .push(collision("experiments", key, &input.source, &winner.source));
                continue;
            }
            let item = Sourced {
                source: Arc::clone(&input.source),
                item: Arc::clone(experiment),
            };
            experiments.insert(key, item);
        }
    }
    stitched.experiments = experiments.into_values().collect();
    projects::merge(&inputs, &mut stitched);
    groups::merge(&inputs, &mut stitched);
    groups::report_missing(&mut stitched);
    prerequisites(&mut stitched);
    namespaces::report(&mut stitched);
    stitched.issues.sort_unstable();
    stitched.issues.dedup();
    stitched
}

fn merge_payload(input: &StitchInput, payload: &Payload, is_first: bool, stitched: &mut Stitched) {
    stitched.issues.extend(payload.issues.iter().cloned());
    for (key, feature) in &payload.features {
        match stitched.features.get(key) {
            None => {
                let item = Sourced {
                    source: Arc::clone(&input.source),
                    item: Arc::clone(feature),
                };
                stitched.features.insert(Arc::clone(key), item);
            }
            Some(winner) if winner.source != input.source => {
                stitched
                    .issues
                    .push(collision("features", key, &input.source, &winner.source));
            }
            // Connections differ in what their SDKs understand; evaluation takes the first, each SDK gets its own.
            Some(winner) if winner.item != *feature => {
                let message =
                    "differs between the source's connections; the one listed first counts";
                let path = format!("features.{key}");
                stitched.issues.push(Issue::warning(
                    "connections_differ",
                    &input.source,
                    path,
                    message,
                ));
            }
            Some(_) => {}
        }
    }
    for (name, ours, theirs) in [
        (
            "saved_groups",
            &mut stitched.saved_groups,
            &payload.saved_groups,
        ),
        (
            "contextual_bandits",
            &mut stitched.contextual_bandits,
            &payload.contextual_bandits,
        ),
    ] {
        for (id, value) in theirs {
            let winner = ours.entry(Arc::clone(id)).or_insert_with(|| value.clone());
            if winner != value {
                let message = "has another definition elsewhere, which counts";
                let path = format!("{name}.{id}");
                stitched
                    .issues
                    .push(Issue::warning("collision", &input.source, path, message));
            }
        }
    }
    // The connections of one source show the same visual changes; those of the first are enough.
    if is_first {
        let sourced = |item: &CanonicalJson| Sourced {
            source: Arc::clone(&input.source),
            item: item.clone(),
        };
        stitched
            .auto_experiments
            .extend(payload.auto_experiments.iter().map(sourced));
    }
}

fn collision(collection: &str, key: &str, loser: &str, winner: &str) -> Issue {
    let message = format!(
        "is also defined by source `{winner}`, whose precedence is higher or whose id comes first"
    );
    Issue::warning("collision", loser, format!("{collection}.{key}"), message)
}

/// Reports prerequisites that are not there and those that depend on themselves.
fn prerequisites(stitched: &mut Stitched) {
    let features = &stitched.features;
    let mut issues = Vec::new();
    for (key, feature) in features {
        for parent in feature
            .item
            .parents
            .iter()
            .filter(|parent| !features.contains_key(*parent))
        {
            let message = format!("depends on feature `{parent}`, which is not there");
            let path = format!("features.{key}");
            issues.push(Issue::warning(
                "dangling_prerequisite",
                &feature.source,
                path,
                message,
            ));
        }
    }
    for key in cyclic(stitched) {
        let feature = &stitched.features[&key];
        let message = "depends on itself through its prerequisites";
        let path = format!("features.{key}");
        issues.push(Issue::warning(
            "prerequisite_cycle",
            &feature.source,
            path,
            message,
        ));
    }
    stitched.issues.extend(issues);
}

/// Features on a cycle. Depth-first with an explicit stack: upstream decides how deep it goes.
fn cyclic(stitched: &Stitched) -> Vec<Arc<str>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Open,
        Done,
    }
    let mut marks: HashMap<&str, Mark> = HashMap::new();
    let mut found = Vec::new();
    let with_parents = stitched
        .features
        .iter()
        .filter(|(_, feature)| !feature.item.parents.is_empty());
    for (start, _) in with_parents {
        if marks.contains_key(&**start) {
            continue;
        }
        let mut stack: Vec<(&Arc<str>, usize)> = vec![(start, 0)];
        marks.insert(start, Mark::Open);
        while let Some((key, next)) = stack.last_mut() {
            let parents = stitched
                .features
                .get(*key)
                .map_or(&[][..], |feature| &feature.item.parents);
            let Some(parent) = parents.get(*next) else {
                marks.insert(key, Mark::Done);
                stack.pop();
                continue;
            };
            *next += 1;
            match marks.get(&**parent) {
                Some(Mark::Done) => {}
                Some(Mark::Open) => {
                    let on_cycle = stack.iter().skip_while(|(key, _)| *key != parent);
                    found.extend(on_cycle.map(|(key, _)| Arc::clone(key)));
                }
                None => {
                    marks.insert(parent, Mark::Open);
                    stack.push((parent, 0));
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The experiments that consumers are shown.
pub fn shown(stitched: &Stitched, inputs: &[StitchInput]) -> Vec<Sourced<Arc<Experiment>>> {
    let checked_at: BTreeMap<&str, OffsetDateTime> = inputs
        .iter()
        .map(|input| (&*input.source, input.checked_at))
        .collect();
    let is_shown = |experiment: &&Sourced<Arc<Experiment>>| {
        checked_at
            .get(&*experiment.source)
            .is_some_and(|at| adapt::is_shown(&experiment.item, *at))
    };
    stitched
        .experiments
        .iter()
        .filter(is_shown)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pipeline::validate;

    fn input(source: &str, precedence: i32, payload: &serde_json::Value) -> StitchInput {
        let payload = validate::payload(source, payload.to_string().as_bytes(), None).unwrap();
        StitchInput {
            source: source.into(),
            precedence,
            payloads: vec![Arc::new(payload)],
            experiments: None,
            checked_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn codes(stitched: &Stitched) -> Vec<(&str, &str)> {
        stitched
            .issues
            .iter()
            .map(|issue| (issue.code, issue.path.as_str()))
            .collect()
    }

    #[test]
    fn the_higher_precedence_wins_and_the_collision_is_recorded() {
        let low = input(
            "low",
            1,
            &json!({"features": {"a": {"defaultValue": 1}, "b": {"defaultValue": 1}}}),
        );
        let high = input("high", 2, &json!({"features": {"a": {"defaultValue": 2}}}));
        for inputs in [[low.clone(), high.clone()], [high, low]] {
            let stitched = stitch("test", &inputs);
            let a = &stitched.features["a"];
            assert_eq!(
                (&*a.source, a.item.definition.as_str()),
                ("high", r#"{"defaultValue":2}"#)
            );
            assert_eq!(&*stitched.features["b"].source, "low");
            assert_eq!(codes(&stitched), [("collision", "features.a")]);
        }
    }

    #[test]
    fn cycles_and_dangling_prerequisites_are_reported() {
        let parent = |id: &str| json!({"rules": [{"parentConditions": [{"id": id, "condition": {"value": true}}]}]});
        let features =
            json!({"a": parent("b"), "b": parent("c"), "c": parent("b"), "d": parent("x")});
        let stitched = stitch("test", &[input("s", 1, &json!({"features": features}))]);
        let expected = [
            ("dangling_prerequisite", "features.d"),
            ("prerequisite_cycle", "features.b"),
            ("prerequisite_cycle", "features.c"),
        ];
        assert_eq!(codes(&stitched), expected);
    }
}
