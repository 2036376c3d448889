//! Dates as consumers spell them: UTC, whole seconds, `Z`.

use time::{OffsetDateTime, UtcOffset, macros::format_description};

use super::Withheld;
use crate::model::Delivery;

/// Start and end of an experiment, rendered; the start lies before the end.
pub(super) struct Period {
    pub(super) start: String,
    pub(super) end: String,
}

/// The period an experiment is delivered for.
///
/// Start and end are compared as rendered: consumers never see fractions of a second.
pub(super) fn period(delivery: &Delivery) -> Result<Period, Withheld> {
    let start = delivery
        .start
        .ok_or_else(|| Withheld::new("no_start", "it has no start date"))?;
    let end = delivery
        .end
        .ok_or_else(|| Withheld::new("no_end", "it has no end date"))?;
    let period = Period {
        start: render(start)?,
        end: render(end)?,
    };
    if start.unix_timestamp() >= end.unix_timestamp() {
        let Period { start, end } = period;
        let message = format!("it starts at {start} and ends at {end}");
        return Err(Withheld::new("bad_dates", message));
    }
    Ok(period)
}

/// `YYYY-MM-DDThh:mm:ssZ`; fails outside the years 1970..=9999.
pub(super) fn render(date: OffsetDateTime) -> Result<String, Withheld> {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    date.checked_to_offset(UtcOffset::UTC)
        .filter(|date| (1970..=9999).contains(&date.year()))
        .and_then(|date| date.format(format).ok())
        .ok_or_else(|| Withheld::new("bad_dates", format!("its date {date} cannot be written")))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn fractions_are_dropped_and_offsets_converted() {
        let text = render(datetime!(2026-09-01 16:30:00.999 +2)).unwrap();
        assert_eq!(text, "2026-09-01T14:30:00Z");
    }

    #[test]
    fn years_that_consumers_cannot_read_are_refused() {
        for date in [
            datetime!(1969-12-31 23:59:59 UTC),
            datetime!(9999-12-31 23:59:59 -1),
            datetime!(-0001-01-01 0:00 UTC),
        ] {
            assert_eq!(render(date).unwrap_err().code, "bad_dates");
        }
    }

    #[test]
    fn a_period_within_one_second_is_none() {
        let delivery = Delivery {
            start: Some(datetime!(2026-09-01 14:30:00.1 UTC)),
            end: Some(datetime!(2026-09-01 14:30:00.9 UTC)),
            ..Delivery::default()
        };
        assert_eq!(period(&delivery).err().unwrap().code, "bad_dates");
    }
}
