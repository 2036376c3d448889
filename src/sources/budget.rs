//! How many requests the upstream still allows, and when the lists may be read.
//!
//! The management API allows 60 requests a minute per key, to all who use that key together (growthbook-upstream, rate
//! limit), and says in every answer what is left. The rule:
//!
//! - Payloads are asked for at every fetch. Those that go through the management API (remote evaluation) have their
//!   requests until the end of the window put aside first.
//! - What is left is for the lists. While it is at least half of the limit, lists are read at every fetch.
//! - Below half the rest of the window is divided into as many equal parts as reads are left, and the lists are read once
//!   in each part: less often, but never not at all until the last request is gone.
//! - A list that was never read is tried at once. After a 429 or a 503 with `Retry-After`, or with nothing left, nothing
//!   is sent until the time is up.
//!
//! A list that takes more pages than the limit cannot be read; with 60 a minute that is above 6,000 experiments.

use std::time::Duration;

use reqwest::{
    StatusCode,
    header::{DATE, HeaderMap, RETRY_AFTER},
};
use time::{PrimitiveDateTime, format_description::StaticFormatDescription, macros};
use tokio::time::Instant;

/// Longest time that an upstream's `Retry-After` is obeyed; a wrong header must not end polling for days.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Wait after a 429 that names none: half of GrowthBook's one-minute window.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(30);

/// The one form of HTTP dates that may still be sent (RFC 9110 §5.6.7).
const HTTP_DATE: StaticFormatDescription = macros::format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// What one rate limit still allows.
#[derive(Debug, Default)]
pub(super) struct Budget {
    window: Option<Window>,
    closed_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    limit: u32,
    remaining: u32,
    resets_at: Instant,
}

/// What reading the lists takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListCost {
    /// Requests of one read of all lists; at least 1.
    pub(super) requests: u32,
    /// Requests to the same limit that each fetch sends for payloads.
    pub(super) payload_requests: u32,
    /// Time between fetches.
    pub(super) interval: Duration,
    /// When the lists were last read.
    pub(super) last_read: Option<Instant>,
}

impl Budget {
    /// Takes the `RateLimit-*` headers of an answer; without them the budget stays unknown and nothing is held back.
    pub(super) fn observe(&mut self, headers: &HeaderMap, now: Instant) {
        if let (Some(remaining), Some(reset)) = (
            number(headers, "ratelimit-remaining"),
            number(headers, "ratelimit-reset"),
        ) {
            self.window = Some(Window {
                limit: clamp(number(headers, "ratelimit-limit").unwrap_or(remaining)),
                remaining: clamp(remaining),
                resets_at: now + Duration::from_secs(reset).min(RETRY_AFTER_MAX),
            });
        }
    }

    /// Sends nothing more for a while.
    pub(super) fn close(&mut self, wait: Duration, now: Instant) {
        self.closed_until = Some(now + wait);
    }

    /// Time until requests are allowed again, where quiet was asked for.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        self.closed_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|left| !left.is_zero())
    }

    /// Time until one more request is allowed: quiet was asked for, or the window is used up.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.closed_for(now).or_else(|| {
            self.current_window(now)
                .filter(|window| window.remaining == 0)
                .map(|window| window.resets_at - now)
        })
    }

    /// Whether that many requests are left.
    pub(super) fn affords(&self, requests: u32, now: Instant) -> bool {
        self.closed_for(now).is_none()
            && self
                .current_window(now)
                .is_none_or(|window| window.remaining >= requests)
    }

    /// Whether the lists may be read now, by the rule above.
    pub(super) fn lists_are_due(&self, cost: ListCost, now: Instant) -> bool {
        let Some(window) = self.current_window(now) else {
            return true;
        };
        let left = window.resets_at - now;
        let fetches = left.as_millis().div_ceil(cost.interval.as_millis().max(1));
        let reserve = u128::from(cost.payload_requests) * fetches;
        let spendable = u128::from(window.remaining).saturating_sub(reserve);
        let reads = u32::try_from(spendable / u128::from(cost.requests.max(1))).unwrap_or(u32::MAX);
        if reads == 0 {
            return false;
        }
        if spendable * 2 >= u128::from(window.limit) {
            return true;
        }
        cost.last_read
            .is_none_or(|last| now.saturating_duration_since(last) >= left / reads)
    }

    fn current_window(&self, now: Instant) -> Option<Window> {
        self.window.filter(|window| window.resets_at > now)
    }
}

/// How long an answer asks to be left alone, at most [`RETRY_AFTER_MAX`].
///
/// A date counts from the answer's own `Date`, so that neither side's clock has to be right.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = text
        .parse()
        .map(Duration::from_secs)
        .ok()
        .or_else(|| until(text, headers.get(DATE)?.to_str().ok()?.trim()))?;
    Some(wait.min(RETRY_AFTER_MAX))
}

/// How long nothing may be sent after an answer: a 429, or a 503 that says so.
pub(super) fn quiet_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(wait_after_429(headers)),
        StatusCode::SERVICE_UNAVAILABLE => retry_after(headers),
        _ => None,
    }
}

/// How long nothing may be sent after this 429.
///
/// GrowthBook's `Retry-After` is the length of the whole window; where the window is used up, `RateLimit-Reset` says how
/// much of it is left.
pub(super) fn wait_after_429(headers: &HeaderMap) -> Duration {
    let is_used_up = number(headers, "ratelimit-remaining").unwrap_or(0) == 0;
    number(headers, "ratelimit-reset")
        .filter(|seconds| is_used_up && *seconds > 0)
        .map(Duration::from_secs)
        .or_else(|| retry_after(headers))
        .unwrap_or(RETRY_AFTER_DEFAULT)
        .min(RETRY_AFTER_MAX)
}

fn until(date: &str, now: &str) -> Option<Duration> {
    let parse = |text| PrimitiveDateTime::parse(text, HTTP_DATE).ok();
    // A date in the past means that the time is up.
    Some(Duration::try_from(parse(date)? - parse(now)?).unwrap_or_default())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn clamp(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn budget(remaining: &'static str, reset: &'static str, now: Instant) -> Budget {
        let mut budget = Budget::default();
        budget.observe(
            &headers(&[
                ("ratelimit-limit", "60"),
                ("ratelimit-remaining", remaining),
                ("ratelimit-reset", reset),
            ]),
            now,
        );
        budget
    }

    fn cost(last_read: Option<Instant>) -> ListCost {
        ListCost {
            requests: 3,
            payload_requests: 0,
            interval: secs(1),
            last_read,
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_above_an_hour() {
        let value = |text| retry_after(&headers(&[("retry-after", text)]));
        assert_eq!(value("120"), Some(secs(120)));
        assert_eq!(value("86400"), Some(RETRY_AFTER_MAX));
        assert_eq!(value("soon"), None);
        let date = |until| {
            retry_after(&headers(&[
                ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("retry-after", until),
            ]))
        };
        assert_eq!(date("Sun, 06 Nov 1994 08:50:07 GMT"), Some(secs(30)));
        assert_eq!(date("Sun, 06 Nov 1994 08:49:07 GMT"), Some(secs(0)));
        assert_eq!(value("Sun, 06 Nov 1994 08:50:07 GMT"), None);
    }

    #[test]
    fn after_a_429_the_rest_of_the_window_counts_and_not_its_length() {
        let wait = |pairs: &[(&'static str, &'static str)]| wait_after_429(&headers(pairs));
        assert_eq!(
            wait(&[("retry-after", "60"), ("ratelimit-reset", "12")]),
            secs(12)
        );
        assert_eq!(
            wait(&[("retry-after", "60"), ("ratelimit-reset", "0")]),
            secs(60)
        );
        // Requests are left in the window, so something else refused.
        assert_eq!(
            wait(&[
                ("retry-after", "60"),
                ("ratelimit-reset", "12"),
                ("ratelimit-remaining", "9")
            ]),
            secs(60)
        );
        assert_eq!(wait(&[("retry-after", "5")]), secs(5));
        assert_eq!(wait(&[]), RETRY_AFTER_DEFAULT);
    }

    #[test]
    fn a_closed_budget_opens_by_itself() {
        let now = Instant::now();
        let mut budget = Budget::default();
        assert!(budget.wait(now).is_none());
        budget.close(secs(10), now);
        assert_eq!(budget.wait(now + secs(4)), Some(secs(6)));
        assert!(!budget.affords(1, now));
        assert_eq!(budget.wait(now + secs(10)), None);
    }

    #[test]
    fn a_used_up_window_waits_for_the_next_one() {
        let now = Instant::now();
        let budget = budget("0", "20", now);
        assert_eq!(budget.wait(now), Some(secs(20)));
        assert_eq!(budget.closed_for(now), None);
        assert!(!budget.affords(1, now));
        assert!(budget.affords(60, now + secs(20)));
    }

    #[test]
    fn lists_are_read_freely_above_half_and_spread_below() {
        let now = Instant::now();
        assert!(Budget::default().lists_are_due(cost(Some(now)), now));
        assert!(budget("30", "60", now).lists_are_due(cost(Some(now)), now));
        // 29 requests are 9 reads: one in each ninth of 18 seconds.
        let short = budget("29", "18", now);
        assert!(!short.lists_are_due(cost(Some(now)), now));
        assert!(!short.lists_are_due(cost(Some(now - secs(1))), now));
        assert!(short.lists_are_due(cost(Some(now - secs(2))), now));
        assert!(short.lists_are_due(cost(None), now));
        let gone = budget("2", "18", now);
        assert!(!gone.lists_are_due(cost(Some(now - secs(17))), now));
        assert!(gone.lists_are_due(cost(Some(now)), now + secs(18)));
    }

    #[test]
    fn payloads_of_the_same_limit_are_put_aside_first() {
        let now = Instant::now();
        let with_payloads = ListCost {
            payload_requests: 2,
            ..cost(None)
        };
        // 20 fetches until the reset take 40 of the 42 left.
        assert!(!budget("42", "20", now).lists_are_due(with_payloads, now));
        assert!(budget("43", "20", now).lists_are_due(with_payloads, now));
    }
}
