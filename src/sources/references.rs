//! What running experiments refer to and the list of experiments does not hold: saved groups, namespaces.
//!
//! Each is a list of the management API, which costs requests of a budget; so they are read only where an experiment
//! needs them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::FetchError;

/// Operators of a condition that name a saved group.
const GROUP_OPERATORS: [&str; 3] = ["$inGroup", "$notInGroup", "$savedGroup"];

/// Which further lists a list of experiments needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) saved_groups: bool,
    pub(super) namespaces: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Experiment {
    status: String,
    #[serde(default)]
    archived: bool,
    #[serde(default)]
    phases: Vec<Phase>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Phase {
    targeting_condition: Option<String>,
    saved_group_targeting: Option<Vec<Target>>,
    namespace: Option<Namespace>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(default)]
    saved_groups: Vec<String>,
}

#[derive(Deserialize)]
struct Namespace {
    enabled: Option<bool>,
}

impl Wanted {
    /// Looks at the last phase of each running experiment; what cannot be read is for validation to judge.
    pub(super) fn of(experiments: &[Box<RawValue>]) -> Self {
        let mut wanted = Self::default();
        for item in experiments {
            let Ok(experiment) = serde_json::from_str::<Experiment>(item.get()) else {
                continue;
            };
            if experiment.archived || experiment.status != "running" {
                continue;
            }
            let Some(phase) = experiment.phases.last() else {
                continue;
            };
            wanted.saved_groups |= phase.names_a_group();
            wanted.namespaces |= phase
                .namespace
                .as_ref()
                .is_some_and(|namespace| namespace.enabled != Some(false));
        }
        wanted
    }
}

impl Phase {
    fn names_a_group(&self) -> bool {
        let targets = self.saved_group_targeting.iter().flatten();
        let condition = self.targeting_condition.as_deref().unwrap_or_default();
        targets
            .into_iter()
            .any(|target| !target.saved_groups.is_empty())
            || GROUP_OPERATORS
                .iter()
                .any(|operator| condition.contains(operator))
    }
}

/// Whether the upstream does not have the list or does not give it to us; then experiments go without it.
pub(super) fn is_withheld(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Unauthorized { .. }
            | FetchError::Unrecoverable { .. }
            | FetchError::Status { status: 404, .. }
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(status: &str, phases: &Value) -> Wanted {
        let item = json!({"id": "exp_1", "status": status, "phases": phases});
        Wanted::of(&[serde_json::value::to_raw_value(&item).unwrap()])
    }

    #[test]
    fn only_the_last_phase_of_running_experiments_counts() {
        let group =
            json!({"savedGroupTargeting": [{"matchType": "all", "savedGroups": ["grp_1"]}]});
        let space = json!({"namespace": {"namespaceId": "ns", "enabled": true, "range": [0, 0.5]}});
        let plain = json!({"targetingCondition": "{\"country\":\"FR\"}"});
        let both = Wanted {
            saved_groups: true,
            namespaces: false,
        };
        assert_eq!(wanted("running", &json!([plain, group])), both);
        assert_eq!(wanted("running", &json!([group, plain])), Wanted::default());
        assert_eq!(wanted("stopped", &json!([group])), Wanted::default());
        assert!(wanted("running", &json!([space])).namespaces);
        let off = json!({"namespace": {"namespaceId": "", "enabled": false}});
        assert_eq!(wanted("running", &json!([off])), Wanted::default());
    }

    #[test]
    fn a_condition_that_names_a_group_counts_and_an_unreadable_item_does_not() {
        let named = json!([{"targetingCondition": "{\"id\":{\"$inGroup\":\"grp_1\"}}"}]);
        assert!(wanted("running", &named).saved_groups);
        assert_eq!(wanted("running", &json!("no list")), Wanted::default());
    }
}
