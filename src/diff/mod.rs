//! What differs between two configurations: item by item and field by field, and how many units notice.
//!
//! Pure: takes documents that somebody read. A document is an SDK payload or the snapshot of an environment
//! ([`Configuration`]). Order of members means nothing, order of rules and variations does; 1 and 1.0 are the same.

mod configuration;
mod units;

use serde_json::{Map, Value};

pub use configuration::{Configuration, Unreadable};
pub use units::{Noticed, noticed};

/// An item that is not the same on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What the item is: `feature`, `experiment`, `auto experiment`, `saved group`, `contextual bandit`.
    pub collection: &'static str,
    /// Its key.
    pub key: String,
    /// What happened to it.
    pub kind: Kind,
}

/// What happened to an item.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Only the second document has it.
    Added,
    /// Only the first document has it.
    Removed,
    /// Both have it, with these differences.
    Changed(Vec<FieldChange>),
}

/// A field that is not the same on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// Where in the item: `rules[0].coverage`; empty for the item itself.
    pub path: String,
    /// In the first document; `None`: not there.
    pub before: Option<Value>,
    /// In the second document; `None`: not there.
    pub after: Option<Value>,
}

/// Everything that differs, sorted by collection and key.
pub fn changes(before: &Configuration, after: &Configuration) -> Vec<Change> {
    let mut changes = Vec::new();
    for ((collection, before), (_, after)) in
        before.collections().into_iter().zip(after.collections())
    {
        compare(collection, before, after, &mut changes);
    }
    changes
}

fn compare(
    collection: &'static str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let kind = match (before.get(key), after.get(key)) {
            (Some(_), None) => Kind::Removed,
            (None, Some(_)) => Kind::Added,
            (Some(before), Some(after)) => {
                let mut fields = Vec::new();
                differences(before, after, String::new(), &mut fields);
                fields.retain(|field| !is_only_source(field));
                if fields.is_empty() {
                    continue;
                }
                Kind::Changed(fields)
            }
            (None, None) => continue,
        };
        changes.push(Change {
            collection,
            key: key.clone(),
            kind,
        });
    }
}

/// Whether only one side says where an item came from: snapshots do, payloads do not.
fn is_only_source(field: &FieldChange) -> bool {
    field.path == "source" && (field.before.is_none() || field.after.is_none())
}

/// The innermost differences; the documents were parsed, so they do not nest deeply.
fn differences(before: &Value, after: &Value, path: String, found: &mut Vec<FieldChange>) {
    match (before, after) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                member(a.get(name), b.get(name), path, found);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for at in 0..a.len().max(b.len()) {
                member(a.get(at), b.get(at), format!("{path}[{at}]"), found);
            }
        }
        (Value::Number(a), Value::Number(b)) if a == b || a.as_f64() == b.as_f64() => {}
        _ if before == after => {}
        _ => found.push(FieldChange {
            path,
            before: Some(before.clone()),
            after: Some(after.clone()),
        }),
    }
}

fn member(
    before: Option<&Value>,
    after: Option<&Value>,
    path: String,
    found: &mut Vec<FieldChange>,
) {
    match (before, after) {
        (Some(before), Some(after)) => differences(before, after, path, found),
        _ => found.push(FieldChange {
            path,
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configuration(document: Value) -> Configuration {
        Configuration::new(document).unwrap()
    }

    #[test]
    fn items_and_fields_are_named() {
        let before = configuration(json!({"features": {
            "gone": {"defaultValue": 1},
            "same": {"defaultValue": {"a": 1, "b": [1.0]}},
            "odd": {"rules": [{"coverage": 0.1, "force": true}, {"force": 1}]},
        }, "savedGroups": {"g": ["1"]}}));
        let after = configuration(json!({"features": {
            "same": {"defaultValue": {"b": [1], "a": 1.0}},
            "odd": {"rules": [{"coverage": 0.5, "force": true, "seed": "s"}]},
            "new": {},
        }, "savedGroups": {"g": ["1", "2"]}}));
        let found: Vec<String> = changes(&before, &after)
            .into_iter()
            .map(|change| {
                let kind = match change.kind {
                    Kind::Added => "added".to_owned(),
                    Kind::Removed => "removed".to_owned(),
                    Kind::Changed(fields) => {
                        let paths = fields.into_iter().map(|field| field.path);
                        paths.collect::<Vec<_>>().join(" ")
                    }
                };
                format!("{} {}: {kind}", change.collection, change.key)
            })
            .collect();
        assert_eq!(
            found,
            [
                "feature gone: removed",
                "feature new: added",
                "feature odd: rules[0].coverage rules[0].seed rules[1]",
                "saved group g: [1]",
            ]
        );
        assert_eq!(changes(&before, &before), []);
    }

    #[test]
    fn a_payload_and_a_snapshot_of_it_have_the_same_features() {
        let payload = configuration(
            json!({"features": {"a": {"defaultValue": 1}}, "savedGroups": {"g": []}}),
        );
        let snapshot = configuration(json!({"environment": "e", "revision": 3,
            "features": {"a": {"defaultValue": 1, "source": "s"}}, "experiments": [], "auto_experiments": [],
            "saved_groups": {"g": []}, "contextual_bandits": {}, "overrides": []}));
        assert_eq!(changes(&payload, &snapshot), []);
    }

    #[test]
    fn units_notice_what_changes_for_them_alone() {
        let rollout = |coverage: f64| {
            configuration(json!({"features": {
                "flag": {"defaultValue": false, "rules": [{"force": true, "coverage": coverage}]},
                "other": {"defaultValue": 1},
            }}))
        };
        let noticed = noticed(
            &rollout(0.2),
            &rollout(0.6),
            2_000,
            crate::eval::Dialect::Strict,
        );
        assert_eq!(noticed.units, 2_000);
        assert!((700..900).contains(&noticed.changed), "{noticed:?}");
        assert_eq!(noticed.features, [("flag".to_owned(), noticed.changed)]);
        assert_eq!(noticed.experiments, []);
    }
}
