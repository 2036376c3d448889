//! Emptiness where something was.
//!
//! An upstream that lost its data answers `{"features":{}}` or `{"total":0}` as politely as one that has none. Serving
//! that would end every experiment at once, so it waits for an operator, however often it comes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Guard, Shown, Trip};
use crate::pipeline::{ExperimentList, Payload};

fn emptied(guard: Guard, subject: &str, message: String, before: usize) -> Trip {
    Trip {
        guard,
        subject: subject.to_owned(),
        message,
        before: json!(before),
        after: json!(0),
        limit: Value::Null,
    }
}

/// A payload without features where there were some.
pub(super) fn payload(subject: &str, old: &Payload, new: &Payload) -> Option<Trip> {
    let before = old.features.len();
    (before > 0 && new.features.is_empty()).then(|| {
        let message = format!("the payload has no features; the last accepted one has {before}");
        emptied(Guard::EmptyFeatures, subject, message, before)
    })
}

/// An empty list of experiments where there were some.
pub(super) fn experiments(old: &ExperimentList, new: &ExperimentList) -> Option<Trip> {
    let before = old.experiments.len();
    (before > 0 && new.experiments.is_empty()).then(|| {
        let message = format!("the list has no experiments; the last accepted one has {before}");
        emptied(Guard::EmptyExperiments, "experiments", message, before)
    })
}

/// A source's first load that brings neither features nor experiments.
pub fn first_load<'a>(
    payloads: impl IntoIterator<Item = &'a Payload>,
    experiments: Option<&ExperimentList>,
) -> Option<Trip> {
    let has_features = payloads
        .into_iter()
        .any(|p| !p.features.is_empty() || !p.auto_experiments.is_empty());
    let has_experiments = experiments.is_some_and(|list| !list.experiments.is_empty());
    (!has_features && !has_experiments).then(|| {
        let message = "the source has neither features nor experiments; approve it, or set \
                       `allow_empty`, if that is right";
        emptied(Guard::EmptySource, "source", message.to_owned(), 0)
    })
}

/// A consumer's view that loses its last member while a former member is still to be shown.
///
/// That is what a renamed custom field looks like. A view whose members have all ended or are gone empties rightly.
pub fn view(old: &Shown, new: &Shown, still_shown: &BTreeSet<String>) -> Option<Trip> {
    if !new.members.is_empty() {
        return None;
    }
    let lost = old
        .members
        .iter()
        .find(|name| still_shown.contains(name.as_str()))?;
    let before = old.members.len();
    let message = format!(
        "the `{}` view would be empty although `{lost}` is running or has just ended; it shows {before} now",
        old.name
    );
    let subject = format!("view {}", old.name);
    Some(emptied(Guard::EmptyView, &subject, message, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(members: &[&str]) -> Shown {
        Shown {
            name: "varnish".into(),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
            bytes: 0,
        }
    }

    #[test]
    fn a_view_emptied_by_a_renamed_field_trips_and_one_whose_experiments_ended_does_not() {
        let still = |name: &str| BTreeSet::from([name.to_owned()]);
        let old = shown(&["a", "b"]);
        let trip = view(&old, &shown(&[]), &still("a")).unwrap();
        assert_eq!(trip.guard, Guard::EmptyView);
        assert_eq!(
            trip.message,
            "the `varnish` view would be empty although `a` is running or has just ended; it shows 2 now"
        );
        assert_eq!(view(&old, &shown(&[]), &still("c")), None);
        assert_eq!(view(&old, &shown(&["c"]), &still("a")), None);
        assert_eq!(view(&shown(&[]), &shown(&[]), &still("a")), None);
    }

    #[test]
    fn a_first_load_trips_only_if_everything_is_empty() {
        let empty = Payload::default();
        assert!(first_load([&empty], None).is_some());
        assert!(first_load([], Some(&ExperimentList::default())).is_some());
        let mut one = Payload::default();
        one.auto_experiments
            .push(crate::model::CanonicalJson::from_value(
                &json!({"key": "a"}),
            ));
        assert_eq!(first_load([&empty, &one], None), None);
    }

    #[test]
    fn a_payload_or_list_that_never_had_anything_may_have_nothing() {
        let empty = Payload::default();
        assert_eq!(payload("payload k", &empty, &empty), None);
        let none = ExperimentList::default();
        assert_eq!(experiments(&none, &none), None);
    }
}
