//! What must not be published although it is well-formed: emptiness where something was.
//!
//! An upstream that lost its data answers `{"features":{}}` or `{"total":0}` as politely as one that has none. Serving
//! that would end every experiment at once, so it is refused with a reason of its own and the last input stays.

use std::collections::BTreeSet;

use super::{ExperimentList, Payload, Refusal};

/// Refuses a payload without features where there were some.
pub fn payload_not_emptied(old: Option<&Payload>, new: &Payload) -> Result<(), Refusal> {
    let before = old.map_or(0, |old| old.features.len());
    if before > 0 && new.features.is_empty() {
        let message = format!("the payload has no features; the last accepted one has {before}");
        return Err(Refusal::Empty {
            code: "empty_features",
            message,
        });
    }
    Ok(())
}

/// Refuses an empty list of experiments where there were some.
pub fn experiments_not_emptied(
    old: Option<&ExperimentList>,
    new: &ExperimentList,
) -> Result<(), Refusal> {
    let before = old.map_or(0, |old| old.experiments.len());
    if before > 0 && new.experiments.is_empty() {
        let message = format!("the list has no experiments; the last accepted one has {before}");
        return Err(Refusal::Empty {
            code: "empty_experiments",
            message,
        });
    }
    Ok(())
}

/// Refuses a source's first load when it brings neither features nor experiments.
pub fn first_load_not_empty(
    payloads: &[&Payload],
    experiments: Option<&ExperimentList>,
) -> Result<(), Refusal> {
    let has_features = payloads
        .iter()
        .any(|p| !p.features.is_empty() || !p.auto_experiments.is_empty());
    let has_experiments = experiments.is_some_and(|list| !list.experiments.is_empty());
    if has_features || has_experiments {
        return Ok(());
    }
    let message =
        "the source has neither features nor experiments; set `allow_empty` if that is right";
    Err(Refusal::Empty {
        code: "empty_source",
        message: message.to_owned(),
    })
}

/// Refuses a consumer's view that would lose its last member while a former member is still to be shown.
///
/// That is what a renamed custom field looks like. A view whose members have all ended or are gone empties rightly.
pub fn view_not_emptied(
    view: &str,
    old_members: &[String],
    new_members: &[String],
    still_shown: &BTreeSet<&str>,
) -> Result<(), Refusal> {
    if old_members.is_empty() || !new_members.is_empty() {
        return Ok(());
    }
    let Some(lost) = old_members
        .iter()
        .find(|name| still_shown.contains(name.as_str()))
    else {
        return Ok(());
    };
    let message = format!(
        "the `{view}` view would be empty although `{lost}` is running or has just ended; it shows {} now",
        old_members.len()
    );
    Err(Refusal::Empty {
        code: "empty_view",
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_view_emptied_by_a_renamed_field_is_refused_and_one_whose_experiments_ended_is_not() {
        let old = names(&["a", "b"]);
        assert!(view_not_emptied("varnish", &old, &[], &BTreeSet::from(["a"])).is_err());
        assert!(view_not_emptied("varnish", &old, &[], &BTreeSet::from(["c"])).is_ok());
        assert!(view_not_emptied("varnish", &old, &names(&["c"]), &BTreeSet::from(["a"])).is_ok());
        assert!(view_not_emptied("varnish", &[], &[], &BTreeSet::from(["a"])).is_ok());
    }

    #[test]
    fn a_first_load_is_refused_only_if_everything_is_empty() {
        let empty = Payload::default();
        assert!(first_load_not_empty(&[&empty], None).is_err());
        assert!(first_load_not_empty(&[], Some(&ExperimentList::default())).is_err());
        let mut one = Payload::default();
        one.auto_experiments
            .push(crate::model::CanonicalJson::from_value(
                &serde_json::json!({"key": "a"}),
            ));
        assert!(first_load_not_empty(&[&empty, &one], None).is_ok());
    }
}
