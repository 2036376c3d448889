//! SIGKILL at random moments while revisions are published and read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stitchd::{cli::demo::upstream::State, store::RevisionRow};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    all_written, bed_on, folder_with, numbers, rows, say, store,
    support::{
        Bed, ENVIRONMENT,
        databases::{Backend, on_server, sqlite},
        eventually,
        process::Process,
        proxy::{Proxy, Wire},
    },
    tag_of,
};

/// Numbers that look random and can be had again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// What the reader was served, over all lives of the service.
#[derive(Default)]
struct Seen {
    /// Revision → entity tag of the snapshot, and the counter that the upstream only raises.
    served: BTreeMap<u64, (String, u64)>,
    /// Read, and given up by a kill after the service had said that nothing durable holds them.
    given_up: usize,
    reads: usize,
}

impl Seen {
    /// The highest revision that a restart must not take back, and its counter.
    fn last(&self) -> (u64, u64) {
        let last = self.served.iter().next_back();
        last.map_or((0, 0), |(revision, (_, counter))| (*revision, *counter))
    }

    fn highest(&self) -> u64 {
        self.last().0
    }

    fn note(&mut self, revision: u64, tag: &str, counter: u64) {
        let (highest, last) = self.last();
        let new = || (tag.to_owned(), counter);
        let known = self.served.entry(revision).or_insert_with(new);
        assert_eq!(known.0, tag, "revision {revision} is two things");
        assert!(revision >= highest, "revision {revision} after {highest}");
        assert!(
            counter >= last,
            "revision {revision} goes back from {last} to {counter}"
        );
        self.reads += 1;
    }

    /// After a kill: only what the process had said that it serves without a durable copy may be gone.
    fn forgive(&mut self, log: &[String]) {
        for line in log {
            if let Some((before, _)) = line.split_once(" of production is served without a durable")
                && let Some((_, number)) = before.rsplit_once("revision ")
            {
                let gone = self.served.remove(&number.parse().unwrap());
                self.given_up += usize::from(gone.is_some());
            }
        }
    }
}

/// One read of the snapshot; `None`: nobody is there.
async fn read(http: &reqwest::Client, data: &str, seen: &Mutex<Seen>) -> Option<()> {
    let url = format!("{data}/v1/snapshot/{ENVIRONMENT}");
    let answer = http.get(url).send().await.ok()?;
    let status = answer.status().as_u16();
    if status == 503 {
        assert_eq!(seen.lock().highest(), 0, "503 after something was served");
        return Some(());
    }
    assert_eq!(status, 200);
    let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
    let (revision, tag) = (header("x-config-revision"), header("etag"));
    let body: Value = serde_json::from_slice(&answer.bytes().await.ok()?).unwrap();
    let counter = body["features"]["counter"]["defaultValue"].as_u64();
    let revision = revision.parse().unwrap();
    assert_eq!(body["revision"], revision);
    seen.lock().note(revision, &tag, counter.unwrap_or(0));
    Some(())
}

/// Reads on, from wherever the service is at the moment; holds `turn` during each read.
fn read_on(
    mut at: watch::Receiver<Option<String>>,
    seen: Arc<Mutex<Seen>>,
    turn: Arc<tokio::sync::Mutex<()>>,
) -> JoinHandle<()> {
    let http = crate::support::client();
    tokio::spawn(async move {
        loop {
            if at.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let reading = turn.lock().await;
            let address = at.borrow().clone();
            if let Some(address) = address {
                read(&http, &address, &seen).await;
            }
            drop(reading);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

/// Raises the counter for ever.
fn change_on(state: Arc<State>) -> JoinHandle<()> {
    tokio::spawn(async move {
        for value in 1_u64.. {
            state.set_feature("counter", json!({"defaultValue": value}));
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    })
}

/// Settings of a service that polls all the time.
fn folder(bed: &Bed) -> std::path::PathBuf {
    let often = "\"100ms\"\n            poll.failure_backoff_max = \"200ms\"";
    folder_with(bed, &bed.toml().replacen("\"1h\"", often, 1))
}

async fn kill_again_and_again(backend: &Backend, kills: usize) {
    let luck = u64::try_from(stitchd::clock::now_ms()).unwrap() | 1;
    say(&format!("kills on {}: seed {luck}", backend.name));
    let mut dice = Dice(luck);
    let bed = bed_on(backend);
    let folder = folder(&bed);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let at = watch::Sender::new(None);
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    let reader = read_on(at.subscribe(), Arc::clone(&seen), Arc::clone(&turn));
    let changing = change_on(bed.upstream.state());
    let http = crate::support::client();

    for kill in 0..kills {
        let is_loaded = seen.lock().highest() > 0;
        let is_down = is_loaded && dice.below(3) == 0;
        if is_down {
            bed.upstream.go_down().await.unwrap();
        }
        let mut process = Process::serve(&folder);
        if is_loaded && dice.below(4) == 0 {
            // In the middle of a start.
            tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
        } else {
            let data = process.data().await;
            read(&http, &data, &seen).await.unwrap();
            let ready = http.get(format!("{data}/readyz")).send().await.unwrap();
            assert!(ready.status() == 200 || !is_loaded, "kill {kill}");
            at.send_replace(Some(data));
            if !is_loaded {
                eventually("the first revision is served", async || {
                    let is_loaded = seen.lock().highest() > 0;
                    assert!(process.is_running() && !reader.is_finished(), "seed {luck}");
                    is_loaded.then_some(())
                })
                .await;
            }
            tokio::time::sleep(Duration::from_millis(dice.below(500))).await;
            if is_down && dice.below(2) == 0 {
                bed.upstream.come_back().unwrap();
                tokio::time::sleep(Duration::from_millis(dice.below(500))).await;
            }
        }
        process.kill();
        at.send_replace(None);
        bed.upstream.come_back().unwrap();
        // The last read of this life has ended then.
        let between = turn.lock().await;
        assert!(
            !reader.is_finished(),
            "a read failed after kill {kill}, seed {luck}"
        );
        seen.lock().forgive(&process.log());
        drop(between);
    }

    bed.upstream.go_down().await.unwrap();
    let mut process = Process::serve(&folder);
    let data = process.data().await;
    read(&http, &data, &seen).await.unwrap();
    all_written(&http, &process.admin().await).await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    reader.abort();
    changing.abort();
    let all = std::mem::take(&mut *seen.lock());
    let (revision, counter) = all.last();
    say(&format!(
        "kills on {}: {} reads, {} revisions seen and {} given up, the last {revision} with counter {counter}",
        backend.name,
        all.reads,
        all.served.len(),
        all.given_up,
    ));
    check_kept(backend, &bed, &all).await;
}

/// Every revision that was ever served is in the database's history, once, as it was served.
async fn check_kept(backend: &Backend, bed: &Bed, seen: &Seen) {
    let rows = rows(&store(&backend.url, bed.dir.path())).await;
    let unique: BTreeMap<u64, &RevisionRow> = rows.iter().map(|row| (row.revision, row)).collect();
    assert_eq!(unique.len(), rows.len());
    for (revision, (tag, _)) in &seen.served {
        let row = unique.get(revision);
        let row = row.unwrap_or_else(|| panic!("{revision} was served and is in no history"));
        assert_eq!(&tag_of(row), tag, "revision {revision}");
    }
}

#[tokio::test]
async fn no_kill_loses_what_was_served_or_uses_a_number_twice() {
    kill_again_and_again(&sqlite(), 15).await;
}

#[tokio::test]
async fn nor_does_it_on_a_database_server() {
    let servers = [
        on_server("postgres", "STITCHD_TEST_POSTGRES"),
        on_server("mariadb", "STITCHD_TEST_MARIADB"),
    ];
    let backends = servers.into_iter().flatten();
    join_all(backends.map(async |backend| kill_again_and_again(&backend, 6).await)).await;
}

/// While the database swallows everything, what was accepted is on disk before it is served.
#[tokio::test]
async fn a_kill_during_an_outage_loses_nothing() {
    let servers = [
        on_server("postgres", "STITCHD_TEST_POSTGRES"),
        on_server("mariadb", "STITCHD_TEST_MARIADB"),
    ];
    join_all(servers.into_iter().flatten().map(async |backend| {
        let (proxy, url) = Proxy::in_front_of(&backend).await;
        let mut bed = bed_on(&backend);
        bed.database_url = url;
        let folder = folder(&bed);
        let mut process = Process::serve(&folder);
        process.logged("published revision 1 ").await;
        proxy.set(Wire::Blackhole);
        let seen = Mutex::new(Seen::default());
        let (http, data) = (crate::support::client(), process.data().await);
        for value in 1..=3 {
            bed.upstream
                .set_feature("counter", json!({"defaultValue": value}));
            eventually("it is served", async || {
                read(&http, &data, &seen).await.unwrap();
                (seen.lock().last().1 == value).then_some(())
            })
            .await;
        }
        process.kill();
        bed.upstream.go_down().await.unwrap();

        let mut process = Process::serve(&folder);
        let data = process.data().await;
        read(&http, &data, &seen).await.unwrap();
        // The stitch from the stored inputs comes a moment after the start.
        process.logged("restored the last accepted input").await;
        proxy.set(Wire::Pass);
        process.logged("the database is back").await;
        read(&http, &data, &seen).await.unwrap();
        process.signal("TERM");
        assert_eq!(process.ended().await.code(), Some(0));
        let kept = numbers(&store(&backend.url, bed.dir.path())).await;
        let newest = seen.lock().highest();
        assert_eq!(kept.last(), Some(&newest), "{}", backend.name);
    }))
    .await;
}
