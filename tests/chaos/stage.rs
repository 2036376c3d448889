//! The service as a process, what it depends on, and what is asked of it.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Stdio, sync::Arc};

use serde_json::Value;
use stitchd::cli::demo::upstream::{CLIENT_KEY, Upstream};
use tokio::{sync::watch, time::Instant};

use crate::{
    faults::{BODY_MAX, Kind, Signal, Trouble},
    load::{Load, analytics_path, counter_in, documents, snapshot_path},
    orders::{self, Forced},
    seen::{Life, Seen},
    support::{
        Answer, Bed, ENVIRONMENT, PATIENCE, SOURCE, answer, client, eventually,
        process::{Process, command},
        receiver::Receiver,
        skipped,
        storage::{Disk, Storage},
    },
    table::Polls,
    upstream,
};

/// Settings that differ from those of the bed: polled all the time, and every retry soon.
const CHANGES: [(&str, &str); 4] = [
    (
        "\"1h\"",
        "\"250ms\"\n            poll.failure_backoff_max = \"500ms\"",
    ),
    ("/backup\"", "/backups/backup\""),
    // All of a long run are looked at when it is over.
    ("[backup]", "keep_revisions = 10000\n            [backup]"),
    (
        "[[sources]]",
        "[sticky_buckets]\n            engine = \"database\"\n            [[sources]]",
    ),
];

/// In the log of a start that went on without the database.
const UNREAD: &str = "the database cannot be read";

/// What consumers are given, route by route.
pub(crate) type Face = BTreeMap<String, Answer>;

pub(crate) struct Stage {
    // Dropped in this order: first whoever uses what comes later.
    load: Option<Load>,
    process: Process,
    pub(crate) storage: Storage,
    pub(crate) bed: Bed,
    folder: PathBuf,
    /// Told of every revision that is stored.
    pub(crate) hook: Receiver,
    /// Where only redirects lead to.
    pub(crate) elsewhere: Upstream,
    pub(crate) forced: Forced,
    admin: String,
    data: Arc<str>,
    at: watch::Sender<Option<Life>>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) http: reqwest::Client,
    /// What the upstream's counter is.
    pub(crate) counter: u64,
    /// Of the processes that have ended.
    polls_before: Polls,
    /// A trouble of the backup lasts.
    is_backup_bad: bool,
    pub(crate) restarts: usize,
}

impl Stage {
    pub(crate) async fn start(backend: crate::Backend) -> Self {
        let mut bed = Bed::new();
        upstream::fill(&bed);
        let storage = Storage::new(backend, &mut bed, Disk::Small).await;
        let hook = Receiver::start().await;
        bed.extra = orders::publish(&hook.url());
        let folder = settings(&bed);
        let process = serve(&folder);
        let mut stage = Self {
            load: None,
            process,
            storage,
            bed,
            folder,
            hook,
            elsewhere: Upstream::start(0).unwrap(),
            forced: Forced::default(),
            admin: String::new(),
            data: Arc::from(""),
            at: watch::Sender::new(None),
            seen: Arc::default(),
            http: client(),
            counter: 1,
            polls_before: Polls::default(),
            is_backup_bad: false,
            restarts: 0,
        };
        stage.find_addresses().await;
        stage.process.logged("published revision 1 ").await;
        stage.enter(&[]);
        stage.load = Some(Load::start(&stage.at, &stage.seen));
        stage
    }

    /// Whether a trouble can be had here.
    pub(crate) fn can_have(&self, trouble: &Trouble) -> bool {
        let is_possible = match trouble.kind {
            Kind::Database(kind) => self.storage.can_break_database(kind),
            Kind::Backup(kind) => self.storage.can_break_backup(kind),
            _ => true,
        };
        if !is_possible {
            skipped(&trouble.name, "it needs the rights of root");
        }
        is_possible
    }

    pub(crate) async fn begin(&mut self, kind: &Kind) {
        upstream::begin(&self.bed, kind).await;
        match kind {
            Kind::Database(trouble) if self.storage.needs_no_process(*trouble) => {
                let log = self.leave(Signal::Term).await;
                self.storage.break_database(*trouble).await;
                self.come_back(&log).await;
            }
            Kind::Database(trouble) => self.storage.break_database(*trouble).await,
            Kind::Backup(trouble) => {
                self.is_backup_bad = true;
                self.storage.break_backup(*trouble).await;
            }
            _ => {}
        }
    }

    pub(crate) async fn end(&mut self, kind: &Kind) {
        upstream::end(&self.bed, kind, self.counter);
        match kind {
            Kind::Database(trouble) if self.storage.needs_no_process(*trouble) => {
                let log = self.leave(Signal::Term).await;
                self.storage.mend_database(*trouble).await;
                self.come_back(&log).await;
            }
            Kind::Database(trouble) => self.storage.mend_database(*trouble).await,
            Kind::Backup(trouble) => {
                self.storage.mend_backup(*trouble);
                self.is_backup_bad = false;
            }
            _ => {}
        }
    }

    async fn find_addresses(&mut self) {
        self.admin = self.process.admin().await;
        self.data = self.process.data().await.into();
    }

    /// Lets the readers in.
    fn enter(&self, log: &[String]) {
        let (number, highest) = self.seen.begin_life(log);
        // A start waits for the database half a second; then it serves what the backup has, and says so.
        let is_behind = self.is_backup_bad && self.process.lines_with(UNREAD) > 0;
        if is_behind {
            crate::say(
                "chaos: a start was too early for a database that alone had the newest revision",
            );
        }
        let floor = if is_behind { 0 } else { highest };
        let life = Life::new(number, Arc::clone(&self.data), floor);
        self.at.send_replace(Some(life));
    }

    /// Ends the process while it is read from, and starts it anew.
    pub(crate) async fn restart(&mut self, signal: Signal) {
        let log = self.leave(signal).await;
        self.come_back(&log).await;
    }

    /// Ends the process; gives its log.
    async fn leave(&mut self, signal: Signal) -> Vec<String> {
        self.polls_before = self.polls().await;
        if let Some(life) = self.at.borrow().as_ref() {
            life.ends(signal == Signal::Kill);
        }
        match signal {
            Signal::Kill => self.process.kill(),
            Signal::Term => {
                self.process.signal("TERM");
                assert_eq!(self.process.ended().await.code(), Some(0));
            }
        }
        self.at.send_replace(None);
        self.process.log()
    }

    async fn come_back(&mut self, log: &[String]) {
        self.process = serve(&self.folder);
        self.find_addresses().await;
        self.restarts += 1;
        self.enter(log);
    }

    /// Has a fail point panic once, as soon as somebody comes by.
    pub(crate) fn arm(&mut self, point: &str) -> usize {
        let before = self.struck(point);
        self.process.tell(&format!("{point}=1*panic"));
        before
    }

    pub(crate) fn disarm(&mut self, point: &str) {
        self.process.tell(&format!("{point}=off"));
    }

    /// How often a fail point has struck in this process.
    pub(crate) fn struck(&self, point: &str) -> usize {
        self.process.lines_with(&format!("failpoint {point} panic"))
    }

    /// The upstream goes on: there is something to get wrong.
    pub(crate) fn change(&mut self) {
        self.counter += 1;
        upstream::change(&self.bed, self.counter);
    }

    /// An order to poll; what comes of it is for others to judge.
    pub(crate) async fn poll(&self) {
        let url = format!("{}/admin/sources/{SOURCE}/poll", self.admin);
        let answer = answer(self.http.post(url).send().await.unwrap()).await;
        // Whoever has died very often rests for seconds, and longer than an order waits; then it has to be given again.
        assert!([200, 202, 503].contains(&answer.status), "{answer:?}");
    }

    pub(crate) async fn face(&self) -> Face {
        let mut face = Face::new();
        for path in documents() {
            let answer = self.get(&path).await;
            face.insert(path, answer);
        }
        face
    }

    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.data);
        answer(self.http.get(url).send().await.unwrap()).await
    }

    pub(crate) async fn served_counter(&self) -> u64 {
        counter_in(&self.get(&snapshot_path()).await.body).unwrap()
    }

    pub(crate) async fn served_revision(&self) -> u64 {
        let status = self.status().await;
        let environment = &status["environments"][ENVIRONMENT];
        environment["revision"].as_u64().unwrap()
    }

    /// Polls until the newest of the experiments' news are served.
    pub(crate) async fn until_list_is_up_to_date(&self, what: &str) {
        let news = upstream::hypothesis(self.counter);
        let news = format!("\"{news}\"");
        eventually(&format!("{what}: an experiment says {news}"), async || {
            self.poll().await;
            let served = self.get(&analytics_path()).await;
            let served = String::from_utf8(served.body.to_vec()).unwrap();
            served.contains(&news).then_some(())
        })
        .await;
    }

    /// Polls until the newest of the features' news are served.
    pub(crate) async fn until_up_to_date(&self, what: &str) {
        eventually(
            &format!("{what}: the counter is {}", self.counter),
            async || {
                self.poll().await;
                (self.served_counter().await == self.counter).then_some(())
            },
        )
        .await;
    }

    pub(crate) async fn status(&self) -> Value {
        let url = format!("{}/admin/status", self.admin);
        answer(self.http.get(url).send().await.unwrap())
            .await
            .json()
    }

    /// The actors by kind: `poller` for `poller:gb`.
    pub(crate) async fn actors(&self) -> Vec<String> {
        let status = self.status().await;
        let names = status["actors"].as_object().unwrap().keys();
        let mut kinds: Vec<String> = names
            .map(|name| name.split(':').next().unwrap().to_owned())
            .collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// Waits until nothing is wrong any more and nothing is left to write.
    pub(crate) async fn until_whole(&self, what: &str) {
        let served = self.served_revision().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if is_whole(&status) {
                break;
            }
            if Instant::now() >= deadline {
                self.check(what);
                let log = self.tail_of_log();
                panic!("{what}: it does not get well: {status:#}\nthe log ends with\n{log}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.seen.stored_to(served);
        let url = format!("{}/readyz", self.admin);
        assert_eq!(
            self.http.get(url).send().await.unwrap().status(),
            200,
            "{what}"
        );
    }

    /// How polls have ended, in all lives.
    pub(crate) async fn polls(&self) -> Polls {
        let scrape = self.http.get(format!("{}/metrics", self.admin)).send();
        let scrape = scrape.await.unwrap().text().await.unwrap();
        let mut polls = Polls::read(&scrape);
        polls += self.polls_before;
        polls
    }

    /// The most resident memory that the process has had.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Fails with what the readers have seen, and the end of the log.
    #[track_caller]
    pub(crate) fn check(&self, what: &str) {
        let failures = self.seen.failures();
        if !failures.is_empty() {
            let tail = self.tail_of_log();
            // CI looks for these words: such a failure is told even if a second try passes.
            panic!("given to a reader, {what}: {failures:#?}\nthe log ends with\n{tail}");
        }
        if let Some(load) = &self.load {
            load.check();
        }
    }

    fn tail_of_log(&self) -> String {
        let log = self.process.log();
        log[log.len().saturating_sub(40)..].join("\n")
    }

    /// Ends the readers, and the process in order.
    pub(crate) async fn stop(&mut self) {
        self.load = None;
        self.process.signal("TERM");
        assert_eq!(self.process.ended().await.code(), Some(0));
    }
}

/// Whether nothing is wrong any more and nothing is left to write.
fn is_whole(status: &Value) -> bool {
    let mut actors = status["actors"].as_object().unwrap().values();
    actors.all(|actor| actor["up"] == true)
        && status["database"]["up"] == true
        && status["backup"]["up"] == true
        && status["queues"]["store_pending"] == 0
        && is_well(&status["sources"][SOURCE])
}

/// Whether the last poll brought everything, and nothing of it was held.
fn is_well(source: &Value) -> bool {
    let is_taken = ["published", "unchanged"].map(Value::from);
    is_taken.contains(&source["last_outcome"]) && source["last_error"].is_null()
}

fn settings(bed: &Bed) -> PathBuf {
    let limit = format!("max_body_bytes = {BODY_MAX}");
    let mut text = bed.toml().replacen("max_body_bytes = 8000000", &limit, 1);
    assert!(text.contains(&limit), "the settings have lost their limit");
    let key = format!("client_key = \"{CLIENT_KEY}\"");
    let connections = (key, upstream::connections());
    let changes = CHANGES.map(|(old, new)| (old.to_owned(), new.to_owned()));
    for (old, new) in changes.into_iter().chain([connections]) {
        assert!(text.contains(&old), "the settings have lost `{old}`");
        text = text.replacen(&old, &new, 1);
    }
    let folder = bed.dir.path().join("settings");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("default.toml"), text).unwrap();
    folder
}

fn serve(folder: &std::path::Path) -> Process {
    let mut command = command();
    command.arg("--settings").arg(folder).arg("serve");
    // Panics are told by their message; where they came from is known.
    command.env("RUST_BACKTRACE", "0");
    Process::start_with_stdin(&mut command, Stdio::piped())
}
