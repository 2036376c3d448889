//! Many panics at random, several at once.

use std::{fs, io::Write as _, time::Duration};

use fail::FailScenario;
use tokio::time::Instant;

use crate::{
    load::Load,
    points::points,
    support::{Bed, eventually},
    triggers::{Armed, Scene, Trigger},
};

const BLOWS: usize = 100;
/// Longest time for all blows; fewer are dealt on a slow machine.
const LIMIT: Duration = Duration::from_secs(20);
/// Threads and memory may grow by this much, for pools that fill up under load.
const THREADS_MORE: u64 = 24;
const RSS_MORE_KIB: u64 = 96 * 1024;

/// A sequence that a seed determines (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a failure is repeated with its seed, given by the environment"
)]
fn seed() -> u64 {
    match std::env::var("STITCHD_SEED") {
        Ok(seed) => seed.parse().expect("STITCHD_SEED is a number"),
        Err(_) => std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(1, |since| since.as_secs()),
    }
}

/// A number of `/proc/self/status`: `Threads`, or `VmRSS` in KiB.
fn process(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let number = line
        .unwrap()
        .trim_start_matches(':')
        .split_whitespace()
        .next();
    number.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_panics_at_random_harm_no_reader() {
    let scenario = FailScenario::setup();
    let seed = seed();
    // Past the harness: a seed is needed most when the process has died.
    writeln!(std::io::stderr(), "torture: STITCHD_SEED={seed}").unwrap();
    let mut random = Random(seed);
    let scene = Scene::start(Bed::new()).await;
    let load = Load::start(&scene.app);
    scene.check_whole("before").await;
    let (threads, rss) = (process("Threads"), process("VmRSS"));

    let points = points();
    let points: Vec<_> = points
        .iter()
        .map(|point| (point, Trigger::of(point)))
        .filter(|(_, trigger)| !matches!(trigger, Trigger::Stop | Trigger::Death))
        .collect();
    let deadline = Instant::now() + LIMIT;
    let (mut dealt, mut deadly) = (0, 0);
    let mut armed: Vec<Armed> = Vec::new();
    while dealt < BLOWS && Instant::now() < deadline {
        let (point, trigger) = points[random.below(points.len())];
        if !armed.iter().any(|armed| armed.point == *point) {
            armed.push(Armed::new(point));
        }
        scene.change();
        // A call may take as long as the poll that died in it; the next blow does not wait for that.
        let patience = Duration::from_millis(20 + random.below(150) as u64);
        drop(tokio::time::timeout(patience, scene.pull(trigger)).await);
        armed.retain(|armed| {
            let has_fired = armed.has_fired();
            dealt += usize::from(has_fired);
            deadly += u64::from(has_fired && armed.point.is_deadly);
            !has_fired
        });
    }
    // What was armed and not reached yet may be reached until it is taken away.
    for armed in armed {
        fail::remove(&armed.point.name);
        let has_fired = armed.has_fired();
        dealt += usize::from(has_fired);
        deadly += u64::from(has_fired && armed.point.is_deadly);
    }

    let what = format!("{dealt} blows of seed {seed}");
    assert!(dealt > BLOWS / 4, "only {what}");
    scene.until_all_up(&what).await;
    scene.unpin().await;
    scene.check_whole(&what).await;
    load.end(&what).await;
    let restarts = scene.restarts();
    let panics = restarts.values().filter_map(|causes| causes.get("panic"));
    assert_eq!(panics.sum::<u64>(), deadly, "{what}: {restarts:?}");
    eventually("threads end", async || {
        (process("Threads") <= threads + THREADS_MORE).then_some(())
    })
    .await;
    let grown = process("VmRSS").saturating_sub(rss);
    assert!(grown < RSS_MORE_KIB, "{what}: {grown} KiB more");
    scene.app.stop().await;
    scenario.teardown();
}
