//! What the store answers to whoever asks for the past.

use std::{fs, sync::Arc};

use futures_util::future::join_all;
use stitchd::{
    actors::store::{GetRevision, HistoryError, ListRevisions, RevisionPage},
    model::{Snapshot, snapshot::SNAPSHOT_DOCUMENT},
};

use crate::{
    at_revision, publish,
    support::{
        Answer, Bed, ENVIRONMENT, PATIENCE, TestApp,
        databases::on_each,
        eventually,
        proxy::Wire,
        trouble::{Case, cases_with},
    },
    until_written,
};

async fn revision(app: &TestApp, revision: u64) -> Result<Option<Arc<Snapshot>>, HistoryError> {
    let question = GetRevision {
        environment: ENVIRONMENT.into(),
        revision,
    };
    app.handles.store.ask(question, PATIENCE).await.unwrap()
}

async fn list(app: &TestApp, limit: usize, before: Option<u64>) -> RevisionPage {
    let question = ListRevisions {
        environment: ENVIRONMENT.into(),
        limit,
        before,
    };
    app.handles.store.ask(question, PATIENCE).await.unwrap()
}

fn numbers(page: &RevisionPage) -> Vec<u64> {
    page.revisions.iter().map(|info| info.revision).collect()
}

/// The revision is what was served under its number, byte for byte.
async fn check_revision(app: &TestApp, number: u64, served: &Answer, name: &str) {
    let found = revision(app, number).await.unwrap().unwrap();
    let document = &found.documents[SNAPSHOT_DOCUMENT];
    assert_eq!(document.body, served.body, "{name}: {number}");
    let tag = format!("\"{}\"", document.tag);
    assert_eq!(Some(&tag), served.etag.as_ref(), "{name}: {number}");
}

#[tokio::test]
async fn every_revision_is_listed_and_read_as_it_was_served() {
    on_each(async |backend| {
        let name = backend.name;
        let bed = Bed::on(&backend);
        let (app, served) = at_revision(&bed, 5).await;
        for (number, served) in (1..).zip(&served) {
            check_revision(&app, number, served, name).await;
        }
        assert!(revision(&app, 0).await.unwrap().is_none(), "{name}");
        assert!(revision(&app, 6).await.unwrap().is_none(), "{name}");

        let all = list(&app, 100, None).await;
        assert_eq!(numbers(&all), [5, 4, 3, 2, 1], "{name}");
        assert_eq!((all.has_more, &all.error), (false, &None), "{name}");
        assert_eq!(all.range, Some((1, 5)), "{name}");
        let page = list(&app, 2, Some(4)).await;
        assert_eq!(page.revisions, all.revisions[2..4], "{name}");
        assert!(page.has_more, "{name}");
        assert_eq!(page.range, Some((1, 5)), "{name}");
        let last = list(&app, 2, Some(2)).await;
        assert_eq!((numbers(&last), last.has_more), (vec![1], false), "{name}");
        for info in &all.revisions {
            let found = revision(&app, info.revision).await.unwrap().unwrap();
            assert_eq!(info.hash, found.hash, "{name}");
            assert_eq!(info.size_bytes, found.size_bytes(), "{name}");
            assert_eq!(info.meta.features, found.meta.features, "{name}");
            assert_eq!(info.meta.cause, found.meta.cause, "{name}");
        }
        app.stop().await;
    })
    .await;
}

async fn outage(mut case: Case) {
    let name = &case.name;
    let (app, mut served) = at_revision(&case.bed, 5).await;
    case.trouble.begin().await;
    served.push(publish(&case.bed, &app, 6).await);
    served.push(publish(&case.bed, &app, 7).await);
    // The backup has three generations, and what the database lacks.
    eventually("the backup has it", async || {
        let page = list(&app, 100, None).await;
        assert!(page.error.is_some(), "{name}");
        (numbers(&page) == [7, 6, 5]).then_some(())
    })
    .await;
    let page = list(&app, 2, Some(7)).await;
    assert_eq!(
        (numbers(&page), page.range),
        (vec![6, 5], Some((5, 7))),
        "{name}"
    );
    for (number, served) in (1..).zip(&served).skip(4) {
        check_revision(&app, number, served, name).await;
    }
    for number in [1, 9] {
        let lost = revision(&app, number).await.unwrap_err();
        let is_away = matches!(lost, HistoryError::Unavailable(_));
        assert!(is_away, "{name}: {number}: {lost}");
    }

    case.trouble.end().await;
    until_written(&app).await;
    let whole = list(&app, 100, None).await;
    assert_eq!(numbers(&whole), [7, 6, 5, 4, 3, 2, 1], "{name}");
    assert_eq!(whole.error, None, "{name}");
    for (number, served) in (1..).zip(&served) {
        check_revision(&app, number, served, name).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn during_an_outage_memory_and_backup_answer_and_nothing_is_said_not_to_exist() {
    let mut all = cases_with(Wire::Cut).await;
    all.extend(cases_with(Wire::Blackhole).await);
    join_all(all.into_iter().map(outage)).await;
}

#[tokio::test]
async fn a_harmed_file_is_named_and_hides_no_other() {
    let mut bed = Bed::new();
    let (app, served) = at_revision(&bed, 4).await;
    app.stop().await;
    let folder = bed.dir.path().join("backup/snapshots").join(ENVIRONMENT);
    fs::write(folder.join(format!("{:020}.snapshot", 3)), "rubbish").unwrap();
    bed.database_url = "sqlite:///nonexistent/test.db?mode=rw".to_owned();
    bed.upstream.go_down().await.unwrap();

    let app = bed.start().await;
    let page = list(&app, 100, None).await;
    assert_eq!(numbers(&page), [4, 2]);
    let error = page.error.unwrap();
    assert!(error.contains("00003.snapshot"), "{error}");
    check_revision(&app, 2, &served[1], "sqlite").await;
    let harmed = revision(&app, 3).await.unwrap_err();
    assert!(matches!(harmed, HistoryError::Harmed(_)), "{harmed}");
    app.stop().await;
}
