//! The schema of the two lists: what the MediaWiki extension `TestKitchen` reads, and what analysts get beside it.

use serde_json::{Map, Value};

use super::{Checked, check_period, date, ensure, filled_list, filled_object, object, texts};
use crate::views::naming;

/// Longest text in a list entry that names something, in characters; as for experiment names.
const TEXT_MAX: usize = 255;

/// What MediaWiki expects of a list entry.
pub(in crate::views) fn check_mediawiki(name: &str, entry: &Value) -> Checked {
    let entry = object(entry, "entry", LIST_REQUIRED, LIST_OPTIONAL)?;
    check_list_entry(name, entry)?;
    let rates = entry["sample_rate"]
        .as_object()
        .ok_or("sample_rate is no object")?;
    ensure(rates.len() == 2, || {
        "sample_rate does not name its wikis".to_owned()
    })
}

/// What analysts expect of a list entry.
pub(in crate::views) fn check_analytics(name: &str, entry: &Value) -> Checked {
    let required = [LIST_REQUIRED, ANALYTICS_REQUIRED].concat();
    let entry = object(entry, "entry", &required, LIST_OPTIONAL)?;
    check_list_entry(name, entry)?;
    for field in ["source", "hypothesis", "owner"] {
        ensure(entry[field].is_string(), || format!("{field} is no text"))?;
    }
    ensure(
        matches!(entry["status"].as_str(), Some("running" | "stopped")),
        || "status is neither running nor stopped".to_owned(),
    )?;
    let phases = filled_list(&entry["phases"], "phases")?;
    ensure(
        entry["phase_index"].as_u64() == u64::try_from(phases.len() - 1).ok(),
        || "phase_index is not that of the last phase".to_owned(),
    )?;
    phases.iter().try_for_each(check_phase)
}

const LIST_REQUIRED: &[&str] = &[
    "name",
    "start",
    "end",
    "user_identifier_type",
    "groups",
    "sample_rate",
    "stream_name",
    "contextual_attributes",
    "phase_index",
    "version",
];
const LIST_OPTIONAL: &[&str] = &["sample_unit", "schema_id"];
const ANALYTICS_REQUIRED: &[&str] = &["source", "status", "phases", "hypothesis", "owner"];

fn check_list_entry(name: &str, entry: &Map<String, Value>) -> Checked {
    ensure(entry["name"] == name && naming::is_list_name(name), || {
        format!("bad name {name:?}")
    })?;
    check_period(entry)?;
    ensure(
        matches!(
            entry["user_identifier_type"].as_str(),
            Some("mw-user" | "edge-unique")
        ),
        || "unknown user_identifier_type".to_owned(),
    )?;
    let groups = texts(&entry["groups"], "groups", naming::is_group_name)?;
    ensure(!groups.is_empty(), || "groups is empty".to_owned())?;
    check_sample_rate(&entry["sample_rate"])?;
    texts(
        &entry["contextual_attributes"],
        "contextual_attributes",
        is_text,
    )?;
    ensure(entry["phase_index"].is_u64(), || {
        "phase_index is no index".to_owned()
    })?;
    let version = entry["version"].as_str().unwrap_or_default();
    ensure(
        version.len() == 16 && version.bytes().all(|byte| byte.is_ascii_hexdigit()),
        || "version is not 16 hexadecimal digits".to_owned(),
    )?;
    for field in ["stream_name", "sample_unit", "schema_id"] {
        let is_fit = |value: &Value| value.as_str().is_some_and(is_text);
        ensure(entry.get(field).is_none_or(is_fit), || {
            format!("{field} is blank, too long or has control characters")
        })?;
    }
    Ok(())
}

/// `{"default": rate}`, or `{"default": 0, "<rate>": [wikis]}`.
fn check_sample_rate(rates: &Value) -> Checked {
    let rates = filled_object(rates, "sample_rate")?;
    let is_share = |rate: f64| (0.0..=1.0).contains(&rate);
    for (rate, value) in rates {
        if rate == "default" {
            ensure(value.as_f64().is_some_and(is_share), || {
                "the default sample rate is not within 0 to 1".to_owned()
            })?;
        } else {
            ensure(rate.parse().is_ok_and(is_share), || {
                format!("sample rate {rate:?} is not within 0 to 1")
            })?;
            let wikis = texts(value, "wikis", naming::is_wiki)?;
            ensure(!wikis.is_empty(), || "wikis is empty".to_owned())?;
        }
    }
    ensure(rates.contains_key("default") && rates.len() <= 2, || {
        "sample_rate has not a default and at most one rate".to_owned()
    })
}

fn check_phase(phase: &Value) -> Checked {
    let required = ["name", "start", "end", "coverage", "split"];
    let phase = object(phase, "phase", &required, &[])?;
    ensure(phase["name"].is_string(), || {
        "phase without name".to_owned()
    })?;
    date(&phase["start"]).ok_or("bad start of a phase")?;
    ensure(
        phase["end"].is_null() || date(&phase["end"]).is_some(),
        || "bad end of a phase".to_owned(),
    )?;
    let is_share = |value: &Value| {
        value
            .as_f64()
            .is_some_and(|share| (0.0..=1.0).contains(&share))
    };
    ensure(is_share(&phase["coverage"]), || "bad coverage".to_owned())?;
    let split = phase["split"].as_object().ok_or("split is no object")?;
    ensure(split.values().all(is_share), || "bad weight".to_owned())
}

fn is_text(text: &str) -> bool {
    !text.trim().is_empty()
        && text.chars().count() <= TEXT_MAX
        && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::views::{
        analytics, mediawiki,
        schema::test_support::{NAME, check},
        test_support::{experiment, sourced},
    };

    type Case = (&'static str, Option<Value>, &'static str);

    /// What both lists refuse as a sample rate.
    fn rate_cases() -> Vec<Case> {
        vec![
            (
                "/sample_rate",
                Some(json!({})),
                "sample_rate is no object or empty",
            ),
            (
                "/sample_rate/default",
                Some(json!("0")),
                "the default sample rate is not within 0 to 1",
            ),
            (
                "/sample_rate/2",
                Some(json!(["a"])),
                "sample rate \"2\" is not within 0 to 1",
            ),
            (
                "/sample_rate/x",
                Some(json!(["a"])),
                "sample rate \"x\" is not within 0 to 1",
            ),
            ("/sample_rate/0.01", Some(json!([])), "wikis is empty"),
            (
                "/sample_rate/0.01",
                Some(json!(["a b"])),
                "wikis holds \"a b\"",
            ),
            (
                "/sample_rate/1",
                Some(json!(["a"])),
                "sample_rate has not a default and at most one rate",
            ),
            (
                "/sample_rate/default",
                None,
                "sample_rate has not a default and at most one rate",
            ),
        ]
    }

    /// What both lists refuse.
    fn list_cases() -> Vec<Case> {
        let mut cases = rate_cases();
        cases.extend([
            (
                "/name",
                Some(json!("other")),
                "bad name \"sticky-header-2026\"",
            ),
            ("/end", Some(Value::Null), "bad end"),
            (
                "/user_identifier_type",
                Some(json!("id")),
                "unknown user_identifier_type",
            ),
            ("/groups", Some(json!([])), "groups is empty"),
            ("/groups", Some(json!({})), "groups is no list"),
            (
                "/groups/0",
                Some(json!("treatment")),
                "groups holds \"treatment\" twice",
            ),
            ("/groups/0", Some(json!(1)), "groups holds 1"),
            (
                "/contextual_attributes",
                Some(json!([""])),
                "contextual_attributes holds \"\"",
            ),
            ("/phase_index", Some(json!(-1)), "phase_index is no index"),
            (
                "/version",
                Some(json!("12")),
                "version is not 16 hexadecimal digits",
            ),
            (
                "/stream_name",
                Some(json!(" ")),
                "stream_name is blank, too long or has control characters",
            ),
            (
                "/schema_id",
                Some(Value::Null),
                "schema_id is blank, too long or has control characters",
            ),
            ("/extra", Some(json!(1)), "entry has a member `extra`"),
        ]);
        cases
    }

    #[test]
    fn what_mediawiki_could_not_use_is_refused() {
        let good = mediawiki::entry(&sourced(experiment(NAME))).unwrap();
        let mut cases = list_cases();
        cases.push((
            "/sample_rate/0.01",
            None,
            "sample_rate does not name its wikis",
        ));
        check(check_mediawiki, &good, cases);
    }

    #[test]
    fn what_analysts_could_not_use_is_refused() {
        let good = analytics::entry(&sourced(experiment(NAME))).unwrap();
        let mut cases = list_cases();
        cases.extend([
            ("/owner", Some(Value::Null), "owner is no text"),
            (
                "/status",
                Some(json!("draft")),
                "status is neither running nor stopped",
            ),
            ("/phases", Some(json!([])), "phases is no list or empty"),
            (
                "/phase_index",
                Some(json!(1)),
                "phase_index is not that of the last phase",
            ),
            ("/phases/0", Some(json!(1)), "phase is no object"),
            ("/phases/0/name", Some(json!(1)), "phase without name"),
            ("/phases/0/start", Some(Value::Null), "bad start of a phase"),
            ("/phases/0/end", Some(json!("")), "bad end of a phase"),
            ("/phases/0/coverage", Some(Value::Null), "bad coverage"),
            ("/phases/0/split", Some(json!([])), "split is no object"),
            ("/phases/0/split/control", Some(json!(-1)), "bad weight"),
        ]);
        check(check_analytics, &good, cases);
    }
}
