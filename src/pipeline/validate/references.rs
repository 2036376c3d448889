//! What a list of experiments refers to, where the upstream gave it along: namespaces and saved groups.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::item;
use crate::{
    model::{Issue, Json},
    pipeline::{groups, payload::ExperimentList},
};

/// Namespaces by id.
pub(super) struct Namespaces(HashMap<String, Namespace>);

/// What a namespace adds to an experiment that is in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Namespace {
    id: String,
    format: String,
    hash_attribute: Option<String>,
    seed: Option<String>,
}

impl Namespaces {
    /// One that cannot be read counts as not listed: its experiments are hashed by the namespace's id.
    pub(super) fn new(listed: &[&RawValue]) -> Self {
        let read = |raw: &&RawValue| serde_json::from_str::<Namespace>(raw.get()).ok();
        let known = listed.iter().filter_map(read);
        Self(known.map(|known| (known.id.clone(), known)).collect())
    }

    /// Writes `format`, `hashAttribute` and `seed` of its namespace into each phase of an experiment.
    ///
    /// They are part of how its units are chosen, so they belong to the experiment that is served.
    pub(super) fn complete<'a>(&self, mut experiment: Json<'a>) -> Json<'a> {
        let phases = experiment
            .as_object_mut()
            .and_then(|members| members.get_mut("phases")?.as_list_mut());
        for phase in phases.into_iter().flatten() {
            let namespace = phase
                .as_object_mut()
                .and_then(|members| members.get_mut("namespace")?.as_object_mut());
            let Some(members) = namespace else {
                continue;
            };
            let id = members.get("namespaceId").and_then(Json::as_str);
            let Some(known) = id.and_then(|id| self.0.get(id)) else {
                continue;
            };
            let mut add = |name, text: &str| {
                members.insert(name, Json::Text(Cow::Owned(text.to_owned())));
            };
            add("format", &known.format);
            if let Some(attribute) = &known.hash_attribute {
                add("hashAttribute", attribute);
            }
            if let Some(seed) = &known.seed {
                add("seed", seed);
            }
        }
        experiment
    }
}

/// Keeps the groups that `list` refers to; a bad one is quarantined, its last good version takes its place.
pub(super) fn saved_groups(
    source: &str,
    listed: &[&RawValue],
    last_good: Option<&ExperimentList>,
    list: &mut ExperimentList,
) {
    let phases = list
        .experiments
        .iter()
        .filter_map(|experiment| experiment.current_phase());
    let named: BTreeSet<String> = phases.flat_map(groups::of_phase).collect();
    if named.is_empty() {
        return;
    }
    let mut typed = BTreeMap::new();
    for raw in listed {
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        let Ok(Id { id }) = serde_json::from_str(raw.get()) else {
            continue;
        };
        let group = item(raw, &id)
            .map_err(|bad| bad.message)
            .and_then(|_| {
                serde_json::from_str::<groups::Listed>(raw.get())
                    .map_err(|error| format!("cannot be read: {error}"))
            })
            .and_then(groups::Listed::typed);
        match group {
            Ok(group) => drop(typed.insert(id, group)),
            Err(message) => {
                let path = format!("saved_groups.{id}");
                let issue = Issue::error("quarantined", source, path, message);
                list.issues.push(issue);
                if let Some(old) = last_good.and_then(|list| list.saved_groups.get(id.as_str())) {
                    typed.insert(id, old.to_value());
                }
            }
        }
    }
    list.saved_groups = groups::reachable(named, typed);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::pipeline::{FieldNames, payload::ExperimentList, validate};

    fn experiment(phase: &Value) -> Value {
        json!({"id": "exp_1", "trackingKey": "one", "status": "running", "variations": [], "phases": [phase]})
    }

    fn read(document: &Value, last_good: Option<&ExperimentList>) -> ExperimentList {
        let fields = FieldNames::default();
        validate::experiments("s", document.to_string().as_bytes(), last_good, &fields).unwrap()
    }

    #[test]
    fn a_namespace_is_completed_from_the_list() {
        let phase =
            json!({"namespace": {"namespaceId": "ns_1", "enabled": true, "ranges": [[0, 0.2]]}});
        let namespace =
            json!({"id": "ns_1", "format": "multiRange", "hashAttribute": "company", "seed": "x"});
        let list = read(
            &json!({"experiments": [experiment(&phase)], "namespaces": [{"id": 7}, namespace]}),
            None,
        );
        let definition = list.experiments[0].definition.to_value();
        let expected = json!({"enabled": true, "format": "multiRange", "hashAttribute": "company",
            "namespaceId": "ns_1", "ranges": [[0, 0.2]], "seed": "x"});
        assert_eq!(definition["phases"][0]["namespace"], expected);
    }

    #[test]
    fn a_bad_group_is_quarantined_and_its_last_good_version_stays() {
        let phase =
            json!({"savedGroupTargeting": [{"matchType": "any", "savedGroups": ["grp_1"]}]});
        let with =
            |group: Value| json!({"experiments": [experiment(&phase)], "savedGroups": [group]});
        let group = json!({"id": "grp_1", "type": "list", "attributeKey": "id", "values": ["u1"]});
        let good = read(&with(group), None);
        assert!(good.saved_groups.contains_key("grp_1"));
        assert_eq!(good.issues, []);

        let bad = with(json!({"id": "grp_1", "type": "list", "values": 7}));
        let kept = read(&bad, Some(&good));
        assert_eq!(kept.saved_groups, good.saved_groups);
        assert_eq!(kept.issues[0].code, "quarantined");
        assert_eq!(kept.issues[0].path, "saved_groups.grp_1");
        assert!(read(&bad, None).saved_groups.is_empty());
    }
}
