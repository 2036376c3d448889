//! The funnel that turns what sources sent into one environment's configuration.
//!
//! Pure: no clock, no I/O, no actor. The last stage, *store*, is I/O and lives in `store`.

pub mod adapt;
pub mod dates;
