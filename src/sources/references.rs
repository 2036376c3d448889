//! What running experiments refer to and the list of experiments does not hold: saved groups, namespaces.
//!
//! Each is a list of the management API, which costs requests of a budget; so they are read only where an experiment
//! needs them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::FetchError;
use crate::settings::FeatureProjects;

/// Operators of a condition that name a saved group.
const GROUP_OPERATORS: [&str; 3] = ["$inGroup", "$notInGroup", "$savedGroup"];

/// Which further lists a list of experiments needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) saved_groups: bool,
    pub(super) namespaces: bool,
    pub(super) features: bool,
}

/// What of a listed feature is kept: its definition comes with the payload.
#[derive(Deserialize, Serialize)]
struct Feature {
    id: String,
    #[serde(default)]
    project: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Experiment {
    status: String,
    #[serde(default)]
    archived: bool,
    #[serde(default)]
    project: String,
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
    /// Looks at the last phase of each running experiment, and at the project of each; what cannot be read is for
    /// validation to judge.
    pub(super) fn of(experiments: &[Box<RawValue>], projects: FeatureProjects) -> Self {
        let mut wanted = Self {
            features: projects == FeatureProjects::Always,
            ..Self::default()
        };
        for item in experiments {
            let Ok(experiment) = serde_json::from_str::<Experiment>(item.get()) else {
                continue;
            };
            wanted.features |= projects == FeatureProjects::Auto && !experiment.project.is_empty();
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

/// Leaves of each listed feature its id and its project; what cannot be read has no project.
pub(super) fn projects_only(features: Vec<Box<RawValue>>) -> Vec<Box<RawValue>> {
    let short = |item: Box<RawValue>| {
        let feature: Feature = serde_json::from_str(item.get()).ok()?;
        (!feature.project.is_empty()).then_some(())?;
        serde_json::value::to_raw_value(&feature).ok()
    };
    features.into_iter().filter_map(short).collect()
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

    fn raw(item: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(item).unwrap()
    }

    fn wanted(status: &str, phases: &Value) -> Wanted {
        let item = json!({"id": "exp_1", "status": status, "phases": phases});
        Wanted::of(&[raw(&item)], FeatureProjects::Auto)
    }

    #[test]
    fn only_the_last_phase_of_running_experiments_counts() {
        let group =
            json!({"savedGroupTargeting": [{"matchType": "all", "savedGroups": ["grp_1"]}]});
        let space = json!({"namespace": {"namespaceId": "ns", "enabled": true, "range": [0, 0.5]}});
        let plain = json!({"targetingCondition": "{\"country\":\"FR\"}"});
        let both = Wanted {
            saved_groups: true,
            ..Wanted::default()
        };
        assert_eq!(wanted("running", &json!([plain, group])), both);
        assert_eq!(wanted("running", &json!([group, plain])), Wanted::default());
        assert_eq!(wanted("stopped", &json!([group])), Wanted::default());
        assert!(wanted("running", &json!([space])).namespaces);
        let off = json!({"namespace": {"namespaceId": "", "enabled": false}});
        assert_eq!(wanted("running", &json!([off])), Wanted::default());
    }

    #[test]
    fn features_are_wanted_where_somebody_uses_projects() {
        let of = |project: &str, setting| {
            let item = json!({"id": "exp_1", "status": "draft", "project": project});
            Wanted::of(&[raw(&item)], setting).features
        };
        assert!(of("prj_1", FeatureProjects::Auto) && !of("", FeatureProjects::Auto));
        assert!(of("", FeatureProjects::Always) && !of("prj_1", FeatureProjects::Never));
        let listed = [
            json!({"id": "a", "project": "prj_1", "defaultValue": "{}"}),
            json!({"id": "b", "project": ""}),
            json!({"project": "prj_1"}),
        ];
        let left = projects_only(listed.iter().map(raw).collect());
        let left: Vec<&str> = left.iter().map(|item| item.get()).collect();
        assert_eq!(left, [r#"{"id":"a","project":"prj_1"}"#]);
    }

    #[test]
    fn a_condition_that_names_a_group_counts_and_an_unreadable_item_does_not() {
        let named = json!([{"targetingCondition": "{\"id\":{\"$inGroup\":\"grp_1\"}}"}]);
        assert!(wanted("running", &named).saved_groups);
        assert_eq!(wanted("running", &json!("no list")), Wanted::default());
    }
}
