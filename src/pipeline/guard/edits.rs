//! Edits of a running experiment that move units between its variations: unsafe unless a new phase begins with them.
//!
//! Raising the coverage is safe and not looked at. The settings say of each kind of edit whether it is held.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    Findings, Guard, Reaction, Rules, Trip,
    splits::{self, Split},
};
use crate::{
    eval::Range,
    model::{Experiment, Feature, Issue, Sourced, Stitched},
};

/// Weights that differ by no more are the same: GrowthBook rounds thirds to four digits.
const WEIGHT_TOLERANCE: f64 = 0.0001;

/// Looks at every experiment that runs on both sides and is not the same.
pub(super) fn findings(
    rules: &Rules,
    source: &Arc<str>,
    before: &Stitched,
    after: &Stitched,
) -> Findings {
    let mut findings = Findings::default();
    // An experiment may stand in the list and in several rules; it is reported once.
    let mut found: BTreeMap<(String, Guard), Trip> = BTreeMap::new();
    for (old, new) in changed_splits(before, after) {
        for trip in edits(&old, &new) {
            found
                .entry((trip.subject.clone(), trip.guard))
                .or_insert(trip);
        }
    }
    for trip in found.into_values() {
        let reaction = match trip.guard {
            Guard::WeightsChanged => rules.weights_changed,
            _ => rules.hash_changed,
        };
        match reaction {
            Reaction::Hold => findings.trips.push(trip),
            Reaction::Warn => {
                let code = trip.guard.as_str();
                let issue = Issue::warning(code, source, trip.subject, trip.message);
                findings.warnings.push(issue);
            }
            Reaction::Ignore => {}
        }
    }
    if rules.namespace_overlap == Reaction::Hold {
        findings.trips.extend(overlap(before, after));
    }
    findings
}

/// The splits of experiments on both sides, where something about them is not the same.
///
/// Those of other sources, too: what became of them is this source's doing.
fn changed_splits(before: &Stitched, after: &Stitched) -> Vec<(Split, Split)> {
    let mut pairs = Vec::new();
    for old in &before.experiments {
        let new = find(&after.experiments, &old.item.tracking_key);
        let Some(new) = new.filter(|new| new.item.definition != old.item.definition) else {
            continue;
        };
        pairs.extend(splits::of_listed(&old.item).zip(splits::of_listed(&new.item)));
    }
    for (key, old) in &before.features {
        let new = after.features.get(key);
        let is_other = |new: &&Sourced<Arc<Feature>>| new.item.definition != old.item.definition;
        let Some(new) = new.filter(is_other) else {
            continue;
        };
        let [olds, news] = [old, new].map(|side| splits::rule_experiments(key, &side.item));
        pairs.extend(paired(olds, news));
    }
    if before.auto_experiments != after.auto_experiments {
        let [olds, news] = [before, after].map(|side| -> Vec<Split> {
            let auto = side.auto_experiments.iter();
            auto.filter_map(|auto| splits::of_auto(&auto.item.to_value()))
                .collect()
        });
        pairs.extend(paired(olds, news));
    }
    pairs
}

/// Each split with the later one of the same key that has its place among those of that key.
///
/// Where their number is another one, those that are the same on both sides are left out first: a rule that came or went
/// moves the others.
fn paired(olds: Vec<Split>, news: Vec<Split>) -> Vec<(Split, Split)> {
    let mut by_key: BTreeMap<String, [Vec<Split>; 2]> = BTreeMap::new();
    for (side, splits) in [olds, news].into_iter().enumerate() {
        for split in splits {
            by_key.entry(split.key.clone()).or_default()[side].push(split);
        }
    }
    let mut pairs = Vec::new();
    for [mut olds, mut news] in by_key.into_values() {
        if olds.len() != news.len() {
            olds.retain(|old| {
                let same = news.iter().position(|new| new == old);
                same.map(|at| news.remove(at)).is_none()
            });
        }
        pairs.extend(olds.into_iter().zip(news));
    }
    pairs
}

fn find<'a>(
    experiments: &'a [Sourced<Arc<Experiment>>],
    key: &str,
) -> Option<&'a Sourced<Arc<Experiment>>> {
    let at = experiments.binary_search_by(|e| e.item.tracking_key.as_str().cmp(key));
    at.ok().map(|at| &experiments[at])
}

/// What is unsafe about the way from one split to another.
fn edits(old: &Split, new: &Split) -> Vec<Trip> {
    if old.generation != new.generation {
        return Vec::new();
    }
    let found = [hash_edit(old, new), weights_edit(old, new)];
    found.into_iter().flatten().collect()
}

fn hash_edit(old: &Split, new: &Split) -> Option<Trip> {
    let other = ["seed", "hashAttribute", "hashVersion"]
        .into_iter()
        .filter(|name| old.hash[*name] != new.hash[*name]);
    let names = other.collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| Trip {
        guard: Guard::HashChanged,
        subject: subject(old),
        message: format!(
            "{names} changed while it runs, without a new phase: every unit is drawn anew"
        ),
        before: old.hash.clone(),
        after: new.hash.clone(),
        limit: Value::Null,
    })
}

fn weights_edit(old: &Split, new: &Split) -> Option<Trip> {
    let is_same = old.weights.len() == new.weights.len()
        && old
            .weights
            .iter()
            .zip(&new.weights)
            .all(|(old, new)| (old - new).abs() <= WEIGHT_TOLERANCE);
    let (what, before, after) = if !is_same {
        ("weights", json!(old.weights), json!(new.weights))
    } else if moves(&old.ranges, &new.ranges) {
        ("ranges", json!(old.ranges), json!(new.ranges))
    } else {
        return None;
    };
    Some(Trip {
        guard: Guard::WeightsChanged,
        subject: subject(old),
        message: format!(
            "{what} went from {before} to {after} while it runs, without a new phase: units change their variation"
        ),
        before,
        after,
        limit: Value::Null,
    })
}

/// Whether buckets of one variation become those of another.
fn moves(old: &[Range], new: &[Range]) -> bool {
    #[expect(
        clippy::cast_precision_loss,
        reason = "there are at most some thousand variations"
    )]
    let tolerance = WEIGHT_TOLERANCE * old.len() as f64;
    let is_shared = |a: &Range, b: &Range| a.1.min(b.1) - a.0.max(b.0) > tolerance;
    old != new
        && old.iter().enumerate().any(|(i, old)| {
            let others = new.iter().enumerate().filter(|(j, _)| *j != i);
            others.map(|(_, new)| new).any(|new| is_shared(old, new))
        })
}

fn subject(split: &Split) -> String {
    format!("experiments.{}", split.key)
}

/// Overlaps that were not there before; stitching finds and reports them.
fn overlap(before: &Stitched, after: &Stitched) -> Option<Trip> {
    let of = |stitched: &Stitched| -> Vec<Issue> {
        let issues = stitched.issues.iter();
        issues
            .filter(|issue| issue.code == Guard::NamespaceOverlap.as_str())
            .cloned()
            .collect()
    };
    let (old, new) = (of(before), of(after));
    let first = new.iter().find(|issue| !old.contains(issue))?;
    Some(Trip {
        guard: Guard::NamespaceOverlap,
        subject: first.path.clone(),
        message: first.message.clone(),
        before: json!(old.len()),
        after: json!(new.len()),
        limit: Value::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::test_support::{listed, rules, stitched},
        *,
    };

    fn with(change: impl FnOnce(&mut Value)) -> Stitched {
        let mut experiment = listed("one");
        change(&mut experiment);
        stitched(&json!({"features": {}}), &[experiment])
    }

    fn in_rule(change: impl FnOnce(&mut Value)) -> Stitched {
        let mut rule = json!({"key": "one", "variations": [0, 1], "weights": [0.5, 0.5], "coverage": 0.1,
            "seed": "s", "phase": "0", "hashAttribute": "id", "hashVersion": 2});
        change(&mut rule);
        stitched(&json!({"features": {"f": {"rules": [rule]}}}), &[])
    }

    fn found(before: &Stitched, after: &Stitched) -> Vec<&'static str> {
        let findings = findings(&rules(), &"s".into(), before, after);
        assert_eq!(findings.trips, [], "they are warnings by default");
        findings.warnings.iter().map(|issue| issue.code).collect()
    }

    #[test]
    fn other_weights_are_reported_and_more_coverage_is_not() {
        let before = with(|_| {});
        assert_eq!(
            found(&before, &with(|e| e["phases"][0]["coverage"] = json!(1))),
            [""; 0]
        );
        let other = with(|e| {
            e["phases"][0]["trafficSplit"][0]["weight"] = json!(0.9);
            e["phases"][0]["trafficSplit"][1]["weight"] = json!(0.1);
        });
        assert_eq!(found(&before, &other), ["weights_changed"]);
        let rounded = with(|e| e["phases"][0]["trafficSplit"][0]["weight"] = json!(0.50005));
        assert_eq!(found(&before, &rounded), [""; 0]);
        let before = in_rule(|_| {});
        assert_eq!(
            found(&before, &in_rule(|r| r["coverage"] = json!(1))),
            [""; 0]
        );
        let other = in_rule(|r| r["weights"] = json!([0.9, 0.1]));
        assert_eq!(found(&before, &other), ["weights_changed"]);
    }

    #[test]
    fn ranges_are_weights_and_more_coverage_by_them_is_safe() {
        let with = |ranges: Value| in_rule(|r| r["ranges"] = ranges);
        let before = with(json!([[0.0, 0.1], [0.5, 0.6]]));
        let check = |after: Value, expected: &[&str]| {
            assert_eq!(found(&before, &with(after)), expected);
        };
        check(json!([[0.0, 0.5], [0.5, 1.0]]), &[]);
        check(json!([[0.0, 0.3], [0.5, 0.6]]), &["weights_changed"]);
        check(json!([[0.5, 0.6], [0.0, 0.1]]), &["weights_changed"]);
        // The same said with a coverage.
        let coverage = in_rule(|r| r["coverage"] = json!(0.2));
        assert_eq!(found(&before, &coverage), [""; 0]);
    }

    #[test]
    fn auto_experiments_are_compared_while_they_run() {
        let with = |status: &str, more: Value| {
            let mut auto = json!({"key": "banner", "status": status, "variations": [{}, {}],
                "weights": [0.5, 0.5], "seed": "s"});
            auto.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            stitched(&json!({"features": {}, "experiments": [auto]}), &[])
        };
        let before = with("running", json!({}));
        let weights = json!({"weights": [0.9, 0.1]});
        let seed = json!({"seed": "other"});
        let coverage = json!({"coverage": 0.5});
        assert_eq!(
            found(&before, &with("running", weights.clone())),
            ["weights_changed"]
        );
        assert_eq!(found(&before, &with("running", seed)), ["hash_changed"]);
        assert_eq!(found(&before, &with("running", coverage)), [""; 0]);
        assert_eq!(found(&before, &with("stopped", weights.clone())), [""; 0]);
        let draft = with("draft", json!({}));
        assert_eq!(found(&draft, &with("draft", weights)), [""; 0]);
    }

    #[test]
    fn another_hash_is_reported_unless_a_new_phase_begins_with_it() {
        let before = with(|_| {});
        for (name, value) in [
            ("hashAttribute", json!("company")),
            ("hashVersion", json!(1)),
        ] {
            let other = with(|e| e[name] = value);
            assert_eq!(found(&before, &other), ["hash_changed"], "{name}");
        }
        let seed = |e: &mut Value| e["phases"][0]["seed"] = json!("other");
        assert_eq!(found(&before, &with(seed)), ["hash_changed"]);
        let anew = with(|e| {
            seed(e);
            e["phases"][0]["dateStarted"] = json!("2026-11-01T00:00:00Z");
        });
        assert_eq!(found(&before, &anew), [""; 0]);
        let before = in_rule(|_| {});
        let seed = |r: &mut Value| r["seed"] = json!("other");
        assert_eq!(found(&before, &in_rule(seed)), ["hash_changed"]);
        let anew = in_rule(|r| {
            seed(r);
            r["phase"] = json!("1");
        });
        assert_eq!(found(&before, &anew), [""; 0]);
    }

    #[test]
    fn an_edit_of_hash_and_weights_is_both() {
        let both = |r: &mut Value| {
            r["seed"] = json!("other");
            r["weights"] = json!([0.9, 0.1]);
        };
        let (before, after) = (in_rule(|_| {}), in_rule(both));
        assert_eq!(found(&before, &after), ["weights_changed", "hash_changed"]);
        let rules = Rules {
            weights_changed: Reaction::Hold,
            ..rules()
        };
        let findings = findings(&rules, &"s".into(), &before, &after);
        assert_eq!(findings.trips.len(), 1);
        assert_eq!(findings.trips[0].guard, Guard::WeightsChanged);
        assert_eq!(findings.warnings[0].code, "hash_changed");
    }

    #[test]
    fn rules_of_one_experiment_are_compared_each_with_itself() {
        let rule = |country: &str, weight: f64| {
            json!({"key": "one", "variations": [0, 1], "weights": [weight, 1.0 - weight],
                "condition": {"country": country}})
        };
        let side = |rules: &[Value], default: i32| {
            let feature = json!({"defaultValue": default, "rules": rules});
            stitched(&json!({"features": {"f": feature}}), &[])
        };
        let both = [rule("de", 0.5), rule("us", 0.9)];
        let before = side(&both, 0);
        assert_eq!(found(&before, &side(&both, 1)), [""; 0]);
        assert_eq!(found(&before, &side(&both[1..], 0)), [""; 0]);
        assert_eq!(found(&side(&both[1..], 0), &before), [""; 0]);
        let edited = [rule("de", 0.5), rule("us", 0.8)];
        assert_eq!(found(&before, &side(&edited, 0)), ["weights_changed"]);
        let swapped = [rule("de", 0.9), rule("us", 0.5)];
        assert_eq!(found(&before, &side(&swapped, 0)), ["weights_changed"]);
    }

    #[test]
    fn an_experiment_that_another_source_takes_over_is_compared_too() {
        let mut before = with(|_| {});
        before.experiments[0].source = "other".into();
        let after = with(|e| e["hashVersion"] = json!(1));
        assert_eq!(found(&before, &after), ["hash_changed"]);
    }

    #[test]
    fn what_does_not_run_may_be_edited() {
        let draft = |e: &mut Value| e["status"] = json!("draft");
        let other = with(|e| {
            draft(e);
            e["hashVersion"] = json!(1);
        });
        assert_eq!(found(&with(draft), &other), [""; 0]);
        assert_eq!(found(&with(draft), &with(|_| {})), [""; 0]);
    }

    #[test]
    fn the_settings_say_what_happens() {
        let (before, after) = (
            in_rule(|_| {}),
            in_rule(|r| r["weights"] = json!([0.9, 0.1])),
        );
        let with = |weights_changed| {
            let rules = Rules {
                weights_changed,
                ..rules()
            };
            findings(&rules, &"s".into(), &before, &after)
        };
        let held = with(Reaction::Hold);
        assert_eq!(held.warnings, []);
        assert_eq!(held.trips[0].subject, "experiments.one");
        assert_eq!(held.trips[0].after, json!([0.9, 0.1]));
        assert_eq!(with(Reaction::Ignore), Findings::default());
    }

    #[test]
    fn a_new_overlap_in_a_namespace_is_held_if_the_settings_say_so() {
        let at = |key: &str, from: f64| {
            let mut experiment = listed(key);
            experiment["phases"][0]["namespace"] =
                json!({"namespaceId": "ns", "enabled": true, "ranges": [[from, from + 0.5]]});
            experiment
        };
        let side = |from| {
            let list = [at("one", 0.0), at("two", from)];
            stitched(&json!({"features": {}}), &list)
        };
        let rules = Rules {
            namespace_overlap: Reaction::Hold,
            ..rules()
        };
        let trips = |from, to| findings(&rules, &"s".into(), &side(from), &side(to)).trips;
        assert_eq!(trips(0.5, 0.5), []);
        assert_eq!(trips(0.4, 0.4), [], "it was there before");
        let trip = &trips(0.5, 0.4)[0];
        assert_eq!(trip.guard, Guard::NamespaceOverlap);
        assert_eq!((&trip.before, &trip.after), (&json!(0), &json!(1)));
    }
}
