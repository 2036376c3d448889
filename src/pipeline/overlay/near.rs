//! What somebody may have meant who named something that is not there.

use std::collections::BTreeSet;

/// Most names that are suggested.
const NEAR_MAX: usize = 5;

/// Longest name that is compared letter by letter, in bytes.
const COMPARED_BYTES_MAX: usize = 128;

/// Keys of everything that can be overridden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Keys of features.
    pub features: BTreeSet<String>,
    /// Tracking keys of experiments.
    pub experiments: BTreeSet<String>,
}

/// The few names most like this one, the likeliest first.
pub fn near<'n>(wanted: &str, names: impl Iterator<Item = &'n String>) -> Vec<String> {
    let wanted = fold(wanted);
    let limit = (wanted.len() / 3).max(2);
    let mut ranked: Vec<(usize, &String)> = names
        .filter_map(|name| {
            let folded = fold(name);
            let is_part = wanted.len().min(folded.len()) >= 3
                && (folded.contains(&wanted) || wanted.contains(&folded));
            let far = distance(wanted.as_bytes(), folded.as_bytes());
            (far <= limit || is_part).then_some((far, name))
        })
        .collect();
    ranked.sort_unstable();
    let nearest = ranked.into_iter().take(NEAR_MAX);
    nearest.map(|(_, name)| name.clone()).collect()
}

/// Letters and digits alone, in lower case: people forget what joins words.
fn fold(name: &str) -> String {
    let kept = name.chars().filter(|c| c.is_alphanumeric());
    kept.flat_map(char::to_lowercase).collect()
}

/// Bytes to add, take or change (Levenshtein).
fn distance(a: &[u8], b: &[u8]) -> usize {
    if a.len().max(b.len()) > COMPARED_BYTES_MAX {
        return if a == b { 0 } else { usize::MAX };
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wanted: &str, expected: &[&str]) {
        let names = ["checkout-v2", "checkout-v3", "search_box", "dark-mode"];
        let names: Vec<String> = names.map(str::to_owned).into();
        assert_eq!(near(wanted, names.iter()), expected, "{wanted}");
    }

    #[test]
    fn a_few_names_that_look_alike_are_suggested_and_no_others() {
        check("checkout-v2", &["checkout-v2", "checkout-v3"]);
        check("Checkout V2", &["checkout-v2", "checkout-v3"]);
        check("searchbox", &["search_box"]);
        check("dark", &["dark-mode"]);
        check("nothing-of-the-kind", &[]);
        check("", &[]);
        check(&"x".repeat(1000), &[]);
        let many: Vec<String> = (0..1000).map(|i| format!("flag-{i:04}")).collect();
        assert_eq!(near("flag-0001", many.iter()).len(), NEAR_MAX);
    }
}
