//! Changes of single places in a JSON text; everything else keeps its spelling, white space included.

use std::{borrow::Cow, ops::Range};

use serde_json::value::RawValue;

use super::super::payload::RawMembers;

/// A text and what is to stand in some of its places.
pub(super) struct Edits<'a> {
    text: &'a str,
    /// Never overlapping.
    places: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            places: Vec::new(),
        }
    }

    /// Puts `with` in the place of a part, which must be borrowed from the text itself.
    pub(super) fn replace(&mut self, part: &str, with: String) {
        let start = part.as_ptr().addr().wrapping_sub(self.text.as_ptr().addr());
        let place = start..start.saturating_add(part.len());
        debug_assert!(place.end <= self.text.len(), "a part of another text");
        self.places.push((place, with));
    }

    /// The text with all changes; `None` where there is none.
    pub(super) fn finish(mut self) -> Option<String> {
        if self.places.is_empty() {
            return None;
        }
        self.places.sort_unstable_by_key(|(place, _)| place.start);
        let more: usize = self.places.iter().map(|(_, with)| with.len()).sum();
        let mut out = String::with_capacity(self.text.len() + more);
        let mut done = 0;
        for (place, with) in &self.places {
            out.push_str(self.text.get(done..place.start).unwrap_or_default());
            out.push_str(with);
            done = place.end;
        }
        out.push_str(self.text.get(done..).unwrap_or_default());
        Some(out)
    }
}

/// The members of an object in the order sent; none for anything else.
pub(super) fn members(text: &str) -> Vec<(Cow<'_, str>, &RawValue)> {
    serde_json::from_str(text).map_or_else(|_| Vec::new(), |RawMembers(members)| members)
}

/// The items of a list; none for anything else.
pub(super) fn items(text: &str) -> Vec<&RawValue> {
    serde_json::from_str(text).unwrap_or_default()
}

/// A member's text; of two with one name the last counts, as for every reader of ours.
pub(super) fn member<'a>(members: &[(Cow<'_, str>, &'a RawValue)], name: &str) -> Option<&'a str> {
    let mut named = members.iter().rev().filter(|(key, _)| key == name);
    named.next().map(|(_, value)| value.get())
}

/// A JSON text that is not empty, as a string.
pub(super) fn string(json: &str) -> Option<String> {
    let text: Option<String> = serde_json::from_str(json).ok();
    text.filter(|text| !text.is_empty())
}

/// The word for a value's type.
pub fn type_of(json: &str) -> &'static str {
    match json.trim_start().as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "list",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') | None => "null",
        Some(_) => "number",
    }
}

/// Writes an object or a list of these texts.
pub(super) fn join<'a>(
    open: char,
    parts: impl Iterator<Item = Cow<'a, str>>,
    close: char,
) -> String {
    let mut out = String::from(open);
    for (i, part) in parts.enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&part);
    }
    out.push(close);
    out
}
