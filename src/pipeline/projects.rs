//! Which project each feature belongs to, where its payload does not say so and the management API does.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::stitch::StitchInput;
use crate::model::{CanonicalJson, Feature, Stitched};

/// Gives features without `metadata.projects` the project that their own source lists them under.
pub(super) fn merge(inputs: &[&StitchInput], stitched: &mut Stitched) {
    let lists = inputs.iter().filter_map(|input| {
        let list = input.experiments.as_ref()?;
        let known = !list.feature_projects.is_empty();
        known.then_some((&*input.source, &list.feature_projects))
    });
    let lists: BTreeMap<&str, _> = lists.collect();
    if lists.is_empty() {
        return;
    }
    for (key, sourced) in &mut stitched.features {
        let project = lists.get(&*sourced.source).and_then(|list| list.get(key));
        if let Some(project) = project
            && let Some(definition) = with_project(&sourced.item.definition, project)
        {
            sourced.item = Arc::new(Feature {
                definition,
                parents: sourced.item.parents.clone(),
            });
        }
    }
}

/// The definition with a project; `None`: it says by itself where it belongs.
fn with_project(definition: &CanonicalJson, project: &str) -> Option<CanonicalJson> {
    let mut definition = definition.to_value();
    let metadata = definition
        .as_object_mut()?
        .entry("metadata")
        .or_insert_with(|| json!({}))
        .as_object_mut()?;
    let says = |name: &str| metadata.get(name).is_some_and(|said| !said.is_null());
    if says("projects") || metadata.get("allProjects") == Some(&Value::Bool(true)) {
        return None;
    }
    metadata.insert("projects".to_owned(), json!([project]));
    Some(CanonicalJson::from_value(&definition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_added_where_none_is_named() {
        let check = |definition: Value, expected: Option<Value>| {
            let found = with_project(&CanonicalJson::from_value(&definition), "prj_1");
            assert_eq!(
                found.map(|found| found.to_value()),
                expected,
                "{definition}"
            );
        };
        let named = json!({"metadata": {"projects": ["prj_1"]}});
        check(json!({}), Some(named.clone()));
        let tagged = json!({"metadata": {"tags": ["a"]}});
        check(
            tagged,
            Some(json!({"metadata": {"projects": ["prj_1"], "tags": ["a"]}})),
        );
        check(json!({"metadata": {"projects": []}}), None);
        check(json!({"metadata": {"allProjects": true}}), None);
        check(json!({"metadata": 7}), None);
    }
}
