//! Sample units that have what targeting asks for.
//!
//! What values real units have, and how many of them, is not known here. So these have the values that conditions and
//! saved groups name, each as often as any other: what they show is that there are such units, never how many.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Most values taken of one attribute: of long lists the first are as good as all.
const VALUES_MAX: usize = 16;
/// Objects within objects that a path may lead through; deeper ones are left out.
const LEVELS_MAX: usize = 16;

/// The values that documents name, by path of the attribute.
#[derive(Debug, Default)]
pub(super) struct Named(BTreeMap<String, Vec<Value>>);

impl Named {
    /// Reads snapshot documents.
    pub(super) fn of(documents: &[Value]) -> Self {
        let mut named = Self::default();
        for document in documents {
            named.walk(document, &document["saved_groups"]);
        }
        named
    }

    fn walk(&mut self, value: &Value, groups: &Value) {
        match value {
            Value::Array(items) => {
                for item in items {
                    self.walk(item, groups);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    match (name.as_str(), member) {
                        ("condition" | "targetingCondition", Value::String(text)) => {
                            let condition = serde_json::from_str(text).unwrap_or_default();
                            self.condition(&condition, groups);
                        }
                        ("condition", _) => self.condition(member, groups),
                        _ => self.walk(member, groups),
                    }
                }
                if let Some(attribute) = members.get("attributeKey").and_then(Value::as_str) {
                    self.add_all(attribute, &value["values"]);
                }
            }
            _ => {}
        }
    }

    fn condition(&mut self, condition: &Value, groups: &Value) {
        for (name, operand) in condition.as_object().into_iter().flatten() {
            match (name.as_str(), operand) {
                ("$and" | "$or" | "$nor", Value::Array(list)) => {
                    for one in list {
                        self.condition(one, groups);
                    }
                }
                ("$not", _) => self.condition(operand, groups),
                (attribute, _) if !attribute.starts_with('$') => {
                    self.operand(attribute, operand, groups);
                }
                _ => {}
            }
        }
    }

    fn operand(&mut self, attribute: &str, operand: &Value, groups: &Value) {
        let operators = operand.as_object();
        let operators = operators.filter(|o| o.keys().any(|name| name.starts_with('$')));
        let Some(operators) = operators else {
            self.add(attribute, operand);
            return;
        };
        for (operator, value) in operators {
            match operator.as_str() {
                "$eq" | "$ne" | "$gte" | "$lte" | "$veq" | "$vne" | "$vgte" | "$vlte" => {
                    self.add(attribute, value);
                }
                "$gt" | "$lt" => {
                    let number = value.as_f64().unwrap_or_default();
                    self.add(attribute, &json!(number - 1.0));
                    self.add(attribute, &json!(number + 1.0));
                }
                "$in" | "$nin" => self.add_all(attribute, value),
                "$inGroup" | "$notInGroup" => {
                    let id = value.as_str().unwrap_or_default();
                    self.add_all(attribute, &groups[id]);
                }
                "$exists" => self.add(attribute, &json!("sample")),
                "$not" => self.operand(attribute, value, groups),
                _ => {}
            }
        }
    }

    fn add_all(&mut self, attribute: &str, values: &Value) {
        let values = values.as_array().into_iter().flatten();
        for value in values.take(VALUES_MAX) {
            self.add(attribute, value);
        }
    }

    fn add(&mut self, attribute: &str, value: &Value) {
        if attribute.split('.').nth(LEVELS_MAX).is_some() {
            return;
        }
        let values = self.0.entry(attribute.to_owned()).or_default();
        if values.len() < VALUES_MAX && !values.contains(value) {
            values.push(value.clone());
        }
    }

    /// The attributes of one unit: of each any named value, or none. The same number gives the same unit.
    pub(super) fn unit(&self, number: usize) -> Map<String, Value> {
        let mut user = Map::new();
        for (place, (path, values)) in self.0.iter().enumerate() {
            if let Some(value) = values.get(drawn(number, place, values.len() + 1)) {
                put(&mut user, path, value);
            }
        }
        user
    }
}

/// Sets a member by its dotted path, as conditions read it.
fn put(user: &mut Map<String, Value>, path: &str, value: &Value) {
    match path.split_once('.') {
        None => drop(user.insert(path.to_owned(), value.clone())),
        Some((first, rest)) => {
            let inner = user.entry(first).or_insert_with(|| json!({}));
            if let Some(inner) = inner.as_object_mut() {
                put(inner, rest, value);
            }
        }
    }
}

/// A number below `limit` that depends on the other two alone: the mixing of `SplitMix64`.
fn drawn(number: usize, place: usize, limit: usize) -> usize {
    let seed = ((number as u64) << 32) | (place as u64 & 0xffff_ffff);
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let below = mixed % limit.max(1) as u64;
    usize::try_from(below).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn units_have_every_value_that_conditions_name_and_sometimes_none() {
        let document = json!({
            "features": {"f": {"rules": [
                {"condition": {"$or": [{"country": {"$in": ["de", "fr"]}}, {"country": "us"}]}},
                {"condition": {"browser.version": {"$gt": 10}}},
                {"parentConditions": [{"id": "p", "condition": {"value": true}}]},
            ]}},
            "saved_groups": {"staff": {"type": "list", "attributeKey": "team", "values": ["a"]}},
            "experiments": [{"phases": [{"targetingCondition": "{\"plan\": {\"$inGroup\": \"g\"}}"}]}],
        });
        let named = Named::of(&[document]);
        let units: Vec<Value> = (0..200).map(|i| Value::Object(named.unit(i))).collect();
        let seen = |pointer: &str| -> BTreeSet<String> {
            let values = units.iter().map(|unit| unit.pointer(pointer));
            let text = |value: Option<&Value>| value.map_or("none".to_owned(), Value::to_string);
            values.map(text).collect()
        };
        let countries = ["\"de\"", "\"fr\"", "\"us\"", "none"].map(str::to_owned);
        assert_eq!(seen("/country"), BTreeSet::from(countries));
        let versions = ["11.0", "9.0", "none"].map(str::to_owned);
        assert_eq!(seen("/browser/version"), BTreeSet::from(versions));
        assert_eq!(seen("/team").len(), 2);
        assert_eq!(named.unit(7), named.unit(7));
    }

    #[test]
    fn long_lists_and_odd_conditions_are_borne() {
        let many: Vec<i32> = (0..1_000).collect();
        let odd = [
            json!({"id": {"$in": many}}),
            json!({"$or": 1}),
            json!({"a": {"$in": 1}}),
            json!({"a": {"$gt": "x"}}),
            json!({"a.b.c": 1, "a": 2, "a.": 3}),
            json!({"a.".repeat(100_000): 1}),
            json!("{"),
            Value::Null,
        ];
        let rules: Vec<Value> = odd.iter().map(|odd| json!({ "condition": odd })).collect();
        let named = Named::of(&[json!({ "rules": rules }), Value::Null]);
        assert_eq!(named.0["id"].len(), VALUES_MAX);
        assert!((0..50).any(|i| !named.unit(i).is_empty()));
    }
}
