//! Revision numbers when database and backup do not agree.

use std::{fs, path::Path};

use stitchd::store::Inserted;

use crate::{
    bed_on, copy_folder, counter, face, in_backup, numbers, publish, remove_folder, rows, store,
    support::{
        Bed, ENVIRONMENT, TestApp,
        databases::{Backend, on_each, on_server, sqlite},
        eventually,
    },
};

/// Publishes up to this revision; the counter is one less than the revision.
async fn run_to(bed: &Bed, app: &TestApp, from: u64, to: u64) {
    for revision in from..=to {
        publish(bed, app, revision - 1, revision).await;
    }
}

async fn until_written(app: &TestApp) {
    eventually("nothing is left to write", async || {
        (app.status().await["queues"]["store_pending"] == 0).then_some(())
    })
    .await;
}

async fn highest_in_backup(url: &str, dir: &Path) -> Option<u64> {
    let backup = store(url, &dir.join("backup"));
    backup.backup().highest_revision(ENVIRONMENT).await.unwrap()
}

#[tokio::test]
async fn the_database_is_ahead_of_the_backup() {
    on_each(async |backend| {
        let bed = bed_on(&backend);
        let backup = bed.dir.path().join("backup");
        let app = bed.start_loaded().await;
        run_to(&bed, &app, 2, 2).await;
        app.stop().await;
        copy_folder(&backup, &bed.dir.path().join("old"));
        let app = bed.start().await;
        run_to(&bed, &app, 3, 4).await;
        let before = face(&app).await;
        app.stop().await;
        remove_folder(&backup);
        fs::rename(bed.dir.path().join("old"), &backup).unwrap();

        bed.upstream.go_down().await.unwrap();
        let app = bed.start().await;
        assert_eq!(face(&app).await, before, "{}", backend.name);
        until_written(&app).await;
        assert_eq!(
            highest_in_backup(&backend.url, bed.dir.path()).await,
            Some(4)
        );
        bed.upstream.come_back().unwrap();
        publish(&bed, &app, 9, 5).await;
        app.stop().await;
    })
    .await;
}

/// A database of the same kind with the oldest revisions of another.
async fn with_oldest(backend: &Backend, dir: &Path, number: usize) -> Backend {
    let copy = match backend.name {
        "postgres" => on_server("postgres", "STITCHD_TEST_POSTGRES").unwrap(),
        "mariadb" => on_server("mariadb", "STITCHD_TEST_MARIADB").unwrap(),
        _ => sqlite(),
    };
    let (from, to) = (store(&backend.url, dir), store(&copy.url, dir));
    let all = rows(&from).await;
    let there: Vec<u64> = all.iter().map(|row| row.revision).collect();
    assert!(
        there.len() > number,
        "{}: only {there:?} are there",
        backend.name
    );
    for row in all.iter().rev().take(number) {
        assert_eq!(
            to.database().insert_revision(row).await.unwrap(),
            Inserted::New
        );
    }
    to.close().await.unwrap();
    copy
}

#[tokio::test]
async fn the_backup_is_ahead_of_the_database() {
    on_each(async |backend| {
        let mut bed = bed_on(&backend);
        let app = bed.start_loaded().await;
        run_to(&bed, &app, 2, 4).await;
        let before = face(&app).await;
        app.stop().await;
        let old = with_oldest(&backend, bed.dir.path(), 2).await;
        bed.database_url.clone_from(&old.url);
        let mut expected = in_backup(&bed);
        expected.extend([1, 2]);
        expected.sort_unstable();
        expected.dedup();

        bed.upstream.go_down().await.unwrap();
        let app = bed.start().await;
        assert_eq!(face(&app).await, before, "{}", backend.name);
        until_written(&app).await;
        assert_eq!(numbers(&store(&old.url, bed.dir.path())).await, expected);
        bed.upstream.come_back().unwrap();
        publish(&bed, &app, 9, 5).await;
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn one_number_with_two_contents_ends_in_a_new_number() {
    on_each(async |backend| {
        let mut bed = bed_on(&backend);
        let app = bed.start_loaded().await;
        run_to(&bed, &app, 2, 3).await;
        app.stop().await;
        // What another replica published as 3 while the database was away from here.
        let other = with_oldest(&backend, bed.dir.path(), 2).await;
        let kept = store(&other.url, bed.dir.path());
        let mut theirs = rows(&kept).await.remove(0);
        assert_eq!(theirs.revision, 2);
        theirs.revision = 3;
        kept.database().insert_revision(&theirs).await.unwrap();
        bed.database_url.clone_from(&other.url);

        bed.upstream.go_down().await.unwrap();
        let app = bed.start().await;
        assert!(app.revision() >= 4, "{}: 3 is two things", backend.name);
        until_written(&app).await;
        let last = app.revision();
        // The funnel stitches what this process last accepted.
        assert_eq!(counter(&app).await, 2, "{}", backend.name);
        let served = face(&app).await;
        let newest = rows(&kept).await.remove(0);
        assert_eq!((newest.revision, served.revision), (last, last));
        assert_eq!(
            highest_in_backup(&other.url, bed.dir.path()).await,
            Some(last)
        );
        bed.upstream.come_back().unwrap();
        publish(&bed, &app, 9, last + 1).await;
        app.stop().await;
    })
    .await;
}
