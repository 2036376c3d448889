//! The real program under constant load while everything around it, and everything within it, breaks.
//!
//! Readers never rest: SDK payload, snapshot, consumers' documents, decisions, both kinds of event stream. Meanwhile the
//! faults of `faults` come one after another, in an order that a printed seed decides: first one of each sort (`plan::Sort`),
//! then the others. Pairs follow until the time is over: each trouble of the storage with a kill, then any two. What must hold
//! is in `seen` (of each answer by itself and of all together) and in `drill` (of each fault).
//!
//! Operators and receivers have their part (`orders`): while each fault lasts a feature's value is forced, and each revision
//! that is stored is told of by a webhook.
//!
//! | `STITCHD_CHAOS` | single faults | pairs |
//! |---|---|---|
//! | not set | for half a minute, as many as fit | only if all single faults have come |
//! | less than `30m`, like `3m` | for the first 60 % of the time, as many as fit | for the rest |
//! | `30m` or more | every one, however long it takes | for the rest |
//!
//! What has begun when its time is over is ended in order. `STITCHD_SEED` is the seed of an earlier run: the same faults in the
//! same order, and the same pairs; how many of each, the time decides.
//!
//! Panics need `--features failpoints`; production builds have no way to cause one.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its doc is its name"
)]

#[path = "../support/mod.rs"]
mod support;

mod drill;
mod faults;
mod load;
mod orders;
mod plan;
mod random;
mod seen;
mod stage;
mod streams;
mod table;
mod upstream;

use std::{io::Write as _, time::Duration};

use crate::{
    drill::Drill,
    random::{Random, seed},
    support::databases::{Backend, on_server, sqlite},
};

/// How long a run is that nobody has set a time for: bearable within a plain `cargo test`.
const SHORT: Duration = Duration::from_secs(30);

/// From here on a run has every single fault.
const LONG: Duration = Duration::from_mins(30);

/// How long the faults go on, and how they share the time.
#[derive(Clone, Copy)]
struct Extent {
    time: Duration,
    /// How much of it single faults may begin in.
    singles: Duration,
    /// Whether every single fault comes, however long that takes.
    is_complete: bool,
}

impl Extent {
    fn wanted() -> Self {
        let Ok(time) = std::env::var("STITCHD_CHAOS") else {
            return Self {
                time: SHORT,
                singles: SHORT,
                is_complete: false,
            };
        };
        let time = humantime::parse_duration(&time).expect("STITCHD_CHAOS is a time like 30m");
        Self {
            time,
            singles: time * 3 / 5,
            is_complete: time >= LONG,
        }
    }
}

/// A line past the test harness, which hides the output of passing tests.
fn say(line: &str) {
    std::io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

async fn break_everything(backend: Backend) {
    let (seed, extent) = (seed(), Extent::wanted());
    let name = backend.name;
    say(&format!(
        "chaos on {name}: STITCHD_SEED={seed}, {}",
        humantime::format_duration(extent.time)
    ));
    if cfg!(not(feature = "failpoints")) {
        // Another command runs this binary with the feature, on CI too.
        say("skipped: chaos: panics need --features failpoints");
    }
    let drill = Drill::begin(backend, Random::new(seed)).await;
    let table = drill.run(extent).await;
    say(&format!("chaos on {name}, seed {seed}:\n{table}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_breaks_reaches_a_reader_on_sqlite() {
    break_everything(sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_breaks_reaches_a_reader_on_postgres() {
    if let Some(backend) = on_server("postgres", "STITCHD_TEST_POSTGRES") {
        break_everything(backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_breaks_reaches_a_reader_on_mariadb() {
    if let Some(backend) = on_server("mariadb", "STITCHD_TEST_MARIADB") {
        break_everything(backend).await;
    }
}
