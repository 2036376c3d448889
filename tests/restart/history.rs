//! What was served is in the history, whenever the process was killed and however long the database was away.

use std::{collections::BTreeMap, fs};

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    Face, all_written, bed_on, face, folder, numbers, publish, rows, snapshot_of, status_at, store,
    support::{
        Answer, Bed, ENVIRONMENT, SOURCE, TestApp, answer, client,
        databases::{Backend, execute, on_each},
        eventually,
        process::Process,
    },
    tag_of,
    trouble::{Case, cases},
};

/// The history of a database has exactly these revisions, with the bytes and entity tags that were served.
async fn check_history(direct: &stitchd::store::Store, served: &BTreeMap<u64, Answer>, name: &str) {
    let expected: Vec<u64> = served.keys().copied().collect();
    assert_eq!(numbers(direct).await, expected, "{name}");
    for row in rows(direct).await {
        let (revision, answer) = (row.revision, &served[&row.revision]);
        assert_eq!(answer.etag, Some(tag_of(&row)), "{name}: {revision}");
        let document = &snapshot_of(&row).documents["snapshot"];
        assert_eq!(document.body, answer.body, "{name}: {revision}");
    }
}

/// One life of the real program, and the way to it.
struct Life {
    process: Process,
    http: reqwest::Client,
    data: String,
    admin: String,
}

impl Life {
    async fn start(bed: &Bed) -> Self {
        let mut process = Process::serve(&folder(bed));
        let (data, admin) = (process.data().await, process.admin().await);
        Self {
            process,
            http: client(),
            data,
            admin,
        }
    }

    async fn snapshot(&self) -> Answer {
        let url = format!("{}/v1/snapshot/{ENVIRONMENT}", self.data);
        answer(self.http.get(url).send().await.unwrap()).await
    }

    /// Publishes a value, waits until one place has it, and notes what is served.
    async fn publish(&self, bed: &Bed, value: u64, served: &mut BTreeMap<u64, Answer>) {
        bed.upstream
            .set_feature("counter", json!({"defaultValue": value}));
        let poll = format!("{}/admin/sources/{SOURCE}/poll", self.admin);
        assert_eq!(self.http.post(poll).send().await.unwrap().status(), 200);
        self.note(value, served).await;
    }

    async fn note(&self, value: u64, served: &mut BTreeMap<u64, Answer>) {
        let revision = eventually("the value is served and durable", async || {
            let status = status_at(&self.http, &self.admin).await;
            let environment = &status["environments"][ENVIRONMENT];
            let counter = self.snapshot().await.json()["features"]["counter"].clone();
            (counter["defaultValue"] == value && environment["durable"] == true)
                .then(|| environment["revision"].as_u64().unwrap())
        })
        .await;
        served.insert(revision, self.snapshot().await);
    }
}

/// More revisions than the backup keeps generations, in two lives, and the database has none of them when they end.
async fn two_lives_without_a_database(mut case: Case) {
    let name = &case.name;
    let mut served = BTreeMap::new();
    case.bed
        .upstream
        .set_feature("counter", json!({"defaultValue": 0}));
    let mut life = Life::start(&case.bed).await;
    life.process.logged("published revision 1 ").await;
    life.note(0, &mut served).await;
    all_written(&life.http, &life.admin).await;

    case.trouble.begin().await;
    for value in 1..=5 {
        life.publish(&case.bed, value, &mut served).await;
    }
    life.process.kill();
    let mut life = Life::start(&case.bed).await;
    assert_eq!(life.snapshot().await, served[&6], "{name}");
    for value in 6..=9 {
        life.publish(&case.bed, value, &mut served).await;
    }
    life.process.kill();
    case.trouble.end().await;

    case.bed.upstream.go_down().await.unwrap();
    let mut life = Life::start(&case.bed).await;
    assert_eq!(life.snapshot().await, served[&10], "{name}");
    all_written(&life.http, &life.admin).await;
    check_history(&case.direct, &served, name).await;
    life.process.signal("TERM");
    assert_eq!(life.process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn kills_during_an_outage_leave_every_revision_in_the_history() {
    join_all(cases().await.into_iter().map(two_lives_without_a_database)).await;
}

/// Runs to revision 4, stops, and takes revisions out of the database: as if a kill had come before their inserts.
async fn without(backend: &Backend, revisions: &str) -> (Bed, Vec<Face>) {
    let bed = bed_on(backend);
    let app = bed.start_loaded().await;
    let mut faces = vec![face(&app).await];
    for revision in 2..=4 {
        publish(&bed, &app, revision, revision).await;
        // Each has its file then.
        until_written(&app).await;
        faces.push(face(&app).await);
    }
    app.stop().await;
    let sql = format!("DELETE FROM revisions WHERE revision IN ({revisions})");
    execute(backend.url.clone(), sql).await.unwrap();
    bed.upstream.go_down().await.unwrap();
    (bed, faces)
}

async fn until_written(app: &TestApp) {
    all_written(&app.http, &app.admin).await;
}

fn snapshots(faces: &[Face]) -> BTreeMap<u64, Answer> {
    let snapshot = |face: &Face| face.routes[&format!("/v1/snapshot/{ENVIRONMENT}")].clone();
    faces
        .iter()
        .map(|face| (face.revision, snapshot(face)))
        .collect()
}

#[tokio::test]
async fn killed_between_backup_and_insert_a_revision_comes_into_the_history_at_the_next_start() {
    on_each(async |backend| {
        let (bed, faces) = without(&backend, "2, 3").await;
        let app = bed.start().await;
        assert_eq!(&face(&app).await, faces.last().unwrap());
        until_written(&app).await;
        let direct = store(&backend.url, bed.dir.path());
        check_history(&direct, &snapshots(&faces), backend.name).await;
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_number_that_another_replica_took_meanwhile_stays_theirs() {
    on_each(async |backend| {
        let (bed, faces) = without(&backend, "2, 3").await;
        let direct = store(&backend.url, bed.dir.path());
        let mut theirs = rows(&direct).await.pop().unwrap();
        assert_eq!(theirs.revision, 1);
        theirs.revision = 3;
        direct.database().insert_revision(&theirs).await.unwrap();

        let app = bed.start().await;
        assert_eq!(&face(&app).await, faces.last().unwrap());
        until_written(&app).await;
        assert_eq!(numbers(&direct).await, [1, 2, 3, 4], "{}", backend.name);
        let third = rows(&direct).await.remove(1);
        assert_eq!((third.revision, &third.hash), (3, &theirs.hash));
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_harmed_file_is_counted_and_holds_up_nothing() {
    on_each(async |backend| {
        let (bed, faces) = without(&backend, "2, 3").await;
        let folder = bed.dir.path().join("backup/snapshots").join(ENVIRONMENT);
        fs::write(folder.join(format!("{:020}.snapshot", 2)), "rubbish").unwrap();
        let app = bed.start().await;
        until_written(&app).await;
        let direct = store(&backend.url, bed.dir.path());
        assert_eq!(numbers(&direct).await, [1, 3, 4], "{}", backend.name);
        assert_eq!(&face(&app).await, faces.last().unwrap());
        let metrics = app.admin_get("/metrics").await;
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        assert!(text.contains("stitchd_revisions_lost_total 1"), "{text}");
        app.stop().await;
    })
    .await;
}
