//! Random waits, so that many processes do not ask in step.

use std::time::Duration;

/// A wait between nothing and `base` doubled `doublings` times ("full jitter").
pub(super) fn full(base: Duration, doublings: u32) -> Duration {
    uniform(doubled(base, doublings))
}

/// `base` doubled, without overflow.
pub(super) fn doubled(base: Duration, doublings: u32) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(doublings))
}

/// A wait uniformly between nothing and `max`.
pub(super) fn uniform(max: Duration) -> Duration {
    let range = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
    // Without randomness from the system half the range is still a wait; only the spread is lost.
    let random = getrandom::u64().unwrap_or(u64::MAX / 2);
    let nanos = (u128::from(random) * u128::from(range)) >> 64;
    // Below `range`, which is a u64.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_the_doubled_base_and_spread_over_it() {
        let base = Duration::from_millis(200);
        let waits: Vec<Duration> = (0..1000).map(|_| full(base, 2)).collect();
        assert!(waits.iter().all(|wait| *wait < base * 4));
        assert!(waits.iter().any(|wait| *wait < base));
        assert!(waits.iter().any(|wait| *wait > base * 3));
        assert_eq!(uniform(Duration::ZERO), Duration::ZERO);
        assert!(full(Duration::from_secs(1), 200) < Duration::MAX);
    }
}
