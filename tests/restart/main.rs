//! What a restart, an outage or a kill must not change: bytes, entity tags, revision numbers, pauses, ages.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its doc is its name"
)]
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    reason = "a scenario reads from top to bottom"
)]

#[path = "../support/mod.rs"]
mod support;

mod backup;
mod history;
mod kill;
mod limits;
mod lines;
mod memory;
mod numbers;
mod outages;
mod replicas;
mod restarts;
mod stop;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use stitchd::{
    model::{Snapshot, snapshot::SNAPSHOT_DOCUMENT},
    settings::{self, Profile, Settings},
    store::{RevisionRow, Store, packed::unpack_candidate},
};

use tokio::time::Instant;

use crate::support::{
    Answer, Bed, ENVIRONMENT, PATIENCE, TestApp, answer, databases::Backend, eventually, store,
    trouble,
};

/// A bed whose service keeps its history in this database.
fn bed_on(backend: &Backend) -> Bed {
    Bed::on(backend)
}

/// The bed's settings with one piece of their text replaced.
fn settings_with(bed: &Bed, old: &str, new: &str) -> Settings {
    let text = bed.toml();
    assert!(text.contains(old), "the settings have lost `{old}`");
    let text = text.replacen(old, new, 1);
    settings::from_toml(&text, Profile::Test).unwrap_or_else(|error| panic!("{error}"))
}

/// A settings folder for the real program.
fn folder(bed: &Bed) -> PathBuf {
    folder_with(bed, &bed.toml())
}

/// The same with other settings; fetches may take as long as a crowded machine needs for a large payload.
fn folder_with(bed: &Bed, text: &str) -> PathBuf {
    let text = text.replacen("poll.timeout = \"1s\"", "poll.timeout = \"10s\"", 1);
    let folder = bed.dir.path().join("settings");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("default.toml"), text).unwrap();
    folder
}

/// What consumers see: every route's answer, and the revision that each names.
#[derive(Clone, Debug, PartialEq)]
struct Face {
    revision: u64,
    named: BTreeMap<String, u64>,
    routes: BTreeMap<String, Answer>,
}

impl Face {
    /// Entity tags by route: what moves exactly when the route's bytes do.
    fn etags(&self) -> BTreeMap<&str, &str> {
        self.routes
            .iter()
            .map(|(path, answer)| (path.as_str(), answer.etag.as_deref().unwrap()))
            .collect()
    }
}

/// Reads every route; none may fail.
async fn face(app: &TestApp) -> Face {
    let routes = app.served().await;
    let mut named = BTreeMap::new();
    for (path, answer) in &routes {
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let head = app.http.head(format!("{}{path}", app.data)).send().await;
        let head = head.unwrap();
        let revision = head.headers()["x-config-revision"].to_str().unwrap();
        named.insert(path.clone(), revision.parse().unwrap());
    }
    Face {
        revision: app.revision(),
        named,
        routes,
    }
}

/// Has the upstream change, polls, and expects exactly this revision.
async fn publish(bed: &Bed, app: &TestApp, value: u64, revision: u64) {
    bed.upstream
        .set_feature("counter", json!({"defaultValue": value}));
    let report = app.poll().await;
    // The poll of the start may have been first.
    let outcome = report["outcome"].as_str().unwrap();
    assert!(["published", "unchanged"].contains(&outcome), "{report}");
    assert_eq!(report["revision"], revision, "{report}");
}

/// The counter that [`publish`] moves, as it is served.
async fn counter(app: &TestApp) -> u64 {
    let snapshot = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await.json();
    snapshot["features"]["counter"]["defaultValue"]
        .as_u64()
        .unwrap()
}

/// Every revision in a database, newest first.
async fn rows(store: &Store) -> Vec<RevisionRow> {
    let mut rows = Vec::new();
    let mut bound = u64::MAX;
    loop {
        let row = store.database().revision_up_to(ENVIRONMENT, bound).await;
        let Some(row) = row.unwrap_or_else(|error| panic!("{}", error.explain())) else {
            return rows;
        };
        bound = row.revision.saturating_sub(1);
        rows.push(row);
    }
}

/// The numbers of the files in a backup, oldest first.
fn in_backup(bed: &Bed) -> Vec<u64> {
    let folder = bed.dir.path().join("backup/snapshots").join(ENVIRONMENT);
    let files = fs::read_dir(folder).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut numbers: Vec<u64> = names
        .filter_map(|name| name.split_once('.')?.0.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The numbers in a database, oldest first; none while it cannot be asked.
async fn numbers(store: &Store) -> Vec<u64> {
    if store.database().ping().await.is_err() {
        return Vec::new();
    }
    let mut numbers: Vec<u64> = rows(store).await.iter().map(|row| row.revision).collect();
    numbers.reverse();
    numbers
}

/// What a row of the history gives back.
fn snapshot_of(row: &RevisionRow) -> Snapshot {
    let candidate = unpack_candidate(&row.environment, &row.body);
    candidate.unwrap().at_revision(row.revision)
}

/// The entity tag that the snapshot of a row has.
fn tag_of(row: &RevisionRow) -> String {
    let snapshot = snapshot_of(row);
    format!("\"{}\"", snapshot.documents[SNAPSHOT_DOCUMENT].tag)
}

/// `/admin/status` of a service that runs as a process.
async fn status_at(http: &reqwest::Client, admin: &str) -> Value {
    let status = http.get(format!("{admin}/admin/status")).send().await;
    answer(status.unwrap()).await.json()
}

/// Waits until database and backup have everything.
async fn all_written(http: &reqwest::Client, admin: &str) {
    eventually("nothing is left to write", async || {
        let status = status_at(http, admin).await;
        (status["queues"]["store_pending"] == 0 && status["database"]["up"] == true).then_some(())
    })
    .await;
}

/// Deletes a folder. A write that nobody waits for any more may still be putting files into it.
fn remove_folder(path: impl AsRef<Path>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = fs::remove_dir_all(&path) {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Copies a folder, subfolders included.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A line past the test harness, which hides the output of passing tests.
fn say(line: &str) {
    std::io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}
