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
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of items stay far below 2^52"
        )]
        let share = removed as f64 / before.max(1) as f64;
        let is_too_much =
            share > rules.max_removed_share && removed as u64 >= rules.max_removed_min;
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
    let in_payload = last_in_payload(source, before, after)
        .filter(|_| old.is_empty() && new.is_empty())
        .and_then(|last| last.trip(rules, "experiments", "experiments of the payload"));
    let trips = [
        features.trip(rules, "features", "features"),
        experiments.trip(rules, "experiments", "running experiments"),
        taken.trip(rules, "experiments", "running experiments of other sources"),
        in_payload,
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
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::test_support::{listed, payload as read, rules, stitched},
        *,
    };

    fn features(number: usize) -> Value {
        (0..number)
            .map(|i| (format!("f{i}"), json!({"defaultValue": i})))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn running_ones(number: usize) -> Vec<Value> {
        (0..number).map(|i| listed(&format!("e{i}"))).collect()
    }

    #[track_caller]
    fn check(before: (usize, usize), after: (usize, usize), expected: &[(&str, i64, i64)]) {
        let side = |(f, e)| stitched(&json!({"features": features(f)}), &running_ones(e));
        let trips = environment(&rules(), &"s".into(), &side(before), &side(after));
        let found: Vec<_> = trips
            .iter()
            .map(|trip| {
                let number = |value: &Value| value.as_i64().unwrap();
                (
                    trip.subject.as_str(),
                    number(&trip.before),
                    number(&trip.after),
                )
            })
            .collect();
        assert_eq!(found, expected, "{trips:?}");
    }

    #[test]
    fn features_and_running_experiments_are_counted_separately() {
        check((10, 10), (7, 7), &[]);
        check((10, 10), (6, 10), &[("features", 10, 6)]);
        check((10, 10), (10, 6), &[("experiments", 10, 6)]);
        check(
            (10, 10),
            (6, 6),
            &[("features", 10, 6), ("experiments", 10, 6)],
        );
    }

    #[test]
    fn few_removals_never_trip_unless_nothing_is_left() {
        check((3, 3), (1, 1), &[]);
        check((2, 2), (0, 2), &[("features", 2, 0)]);
        check((2, 1), (2, 0), &[("experiments", 1, 0)]);
        check((0, 0), (0, 0), &[]);
    }

    /// Features of which the last so many say nothing.
    fn blanked(number: usize, blank: usize) -> Value {
        let feature = |i: usize| {
            let is_blank = i >= number - blank;
            let one = json!({"defaultValue": i, "rules": [{"force": 1}]});
            let other = [
                json!({}),
                json!({"defaultValue": null, "rules": []}),
                json!({"valueType": "string"}),
            ];
            let definition = if is_blank { other[i % 3].clone() } else { one };
            (format!("f{i}"), definition)
        };
        let features: serde_json::Map<_, _> = (0..number).map(feature).collect();
        json!({ "features": features })
    }

    #[test]
    fn a_feature_that_says_nothing_any_more_is_gone() {
        let trips = |before: &Value, after: &Value| {
            let [old, new] = [before, after].map(read);
            let of_payload = payload(&rules(), "payload k", &old, &new);
            let [old, new] = [before, after].map(|document| stitched(document, &[]));
            let of_environment = environment(&rules(), &"s".into(), &old, &new);
            let of = |trips: Vec<Trip>| -> Vec<String> {
                trips.into_iter().map(|trip| trip.message).collect()
            };
            assert_eq!(of(of_payload.clone()), of(of_environment));
            of(of_payload)
        };
        let good = blanked(100, 0);
        assert_eq!(trips(&good, &blanked(100, 30)), [""; 0]);
        assert_eq!(
            trips(&good, &blanked(100, 40)),
            ["40 of 100 features (40 %) are blank; at most 30 % may go at once"]
        );
        assert_eq!(
            trips(&good, &blanked(80, 20)),
            ["40 of 100 features (40 %) are gone or blank; at most 30 % may go at once"]
        );
        assert_eq!(
            trips(&good, &blanked(100, 100)),
            ["nothing is left of 100 features: 100 are blank"]
        );
        // What said nothing before may go on with that, and a few may begin with it.
        assert_eq!(trips(&blanked(100, 100), &blanked(99, 99)), [""; 0]);
        assert_eq!(trips(&blanked(4, 2), &blanked(4, 3)), [""; 0]);
        // A default that is empty is a default.
        let empty = json!({"features": {"f0": {"defaultValue": ""}}});
        assert_eq!(trips(&blanked(1, 0), &empty), [""; 0]);
    }

    #[test]
    fn an_experiment_that_is_stopped_no_longer_runs() {
        let mut list = running_ones(5);
        let before = stitched(&json!({"features": {}}), &list);
        for experiment in &mut list[..3] {
            experiment["status"] = json!("stopped");
        }
        let after = stitched(&json!({"features": {}}), &list);
        let trips = environment(&rules(), &"s".into(), &before, &after);
        assert_eq!(
            trips[0].message,
            "3 of 5 running experiments (60 %) are gone; at most 30 % may go at once"
        );
    }

    #[test]
    fn experiments_that_vanish_from_rules_are_counted_though_their_features_stay() {
        let with = |number: usize| {
            let feature = |i: usize| {
                let rule = json!({"key": format!("e{i}"), "variations": [0, 1]});
                let rules = if i < number { json!([rule]) } else { json!([]) };
                (format!("f{i}"), json!({"defaultValue": 0, "rules": rules}))
            };
            let features: serde_json::Map<_, _> = (0..6).map(feature).collect();
            read(&json!({"features": features}))
        };
        let trips = |after| payload(&rules(), "payload k", &with(6), &with(after));
        assert_eq!(trips(5), []);
        assert_eq!(
            trips(0)[0].message,
            "6 of 6 experiments in rules (100 %) are gone; at most 30 % may go at once"
        );
    }

    #[test]
    fn the_last_experiments_of_a_payload_do_not_go_by_themselves() {
        let side = |in_rules: usize, auto: usize, listed_ones: usize| {
            let feature = |i: usize| {
                let rule = json!({"key": format!("r{i}"), "variations": [0, 1]});
                let rules = if i < in_rules {
                    json!([rule])
                } else {
                    json!([])
                };
                (format!("f{i}"), json!({"defaultValue": 0, "rules": rules}))
            };
            let features: serde_json::Map<_, _> = (0..3).map(feature).collect();
            let auto: Vec<Value> = (0..auto)
                .map(|i| json!({"key": format!("a{i}"), "variations": [{}, {}]}))
                .collect();
            let document = json!({"features": features, "experiments": auto});
            stitched(&document, &running_ones(listed_ones))
        };
        let trips = |before: (usize, usize, usize), after: (usize, usize, usize)| -> Vec<String> {
            let [old, new] = [before, after].map(|(rules, auto, list)| side(rules, auto, list));
            let trips = environment(&rules(), &"s".into(), &old, &new).into_iter();
            trips.map(|trip| trip.message).collect()
        };
        let nothing = |number| {
            [format!(
                "nothing is left of {number} experiments of the payload"
            )]
        };
        assert_eq!(trips((1, 0, 0), (0, 0, 0)), nothing(1));
        assert_eq!(trips((0, 2, 0), (0, 0, 0)), nothing(2));
        assert_eq!(trips((1, 1, 0), (0, 0, 0)), nothing(2));
        assert_eq!(trips((2, 0, 0), (1, 0, 0)), [""; 0]);
        assert_eq!(trips((1, 1, 0), (0, 1, 0)), [""; 0]);
        // Others run: a single one may end.
        assert_eq!(trips((1, 0, 5), (0, 0, 5)), [""; 0]);
        assert_eq!(trips((0, 0, 0), (0, 0, 0)), [""; 0]);
    }

    #[test]
    fn a_source_does_not_end_the_experiments_of_another_by_defining_the_same() {
        let side = |number: usize, taken: usize, status: Status| {
            let mut side = stitched(&json!({"features": {}}), &running_ones(number));
            for other in side.experiments.iter_mut().skip(taken) {
                other.source = "other".into();
            }
            for mine in side.experiments.iter_mut().take(taken) {
                Arc::make_mut(&mut mine.item).status = status;
            }
            side
        };
        let trips = |before: &Stitched, after: &Stitched| -> Vec<String> {
            let trips = environment(&rules(), &"s".into(), before, after).into_iter();
            trips.map(|trip| trip.message).collect()
        };
        let running = Status::Running;
        let taken = trips(&side(2, 0, running), &side(2, 2, Status::Draft));
        assert_eq!(
            taken,
            ["nothing is left of 2 running experiments of other sources"]
        );
        assert_eq!(
            trips(&side(2, 0, running), &side(2, 1, Status::Draft)),
            [""; 0]
        );
        assert_eq!(trips(&side(2, 0, running), &side(2, 2, running)), [""; 0]);
        assert_eq!(
            trips(&side(9, 0, running), &side(9, 4, Status::Draft)).len(),
            1
        );
    }

    #[test]
    fn a_view_may_lose_few_of_its_members() {
        let view = |number: usize| Shown {
            name: "varnish".into(),
            members: (0..number).map(|i| format!("e{i}")).collect(),
            bytes: 0,
        };
        assert_eq!(super::view(&rules(), &view(9), &view(7)), None);
        let trip = super::view(&rules(), &view(9), &view(5)).unwrap();
        assert_eq!(trip.subject, "view varnish");
        // Whether a view may be empty is another guard's to say.
        assert_eq!(super::view(&rules(), &view(2), &view(0)), None);
    }

    #[test]
    fn connections_do_not_go_all_at_once() {
        assert_eq!(connections(&rules(), 10, 2), None);
        assert!(connections(&rules(), 10, 4).is_some());
        assert!(connections(&rules(), 1, 1).is_some());
    }
}
