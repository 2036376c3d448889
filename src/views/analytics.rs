//! What analysts read: every experiment that is shown, with its history of phases.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Withheld, dates, mediawiki, naming, split};
use crate::model::{Experiment, Phase, Sourced};

/// The experiment's entry in the list.
pub(super) fn entry(experiment: &Sourced<Arc<Experiment>>) -> Result<Value, Withheld> {
    let (source, experiment) = (&*experiment.source, &*experiment.item);
    let mut members = mediawiki::members(experiment)?;
    let groups = naming::groups(experiment)?;
    let phases: Vec<Value> = experiment
        .phases
        .iter()
        .map(|phase| phase_entry(experiment, &groups, phase))
        .collect::<Result<_, _>>()?;
    members.insert("source".to_owned(), json!(source));
    members.insert("status".to_owned(), json!(experiment.status.as_str()));
    members.insert("phases".to_owned(), json!(phases));
    members.insert("hypothesis".to_owned(), json!(experiment.hypothesis));
    members.insert("owner".to_owned(), json!(experiment.owner));
    Ok(Value::Object(members))
}

/// One phase; a group that an older phase did not have is absent from its split.
fn phase_entry(experiment: &Experiment, groups: &[&str], phase: &Phase) -> Result<Value, Withheld> {
    let started = phase.started.ok_or_else(|| {
        Withheld::new(
            "no_start",
            format!("phase {:?} has no start date", phase.name),
        )
    })?;
    let split: Map<String, Value> = groups
        .iter()
        .zip(split::known_weights(experiment, phase)?)
        .filter_map(|(group, weight)| Some(((*group).to_owned(), split::share_number(weight?))))
        .collect();
    Ok(json!({
        "name": phase.name,
        "start": dates::render(started)?,
        "end": phase.ended.map(dates::render).transpose()?,
        "coverage": split::share_number(split::coverage(phase)?),
        "split": split,
    }))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::views::test_support::{experiment, sourced};

    #[test]
    fn an_entry_adds_source_status_phases_hypothesis_and_owner() {
        let mut experiment = experiment("sticky-header-2026");
        experiment.phases[0].split[0].1 = 0.7;
        let mut old = experiment.phases[0].clone();
        old.ended = Some(datetime!(2026-08-31 14:30:00.5 UTC));
        old.split.remove(0);
        experiment.phases.insert(0, old);
        let entry = entry(&sourced(experiment)).unwrap();
        assert_eq!(entry["phase_index"], 1);
        let members: Vec<&String> = entry.as_object().unwrap().keys().skip(10).collect();
        assert_eq!(
            members,
            ["source", "status", "phases", "hypothesis", "owner"]
        );
        assert_eq!(entry["source"], "growthbook-prod");
        assert_eq!(entry["status"], "running");
        assert_eq!(
            entry["phases"].to_string(),
            r#"[{"name":"Main","start":"2026-09-01T14:30:00Z","end":"2026-08-31T14:30:00Z","coverage":0.01,"split":{"treatment":0.5}},{"name":"Main","start":"2026-09-01T14:30:00Z","end":null,"coverage":0.01,"split":{"control":0.7,"treatment":0.5}}]"#
        );
    }

    #[test]
    fn without_wikis_the_coverage_is_the_default_rate() {
        let mut experiment = experiment("sticky-header-2026");
        experiment.delivery.wikis.clear();
        let entry = entry(&sourced(experiment)).unwrap();
        assert_eq!(entry["sample_rate"].to_string(), r#"{"default":0.01}"#);
    }

    #[test]
    fn a_phase_without_a_start_is_refused() {
        let mut experiment = experiment("sticky-header-2026");
        experiment.phases[0].started = None;
        assert_eq!(entry(&sourced(experiment)).unwrap_err().code, "no_start");
    }
}
