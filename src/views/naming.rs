//! Names that consumers accept, and what the groups of an experiment are called.

use std::collections::HashSet;

use super::Withheld;
use crate::model::Experiment;

/// Longest name of an experiment or a group at the edge, in characters (the edge's JSON Schema).
const EDGE_NAME_MAX: usize = 63;

/// Shortest name of an experiment at the edge, in characters (the edge's JSON Schema).
const EDGE_NAME_MIN: usize = 8;

/// Longest experiment name in the lists, in characters.
///
/// Their consumers set no limit; this one keeps a mistake out of headers and database columns.
const LIST_NAME_MAX: usize = 255;

/// Whether the edge takes it as an experiment: `^[A-Za-z0-9][-_.A-Za-z0-9]{7,62}$`.
pub(super) fn is_edge_name(text: &str) -> bool {
    text.len() >= EDGE_NAME_MIN && is_group_name(text)
}

/// Whether consumers take it as a group: `^[A-Za-z0-9][-_.A-Za-z0-9]{0,62}$`.
pub(super) fn is_group_name(text: &str) -> bool {
    text.len() <= EDGE_NAME_MAX && is_word(text, |byte| byte.is_ascii_alphanumeric())
}

/// Whether the edge takes it as a domain: `^[a-z0-9][-_.a-z0-9]{0,254}$`.
pub(super) fn is_domain(text: &str) -> bool {
    text.len() <= 255
        && is_word(text, |byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit()
        })
}

/// Whether it can be a database name: `^[A-Za-z0-9_-]{1,64}$`.
pub(super) fn is_wiki(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Whether it can be the name of an experiment in a list: 1 to 255 characters, none of them a control character.
pub(super) fn is_list_name(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= LIST_NAME_MAX && !text.chars().any(char::is_control)
}

fn is_word(text: &str, is_letter: impl Fn(u8) -> bool) -> bool {
    text.bytes().next().is_some_and(&is_letter)
        && text
            .bytes()
            .all(|byte| is_letter(byte) || matches!(byte, b'-' | b'_' | b'.'))
}

/// Group names in the order of the variations, which hashing depends on.
///
/// A variation's name where it fits and no other variation has it, else its key. Fails when a group would have no
/// valid name, or two groups the same.
pub(super) fn groups(experiment: &Experiment) -> Result<Vec<&str>, Withheld> {
    let variations = &experiment.variations;
    if variations.is_empty() {
        return Err(Withheld::new("no_groups", "it has no variations"));
    }
    let mut names_once = HashSet::new();
    let mut names_again = HashSet::new();
    for variation in variations {
        if !names_once.insert(&variation.name) {
            names_again.insert(&variation.name);
        }
    }
    let mut groups = Vec::with_capacity(variations.len());
    let mut seen = HashSet::new();
    for variation in variations {
        let name = &variation.name;
        let group = if is_group_name(name) && !names_again.contains(name) {
            name
        } else {
            &variation.key
        };
        if !is_group_name(group) {
            let message = format!("neither name {name:?} nor key {group:?} can name a group");
            return Err(Withheld::new("bad_group_name", message));
        }
        if !seen.insert(group) {
            let message = format!("two groups would be called `{group}`");
            return Err(Withheld::new("duplicate_group", message));
        }
        groups.push(group.as_str());
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::test_support::experiment;

    #[track_caller]
    fn check(variations: &[(&str, &str)], expected: Result<&[&str], &str>) {
        let mut experiment = experiment("sticky-header-2026");
        let template = experiment.variations[0].clone();
        experiment.variations.clear();
        for (name, key) in variations {
            let mut variation = template.clone();
            (variation.name, variation.key) = ((*name).to_owned(), (*key).to_owned());
            experiment.variations.push(variation);
        }
        let actual = groups(&experiment).map_err(|withheld| withheld.code);
        assert_eq!(actual, expected.map(<[_]>::to_vec));
    }

    #[test]
    fn a_group_is_named_after_its_variation_or_by_its_key() {
        check(&[("control", "0"), ("b", "1")], Ok(&["control", "b"]));
        check(
            &[("Control", "0"), ("Variation 1", "1")],
            Ok(&["Control", "1"]),
        );
        check(&[("same", "0"), ("same", "1")], Ok(&["0", "1"]));
        check(&[("", "0"), ("", "1")], Ok(&["0", "1"]));
    }

    #[test]
    fn names_that_cannot_be_told_apart_or_written_are_refused() {
        check(&[], Err("no_groups"));
        check(&[("1", "0"), ("", "1")], Err("duplicate_group"));
        check(&[("", "k"), ("", "k")], Err("duplicate_group"));
        check(&[("Variation 1", "a b")], Err("bad_group_name"));
        check(&[("-x", "")], Err("bad_group_name"));
    }

    #[test]
    fn lengths_are_those_of_the_schema() {
        let (a, b) = ("a".repeat(63), "a".repeat(64));
        assert!(is_group_name(&a) && !is_group_name(&b) && !is_group_name(""));
        assert!(is_edge_name(&a[..8]) && !is_edge_name(&a[..7]) && !is_edge_name(&b));
        assert!(is_wiki(&b) && !is_wiki(&"a".repeat(65)) && !is_wiki("a.b"));
        assert!(is_domain(&"a".repeat(255)) && !is_domain(&"a".repeat(256)));
        assert!(!is_domain("A.org") && !is_domain(".org") && !is_group_name("a\n"));
        assert!(is_list_name(&"é".repeat(255)) && !is_list_name(&"é".repeat(256)));
        assert!(!is_list_name("") && !is_list_name("a\u{85}"));
    }
}
