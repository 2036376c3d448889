//! What MediaWiki reads: a list of experiments with their groups and, per wiki, the share of users that take part.
//!
//! MediaWiki divides users into groups of equal size, in the order listed.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Withheld, dates, naming, split};
use crate::model::{CanonicalJson, Delivery, Experiment, Sourced, snapshot::hex};

/// Identifier type of logged-in users.
pub(super) const LOGGED_IN: &str = "mw-user";

/// Identifier type of visitors, whom the edge knows by a cookie.
pub(super) const VISITOR: &str = "edge-unique";

/// Event schema of an experiment that names none (MediaWiki extension `TestKitchen`).
const DEFAULT_SCHEMA_ID: &str = "/analytics/product_metrics/web/base/2.1.0";

/// Widest difference between weights that are meant to be equal.
///
/// GrowthBook rounds an equal split to four digits and hands what is left to the first ones: three variations get
/// 0.3334, 0.3333 and 0.3333 (`getEqualWeights`). The rest is for floating point.
const EQUAL_WITHIN: f64 = 1e-4 + 1e-9;

/// Has wikis.
pub(super) fn is_addressed(experiment: &Experiment) -> bool {
    !experiment.delivery.wikis.is_empty()
}

/// The experiment's entry in the list.
pub(super) fn entry(experiment: &Sourced<Arc<Experiment>>) -> Result<Value, Withheld> {
    let experiment = &*experiment.item;
    let members = members(experiment)?;
    let weights = split::current(experiment)?.weights;
    let (min, max) = weights
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), weight| {
            (min.min(*weight), max.max(*weight))
        });
    let total: f64 = weights.iter().sum();
    if max - min > EQUAL_WITHIN || !(0.99..=1.01).contains(&total) {
        let message = format!("its weights {weights:?} are not equal parts of 1");
        return Err(Withheld::new("unequal_split", message));
    }
    Ok(Value::Object(members))
}

/// What the list for MediaWiki and the one for analysts have in common.
///
/// An experiment without wikis has its coverage as the default sample rate.
pub(super) fn members(experiment: &Experiment) -> Result<Map<String, Value>, Withheld> {
    let delivery = &experiment.delivery;
    let name = &experiment.tracking_key;
    if !naming::is_list_name(name) {
        let message = format!("tracking key {name:?} is empty, too long or has control characters");
        return Err(Withheld::new("bad_name", message));
    }
    check_identifier_type(delivery)?;
    if let Some(wiki) = delivery.wikis.iter().find(|wiki| !naming::is_wiki(wiki)) {
        let message = format!("{wiki:?} is not a database name");
        return Err(Withheld::new("bad_wiki", message));
    }
    let period = dates::period(delivery)?;
    let groups = naming::groups(experiment)?;
    let coverage = split::current(experiment)?.coverage;
    let sample_rate = if delivery.wikis.is_empty() {
        json!({ "default": split::share_number(coverage) })
    } else {
        json!({"default": 0, split::share_text(coverage): delivery.wikis})
    };
    let version = version(name, delivery, &groups, &sample_rate);
    let Value::Object(mut members) = json!({
        "name": name,
        "start": period.start,
        "end": period.end,
        "user_identifier_type": delivery.user_identifier_type,
        "groups": groups,
        "sample_rate": sample_rate,
        "stream_name": delivery.stream_name,
        "contextual_attributes": delivery.contextual_attributes,
        "phase_index": experiment.phases.len().saturating_sub(1),
        "version": version,
    }) else {
        unreachable!("an object literal makes an object");
    };
    for (field, value) in [
        ("sample_unit", &delivery.sample_unit),
        ("schema_id", &delivery.schema_id),
    ] {
        if let Some(value) = value {
            members.insert(field.to_owned(), json!(value));
        }
    }
    Ok(members)
}

/// Fails for an identifier type that no consumer knows.
pub(super) fn check_identifier_type(delivery: &Delivery) -> Result<(), Withheld> {
    let kind = &delivery.user_identifier_type;
    if kind != VISITOR && kind != LOGGED_IN {
        let message =
            format!("user identifier type {kind:?} is neither `{VISITOR}` nor `{LOGGED_IN}`");
        return Err(Withheld::new("bad_identifier_type", message));
    }
    Ok(())
}

/// Changes when what an exposure means changes, so that consumers record exposures anew.
///
/// The members are those from which MediaWiki computes it where a list has none. Groups are sorted: their order moves
/// users, and does not change what a group is.
fn version(name: &str, delivery: &Delivery, groups: &[&str], sample_rate: &Value) -> String {
    let mut groups = groups.to_vec();
    groups.sort_unstable();
    let schema_id = delivery.schema_id.as_deref().unwrap_or(DEFAULT_SCHEMA_ID);
    let semantics = CanonicalJson::from_value(&json!({
        "name": name,
        "user_identifier_type": delivery.user_identifier_type,
        "groups": groups,
        "sample_rate": sample_rate,
        "stream_name": delivery.stream_name,
        "schema_id": schema_id,
        "contextual_attributes": delivery.contextual_attributes,
    }));
    let mut version = hex(&Sha256::digest(semantics.as_str()));
    version.truncate(16);
    version
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::test_support::{experiment, sourced};

    fn with_weights(weights: &[f64]) -> Result<Value, Withheld> {
        let mut experiment = experiment("sticky-header-2026");
        let (variation, phase) = (experiment.variations[0].clone(), &mut experiment.phases[0]);
        (experiment.variations, phase.split) = weights
            .iter()
            .enumerate()
            .map(|(i, weight)| {
                let mut variation = variation.clone();
                (variation.id, variation.name) = (format!("var_{i}"), format!("g{i}"));
                let id = variation.id.clone();
                (variation, (id, *weight))
            })
            .unzip();
        entry(&sourced(experiment))
    }

    #[test]
    fn an_entry_is_what_mediawiki_reads() {
        let entry = entry(&sourced(experiment("sticky-header-2026"))).unwrap();
        let version = entry["version"].as_str().unwrap();
        assert_eq!(
            entry.to_string(),
            format!(
                r#"{{"name":"sticky-header-2026","start":"2026-09-01T14:30:00Z","end":"2026-09-29T14:30:00Z","user_identifier_type":"edge-unique","groups":["control","treatment"],"sample_rate":{{"default":0,"0.01":["frwiki"]}},"stream_name":"product_metrics.web_base","contextual_attributes":["page_id"],"phase_index":0,"version":"{version}"}}"#
            )
        );
        assert_eq!(version.len(), 16);
    }

    #[test]
    fn optional_members_appear_only_where_the_experiment_has_them() {
        let mut experiment = experiment("sticky-header-2026");
        experiment.delivery.sample_unit = Some("session".to_owned());
        experiment.delivery.schema_id = Some("/a/b/1.0.0".to_owned());
        let entry = entry(&sourced(experiment)).unwrap();
        assert_eq!(entry["sample_unit"], "session");
        assert_eq!(entry["schema_id"], "/a/b/1.0.0");
    }

    #[test]
    fn only_equal_weights_are_served() {
        assert!(with_weights(&[0.5, 0.5]).is_ok());
        assert!(with_weights(&[0.3334, 0.3333, 0.3333]).is_ok());
        assert!(with_weights(&[1.0 / 7.0; 7]).is_ok());
        assert!(with_weights(&[1.0]).is_ok());
        for weights in [&[0.6, 0.4][..], &[0.501, 0.499], &[0.2, 0.2], &[0.6, 0.6]] {
            assert_eq!(with_weights(weights).unwrap_err().code, "unequal_split");
        }
    }

    #[test]
    fn the_version_moves_with_the_meaning_and_with_nothing_else() {
        let version = |change: fn(&mut Experiment)| {
            let mut experiment = experiment("sticky-header-2026");
            change(&mut experiment);
            entry(&sourced(experiment)).unwrap()["version"].clone()
        };
        let original = version(|_| {});
        assert_eq!(version(|e| e.variations.reverse()), original);
        assert_eq!(
            version(|e| e.delivery.end = e.delivery.end.map(|end| end + time::Duration::DAY)),
            original
        );
        assert_eq!(
            version(|e| e.delivery.schema_id = Some(DEFAULT_SCHEMA_ID.to_owned())),
            original
        );
        assert_ne!(version(|e| e.phases[0].coverage = 0.02), original);
        assert_ne!(version(|e| e.delivery.stream_name.push('x')), original);
        assert_ne!(
            version(|e| e.delivery.contextual_attributes.clear()),
            original
        );
    }

    #[test]
    fn what_mediawiki_could_not_use_is_refused() {
        let code = |change: fn(&mut Experiment)| {
            let mut experiment = experiment("sticky-header-2026");
            change(&mut experiment);
            entry(&sourced(experiment)).unwrap_err().code
        };
        assert_eq!(
            code(|e| e.delivery.wikis.push("fr wiki".to_owned())),
            "bad_wiki"
        );
        assert_eq!(code(|e| e.tracking_key.push('\n')), "bad_name");
        assert_eq!(
            code(|e| e.delivery.user_identifier_type.clear()),
            "bad_identifier_type"
        );
        assert_eq!(code(|e| e.delivery.start = None), "no_start");
        assert_eq!(code(|e| e.delivery.end = None), "no_end");
        assert_eq!(code(|e| e.delivery.end = e.delivery.start), "bad_dates");
        assert_eq!(code(|e| e.phases[0].coverage = 1.5), "bad_coverage");
        assert_eq!(code(|e| e.phases.clear()), "no_phase");
        assert_eq!(code(|e| e.variations.clear()), "no_groups");
    }
}
