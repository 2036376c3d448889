//! Harm to the backup folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    bed_on, counter, face, numbers, publish, settings_with, store,
    support::{Bed, ENVIRONMENT, SOURCE, TestApp, databases::on_each, eventually},
};

/// The newest file in a folder of the backup.
fn newest(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    files.max().unwrap()
}

/// Turns a byte in the middle of a file.
fn corrupt(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() - bytes.len() / 4;
    bytes[middle] ^= 0x5a;
    fs::write(file, bytes).unwrap();
}

/// Three revisions, each with its input, and no database any more.
async fn three_revisions() -> (Bed, Vec<crate::Face>) {
    let mut bed = Bed::new();
    let app = bed.start_loaded().await;
    let mut faces = vec![face(&app).await];
    for (value, revision) in [(1, 2), (2, 3)] {
        publish(&bed, &app, value, revision).await;
        eventually("both copies are written", async || {
            (app.status().await["queues"]["store_pending"] == 0).then_some(())
        })
        .await;
        faces.push(face(&app).await);
    }
    app.stop().await;
    bed.upstream.go_down().await.unwrap();
    bed.database_url = format!("sqlite://{}/fresh.db?mode=rwc", bed.dir.path().display());
    (bed, faces)
}

#[tokio::test]
async fn a_harmed_newest_generation_falls_back_and_its_number_is_not_used_again() {
    let (bed, faces) = three_revisions().await;
    let backup = bed.dir.path().join("backup");
    corrupt(&newest(&backup.join("snapshots").join(ENVIRONMENT)));
    corrupt(&newest(&backup.join("inputs").join(SOURCE)));

    let app = bed.start().await;
    assert_eq!(face(&app).await, faces[1]);
    bed.upstream.come_back().unwrap();
    publish(&bed, &app, 5, 4).await;
    app.stop().await;
}

#[tokio::test]
async fn a_harmed_snapshot_is_made_again_from_its_input_under_a_new_number() {
    let (bed, faces) = three_revisions().await;
    let backup = bed.dir.path().join("backup");
    corrupt(&newest(&backup.join("snapshots").join(ENVIRONMENT)));

    let app = bed.start().await;
    app.until_revision(4).await;
    assert_eq!(counter(&app).await, 2);
    let (now, before) = (face(&app).await, &faces[2]);
    for (path, tag) in now.etags() {
        // The snapshot names its revision; every other route has the very bytes of before.
        if !path.starts_with("/v1/snapshot") {
            assert_eq!(before.etags()[path], tag, "{path}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn a_backup_with_nothing_readable_is_no_worse_than_none() {
    let (bed, _) = three_revisions().await;
    let backup = bed.dir.path().join("backup");
    for folder in ["snapshots/production", "inputs/gb", "states/gb"] {
        for file in fs::read_dir(backup.join(folder)).unwrap() {
            fs::write(file.unwrap().path(), "rubbish").unwrap();
        }
    }
    let app = bed.start().await;
    let path = format!("/v1/snapshot/{ENVIRONMENT}");
    assert_eq!(app.get(&path).await.status, 503);
    bed.upstream.come_back().unwrap();
    app.poll().await;
    assert_eq!(
        app.revision(),
        4,
        "the files' names still tell what was used"
    );
    assert_eq!(app.get(&path).await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_file_in_the_folders_place_harms_nothing_and_is_told() {
    on_each(async |backend| {
        let bed = bed_on(&backend);
        let place = bed.dir.path().join("nowhere");
        fs::write(&place, "a file").unwrap();
        let settings = || settings_with(&bed, "/backup\"", "/nowhere\"");
        let app = TestApp::spawn(settings()).await;
        app.until_revision(1).await;
        publish(&bed, &app, 1, 2).await;
        let status = eventually("the status says so", async || {
            let status = app.status().await;
            (status["backup"]["up"] == false).then_some(status)
        })
        .await;
        assert!(status["backup"]["error"].is_string());
        assert_eq!(status["database"]["up"], true, "{status}");
        assert_eq!(status["environments"][ENVIRONMENT]["durable"], true);
        let ready = app.admin_get("/readyz").await;
        assert_eq!(ready.status, 200);
        assert!(
            ready.json()["degraded"]
                .to_string()
                .contains("the backup cannot be written")
        );
        let kept = store(&backend.url, &place);
        assert_eq!(numbers(&kept).await, [1, 2], "{}", backend.name);
        let before = face(&app).await;
        app.stop().await;

        bed.upstream.go_down().await.unwrap();
        let app = TestApp::spawn(settings()).await;
        assert_eq!(face(&app).await, before);
        fs::remove_file(&place).unwrap();
        eventually("the backup is taken into use", async || {
            let status = app.status().await;
            (status["backup"]["up"] == true && status["queues"]["store_pending"] == 0).then_some(())
        })
        .await;
        let found = kept.backup().load_snapshot(ENVIRONMENT).await.unwrap();
        assert_eq!(found.value.revision.unwrap().revision, 2);
        app.stop().await;
    })
    .await;
}
