//! Dates as upstream and people write them.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// Reads a date: RFC 3339, or `YYYY-MM-DD`, or `YYYY-MM-DD hh:mm[:ss[.f]]` with `T` or a space between.
///
/// Without an offset it is UTC; the result always is. Years outside 1970..=9999 are refused: consumers cannot
/// represent them.
pub fn parse_date(text: &str) -> Option<OffsetDateTime> {
    let (date, rest) = text.trim().split_at_checked(10)?;
    let clock = if rest.is_empty() {
        "00:00"
    } else {
        rest.strip_prefix(['T', 't', ' '])?
    };
    let zone_at = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let seconds = if clock.len() == "hh:mm".len() {
        ":00"
    } else {
        ""
    };
    let zone = if zone.is_empty() { "Z" } else { zone };
    OffsetDateTime::parse(&format!("{date}T{clock}{seconds}{zone}"), &Rfc3339)
        .ok()?
        .checked_to_offset(UtcOffset::UTC)
        .filter(|date| (1970..=9999).contains(&date.year()))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[track_caller]
    fn check_date(text: &str, expected: Option<OffsetDateTime>) {
        assert_eq!(parse_date(text), expected, "{text}");
    }

    #[test]
    fn dates_are_read_leniently_but_exactly() {
        let expected = Some(datetime!(2026-09-01 14:30 UTC));
        check_date("2026-09-01T14:30:00Z", expected);
        check_date("2026-09-01T14:30:00.000z", expected);
        check_date(" 2026-09-01 14:30 ", expected);
        check_date("2026-09-01T14:30", expected);
        check_date("2026-09-01t14:30:00", expected);
        check_date("2026-09-01T16:30+02:00", expected);
        check_date("2026-09-01", Some(datetime!(2026-09-01 0:00 UTC)));
        check_date(
            "9999-12-31T23:59:59Z",
            Some(datetime!(9999-12-31 23:59:59 UTC)),
        );
        check_date("1970-01-01", Some(OffsetDateTime::UNIX_EPOCH));
    }

    #[test]
    fn what_is_not_quite_a_date_is_refused() {
        for text in [
            "",
            "soon",
            "2026-9-1",
            "2026-02-30",
            "2026-09-01T",
            "2026-09-01T25:00",
            "2026-09-01Z",
            "2026-09-01T14:30:00 Z",
            "2026-09-01T14:30:00+0200",
            "2026-09-01X14:30:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "10000-01-01T00:00:00Z",
            "2026-09-0\u{661}",
            "\u{661}026-09-01T14:30",
        ] {
            check_date(text, None);
        }
    }
}
