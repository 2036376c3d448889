//! Sets of UTF-16 units: what a character class holds.

use std::{collections::HashMap, fmt::Write as _, sync::LazyLock};

use super::character;

/// A first and a last unit.
type Span = (u16, u16);

const DIGIT: &[Span] = &[(0x30, 0x39)];
const WORD: &[Span] = &[(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)];
const SPACE: &[Span] = &[
    (0x09, 0x0D),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
];
const LINE_END: &[Span] = &[(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)];

/// Units that are the same when case is ignored, by the unit that stands for them.
static FOLDS: LazyLock<HashMap<u16, Vec<u16>>> = LazyLock::new(|| {
    let mut folds: HashMap<u16, Vec<u16>> = HashMap::new();
    for unit in 0..=u16::MAX {
        folds.entry(canonical(unit)).or_default().push(unit);
    }
    folds.retain(|_, units| units.len() > 1);
    folds
});

/// ECMAScript's `Canonicalize` without the `u` flag: upper case, where that is one unit and keeps ASCII apart.
fn canonical(unit: u16) -> u16 {
    let Some(character) = char::from_u32(unit.into()) else {
        return unit;
    };
    let mut upper = character.to_uppercase();
    match (
        upper.next().map(|upper| u16::try_from(u32::from(upper))),
        upper.next(),
    ) {
        (Some(Ok(upper)), None) if unit < 128 || upper >= 128 => upper,
        _ => unit,
    }
}

/// A set of units under construction.
#[derive(Clone, Default)]
pub(super) struct Class {
    spans: Vec<Span>,
}

impl Class {
    pub(super) fn unit(unit: u16) -> Self {
        Self {
            spans: vec![(unit, unit)],
        }
    }

    /// Everything but line ends: what `.` matches.
    pub(super) fn dot() -> Self {
        Self::of(LINE_END).complement()
    }

    /// What `\d`, `\w`, `\s` and their opposites hold.
    pub(super) fn escape(letter: u8) -> Option<Self> {
        let set = match letter.to_ascii_lowercase() {
            b'd' => DIGIT,
            b'w' => WORD,
            b's' => SPACE,
            _ => return None,
        };
        let class = Self::of(set);
        Some(if letter.is_ascii_uppercase() {
            class.complement()
        } else {
            class
        })
    }

    fn of(spans: &[Span]) -> Self {
        Self {
            spans: spans.to_vec(),
        }
    }

    pub(super) fn push(&mut self, first: u16, last: u16) {
        self.spans.push((first, last));
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.spans.extend_from_slice(&other.spans);
    }

    /// The only unit, if there is just one.
    pub(super) fn single(&self) -> Option<u16> {
        match self.spans.as_slice() {
            [(first, last)] if first == last => Some(*first),
            _ => None,
        }
    }

    fn complement(&self) -> Self {
        let mut next = 0_u32;
        let mut spans = Vec::new();
        for (first, last) in self.merged() {
            if u32::from(first) > next {
                spans.push((u16::try_from(next).unwrap_or(u16::MAX), first - 1));
            }
            next = u32::from(last) + 1;
        }
        if let Ok(next) = u16::try_from(next) {
            spans.push((next, u16::MAX));
        }
        Self { spans }
    }

    /// Sorted, without overlaps.
    fn merged(&self) -> Vec<Span> {
        let mut sorted = self.spans.clone();
        sorted.sort_unstable();
        let mut merged: Vec<Span> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => merged.push((first, last)),
            }
        }
        merged
    }

    /// Adds every unit that differs from a member by case alone.
    fn folded(mut self) -> Self {
        let merged = self.merged();
        let holds = |unit: u16| {
            let behind = merged.partition_point(|(first, _)| *first <= unit);
            behind > 0 && merged[behind - 1].1 >= unit
        };
        if let Some(unit) = self.single() {
            if let Some(units) = FOLDS.get(&canonical(unit)) {
                self.spans.extend(units.iter().map(|unit| (*unit, *unit)));
            }
        } else {
            for units in FOLDS
                .values()
                .filter(|units| units.iter().any(|unit| holds(*unit)))
            {
                self.spans.extend(units.iter().map(|unit| (*unit, *unit)));
            }
        }
        self
    }

    /// The class as both engines read it.
    pub(super) fn write(self, out: &mut String, negated: bool, insensitive: bool) {
        let class = if insensitive { self.folded() } else { self };
        let class = if negated { class.complement() } else { class };
        let merged = class.merged();
        if let [(first, last)] = merged.as_slice()
            && first == last
        {
            push_character(out, *first);
            return;
        }
        out.push('[');
        if merged.is_empty() {
            // Nothing: a class without members is an error to some engines.
            out.push_str(r"^\x{0}-\x{10FFFF}");
        }
        for (first, last) in merged {
            // The surrogates lie elsewhere for the engines.
            for (low, high) in [(0, 0xD7FF), (0xD800, 0xDFFF), (0xE000, u16::MAX)] {
                let (first, last) = (first.max(low), last.min(high));
                if first <= last {
                    push_character(out, first);
                    if first < last {
                        out.push('-');
                        push_character(out, last);
                    }
                }
            }
        }
        out.push(']');
    }
}

fn push_character(out: &mut String, unit: u16) {
    let character = character(unit);
    if character.is_ascii_alphanumeric() {
        out.push(character);
    } else {
        write!(out, r"\x{{{:X}}}", u32::from(character)).expect("writing to a String cannot fail");
    }
}
