//! Thousands of readers that are slow.

use std::{fs, io::Write as _, process::Command, time::Duration};

use futures_util::future::join_all;
use serde_json::json;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    open_narrow,
    support::{Bed, ENVIRONMENT, SOURCE, answer, client, process::Process},
    value, within,
};

/// As many as are opened where limits and time allow it.
const READERS: usize = 10_000;
/// Fewer would show nothing.
const READERS_MIN: usize = 300;
/// For everything else that has a descriptor, in either process.
const OTHERS: usize = 300;
/// A crowded machine opens fewer.
const OPENING: Duration = Duration::from_secs(20);
/// Opened at the same time; the listener's backlog holds many more.
const AT_ONCE: usize = 100;
/// Until something has happened to all of them.
const PATIENCE: Duration = Duration::from_mins(1);
/// Revisions that nobody reads of.
const REVISIONS: u64 = 5;
/// What a stream may cost the service; a debug build was measured at 11.
const KIB_PER_READER: usize = 64;
/// What answering and publishing may leave behind besides.
const KIB_MORE: usize = 64 * 1024;

fn say(line: &str) {
    let line = format!("{line}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The soft and the hard limit on open files of this process.
fn limits() -> (usize, usize) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let mut numbers = line.split_whitespace().skip(3).map(|word| {
        // No limit at all.
        word.parse().unwrap_or(usize::MAX)
    });
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Raises the soft limit on open files to the hard one, for this process and those it starts; gives what holds then.
fn raise_limit() -> usize {
    let (soft, hard) = limits();
    if soft < hard {
        let nofile = match hard {
            usize::MAX => "--nofile=unlimited:unlimited".to_owned(),
            hard => format!("--nofile={hard}:{hard}"),
        };
        let raised = Command::new("prlimit")
            .args(["--pid", &std::process::id().to_string(), &nofile])
            .status();
        if !raised.is_ok_and(|status| status.success()) {
            say(&format!("the limit of {soft} open files cannot be raised"));
        }
    }
    limits().0
}

/// Opens readers until there are enough or the time is over.
async fn open(host: &str, wanted: usize) -> Vec<TcpStream> {
    let mut readers = Vec::with_capacity(wanted);
    let deadline = Instant::now() + OPENING;
    while readers.len() < wanted && Instant::now() < deadline {
        let number = AT_ONCE.min(wanted - readers.len());
        let opened = join_all((0..number).map(|_| open_narrow(host))).await;
        readers.extend(opened.into_iter().map(Result::unwrap));
    }
    readers
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let words = line.unwrap().split_whitespace().nth(1);
    words.unwrap().parse().unwrap()
}

/// The service as a process of its own, which nothing but its own work makes larger.
struct Service {
    process: Process,
    http: reqwest::Client,
    data: String,
    admin: String,
}

impl Service {
    async fn start(bed: &Bed) -> Self {
        let folder = bed.dir.path().join("settings");
        fs::create_dir_all(&folder).unwrap();
        let patient = bed
            .toml()
            .replacen("poll.timeout = \"1s\"", "poll.timeout = \"10s\"", 1);
        fs::write(folder.join("default.toml"), patient).unwrap();
        let mut process = Process::serve(&folder);
        process.logged("published revision 1 ").await;
        let (data, admin) = (process.data().await, process.admin().await);
        Self {
            process,
            http: client(),
            data,
            admin,
        }
    }

    /// Streams that are open, and connections that were ended because nothing was taken.
    async fn streams(&self) -> (usize, usize) {
        let url = format!("{}/metrics", self.admin);
        let scrape = answer(self.http.get(url).send().await.unwrap()).await;
        let text = String::from_utf8(scrape.body.to_vec()).unwrap();
        let dropped = "stitchd_connections_blocked_total{plane=\"data\"} ";
        let number = |metric| value(&text, metric).map_or(0, |n| usize::try_from(n).unwrap());
        (number("stitchd_streams "), number(dropped))
    }

    /// Waits until each of so many readers has its stream, or was dropped because the machine took more than a minute.
    async fn until_accounted(&self, number: usize) {
        let accounted = within(PATIENCE, async || {
            let (open, dropped) = self.streams().await;
            (open + dropped == number).then_some(())
        });
        let accounted = accounted.await;
        assert!(
            accounted.is_some(),
            "{:?} of {number}",
            self.streams().await
        );
    }

    /// The value of the counter that is served.
    async fn counter(&self) -> u64 {
        let url = format!("{}/v1/snapshot/{ENVIRONMENT}", self.data);
        let snapshot = answer(self.http.get(url).send().await.unwrap()).await;
        assert_eq!(snapshot.status, 200);
        let counter = &snapshot.json()["features"]["counter"]["defaultValue"];
        counter.as_u64().unwrap_or(0)
    }

    async fn publish(&self, bed: &Bed, value: u64) {
        bed.upstream
            .set_feature("counter", json!({"defaultValue": value}));
        let poll = format!("{}/admin/sources/{SOURCE}/poll", self.admin);
        let polled = self.http.post(poll).send().await.unwrap().status();
        assert!(polled.is_success(), "{polled}");
        let served = within(PATIENCE, async || {
            (self.counter().await == value).then_some(())
        });
        served.await.expect("it is served");
    }
}

#[tokio::test]
async fn thousands_of_slow_readers_cost_bounded_memory_and_hold_up_nobody() {
    let limit = raise_limit();
    let wanted = READERS.min(limit.saturating_sub(OTHERS));
    let bed = Bed::new();
    let mut service = Service::start(&bed).await;
    let pid = service.process.id();
    service.publish(&bed, 1).await;
    let before = resident(pid);

    let host = service.data.strip_prefix("http://").unwrap().to_owned();
    let readers = open(&host, wanted).await;
    if readers.len() < READERS {
        say(&format!(
            "{} readers instead of {READERS}: {limit} files may be open, and there are {OPENING:?}",
            readers.len()
        ));
    }
    let at_least = READERS_MIN.min(wanted);
    assert!(readers.len() >= at_least, "{} readers", readers.len());
    service.until_accounted(readers.len()).await;
    for value in 2..2 + REVISIONS {
        service.publish(&bed, value).await;
    }
    service.until_accounted(readers.len()).await;
    let grown = resident(pid).saturating_sub(before);
    let bound = readers.len() * KIB_PER_READER + KIB_MORE;
    say(&format!(
        "{} slow readers: {grown} KiB more than {before} KiB",
        readers.len()
    ));
    assert!(grown < bound, "{grown} KiB more, {bound} are allowed");

    drop(readers);
    let ended = within(PATIENCE, async || {
        (service.streams().await.0 == 0).then_some(())
    });
    ended.await.expect("the streams end with their readers");
    service.process.signal("TERM");
    assert_eq!(service.process.ended().await.code(), Some(0));
}
