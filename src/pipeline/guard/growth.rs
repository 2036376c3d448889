//! Too much has come: a file that doubles overnight holds something twice.

use serde_json::json;

use super::{Guard, Rules, Trip};

/// Compares sizes in bytes, before and after.
pub(super) fn trip(rules: &Rules, subject: &str, [before, after]: [usize; 2]) -> Option<Trip> {
    if after as u64 <= rules.growth_floor_bytes || before == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes stay far below 2^52")]
    let growth = after as f64 / before as f64;
    (growth > rules.max_growth).then(|| Trip {
        guard: Guard::Growth,
        subject: subject.to_owned(),
        message: format!(
            "has {after} bytes, {growth:.1} times the {before} before; it may grow {} times at once",
            rules.max_growth
        ),
        before: json!(before),
        after: json!(after),
        limit: json!(rules.max_growth),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::test_support::rules, *};

    #[test]
    fn growth_counts_above_the_factor_and_the_floor() {
        let trip = |before, after| trip(&rules(), "payload k", [before, after]);
        assert_eq!(trip(40_000, 80_000), None);
        assert_eq!(trip(1_000, 65_536), None);
        assert_eq!(trip(0, 1_000_000), None);
        let message = trip(40_000, 80_001).unwrap().message;
        assert_eq!(
            message,
            "has 80001 bytes, 2.0 times the 40000 before; it may grow 2 times at once"
        );
    }
}
