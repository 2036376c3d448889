//! What a parked input would change, for somebody who has to decide about it: bounded, whatever the input is like.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    diff::{self, Configuration, FieldChange, Kind},
    model::{CanonicalJson, Stitched},
};

/// Most items named in each list.
const NAMED_MAX: usize = 20;
/// Most fields told of one item.
const FIELDS_MAX: usize = 10;
/// Longest value told, in bytes of JSON; a longer one is cut and becomes text.
const VALUE_BYTES_MAX: usize = 200;

/// What differs between two merged configurations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Features.
    pub features: Items,
    /// Experiments of the management API, by tracking key.
    pub experiments: Items,
}

/// What differs in one collection; each list has the first some of its items.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Items {
    /// Keys that only the new one has.
    pub added: Vec<String>,
    /// Keys that only the old one has.
    pub removed: Vec<String>,
    /// Items that both have, differently.
    pub changed: Vec<Changed>,
    /// How many more were added, removed and changed.
    pub omitted: [usize; 3],
}

/// An item that is not the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Its key.
    pub key: String,
    /// The first of its fields that differ, long values cut.
    pub fields: Vec<FieldChange>,
}

type Definitions<'a> = BTreeMap<&'a str, &'a CanonicalJson>;

/// Compares two merged configurations.
pub fn difference(before: &Stitched, after: &Stitched) -> Difference {
    fn features(stitched: &Stitched) -> Definitions<'_> {
        let features = stitched.features.iter();
        features
            .map(|(key, feature)| (&**key, &feature.item.definition))
            .collect()
    }
    fn experiments(stitched: &Stitched) -> Definitions<'_> {
        let experiments = stitched.experiments.iter();
        experiments
            .map(|e| (e.item.tracking_key.as_str(), &e.item.definition))
            .collect()
    }
    Difference {
        features: items(&features(before), &features(after), "features"),
        experiments: items(&experiments(before), &experiments(after), "experiments"),
    }
}

fn items(before: &Definitions<'_>, after: &Definitions<'_>, collection: &str) -> Items {
    let mut items = Items::default();
    let added = after.keys().filter(|key| !before.contains_key(*key));
    let removed = before.keys().filter(|key| !after.contains_key(*key));
    let changed: Vec<&str> = after
        .iter()
        .filter(|(key, new)| before.get(*key).is_some_and(|old| old != *new))
        .map(|(key, _)| *key)
        .collect();
    (items.added, items.omitted[0]) = first(added.copied());
    (items.removed, items.omitted[1]) = first(removed.copied());
    let (named, omitted) = first(changed.iter().copied());
    items.omitted[2] = omitted;
    let [old, new] = [before, after]
        .map(|side| configuration(named.iter().map(String::as_str), side, collection));
    items.changed = diff::changes(&old, &new)
        .into_iter()
        .map(|change| Changed {
            key: change.key,
            fields: match change.kind {
                Kind::Changed(fields) => fields.into_iter().take(FIELDS_MAX).map(cut).collect(),
                Kind::Added | Kind::Removed => Vec::new(),
            },
        })
        .collect();
    items
}

fn first<'a>(keys: impl Iterator<Item = &'a str>) -> (Vec<String>, usize) {
    let mut named = Vec::new();
    let mut omitted = 0;
    for key in keys {
        if named.len() < NAMED_MAX {
            named.push(key.to_owned());
        } else {
            omitted += 1;
        }
    }
    (named, omitted)
}

/// These items alone.
fn configuration<'a>(
    keys: impl Iterator<Item = &'a str>,
    definitions: &Definitions<'_>,
    collection: &str,
) -> Configuration {
    let definition = |key: &str| Some((key.to_owned(), definitions.get(key)?.to_value()));
    let found: Map<String, Value> = keys.filter_map(definition).collect();
    if collection == "features" {
        Configuration {
            features: found,
            ..Configuration::default()
        }
    } else {
        Configuration {
            experiments: found,
            ..Configuration::default()
        }
    }
}

fn cut(field: FieldChange) -> FieldChange {
    FieldChange {
        path: field.path,
        before: field.before.map(shortened),
        after: field.after.map(shortened),
    }
}

fn shortened(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= VALUE_BYTES_MAX {
        return value;
    }
    let end = text.floor_char_boundary(VALUE_BYTES_MAX);
    json!(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::{
        super::test_support::{listed, stitched},
        *,
    };

    #[test]
    fn items_are_named_with_their_fields() {
        let before = json!({"features": {"gone": {}, "same": {}, "other": {"defaultValue": 1}}});
        let after = json!({"features": {"new": {}, "same": {}, "other": {"defaultValue": 2}}});
        let difference = difference(&stitched(&before, &[listed("a")]), &stitched(&after, &[]));
        let features = difference.features;
        assert_eq!(features.added, ["new"]);
        assert_eq!(features.removed, ["gone"]);
        assert_eq!(features.changed[0].key, "other");
        let field = &features.changed[0].fields[0];
        assert_eq!(field.path, "defaultValue");
        assert_eq!(
            (&field.before, &field.after),
            (&Some(json!(1)), &Some(json!(2)))
        );
        assert_eq!(difference.experiments.removed, ["a"]);
    }

    #[test]
    fn it_is_bounded() {
        let side = |number: usize, text: &str| {
            let feature = |i| {
                (
                    format!("f{i:03}"),
                    json!({ "defaultValue": text.repeat(300) }),
                )
            };
            let features: Map<String, Value> = (0..number).map(feature).collect();
            stitched(&json!({ "features": features }), &[])
        };
        let difference = difference(&side(100, "ä"), &side(50, "ö")).features;
        assert_eq!(difference.removed.len(), NAMED_MAX);
        assert_eq!(difference.changed.len(), NAMED_MAX);
        assert_eq!(difference.omitted, [0, 30, 30]);
        let value = difference.changed[0].fields[0].after.as_ref().unwrap();
        assert!(
            value.as_str().unwrap().len() < VALUE_BYTES_MAX + 10,
            "{value}"
        );
    }
}
