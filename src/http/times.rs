//! Times in answers: RFC 3339 in UTC with milliseconds.

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::clock;

/// Always three digits, so that texts sort as times do.
const RFC3339: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A moment in UTC.
pub(super) fn rfc3339(at: OffsetDateTime) -> String {
    at.to_utc()
        .format(RFC3339)
        .expect("a UTC time has every component of the format")
}

/// A moment given in Unix milliseconds.
pub(super) fn rfc3339_ms(ms: i64) -> String {
    rfc3339(clock::from_ms(ms))
}

/// A moment that may never have been.
pub(super) fn rfc3339_or_null(ms: Option<i64>) -> Option<String> {
    ms.map(rfc3339_ms)
}
