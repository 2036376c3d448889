//! Lists that membership is asked of: `$in`, `$inGroup`, saved groups. Found by type and value, not one by one.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use serde_json::Value;

use super::js::{self, Actual};

/// The members of a list. Arrays and objects are never identical to anything, so they are left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    texts: HashSet<Box<str>, FixedState>,
    /// By bits, with one zero.
    numbers: HashSet<u64, FixedState>,
    /// Whether null, false and true are members.
    others: [bool; 3],
    /// Whether texts are held and sought in lower case.
    folded: bool,
}

impl Set {
    pub(super) fn new(items: &[Value], folded: bool) -> Self {
        let mut set = Self {
            folded,
            ..Self::default()
        };
        for item in items {
            match Actual::from(item) {
                Actual::Null => set.others[0] = true,
                Actual::Bool(flag) => set.others[1 + usize::from(flag)] = true,
                Actual::Number(number) => {
                    set.numbers.insert(bits(number));
                }
                Actual::String(text) if folded => {
                    set.texts.insert(js::lower(text).into());
                }
                Actual::String(text) => {
                    set.texts.insert(text.into());
                }
                Actual::Array(_) | Actual::Object(_) => {}
            }
        }
        set
    }

    /// Whether the value is a member or, for a list, any of its elements is.
    pub(super) fn matches(&self, actual: Actual<'_>) -> bool {
        match actual {
            Actual::Array(items) => items.iter().any(|item| self.contains(item.into())),
            scalar => self.contains(scalar),
        }
    }

    fn contains(&self, actual: Actual<'_>) -> bool {
        match actual {
            Actual::Null => self.others[0],
            Actual::Bool(flag) => self.others[1 + usize::from(flag)],
            Actual::Number(number) => self.numbers.contains(&bits(number)),
            Actual::String(text) if self.folded => self.texts.contains(&*js::lower(text)),
            Actual::String(text) => self.texts.contains(text),
            Actual::Array(_) | Actual::Object(_) => false,
        }
    }
}

fn bits(number: f64) -> u64 {
    // Adding zero makes one of -0 and 0.
    (number + 0.0).to_bits()
}
