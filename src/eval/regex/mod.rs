//! Patterns in JavaScript's flavour (without the `u` flag), run by engines that cannot run away.
//!
//! A pattern is translated once ([`mod@translate`]). Most run on `regex`, linear in the text; look-around and
//! back-references go to `fancy-regex` with a limit on its backtracking, beyond which a text does not match.
//!
//! JavaScript matches UTF-16 units. Characters above U+FFFF are therefore matched as their two surrogates, each
//! replaced by a private character of plane 16 on both sides; no text reaches an engine with a character of its own
//! up there.

mod class;
mod translate;

use std::borrow::Cow;

use translate::{Engine, translate};

/// Steps that the backtracking engine may take on one text.
const BACKTRACK_MAX: usize = 50_000;

/// Bytes of the longest text that the backtracking engine is given: it may look at all of it from each of its places.
const BACKTRACK_TEXT_MAX: usize = 4096;

/// Bytes that one compiled pattern may take.
const SIZE_MAX: usize = 4 << 20;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Linear(regex::Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

impl Pattern {
    /// Compiles a pattern; `None` where JavaScript would refuse it, or it is too large.
    pub(super) fn new(pattern: &str, insensitive: bool) -> Option<Self> {
        let translated = translate(pattern, insensitive)?;
        match translated.engine {
            Engine::Linear => regex::RegexBuilder::new(&translated.text)
                .size_limit(SIZE_MAX)
                .build()
                .ok()
                .map(Self::Linear),
            Engine::Backtracking => fancy_regex::RegexBuilder::new(&translated.text)
                .backtrack_limit(BACKTRACK_MAX)
                .delegate_size_limit(SIZE_MAX)
                .build()
                .ok()
                .map(|regex| Self::Backtracking(Box::new(regex))),
        }
    }

    /// `pattern.test(text)`.
    pub(super) fn is_match(&self, text: &str) -> bool {
        let text = &*units(text);
        match self {
            Self::Linear(regex) => regex.is_match(text),
            Self::Backtracking(_) if text.len() > BACKTRACK_TEXT_MAX => false,
            Self::Backtracking(regex) => regex.is_match(text).unwrap_or(false),
        }
    }

    /// How much of a budget a match on this text uses up.
    pub(super) fn cost(&self, text: &str) -> u32 {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        match self {
            Self::Linear(_) => length / 64,
            Self::Backtracking(_) => (length.saturating_mul(length) / 64).saturating_add(1_000),
        }
    }
}

/// The text with each character above U+FFFF as two.
fn units(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte < 0xF0) {
        return text.into();
    }
    text.encode_utf16().map(character).collect()
}

/// The character that stands for a UTF-16 unit.
fn character(unit: u16) -> char {
    let code = u32::from(unit);
    char::from_u32(code)
        .or_else(|| char::from_u32(code - 0xD800 + 0x10_0000))
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, false).is_some_and(|pattern| pattern.is_match(text))
    }

    fn test_i(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, true).is_some_and(|pattern| pattern.is_match(text))
    }

    #[test]
    fn patterns_mean_what_they_mean_in_javascript() {
        for (pattern, text) in [
            (r"^\d+$", "123"),
            (r"^\w+$", "a_1"),
            (r"\s", "\u{feff}"),
            (r"^a.c$", "abc"),
            (r"^[^]$", "\n"),
            (r"^[[]$", "["),
            (r"^[a&&b]+$", "a&b"),
            (r"a{,5}", "a{,5}"),
            (r"^x{$", "x{"),
            (r"^\/a/$", "/a/"),
            (r"^(?<y>a)\k<y>$", "aa"),
            (r"^(a)?\1b$", "b"),
            (r"^(?!foo)", "bar"),
            (r"(?<=a)b", "ab"),
            (r"^\u0041\x42$", "AB"),
            (r"^\p{2}$", "pp"),
            (r"^..$", "😀"),
            (r"^😀+$", "😀"),
            (r"^\ud83d\ude00$", "😀"),
            (r"^[\w-]+$", "a-b"),
            (r"\bfoo\b", "a foo b"),
            (r"o\Bo", "foo"),
            (r"^\0$", "\0"),
            (r"^\101$", "A"),
            (r"^\cA$", "\u{1}"),
            (r"]}", "]}"),
        ] {
            assert!(test(pattern, text), "{pattern} {text:?}");
        }
        for (pattern, text) in [
            (r"^\d$", "٣"),
            (r"\w", "é"),
            (r"\s", "\u{85}"),
            (r"a.c", "a\u{2028}c"),
            (r"^a$", "a\n"),
            (r"[]", "a"),
            (r"\bé", "é"),
            (r"^.$", "😀"),
            ("(?i)a", "a"),
            ("a**", "a"),
            ("(a", "a"),
            ("a)", "a"),
            ("*a", "a"),
            ("[b-a]", "a"),
            ("a{2,1}", "aa"),
            ("\\", "\\"),
        ] {
            assert!(!test(pattern, text), "{pattern} {text:?}");
        }
    }

    #[test]
    fn case_is_folded_as_javascript_folds_it() {
        for (pattern, text) in [
            ("^k$", "K"),
            ("^[a-z]+$", "AbC"),
            ("^é$", "É"),
            ("^ς$", "Σ"),
            ("^[^a]$", "b"),
            (r"^(a)\1$", "aA"),
        ] {
            assert!(test_i(pattern, text), "{pattern} {text:?}");
        }
        for (pattern, text) in [
            ("k", "\u{212a}"),
            ("s", "ſ"),
            ("å", "\u{212b}"),
            ("^[^a]$", "A"),
            ("ß", "ẞ"),
            (r"\w", "ſ"),
        ] {
            assert!(!test_i(pattern, text), "{pattern} {text:?}");
        }
    }

    #[test]
    fn a_catastrophic_pattern_gives_up() {
        let text = "a".repeat(50_000) + "!";
        assert!(!test(r"^(a+)+$", &text));
        assert!(!test(r"^(?=a)(a|a)*\1$", &text));
        assert!(!test(r"^(([a-z])+.)+[A-Z]([a-z])+$(?!x)", &text));
        assert!(Pattern::new("((a{1000}){1000}){1000}", false).is_none());
    }
}
