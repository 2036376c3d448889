//! `cargo bench`: the bars that stitchd promises to meet, each as a line `name ratio bar PASS|FAIL`.
//!
//! Exits with 1 when a bar is missed. `cargo bench -- stitch` runs only the groups named: `stitch`, `store`, `reads`,
//! `decide`, `eval`, `flags`, `tokens`, `memory`, `outage`, and `flat10000`, which is left out otherwise. The machine should have nothing else to do; what is compared is
//! measured in alternating rounds of one run all the same.

mod decide;
mod evaluate;
mod fixed;
mod flags;
mod load;
mod memory;
mod outage;
mod reads;
mod report;
mod stitch;
mod store;
mod tokens;

use std::process::ExitCode;

use report::Report;

/// The program's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What `name ratio bar PASS|FAIL` means, for whoever reads the output alone.
const LEGEND: [&str; 9] = [
    "name ratio bar PASS|FAIL; a bar of - is none, the figure is there to be watched",
    "stitch_*, guards, packing_*, encoding_*, persist_*: milliseconds / 250, for 10,000 features of three rules and 250 experiments",
    "stitch_growth: time for 10,000 / (10 x time for 1,000); snapshot_*: requests per second / those of fixed bytes behind the same middleware",
    "decide_50, eval_100, frontend_*, ofrep_304: requests per second / those of fixed bytes of the same size behind the same middleware",
    "*_edge: requests per second / those that Unleash Edge 19 was measured at elsewhere (2,770 and 2,930)",
    "tokens_memory_100000: MiB more than with 10 tokens / 40; tokens_revision_100000: time of a revision / that with 10 tokens; token_lookup: microseconds",
    "rss_10000_features: resident MiB / 150; rss_flat_*: median resident memory of the last tenth of the polls / that of the second tenth",
    "cold_start_*: seconds from the start of the process to the first right answer, without database and upstream; poll_to_visible: seconds",
    "lines with # are comments",
];

/// Measures, and prints what it found.
type Group = fn(&mut Report) -> anyhow::Result<()>;

fn main() -> anyhow::Result<ExitCode> {
    // Whatever cargo passes (`--bench`) is not a group.
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let groups: [(&str, Group); 10] = [
        ("stitch", stitch::run),
        ("store", store::run),
        ("reads", reads::run),
        ("decide", decide::run),
        ("eval", evaluate::run),
        ("flags", flags::run),
        ("tokens", tokens::run),
        ("memory", memory::run),
        ("outage", outage::run),
        ("flat10000", memory::run_flat_with_10_000),
    ];
    let is_named = |name: &str| wanted.iter().any(|wanted| wanted == name);
    let is_any_named = groups.iter().any(|(name, _)| is_named(name));
    let mut report = Report::default();
    for line in LEGEND {
        report.note(line);
    }
    for (name, run) in groups {
        // The last group takes more than five minutes and is run by name only.
        if is_named(name) || (!is_any_named && name != "flat10000") {
            run(&mut report)?;
        }
    }
    Ok(if report.has_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
