//! When overrides end: by the time that the process measures, and not by a clock that somebody sets.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::model::Override;

/// The moments, by id of the override; those that end by themselves only.
#[derive(Default)]
pub(super) struct Ends {
    moments: BTreeMap<String, Instant>,
    /// When this process looked at the clock first, and what it said.
    first: Option<(Instant, i64)>,
}

impl Ends {
    /// Takes over which overrides there are. What was there keeps its moment; what is new has as long as is left of it.
    pub(super) fn follow(&mut self, overrides: &[Override], (now, clock_ms): (Instant, i64)) {
        let (first, first_ms) = *self.first.get_or_insert((now, clock_ms));
        let since = i64::try_from(now.saturating_duration_since(first).as_millis());
        // A clock that was set forwards meanwhile cuts nothing short.
        let now_ms = clock_ms.min(first_ms.saturating_add(since.unwrap_or(i64::MAX)));
        let old = std::mem::take(&mut self.moments);
        for forced in overrides {
            let moment = old.get(&forced.id).copied();
            let moment = moment.or_else(|| now.checked_add(left(forced, now_ms)?));
            self.moments
                .extend(moment.map(|moment| (forced.id.clone(), moment)));
        }
    }

    /// Whether one is over.
    pub(super) fn is_over(&self, forced: &Override, now: Instant) -> bool {
        self.moments
            .get(&forced.id)
            .is_some_and(|moment| *moment <= now)
    }
}

/// What is left of an override, and never more than it was given; `None`: it does not end by itself.
fn left(forced: &Override, now_ms: i64) -> Option<Duration> {
    let end = forced.expires_at_ms?;
    let given = end.saturating_sub(forced.created_at_ms);
    let left = end.saturating_sub(now_ms).min(given);
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Forced;

    const HOUR: i64 = 3_600_000;

    fn forced(id: &str, created_at_ms: i64, expires_at_ms: Option<i64>) -> Override {
        Override {
            id: id.to_owned(),
            key: id.into(),
            forced: Forced::Off,
            reason: "r".to_owned(),
            author: "ada".to_owned(),
            created_at_ms,
            expires_at_ms,
        }
    }

    /// So many hours after the start.
    fn at(start: Instant, hours: i64) -> Instant {
        start + Duration::from_millis(u64::try_from(hours * HOUR).unwrap())
    }

    #[test]
    fn the_clock_counts_when_an_override_is_first_seen_and_never_again() {
        let start = Instant::now();
        let all = [
            forced("old", 0, Some(12 * HOUR)),
            forced("kept", 0, None),
            forced("over", 0, Some(HOUR)),
        ];
        let mut ends = Ends::default();
        ends.follow(&all, (start, 10 * HOUR));
        assert!(ends.is_over(&all[2], start));
        for clock_ms in [13 * HOUR, 0] {
            ends.follow(&all, (start, clock_ms));
            assert!(!ends.is_over(&all[0], at(start, 1)));
            assert!(ends.is_over(&all[0], at(start, 2)));
            assert!(!ends.is_over(&all[1], at(start, 1000)));
        }
    }

    #[test]
    fn one_that_comes_while_the_clock_is_wrong_has_neither_less_nor_more_than_it_was_given() {
        let start = Instant::now();
        let mut ends = Ends::default();
        ends.follow(&[], (start, 10 * HOUR));
        // From a replica whose clock is right.
        let new = [forced("new", 11 * HOUR, Some(13 * HOUR))];
        ends.follow(&new, (at(start, 1), 20 * HOUR));
        assert!(!ends.is_over(&new[0], at(start, 2)));
        assert!(ends.is_over(&new[0], at(start, 3)));
        ends.follow(&[], (at(start, 3), 10 * HOUR));
        ends.follow(&new, (at(start, 1), 5 * HOUR));
        assert!(!ends.is_over(&new[0], at(start, 2)));
        assert!(ends.is_over(&new[0], at(start, 3)));
    }
}
