//! Named values of an environment of which the latest word counts, whoever said it.
//!
//! Replicas, the database and each backup hold such a set. Merging any of them in any order gives the same, so that nothing
//! has to be decided about which of them is "the newer": two operators who change different things at two replicas, or
//! while the database is away, both get what they asked for.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name of the register that says which revision is pinned.
pub const PIN: &str = "pin";

/// Most names kept after their value was taken back. A copy that has not been seen for longer than the last so many
/// changes may bring an older value back.
const TAKEN_BACK_MAX: usize = 1000;

/// One value and when it was said.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Unix milliseconds; later than what it replaced, even where the clock went back.
    pub at_ms: i64,
    /// What was said; `None`: it was taken back.
    pub value: Option<Value>,
}

impl Register {
    fn is_later(&self, other: &Self) -> bool {
        let text = |register: &Self| register.value.as_ref().map(Value::to_string);
        // Of two things said at the same moment any will do, as long as it is the same everywhere.
        self.at_ms > other.at_ms || (self.at_ms == other.at_ms && text(self) > text(other))
    }
}

/// Without its value, which may be a secret.
impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("at_ms", &self.at_ms)
            .finish_non_exhaustive()
    }
}

/// All of them, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Registers(BTreeMap<String, Register>);

impl Registers {
    /// Says a value, or takes it back.
    pub fn set(&mut self, name: &str, value: Option<Value>, now_ms: i64) {
        let before = self.0.get(name).map_or(i64::MIN, |register| register.at_ms);
        let at_ms = now_ms.max(before.saturating_add(1));
        self.0.insert(name.to_owned(), Register { at_ms, value });
        self.forget();
    }

    /// Takes back a value with this `id`, where that is what is said: whatever was said after it, by anybody, counts more.
    pub fn end(&mut self, name: &str, id: &str) {
        let of_it = |register: &&mut Register| {
            let value = register.value.as_ref();
            value.and_then(|value| value.get("id")?.as_str()) == Some(id)
        };
        if let Some(register) = self.0.get_mut(name).filter(of_it) {
            register.at_ms = register.at_ms.saturating_add(1);
            register.value = None;
            self.forget();
        }
    }

    /// Takes in what is later elsewhere; `true` when that changed anything.
    pub fn merge(&mut self, other: Self) -> bool {
        let mut is_changed = false;
        for (name, theirs) in other.0 {
            match self.0.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(theirs);
                    is_changed = true;
                }
                Entry::Occupied(mut ours) if theirs.is_later(ours.get()) => {
                    ours.insert(theirs);
                    is_changed = true;
                }
                Entry::Occupied(_) => {}
            }
        }
        self.forget();
        is_changed
    }

    /// What is said now, by name.
    pub fn values(&self) -> BTreeMap<String, Value> {
        let said = self.0.iter();
        said.filter_map(|(name, register)| Some((name.clone(), register.value.clone()?)))
            .collect()
    }

    /// The revision that is pinned: the history is to keep it.
    pub fn pinned(&self) -> Option<u64> {
        self.0.get(PIN)?.value.as_ref()?.get("revision")?.as_u64()
    }

    /// Whether nothing was ever said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As kept.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("registers have string keys only")
    }

    /// Drops the oldest names whose value was taken back, beyond the bound.
    fn forget(&mut self) {
        let taken_back = self
            .0
            .iter()
            .filter(|(_, register)| register.value.is_none());
        let mut taken_back: Vec<_> = taken_back
            .map(|(name, register)| (register.at_ms, name.clone()))
            .collect();
        let surplus = taken_back.len().saturating_sub(TAKEN_BACK_MAX);
        if surplus > 0 {
            taken_back.sort_unstable();
            for (_, name) in &taken_back[..surplus] {
                self.0.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn registers(said: &[(&str, Option<i64>, i64)]) -> Registers {
        let mut registers = Registers::default();
        for (name, value, at_ms) in said {
            registers.set(name, value.map(|value| json!(value)), *at_ms);
        }
        registers
    }

    #[test]
    fn the_latest_word_counts_even_where_the_clock_went_back() {
        let mut one = registers(&[("a", Some(1), 1000), ("a", None, 10)]);
        assert!(one.values().is_empty());
        let before = registers(&[("a", Some(1), 1000)]);
        assert!(!one.merge(before.clone()));
        let mut other = before;
        assert!(other.merge(one.clone()));
        assert_eq!(other, one);
    }

    #[test]
    fn a_pin_counts_until_it_is_taken_back() {
        let mut one = Registers::default();
        assert_eq!(one.pinned(), None);
        one.set(PIN, Some(json!({"revision": 7, "reason": "it broke"})), 1);
        assert_eq!(one.pinned(), Some(7));
        one.set(PIN, None, 2);
        assert_eq!(one.pinned(), None);
    }

    #[test]
    fn an_end_gives_way_to_what_was_said_of_the_same_since() {
        let said = |id: &str| Some(json!({ "id": id }));
        let mut one = Registers::default();
        one.set("a", said("x"), 1000);
        let mut other = one.clone();
        // Said elsewhere by a clock that is behind, before the end.
        other.set("a", said("y"), 10);
        one.end("a", "x");
        assert!(one.values().is_empty());
        assert!(!other.merge(one.clone()));
        assert!(one.merge(other));
        assert_eq!(one.values()["a"], json!({"id": "y"}));
        one.end("a", "x");
        assert_eq!(one.values()["a"], json!({"id": "y"}));
    }

    #[test]
    fn what_was_taken_back_is_remembered_up_to_a_bound() {
        let mut many = Registers::default();
        many.set("kept", Some(json!(1)), 0);
        for at in 0..1200 {
            many.set(&format!("r{at}"), None, at);
        }
        assert_eq!(many.0.len(), TAKEN_BACK_MAX + 1);
        assert!(many.0.contains_key("kept") && !many.0.contains_key("r199"));
        // Nobody else brings them back.
        let mut before = many.clone();
        assert!(many.merge(registers(&[("r199", None, 199)])));
        assert_eq!(many.0.len(), TAKEN_BACK_MAX + 1);
        assert!(!before.merge(many));
    }

    fn any_registers() -> impl Strategy<Value = Registers> {
        let said = ("[a-c]", prop::option::of(0_i64..3), 0_i64..5);
        prop::collection::vec(said, 0..6).prop_map(|said| {
            let said: Vec<_> = said
                .iter()
                .map(|(n, v, at)| (n.as_str(), *v, *at))
                .collect();
            registers(&said)
        })
    }

    proptest! {
        #[test]
        fn the_order_of_merging_does_not_matter(
            a in any_registers(), b in any_registers(), c in any_registers(),
        ) {
            let merged = |parts: [&Registers; 3]| {
                let mut all = Registers::default();
                for part in parts {
                    all.merge(part.clone());
                }
                all
            };
            let all = merged([&a, &b, &c]);
            for other in [[&c, &b, &a], [&b, &a, &c], [&b, &c, &a]] {
                prop_assert_eq!(&merged(other), &all);
            }
            prop_assert!(!all.clone().merge(a));
        }
    }
}
