//! A start without upstream, from whichever of database and backup is left.

use std::{fs, time::Duration};

use tokio::{net::TcpListener, time::Instant};

use crate::{
    Face, bed_on, face, in_backup, numbers, publish, remove_folder, say, store,
    support::{
        Bed, SOURCE, TestApp,
        databases::{Backend, on_each, on_server, sqlite},
        eventually,
    },
};

/// Runs to revision 3 and stops; gives what was served.
async fn until_revision_3(bed: &Bed) -> Face {
    let app = bed.start_loaded().await;
    publish(bed, &app, 1, 2).await;
    publish(bed, &app, 2, 3).await;
    let before = face(&app).await;
    assert_eq!(before.revision, 3);
    app.stop().await;
    before
}

/// Starts with what is left, measures, and expects to see no difference.
async fn start_unchanged(bed: &Bed, before: &Face, what: &str) -> TestApp {
    let started = Instant::now();
    let app = bed.start().await;
    let after = face(&app).await;
    say(&format!(
        "restart {what}: every route read after {:?}",
        started.elapsed()
    ));
    assert_eq!(&after, before, "{what}");
    app
}

#[tokio::test]
async fn the_database_alone_gives_back_every_route() {
    on_each(async |backend| {
        let bed = bed_on(&backend);
        let before = until_revision_3(&bed).await;
        bed.upstream.go_down().await.unwrap();
        let backup = bed.dir.path().join("backup");
        remove_folder(&backup);

        let app = start_unchanged(&bed, &before, backend.name).await;
        assert_eq!(app.poll().await["outcome"], "failed");
        assert_eq!(face(&app).await, before);
        // What was lost is written again.
        eventually("the backup is complete again", async || {
            let queues = &app.status().await["queues"];
            (queues["store_pending"] == 0).then_some(())
        })
        .await;
        app.stop().await;
        let kept = store(&backend.url, &backup);
        let found = kept.backup().load_snapshot("production").await.unwrap();
        assert_eq!(found.value.revision.unwrap().revision, 3);
        let inputs = kept.backup().load_inputs().await.unwrap();
        assert!(inputs.value.contains_key(SOURCE));
    })
    .await;
}

/// An empty database of the same kind.
fn another(backend: &Backend) -> Backend {
    match backend.name {
        "postgres" => on_server("postgres", "STITCHD_TEST_POSTGRES").unwrap(),
        "mariadb" => on_server("mariadb", "STITCHD_TEST_MARIADB").unwrap(),
        _ => sqlite(),
    }
}

#[tokio::test]
async fn the_backup_alone_gives_back_every_route_and_fills_an_empty_database() {
    on_each(async |backend| {
        let mut bed = bed_on(&backend);
        let before = until_revision_3(&bed).await;
        let expected = in_backup(&bed);
        bed.upstream.go_down().await.unwrap();
        let empty = another(&backend);
        bed.database_url.clone_from(&empty.url);

        let what = format!("with an empty {}", backend.name);
        let app = start_unchanged(&bed, &before, &what).await;
        let kept = store(&empty.url, bed.dir.path());
        eventually("the empty database has what the backup has", async || {
            (numbers(&kept).await == expected).then_some(())
        })
        .await;
        eventually("its input too", async || {
            let inputs = kept.database().load_inputs().await.unwrap();
            inputs
                .iter()
                .any(|input| input.source == SOURCE)
                .then_some(())
        })
        .await;
        // A number once served is not given out again.
        bed.upstream.come_back().unwrap();
        publish(&bed, &app, 3, 4).await;
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_backup_alone_serves_while_the_database_refuses_or_never_answers() {
    let mut bed = Bed::new();
    let before = until_revision_3(&bed).await;
    bed.upstream.go_down().await.unwrap();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    // Accepts in the kernel's backlog and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().map(|address| (silent, address));
    let (_silent, silent) = silent.unwrap();
    for (kind, address) in [("closed port", closed), ("silent port", silent)] {
        for scheme in ["postgres", "mysql"] {
            bed.database_url = format!("{scheme}://someone:hunter2@{address}/stitchd");
            let what = format!("with {scheme} on a {kind}");
            let app = start_unchanged(&bed, &before, &what).await;
            let status = app.status().await;
            assert_eq!(status["database"]["up"], false, "{what}: {status}");
            assert!(!status.to_string().contains("hunter2"), "{status}");
            let environment = &status["environments"]["production"];
            assert_eq!(environment["durable"], true, "{what}");
            let ready = app.get("/readyz").await;
            assert_eq!(ready.status, 200, "{what}");
            let degraded = ready.json()["degraded"].to_string();
            assert!(degraded.contains("the database is down"), "{degraded}");
            let stopping = Instant::now();
            app.stop().await;
            say(&format!("stop {what}: {:?}", stopping.elapsed()));
            // The last flush has a limit of its own.
            assert!(stopping.elapsed() < Duration::from_secs(15));
        }
    }
}

#[tokio::test]
async fn the_backup_alone_serves_while_the_sqlite_folder_is_missing() {
    let backend = sqlite();
    let mut bed = bed_on(&backend);
    let before = until_revision_3(&bed).await;
    let expected = in_backup(&bed);
    bed.upstream.go_down().await.unwrap();
    let folder = bed.dir.path().join("later");
    bed.database_url = format!("sqlite://{}/stitchd.db?mode=rwc", folder.display());
    let app = start_unchanged(&bed, &before, "without the folder of the SQLite file").await;
    assert_eq!(app.status().await["database"]["up"], false);
    fs::create_dir(&folder).unwrap();
    eventually("the database is taken into use", async || {
        let status = app.status().await;
        (status["database"]["up"] == true && status["queues"]["store_pending"] == 0).then_some(())
    })
    .await;
    assert_eq!(face(&app).await, before);
    let kept = store(&bed.database_url, bed.dir.path());
    assert_eq!(numbers(&kept).await, expected);
    app.stop().await;
}
