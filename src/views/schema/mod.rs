//! The last gate: looks at a finished entry exactly as its consumer will, whatever made it.
//!
//! One bad entry makes a consumer throw away the whole document. Sources: the edge fetcher's JSON Schema
//! (`wmfuniq_experiment_fetcher.py`) and what the MediaWiki extension `TestKitchen` reads; added to them is what they
//! forgot: order of dates, disjoint ranges, no repeated names.

use std::collections::HashSet;

use serde_json::{Map, Value};

mod edge;
mod lists;

pub(super) use edge::check_varnish;
pub(super) use lists::{check_analytics, check_mediawiki};

type Checked = Result<(), String>;

fn check_period(entry: &Map<String, Value>) -> Checked {
    let start = date(&entry["start"]).ok_or("bad start")?;
    let end = date(&entry["end"]).ok_or("bad end")?;
    // All of one width, so they sort as text.
    ensure(start < end, || format!("{start} is not before {end}"))
}

/// `YYYY-MM-DDThh:mm:ssZ`.
fn date(value: &Value) -> Option<&str> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
    value.as_str().filter(|text| {
        text.len() == SHAPE.len()
            && text.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                literal => byte == *literal,
            })
    })
}

/// An object with exactly the members that are required, and any that are optional.
fn object<'a>(
    value: &'a Value,
    what: &str,
    required: &[&str],
    optional: &[&str],
) -> Result<&'a Map<String, Value>, String> {
    let members = value
        .as_object()
        .ok_or_else(|| format!("{what} is no object"))?;
    for member in required {
        ensure(members.contains_key(*member), || {
            format!("{what} has no member `{member}`")
        })?;
    }
    for member in members.keys().map(String::as_str) {
        ensure(
            required.contains(&member) || optional.contains(&member),
            || format!("{what} has a member `{member}`"),
        )?;
    }
    Ok(members)
}

fn filled_object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, String> {
    value
        .as_object()
        .filter(|members| !members.is_empty())
        .ok_or_else(|| format!("{what} is no object or empty"))
}

fn filled_list<'a>(value: &'a Value, what: &str) -> Result<&'a [Value], String> {
    value
        .as_array()
        .filter(|items| !items.is_empty())
        .map(Vec::as_slice)
        .ok_or_else(|| format!("{what} is no list or empty"))
}

/// A list of fitting texts, each once.
fn texts<'a>(
    value: &'a Value,
    what: &str,
    is_fit: fn(&str) -> bool,
) -> Result<HashSet<&'a str>, String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("{what} is no list"))?;
    let mut seen = HashSet::with_capacity(items.len());
    for item in items {
        let text = item
            .as_str()
            .filter(|text| is_fit(text))
            .ok_or_else(|| format!("{what} holds {item}"))?;
        ensure(seen.insert(text), || format!("{what} holds {text:?} twice"))?;
    }
    Ok(seen)
}

fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(reason()) }
}

#[cfg(test)]
mod test_support {
    use super::*;

    pub(super) const NAME: &str = "sticky-header-2026";

    /// Spoils one place of an entry that fits; `None` takes the member away.
    fn spoil(entry: &mut Value, pointer: &str, value: Option<Value>) {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        let parent = entry.pointer_mut(parent).unwrap();
        match (parent, value) {
            (Value::Object(members), Some(value)) => {
                members.insert(member.to_owned(), value);
            }
            (Value::Object(members), None) => {
                members.shift_remove(member).unwrap();
            }
            (parent, value) => parent[member.parse::<usize>().unwrap()] = value.unwrap(),
        }
    }

    #[track_caller]
    pub(super) fn check(
        check: fn(&str, &Value) -> Checked,
        good: &Value,
        cases: Vec<(&str, Option<Value>, &str)>,
    ) {
        assert_eq!(check(NAME, good), Ok(()));
        for (pointer, value, reason) in cases {
            let mut entry = good.clone();
            spoil(&mut entry, pointer, value);
            assert_eq!(check(NAME, &entry), Err(reason.to_owned()), "{pointer}");
        }
    }
}
