//! When to poll next and what to say of the last poll: pure, so that schedules are tested without a clock.

use std::time::Duration;

use super::{Outcome, PollReport};
use crate::{actors::config_service::IngestReport, settings::Poll, sources::FetchError};

/// Longest time one fetch can legally take: every try of every request, and the waits between.
///
/// A list may need many pages; ten requests per fetch is what 1,000 experiments take.
pub(super) fn fetch_limit(poll: &Poll) -> Duration {
    let tries = poll.retries.saturating_add(1);
    let waits = poll.retry_backoff.saturating_mul(1 << poll.retries.min(10));
    (poll.timeout.saturating_mul(tries) + waits).saturating_mul(10)
}

/// Time until the next poll.
///
/// `failing`: how many polls in a row have failed. `is_permanent`: none of what failed heals by itself. `unit`: a random
/// number in 0..1.
pub(super) fn next_wait(
    poll: &Poll,
    failing: Option<u32>,
    is_permanent: bool,
    retry_after: Option<Duration>,
    unit: f64,
) -> Duration {
    let longest = poll.failure_backoff_max.max(poll.interval);
    let base = match failing {
        None => poll.interval,
        Some(_) if is_permanent => longest,
        Some(streak) => {
            let doubled = poll
                .interval
                .saturating_mul(1 << streak.saturating_sub(1).min(20));
            doubled.min(longest)
        }
    };
    let jittered = base.mul_f64((1.0 + poll.jitter * (unit * 2.0 - 1.0)).max(0.0));
    // Polling while the upstream asked for quiet would only be refused by our own client.
    failing
        .and(retry_after)
        .map_or(jittered, |quiet| jittered.max(quiet))
}

/// The poll's outcome from what was fetched and what the funnel made of it.
pub(super) fn summarise(
    report: &IngestReport,
    fetch_errors: &[(&'static str, FetchError)],
    duration: Duration,
) -> PollReport {
    let mut failed_parts: Vec<&'static str> = fetch_errors.iter().map(|(part, _)| *part).collect();
    failed_parts.extend(report.refused_parts.iter().copied());
    failed_parts.sort_unstable();
    failed_parts.dedup();
    let limited = fetch_errors
        .iter()
        .find_map(|(_, error)| error.retry_after());
    let mut reasons: Vec<String> = Vec::new();
    let limited = limited.filter(|_| report.outcome == Outcome::Failed);
    if let Some(left) = limited {
        reasons.push(format!(
            "rate_limited: {} s left",
            left.as_secs_f64().ceil()
        ));
    }
    // The time left is said once, for all parts; other reasons are not to be hidden by it.
    let others = fetch_errors
        .iter()
        .filter(|(_, error)| limited.is_none() || error.code() != "rate_limited");
    reasons.extend(others.map(|(part, error)| format!("{part}: {}: {error}", error.code())));
    reasons.extend(report.reason.clone());
    PollReport {
        outcome: report.outcome,
        revision: report.revision,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        failed_parts,
        duration,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll() -> Poll {
        Poll {
            failure_backoff_max: Duration::from_mins(10),
            ..Poll::default()
        }
    }

    #[track_caller]
    fn check(failing: Option<u32>, is_permanent: bool, retry_after: Option<u64>, seconds: u64) {
        let quiet = retry_after.map(Duration::from_secs);
        assert_eq!(
            next_wait(&poll(), failing, is_permanent, quiet, 0.5),
            Duration::from_secs(seconds)
        );
    }

    #[test]
    fn the_wait_doubles_while_failing_and_is_capped() {
        check(None, false, None, 60);
        for (streak, seconds) in [
            (1, 60),
            (2, 120),
            (3, 240),
            (4, 480),
            (5, 600),
            (4_000_000, 600),
        ] {
            check(Some(streak), false, None, seconds);
        }
    }

    #[test]
    fn a_permanent_refusal_waits_longest_and_retry_after_is_obeyed() {
        check(Some(1), true, None, 600);
        check(Some(1), false, Some(90), 90);
        check(Some(1), false, Some(30), 60);
        // The payload arrived: only the list has to be quiet, and the client sees to that.
        check(None, false, Some(90), 60);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        for (unit, seconds) in [(0.0, 54.0), (1.0, 66.0)] {
            assert_eq!(
                next_wait(&poll(), None, false, None, unit),
                Duration::from_secs_f64(seconds)
            );
        }
    }
}
