//! The lines that a run prints, and whether all bars were met.

use std::io::Write as _;

/// Prints results as they come and remembers whether one failed.
#[derive(Default)]
pub(crate) struct Report {
    has_failed: bool,
}

impl Report {
    /// A measure that must not be above its bar.
    pub(crate) fn at_most(&mut self, name: &str, ratio: f64, bar: f64) {
        self.judged(name, ratio, &format!("<={bar:.2}"), ratio <= bar);
    }

    /// A measure that must not be below its bar.
    pub(crate) fn at_least(&mut self, name: &str, ratio: f64, bar: f64) {
        self.judged(name, ratio, &format!(">={bar:.2}"), ratio >= bar);
    }

    /// A measure without a bar: printed to be watched.
    pub(crate) fn unjudged(&mut self, name: &str, ratio: f64) {
        self.judged(name, ratio, "-", true);
    }

    fn judged(&mut self, name: &str, ratio: f64, bar: &str, is_met: bool) {
        // Not a number is not a pass.
        self.has_failed |= !is_met;
        let verdict = if is_met { "PASS" } else { "FAIL" };
        print(&format!("{name} {ratio:.3} {bar} {verdict}"));
    }

    /// Absolute figures and explanations.
    pub(crate) fn note(&self, text: &str) {
        let _: &Self = self;
        print(&format!("# {text}"));
    }

    /// Whether a bar was missed.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }
}

fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads on: the exit code still tells.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// The middle one; the lower of the two middle ones where their number is even.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}
