//! A database that is away at the start or goes away later: readers never notice, and in the end everything is written.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::Value;
use stitchd::store::Store;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    counter, face, numbers, publish, remove_folder, rows, say, settings_with, store,
    support::{ENVIRONMENT, SOURCE, TestApp, eventually, proxy::Wire},
    trouble::{Case, cases, cases_with},
};

/// Reads all the time; gives how many reads there were and how long the slowest took. None may fail.
fn read_on(app: &TestApp) -> (Arc<AtomicBool>, JoinHandle<(usize, Duration)>) {
    let is_done = Arc::new(AtomicBool::new(false));
    let (stop, http) = (Arc::clone(&is_done), app.http.clone());
    let url = format!("{}/v1/snapshot/{ENVIRONMENT}", app.data);
    let reading = tokio::spawn(async move {
        let (mut reads, mut slowest) = (0, Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let answer = http.get(&url).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
            slowest = slowest.max(asked.elapsed());
            reads += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        (reads, slowest)
    });
    (is_done, reading)
}

async fn until_database_is(app: &TestApp, is_up: bool) -> Value {
    let what = format!("the database is known to be up: {is_up}");
    eventually(&what, async || {
        let status = app.status().await;
        (status["database"]["up"] == is_up).then_some(status)
    })
    .await
}

async fn until_all_is_written(app: &TestApp, name: &str) {
    let what = format!("{name}: nothing is left to write");
    eventually(&what, async || {
        let status = app.status().await;
        (status["queues"]["store_pending"] == 0 && status["database"]["up"] == true).then_some(())
    })
    .await;
}

/// The whole of what a running service had to say must be in the database.
async fn check_written(direct: &Store, expected: &[u64], name: &str) {
    assert_eq!(numbers(direct).await, expected, "{name}");
    let database = direct.database();
    let audit = database
        .list_audit(100, None, stitchd::store::AuditFilter::default())
        .await
        .unwrap();
    let pauses = audit
        .iter()
        .filter(|(_, line)| line.action == "source.pause")
        .count();
    assert_eq!(pauses, 1, "{name}: {audit:?}");
    let states = database.load_states().await.unwrap();
    let state = states.iter().find(|state| state.source == SOURCE).unwrap();
    assert!(
        state.body.contains("outage drill"),
        "{name}: {}",
        state.body
    );
}

async fn mid_run(mut case: Case) {
    let name = &case.name;
    let app = case.bed.start_loaded().await;
    until_all_is_written(&app, name).await;
    let (is_done, reading) = read_on(&app);
    case.trouble.begin().await;

    for (value, revision) in [(1, 2), (2, 3), (3, 4)] {
        publish(&case.bed, &app, value, revision).await;
        assert_eq!(counter(&app).await, value, "{name}");
        // A slow disk may need longer than a publish waits for it.
        eventually("the backup has it", async || {
            let status = app.status().await;
            (status["environments"][ENVIRONMENT]["durable"] == true).then_some(())
        })
        .await;
    }
    let pause = format!("/admin/sources/{SOURCE}/pause");
    let asked = Instant::now();
    let paused = app.admin_post(&pause, r#"{"reason":"outage drill"}"#).await;
    assert_eq!(paused.status, 200, "{name}");
    assert!(asked.elapsed() < Duration::from_secs(4), "{name}");
    let status = until_database_is(&app, false).await;
    assert!(status["database"]["error"].is_string(), "{name}: {status}");
    let ready = app.admin_get("/readyz").await;
    assert_eq!(ready.status, 200, "{name}");
    assert!(ready.json()["degraded"].to_string().contains("database"));
    let lines = app.admin_get("/admin/audit").await;
    assert!(lines.json().to_string().contains("source.pause"), "{name}");

    case.trouble.end().await;
    until_all_is_written(&app, name).await;
    check_written(&case.direct, &[1, 2, 3, 4], name).await;
    let served = face(&app).await;
    let newest = rows(&case.direct).await.remove(0);
    assert_eq!(newest.revision, served.revision);
    is_done.store(true, Ordering::Relaxed);
    let (number, slowest) = reading.await.unwrap();
    say(&format!(
        "{name}: {number} reads during the outage, slowest {slowest:?}"
    ));
    app.stop().await;

    // The input in the database is the last one too: without the backup the next start serves the same.
    remove_folder(case.bed.dir.path().join("backup"));
    case.bed.upstream.go_down().await.unwrap();
    let app = case.bed.start().await;
    assert_eq!(face(&app).await, served, "{name}");
    let status = app.status().await;
    assert_eq!(status["sources"][SOURCE]["state"], "paused", "{name}");
    app.stop().await;
}

#[tokio::test]
async fn a_database_that_goes_away_is_not_missed_and_gets_everything_when_it_is_back() {
    join_all(cases().await.into_iter().map(mid_run)).await;
}

async fn paused_in_trouble(mut case: Case) {
    let name = &case.name;
    let app = case.bed.start_loaded().await;
    until_all_is_written(&app, name).await;
    case.trouble.begin().await;
    let pause = format!("/admin/sources/{SOURCE}/pause");
    let paused = app.admin_post(&pause, r#"{"reason":"storm"}"#).await;
    assert_eq!(paused.json()["state"], "paused", "{name}");
    app.stop().await;
    case.trouble.end().await;

    // The database has an older state, without the pause; the backup has the newer one.
    case.bed.upstream.clear_requests();
    let app = case.bed.start().await;
    let status = app.status().await["sources"][SOURCE].clone();
    assert_eq!(status["state"], "paused", "{name}");
    assert_eq!(status["paused"]["reason"], "storm", "{name}");
    until_all_is_written(&app, name).await;
    let written = case.direct.database().load_states().await.unwrap();
    assert!(
        written.iter().any(|state| state.body.contains("storm")),
        "{name}"
    );
    assert_eq!(case.bed.upstream.requests().len(), 0, "{name}");
    app.stop().await;
}

#[tokio::test]
async fn a_pause_said_while_the_database_is_away_outlives_the_process() {
    join_all(cases().await.into_iter().map(paused_in_trouble)).await;
}

async fn away_at_start(mut case: Case) {
    let name = &case.name;
    case.trouble.begin().await;
    let app = case.bed.start().await;
    app.until_revision(1).await;
    until_database_is(&app, false).await;
    publish(&case.bed, &app, 1, 2).await;
    let pause = format!("/admin/sources/{SOURCE}/pause");
    app.admin_post(&pause, r#"{"reason":"outage drill"}"#).await;
    let before = face(&app).await;
    case.trouble.end().await;
    until_all_is_written(&app, name).await;
    check_written(&case.direct, &[1, 2], name).await;
    assert_eq!(face(&app).await, before, "{name}");
    app.stop().await;
}

#[tokio::test]
async fn a_database_that_comes_after_the_start_is_migrated_and_gets_everything() {
    let cut = cases_with(Wire::Cut).await;
    let silent = cases_with(Wire::Blackhole).await;
    join_all(cut.into_iter().chain(silent).map(away_at_start)).await;
}

async fn ahead_of_us(mut case: Case) {
    let name = &case.name;
    let app = case.bed.start_loaded().await;
    publish(&case.bed, &app, 1, 2).await;
    publish(&case.bed, &app, 2, 3).await;
    app.stop().await;
    // Without backup and database this process knows of no number.
    remove_folder(case.bed.dir.path().join("backup"));
    case.trouble.begin().await;
    case.bed
        .upstream
        .set_feature("counter", serde_json::json!({"defaultValue": 9}));
    let app = case.bed.start().await;
    app.until_revision(1).await;
    assert_eq!(counter(&app).await, 9, "{name}");
    case.trouble.end().await;
    until_all_is_written(&app, name).await;
    assert_eq!(app.revision(), 4, "{name}: 1 to 3 are taken");
    assert_eq!(counter(&app).await, 9, "{name}");
    assert_eq!(numbers(&case.direct).await, [1, 2, 3, 4], "{name}");
    let after = face(&app).await;
    assert!(
        after.named.values().all(|revision| *revision == 4),
        "{name}"
    );
    publish(&case.bed, &app, 10, 5).await;
    app.stop().await;
}

#[tokio::test]
async fn a_database_that_comes_back_with_higher_numbers_is_not_contradicted() {
    join_all(cases_with(Wire::Cut).await.into_iter().map(ahead_of_us)).await;
}

async fn both_dead(mut case: Case) {
    let name = &case.name;
    let backup = case.bed.dir.path().join("nowhere");
    fs::write(&backup, "a file in the place of a folder").unwrap();
    let settings = settings_with(&case.bed, "/backup\"", "/nowhere\"");
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    until_all_is_written_but_backup(&app, name).await;
    case.trouble.begin().await;
    publish(&case.bed, &app, 1, 2).await;
    publish(&case.bed, &app, 2, 3).await;
    assert_eq!(counter(&app).await, 2, "{name}");
    let status = until_database_is(&app, false).await;
    assert_eq!(
        status["environments"][ENVIRONMENT]["durable"], false,
        "{name}"
    );
    assert_eq!(status["backup"]["up"], false, "{name}");
    let ready = app.admin_get("/readyz").await;
    assert_eq!(ready.status, 200, "{name}");
    let degraded = ready.json()["degraded"].to_string();
    assert!(
        degraded.contains("neither in the database nor in the backup"),
        "{degraded}"
    );

    case.trouble.end().await;
    eventually("the database has it", async || {
        let status = app.status().await;
        (status["environments"][ENVIRONMENT]["durable"] == true).then_some(())
    })
    .await;
    fs::remove_file(&backup).unwrap();
    until_all_is_written(&app, name).await;
    assert_eq!(app.status().await["backup"]["up"], true, "{name}");
    assert_eq!(numbers(&case.direct).await, [1, 2, 3], "{name}");
    let found = store(&case.bed.database_url, &backup)
        .backup()
        .load_snapshot(ENVIRONMENT)
        .await
        .unwrap();
    assert_eq!(found.value.revision.unwrap().revision, 3, "{name}");
    app.stop().await;
}

/// The first revision is in the database.
async fn until_all_is_written_but_backup(app: &TestApp, name: &str) {
    let what = format!("{name}: the database has what it should");
    eventually(&what, async || {
        let status = app.status().await;
        let is_durable = status["environments"][ENVIRONMENT]["durable"] == true;
        (is_durable && status["backup"]["up"] == false).then_some(())
    })
    .await;
}

#[tokio::test]
async fn with_both_gone_it_publishes_all_the_same_and_says_so() {
    join_all(cases().await.into_iter().map(both_dead)).await;
}
