//! What is gone of the live content, where the input that it was made of is lost and nothing else can be compared with.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{Guard, Rules, Trip, percent};
use crate::model::{Status, Stitched};

/// Names of what is live of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Keys of its features.
    pub features: BTreeSet<String>,
    /// Tracking keys of its running experiments.
    pub running: BTreeSet<String>,
}

impl Live {
    /// Reads the names of a source's items from a snapshot, which begins with its features.
    pub fn read(source: &str, snapshot_tail: &[u8]) -> Self {
        let text = [b"{", snapshot_tail].concat();
        let snapshot: Value = serde_json::from_slice(&text).unwrap_or_default();
        let is_of_it = |item: &Value| item["source"] == *source;
        let is_running = |item: &Value| item["status"] == "running" && item["archived"] != true;
        let features = snapshot["features"].as_object();
        let features = features.into_iter().flatten();
        let experiments = snapshot["experiments"].as_array();
        let experiments = experiments.into_iter().flatten();
        Self {
            features: features
                .filter(|(_, feature)| is_of_it(feature))
                .map(|(key, _)| key.clone())
                .collect(),
            running: experiments
                .filter(|item| is_of_it(item) && is_running(item))
                .filter_map(|item| item["trackingKey"].as_str().map(str::to_owned))
                .collect(),
        }
    }
}

/// Looks at what a new input of this source leaves of its live items.
pub fn of_live(rules: &Rules, source: &Arc<str>, live: &Live, after: &Stitched) -> Vec<Trip> {
    let features = after.features.iter();
    let features = features
        .filter(|(_, feature)| feature.source == *source)
        .map(|(key, _)| &**key)
        .collect();
    let experiments = after.experiments.iter().filter(|experiment| {
        let item = &experiment.item;
        experiment.source == *source && item.status == Status::Running && !item.archived
    });
    let running = experiments
        .map(|experiment| experiment.item.tracking_key.as_str())
        .collect();
    let features = Gone::new(&live.features, &features, "features", Guard::EmptyFeatures);
    let running = Gone::new(
        &live.running,
        &running,
        "running experiments",
        Guard::EmptyExperiments,
    );
    [features, running]
        .into_iter()
        .filter_map(|gone| gone.trip(rules))
        .collect()
}

struct Gone {
    before: usize,
    removed: usize,
    /// The guard of emptiness, where nothing is there any more.
    emptied: Option<Guard>,
    what: &'static str,
}

impl Gone {
    fn new(
        before: &BTreeSet<String>,
        after: &BTreeSet<&str>,
        what: &'static str,
        emptiness: Guard,
    ) -> Self {
        let gone = before.iter().filter(|name| !after.contains(name.as_str()));
        Self {
            before: before.len(),
            removed: gone.count(),
            emptied: after.is_empty().then_some(emptiness),
            what,
        }
    }

    fn trip(&self, rules: &Rules) -> Option<Trip> {
        let Self {
            before, removed, ..
        } = *self;
        let (share, is_too_much) = rules.gone(removed, before);
        if removed == 0 || !(is_too_much || self.emptied.is_some()) {
            return None;
        }
        let message = format!(
            "{removed} of {before} live {} ({}) would be gone; the stored input that they came from is lost",
            self.what,
            percent(share)
        );
        Some(Trip {
            guard: self.emptied.unwrap_or(Guard::Shrink),
            subject: self.what.to_owned(),
            message,
            before: json!(before),
            after: json!(before - removed),
            limit: match self.emptied {
                Some(_) => Value::Null,
                None => json!(rules.max_removed_share),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::test_support::{listed, rules, stitched},
        *,
    };

    fn side(features: usize, experiments: usize) -> Stitched {
        let feature = |i: usize| (format!("f{i}"), json!({"defaultValue": i}));
        let features: serde_json::Map<_, _> = (0..features).map(feature).collect();
        let list: Vec<Value> = (0..experiments).map(|i| listed(&format!("e{i}"))).collect();
        stitched(&json!({ "features": features }), &list)
    }

    /// A snapshot with so many features and experiments of the source `s`, from behind its first brace.
    fn tail((features, experiments): (usize, usize)) -> String {
        let of_it = |mut item: Value| {
            item["source"] = json!("s");
            item
        };
        let feature = |i: usize| (format!("f{i}"), of_it(json!({"defaultValue": i})));
        let features: serde_json::Map<_, _> = (0..features).map(feature).collect();
        let experiment = |i: usize| of_it(listed(&format!("e{i}")));
        let mut experiments: Vec<Value> = (0..experiments).map(experiment).collect();
        let mut archived = of_it(listed("over"));
        archived["archived"] = json!(true);
        experiments.push(archived);
        let snapshot = json!({"features": features, "experiments": experiments}).to_string();
        snapshot[1..].to_owned()
    }

    #[track_caller]
    fn check(before: (usize, usize), after: (usize, usize), expected: &[Guard]) {
        let live = Live::read("s", tail(before).as_bytes());
        assert_eq!((live.features.len(), live.running.len()), before);
        let trips = of_live(&rules(), &"s".into(), &live, &side(after.0, after.1));
        let found: Vec<_> = trips.iter().map(|trip| trip.guard).collect();
        assert_eq!(found, expected, "{trips:?}");
    }

    #[test]
    fn what_is_live_does_not_vanish_with_a_lost_input() {
        check((10, 10), (10, 10), &[]);
        check((10, 10), (8, 12), &[]);
        check((10, 10), (5, 10), &[Guard::Shrink]);
        check((2, 1), (1, 1), &[]);
        check(
            (2, 1),
            (0, 0),
            &[Guard::EmptyFeatures, Guard::EmptyExperiments],
        );
        check((0, 0), (0, 0), &[]);
    }

    #[test]
    fn another_sources_items_are_its_own() {
        let tail = tail((3, 3));
        assert_eq!(Live::read("other", tail.as_bytes()), Live::default());
        assert_eq!(Live::read("s", b"not json"), Live::default());
    }
}
