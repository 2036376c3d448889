//! How large a document, an item, an experiment may be: beyond it is refused, beyond half of it somebody is told.

use serde_json::value::RawValue;

use super::BadItem;
use crate::{
    model::{Issue, Json},
    pipeline::{Refusal, guard::limits},
};

/// Most features (or groups, or experiments) taken from one document; far above any real one.
pub const ITEMS_MAX: usize = 100_000;
/// Largest single item in bytes.
pub const ITEM_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Deepest nesting of one item.
pub const DEPTH_MAX: usize = 64;
/// Longest key in bytes; keys become URL segments and log fields.
pub const KEY_BYTES_MAX: usize = 512;
/// Most variations of one experiment.
pub const VARIATIONS_MAX: usize = 1_000;

/// An issue code and where in an item it applies.
type Warning = (&'static str, BadItem);

/// Counts the items of a document's members: too many refuse it, more than half of the limit are warned about.
pub(super) fn within_limits(
    source: &str,
    members: &[(&'static str, usize)],
) -> Result<Vec<Issue>, Refusal> {
    let mut near = Vec::new();
    for (what, got) in members {
        if *got > ITEMS_MAX {
            return Err(Refusal::TooMany {
                what,
                got: *got,
                limit: ITEMS_MAX,
            });
        }
        near.extend(limits::warn(source, what, "items", *got, ITEMS_MAX));
    }
    Ok(near)
}

/// A warning where an experiment has more than half as many variations as it may have.
pub(super) fn near_variations(at: &str, number: usize) -> Option<Warning> {
    near(format!("{at}.variations"), "items", number, VARIATIONS_MAX)
}

fn near(path: String, what: &str, number: usize, limit: usize) -> Option<Warning> {
    limits::is_near(number, limit).then(|| {
        let message = limits::message(what, number, limit);
        (limits::CODE, BadItem { path, message })
    })
}

/// Refuses an experiment with too many variations.
pub(super) fn few_variations(path: impl Into<String>, number: usize) -> Result<(), BadItem> {
    if number > VARIATIONS_MAX {
        let message = format!("has {number} items, more than the limit of {VARIATIONS_MAX}");
        return Err(BadItem::new(path, message));
    }
    Ok(())
}

/// [`item`], with warnings where it is over half of a limit.
pub(super) fn measured_item<'a>(
    raw: &'a RawValue,
    key: &str,
) -> Result<(Json<'a>, Vec<Warning>), BadItem> {
    let value = item(raw, key)?;
    let bytes = near(String::new(), "bytes", raw.get().len(), ITEM_BYTES_MAX);
    let levels = near(String::new(), "levels of nesting", value.depth(), DEPTH_MAX);
    Ok((value, bytes.into_iter().chain(levels).collect()))
}

/// Parses one item within the limits on size, depth and key.
pub(super) fn item<'a>(raw: &'a RawValue, key: &str) -> Result<Json<'a>, BadItem> {
    let bad = |message| Err(BadItem::new("", message));
    if raw.get().len() > ITEM_BYTES_MAX {
        return bad(format!("is larger than {ITEM_BYTES_MAX} bytes"));
    }
    if key.len() > KEY_BYTES_MAX {
        return bad(format!("has a key longer than {KEY_BYTES_MAX} bytes"));
    }
    let too_deep = || format!("is nested deeper than {DEPTH_MAX} levels");
    match serde_json::from_str::<Json<'a>>(raw.get()) {
        Ok(value) if value.depth() <= DEPTH_MAX => Ok(value),
        Ok(_) => bad(too_deep()),
        // The parser has a limit of its own, further down.
        Err(_) if depth(raw.get()) > DEPTH_MAX => bad(too_deep()),
        Err(error) => bad(format!("cannot be read: {error}")),
    }
}

/// Deepest nesting of arrays and objects in valid JSON text.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pipeline::{FieldNames, validate};

    fn feature(variations: usize, depth: usize) -> Value {
        let nested = (0..depth).fold(json!(1), |inner, _| json!([inner]));
        json!({"defaultValue": nested, "rules": [{"key": "e", "variations": vec![0; variations]}]})
    }

    fn codes(document: &Value) -> Vec<(&'static str, String)> {
        let payload = validate::payload("s", document.to_string().as_bytes(), None).unwrap();
        let issues = payload.issues.into_iter();
        issues.map(|issue| (issue.code, issue.path)).collect()
    }

    #[test]
    fn more_than_half_of_a_limit_is_a_warning_and_more_than_all_of_it_is_bad() {
        let one = |feature| codes(&json!({"features": {"f": feature}}));
        let at = |code, path: &str| vec![(code, path.to_owned())];
        assert_eq!(one(feature(500, 31)), []);
        let near = at("near_limit", "features.f.rules[0].variations");
        assert_eq!(one(feature(501, 1)), near);
        let bad = at("quarantined", "features.f.rules[0].variations");
        assert_eq!(one(feature(1_001, 1)), bad);
        assert_eq!(one(feature(2, 32)), at("near_limit", "features.f"));
        assert_eq!(one(feature(2, 64)), at("quarantined", "features.f"));
        let long = json!({"defaultValue": "x".repeat(ITEM_BYTES_MAX / 2 + 1)});
        assert_eq!(one(long), at("near_limit", "features.f"));
    }

    #[test]
    fn a_document_with_more_than_half_of_the_items_is_warned_about() {
        let with = |number: usize| {
            let features = (0..number).map(|i| (i.to_string(), json!({})));
            let features: serde_json::Map<_, _> = features.collect();
            codes(&json!({ "features": features }))
        };
        assert_eq!(with(ITEMS_MAX / 2), []);
        let near = ("near_limit", "features".to_owned());
        assert_eq!(with(ITEMS_MAX / 2 + 1), [near]);
    }

    #[test]
    fn variations_of_listed_experiments_are_counted_too() {
        let list = |variations: usize| {
            let experiment = json!({"id": "exp", "trackingKey": "e", "status": "draft", "phases": [],
                "variations": vec![json!({"variationId": "v"}); variations]});
            let document = json!({"experiments": [experiment]}).to_string();
            let fields = FieldNames::default();
            let list = validate::experiments("s", document.as_bytes(), None, &fields).unwrap();
            list.issues.iter().map(|i| i.code).collect::<Vec<_>>()
        };
        assert_eq!(list(500), [""; 0]);
        assert_eq!(list(501), ["near_limit"]);
        assert_eq!(list(1_001), ["quarantined"]);
    }
}
