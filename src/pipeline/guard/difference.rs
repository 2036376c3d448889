//! What a parked input would change, for somebody who has to decide about it: bounded, whatever the input is like.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

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
    /// Auto experiments, by key; a second one of the same key by its position.
    pub auto_experiments: Items,
    /// Saved groups, by id.
    pub saved_groups: Items,
    /// Contextual bandits, by id.
    pub contextual_bandits: Items,
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

type Definitions<'a> = BTreeMap<Cow<'a, str>, &'a CanonicalJson>;

/// The collection of a configuration that is compared.
type Place = fn(&mut Configuration) -> &mut Map<String, Value>;

/// Compares two merged configurations.
pub fn difference(before: &Stitched, after: &Stitched) -> Difference {
    fn features(stitched: &Stitched) -> Definitions<'_> {
        let features = stitched.features.iter();
        features
            .map(|(key, feature)| (Cow::from(&**key), &feature.item.definition))
            .collect()
    }
    fn experiments(stitched: &Stitched) -> Definitions<'_> {
        let experiments = stitched.experiments.iter();
        experiments
            .map(|e| (e.item.tracking_key.as_str().into(), &e.item.definition))
            .collect()
    }
    fn by_id(all: &BTreeMap<Arc<str>, CanonicalJson>) -> Definitions<'_> {
        all.iter()
            .map(|(id, definition)| (Cow::from(&**id), definition))
            .collect()
    }
    let of = |definitions: fn(&Stitched) -> Definitions<'_>, place: Place| {
        items(&definitions(before), &definitions(after), place)
    };
    Difference {
        features: of(features, |all| &mut all.features),
        experiments: of(experiments, |all| &mut all.experiments),
        auto_experiments: if before.auto_experiments == after.auto_experiments {
            Items::default()
        } else {
            of(auto_experiments, |all| &mut all.auto_experiments)
        },
        saved_groups: of(
            |side| by_id(&side.saved_groups),
            |all| &mut all.saved_groups,
        ),
        contextual_bandits: of(
            |side| by_id(&side.contextual_bandits),
            |all| &mut all.contextual_bandits,
        ),
    }
}

fn auto_experiments(stitched: &Stitched) -> Definitions<'_> {
    let mut found = Definitions::new();
    for (at, auto) in stitched.auto_experiments.iter().enumerate() {
        let definition = auto.item.to_value();
        let key = definition.get("key").and_then(Value::as_str);
        let key = key.filter(|key| !found.contains_key(*key));
        let key = key.map_or_else(|| format!("[{at}]"), str::to_owned);
        found.insert(key.into(), &auto.item);
    }
    found
}

fn items(before: &Definitions<'_>, after: &Definitions<'_>, place: Place) -> Items {
    let mut items = Items::default();
    let added = after.keys().filter(|key| !before.contains_key(*key));
    let removed = before.keys().filter(|key| !after.contains_key(*key));
    let changed: Vec<&str> = after
        .iter()
        .filter(|(key, new)| before.get(*key).is_some_and(|old| old != *new))
        .map(|(key, _)| &**key)
        .collect();
    (items.added, items.omitted[0]) = first(added.map(|key| &**key));
    (items.removed, items.omitted[1]) = first(removed.map(|key| &**key));
    let (named, omitted) = first(changed.iter().copied());
    items.omitted[2] = omitted;
    let [old, new] =
        [before, after].map(|side| configuration(named.iter().map(String::as_str), side, place));
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
    place: Place,
) -> Configuration {
    let definition = |key: &str| Some((key.to_owned(), definitions.get(key)?.to_value()));
    let mut configuration = Configuration::default();
    *place(&mut configuration) = keys.filter_map(definition).collect();
    configuration
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
    fn everything_that_may_have_tripped_is_in_it() {
        let side = |weight: f64, ids: Value| {
            let auto =
                json!({"key": "banner", "variations": [{}, {}], "weights": [weight, 1.0 - weight]});
            let document =
                json!({"features": {}, "experiments": [auto], "savedGroups": {"g": ids}});
            stitched(&document, &[])
        };
        let difference = difference(&side(0.5, json!(["a"])), &side(0.9, json!([])));
        let auto = &difference.auto_experiments.changed;
        let keys: Vec<&str> = auto.iter().map(|changed| changed.key.as_str()).collect();
        assert_eq!(keys, ["banner"]);
        assert!(auto[0].fields[0].path.starts_with("weights"), "{auto:?}");
        assert_eq!(difference.saved_groups.changed[0].key, "g");
        assert_eq!(difference.features, Items::default());
        assert_eq!(difference.contextual_bandits, Items::default());
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
