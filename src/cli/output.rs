//! Lines on standard output; a reader that has gone away ends the output, not the program.

use std::io::Write as _;

/// Prints one line and flushes it, so that a pipe sees it at once.
pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        tracing::debug!("standard output is gone: {error}");
    }
}
