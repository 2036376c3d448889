//! What a run comes to: a line for each fault.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{AddAssign, Sub},
};

use crate::seen::Sums;

/// Polls by how they ended.
#[derive(Clone, Copy, Default)]
pub(crate) struct Polls {
    pub(crate) published: u64,
    pub(crate) held: u64,
    pub(crate) failed: u64,
}

impl Polls {
    /// From a scrape of the metrics.
    pub(crate) fn read(scrape: &str) -> Self {
        let of = |outcome: &str| {
            let mark = format!("outcome=\"{outcome}\"");
            let mut lines = scrape
                .lines()
                .filter(|line| line.starts_with("stitchd_polls_total{") && line.contains(&mark));
            let line = lines.next();
            line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
                .unwrap_or(0)
        };
        Self {
            published: of("published"),
            held: of("held"),
            failed: of("failed"),
        }
    }
}

impl AddAssign for Polls {
    fn add_assign(&mut self, more: Self) {
        self.published += more.published;
        self.held += more.held;
        self.failed += more.failed;
    }
}

impl Sub for Polls {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            published: self.published.saturating_sub(before.published),
            held: self.held.saturating_sub(before.held),
            failed: self.failed.saturating_sub(before.failed),
        }
    }
}

#[derive(Default)]
struct Row {
    times: usize,
    reads: usize,
    polls: Polls,
}

/// All lines, and what is true of the run as a whole.
#[derive(Default)]
pub(crate) struct Table {
    rows: BTreeMap<String, Row>,
    pub(crate) sums: Sums,
    pub(crate) rss_max_kib: u64,
    pub(crate) restarts: usize,
    /// How many faults there are.
    pub(crate) possible: usize,
    /// How many of them came alone.
    pub(crate) singles: usize,
    pub(crate) pairs: usize,
}

impl Table {
    /// A fault has come and gone; in a pair each has the sums of both.
    pub(crate) fn add(&mut self, fault: &str, reads: usize, polls: Polls) {
        let row = self.rows.entry(fault.to_owned()).or_default();
        row.times += 1;
        row.reads += reads;
        row.polls += polls;
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.keys().map(String::len).max().unwrap_or(0);
        writeln!(
            f,
            "{:width$}  times   reads  published  held  failed",
            "fault"
        )?;
        for (
            fault,
            Row {
                times,
                reads,
                polls,
            },
        ) in &self.rows
        {
            let Polls {
                published,
                held,
                failed,
            } = polls;
            writeln!(
                f,
                "{fault:width$} {times:6} {reads:7} {published:10} {held:5} {failed:7}"
            )?;
        }
        let sums = &self.sums;
        write!(
            f,
            "{} of {} faults alone, {} pairs, {} restarts; {} reads and {} events of {} revisions; {} connections cut by an end, \
             {} revisions given up as the log had said; at most {} MiB resident",
            self.singles,
            self.possible,
            self.pairs,
            self.restarts,
            sums.reads,
            sums.events,
            sums.revisions,
            sums.cut,
            sums.given_up,
            self.rss_max_kib / 1024
        )
    }
}
