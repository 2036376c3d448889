//! Payloads bent at random places, as a broken export would: deleted, doubled, blanked, retagged, cut short, emptied.

use proptest::{prelude::Rng as _, test_runner::TestRng};

use serde_json::{Map, Value, json};

/// Bends a document so many times.
pub(crate) fn bend(document: &mut Value, times: usize, rng: &mut TestRng) {
    for _ in 0..times {
        // Now and then near the root, where a whole collection is hit.
        let places = count(document);
        let places = if below(rng, 3) == 0 {
            places.min(4)
        } else {
            places
        };
        let target = below(rng, places);
        let mut at = 0;
        bend_at(document, target, &mut at, rng);
    }
}

/// A number below a limit.
pub(crate) fn below(rng: &mut TestRng, limit: usize) -> usize {
    let limit = u64::try_from(limit.max(1)).unwrap();
    usize::try_from(rng.next_u64() % limit).unwrap()
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

fn bend_at(value: &mut Value, target: usize, at: &mut usize, rng: &mut TestRng) {
    if *at == target {
        *at += 1;
        bend_here(value, rng);
        return;
    }
    *at += 1;
    match value {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| bend_at(item, target, at, rng)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| bend_at(member, target, at, rng)),
        _ => {}
    }
}

fn bend_here(value: &mut Value, rng: &mut TestRng) {
    match value {
        Value::Object(members) if !members.is_empty() => bend_object(members, rng),
        Value::Array(items) if !items.is_empty() => bend_array(items, rng),
        _ => *value = another(value, rng),
    }
}

fn bend_object(members: &mut Map<String, Value>, rng: &mut TestRng) {
    let keys: Vec<String> = members.keys().cloned().collect();
    let key = &keys[below(rng, keys.len())];
    match below(rng, 8) {
        0 => drop(members.shift_remove(key)),
        1 => {
            let copy = members[key].clone();
            members.insert(format!("{key} (r0)"), copy);
        }
        2 => {
            let moved = members.shift_remove(key).unwrap();
            members.insert(format!("renamed-{key}"), moved);
        }
        3 => members.clear(),
        4 => {
            let kept = below(rng, keys.len());
            members.retain(|key, _| keys[..kept].contains(key));
        }
        5 => members[key] = another(&members[key], rng),
        6 => members.values_mut().for_each(blank),
        _ => members
            .values_mut()
            .filter(|_| below(rng, 2) == 0)
            .for_each(blank),
    }
}

fn bend_array(items: &mut Vec<Value>, rng: &mut TestRng) {
    let at = below(rng, items.len());
    match below(rng, 6) {
        0 => drop(items.remove(at)),
        1 => items.push(items[at].clone()),
        2 => items.clear(),
        3 => items.truncate(at),
        4 => items[at] = another(&items[at], rng),
        _ => items.reverse(),
    }
}

/// The same members, saying nothing.
fn blank(value: &mut Value) {
    *value = match value {
        Value::Object(_) => json!({}),
        Value::Array(_) => json!([]),
        Value::String(_) => json!(""),
        _ => Value::Null,
    };
}

/// Something of another kind, or the same kind and another value.
fn another(value: &Value, rng: &mut TestRng) -> Value {
    let others = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1.5),
        json!(1e300),
        json!(""),
        json!("another"),
        json!([]),
        json!({}),
        json!([value]),
        json!({ "value": value }),
    ];
    others[below(rng, others.len())].clone()
}
