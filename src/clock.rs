//! The one place that reads wall time; pure code is given the time instead.

use time::OffsetDateTime;

/// Now, in UTC.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads wall time"
)]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Now, as Unix milliseconds.
pub fn now_ms() -> i64 {
    to_ms(now())
}

/// A moment as Unix milliseconds.
pub fn to_ms(at: OffsetDateTime) -> i64 {
    // Milliseconds of any representable year (±9999) fit into an i64.
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).expect("the year is within ±9999")
}

/// The moment of some Unix milliseconds; values out of range become the epoch.
pub fn from_ms(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
