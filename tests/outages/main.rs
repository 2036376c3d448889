//! Outages of what the real program depends on, each with what consumers and operators see of it: the same bytes, a status
//! field, a metric, one line in the log when it begins and one when it is over.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its doc is its name"
)]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod clock;
mod storage;
mod switches;
mod upstream;

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{CLIENT_KEY, many_features},
    http::ROUTES,
};

use crate::support::{
    Answer, Bed, ENVIRONMENT, SOURCE, answer, client,
    databases::Backend,
    eventually,
    faketime::FakeClock,
    process::{Process, command},
    storage::{Disk, Storage},
};

/// The service as a process, and what it depends on. Polled when a test asks, or all the time.
struct Scene {
    // Dropped first.
    process: Option<Process>,
    storage: Storage,
    bed: Bed,
    folder: PathBuf,
    clock: Option<FakeClock>,
    http: reqwest::Client,
    data: String,
    admin: String,
    /// What the upstream's counter is.
    counter: u64,
}

impl Scene {
    /// Everything but the service; `changes` to the settings, old text and new.
    async fn new(backend: Backend, changes: &[(&str, &str)]) -> Self {
        Self::on_disk(backend, Disk::Shared, changes).await
    }

    async fn on_disk(backend: Backend, disk: Disk, changes: &[(&str, &str)]) -> Self {
        let mut bed = Bed::new();
        // A revision is larger than any other statement.
        bed.upstream.set_features(many_features(60, 3));
        let forced = json!({ "defaultValue": 0 });
        bed.upstream.set_feature("forced", forced);
        let storage = Storage::new(backend, &mut bed, disk).await;
        let mut text = bed.toml();
        let own = [
            ("/backup\"", "/backups/backup\""),
            // As long as a crowded machine needs.
            ("poll.timeout = \"1s\"", "poll.timeout = \"10s\""),
        ];
        for (old, new) in own.iter().chain(changes) {
            assert!(text.contains(old), "the settings have lost `{old}`");
            text = text.replacen(old, new, 1);
        }
        let folder = bed.dir.path().join("settings");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("default.toml"), text).unwrap();
        Self {
            process: None,
            storage,
            bed,
            folder,
            clock: None,
            http: client(),
            data: String::new(),
            admin: String::new(),
            counter: 0,
        }
    }

    /// With a clock that can be set; `None` and a line where there is none.
    async fn with_clock(backend: Backend, changes: &[(&str, &str)]) -> Option<Self> {
        let mut scene = Self::new(backend, changes).await;
        scene.clock = FakeClock::new(scene.bed.dir.path());
        if scene.clock.is_none() {
            support::skipped("clocks that jump", "libfaketime is missing");
            return None;
        }
        Some(scene)
    }

    /// Starts the service and waits until it answers.
    async fn start(&mut self) {
        let mut command = command();
        command.arg("--settings").arg(&self.folder).arg("serve");
        if let Some(clock) = &self.clock {
            clock.rule(&mut command);
        }
        let mut process = Process::start(&mut command);
        self.admin = process.admin().await;
        self.data = process.data().await;
        self.process = Some(process);
    }

    /// Starts the service and waits until its first revision is served and written.
    async fn start_loaded(&mut self) {
        self.start().await;
        self.process().logged("published revision 1 ").await;
        self.until_written().await;
    }

    /// An operator forces a feature's value.
    async fn force(&self, value: u64) {
        let order =
            json!({"kind": "feature", "key": "forced", "value": value, "reason": "it broke"});
        let url = format!("{}/admin/environments/{ENVIRONMENT}/overrides", self.admin);
        let sent = self.http.post(url).body(order.to_string());
        let sent = sent.header("content-type", "application/json").send();
        assert_eq!(sent.await.unwrap().status(), 201);
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    fn set_clock(&self, ahead_secs: i64) {
        self.clock.as_ref().unwrap().set(ahead_secs);
    }

    /// Has the upstream change, and polls: the news are served, whatever else is wrong.
    async fn publish(&mut self) {
        self.counter += 1;
        let counter = json!({"defaultValue": self.counter});
        self.bed.upstream.set_feature("counter", counter);
        let report = self.poll().await;
        // A poll by schedule may have been first.
        let outcome = report["outcome"].as_str().unwrap();
        assert!(["published", "unchanged"].contains(&outcome), "{report}");
        assert_eq!(self.served_counter().await, Some(self.counter));
    }

    async fn poll(&self) -> Value {
        let path = format!("/admin/sources/{SOURCE}/poll");
        self.admin_post(&path).await.json()
    }

    /// Forces the counter for so long.
    async fn force_counter(&self, value: u64, expires_in: &str) -> Value {
        let url = format!("{}/admin/environments/{ENVIRONMENT}/overrides", self.admin);
        let body = json!({"kind": "feature", "key": "counter", "value": value, "reason": "it broke",
            "expires_in": expires_in});
        let set = self.http.post(url).body(body.to_string());
        let set = answer(set.send().await.unwrap()).await;
        assert_eq!(set.status, 201, "{set:?}");
        set.json()
    }

    async fn get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.data);
        answer(self.http.get(url).send().await.unwrap()).await
    }

    async fn served_counter(&self) -> Option<u64> {
        let snapshot = self
            .get(&format!("/v1/snapshot/{ENVIRONMENT}"))
            .await
            .json();
        snapshot["features"]["counter"]["defaultValue"].as_u64()
    }

    /// Every document that carries configuration, with its tag.
    async fn face(&self) -> BTreeMap<String, Answer> {
        let mut face = BTreeMap::new();
        for path in ROUTES
            .iter()
            .flat_map(|route| (route.probes)(ENVIRONMENT, CLIENT_KEY))
        {
            let answer = self.get(&path).await;
            assert_eq!(answer.status, 200, "{path}");
            face.insert(path, answer);
        }
        face
    }

    /// `X-Config-Stale` of the snapshot.
    async fn is_stale(&self) -> bool {
        let url = format!("{}/v1/snapshot/{ENVIRONMENT}", self.data);
        let answer = self.http.get(url).send().await.unwrap();
        answer.headers()["x-config-stale"] == "1"
    }

    async fn admin_get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.admin);
        answer(self.http.get(url).send().await.unwrap()).await
    }

    async fn admin_post(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.admin);
        answer(self.http.post(url).send().await.unwrap()).await
    }

    async fn status(&self) -> Value {
        self.admin_get("/admin/status").await.json()
    }

    async fn revision(&self) -> u64 {
        let status = self.status().await;
        status["environments"][ENVIRONMENT]["revision"]
            .as_u64()
            .unwrap()
    }

    /// A metric by its name and labels as a scrape has them; `None`: it is not there.
    async fn metric(&self, name: &str) -> Option<f64> {
        let scrape = self.admin_get("/metrics").await.body;
        let scrape = String::from_utf8(scrape.to_vec()).unwrap();
        let line = scrape
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    /// Polls that have ended like this.
    async fn polls(&self, outcome: &str) -> f64 {
        let name = format!("stitchd_polls_total{{source=\"{SOURCE}\",outcome=\"{outcome}\"}}");
        self.metric(&name).await.unwrap_or(0.0)
    }

    /// Waits for so many more polls by schedule that end like this.
    async fn until_polled(&self, outcome: &str, more: f64) {
        let before = self.polls(outcome).await;
        eventually(&format!("{more} polls {outcome}"), async || {
            (self.polls(outcome).await >= before + more).then_some(())
        })
        .await;
    }

    /// Waits until database and backup have everything.
    async fn until_written(&self) {
        eventually("nothing is left to write", async || {
            let status = self.status().await;
            let is_up = status["database"]["up"] == true && status["backup"]["up"] == true;
            (is_up && status["queues"]["store_pending"] == 0).then_some(())
        })
        .await;
    }

    /// Ends the service in order; gives its log.
    async fn stop(&mut self) -> Log {
        let mut process = self.process.take().unwrap();
        process.signal("TERM");
        assert_eq!(process.ended().await.code(), Some(0));
        Log(process.log())
    }

    /// Ends it as a power cut would.
    fn kill(&mut self) -> Log {
        let mut process = self.process.take().unwrap();
        process.kill();
        Log(process.log())
    }
}

/// What a process has said.
struct Log(Vec<String>);

impl Log {
    /// Fails unless there are exactly so many lines of this level with this text.
    #[track_caller]
    fn assert_lines(&self, level: &str, text: &str, expected: usize) {
        let is_one = |line: &&String| line.contains(level) && line.contains(text);
        let found = self.0.iter().filter(is_one).count();
        let shown = self.0.join("\n");
        assert_eq!(found, expected, "{level} `{text}` in\n{shown}");
    }

    /// Leaves out what is said of a revision that waits longer for a slow disk than a publish waits for it.
    fn without_slow_disks(mut self) -> Self {
        self.0
            .retain(|line| !line.contains("without a durable copy"));
        self
    }
}
