//! Every actor dies at every handler, future and timer while requests run, and nobody who reads notices.
//!
//! The places where an actor can be made to panic are read from the sources of `src/actors`, so that none is forgotten.
//! They exist only with the cargo feature `failpoints`; without it the sources alone are checked.

#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test, too, an `unwrap` is an assertion"
)]

#[cfg(feature = "failpoints")]
#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "failpoints")]
mod ends;
#[cfg(feature = "failpoints")]
mod fire;
#[cfg(feature = "failpoints")]
mod load;
mod points;
#[cfg(feature = "failpoints")]
mod stop;
#[cfg(feature = "failpoints")]
mod tokens;
#[cfg(feature = "failpoints")]
mod torture;
#[cfg(feature = "failpoints")]
mod triggers;

/// Another command runs this binary with the feature, on CI too, so that leaving it out here loses nothing.
#[cfg(not(feature = "failpoints"))]
#[test]
fn actors_are_not_made_to_panic() {
    use std::io::Write as _;

    // Past the test harness, which hides the output of passing tests.
    writeln!(
        std::io::stderr(),
        "skipped: supervision: needs --features failpoints"
    )
    .unwrap();
}
