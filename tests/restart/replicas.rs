//! Two replicas on one database.

use serde_json::json;

use crate::{
    bed_on, counter, face, numbers, store,
    support::{Bed, TestApp, databases::on_each, eventually},
};

/// A second replica: the same database and upstream, a backup of its own.
async fn start_second(bed: &Bed) -> (TestApp, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("{}/backup", dir.path().display());
    let own = format!("{}/backup", bed.dir.path().display());
    (
        TestApp::spawn(crate::settings_with(bed, &own, &path)).await,
        dir,
    )
}

/// Both serve this revision. A database that is slow to answer is not waited for, so a number may be put right later.
async fn until_at(first: &TestApp, second: &TestApp, revision: u64) {
    let what = format!("both are at {revision}");
    eventually(&what, async || {
        ((first.revision(), second.revision()) == (revision, revision)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_same_content_has_one_number_on_all_replicas() {
    on_each(async |backend| {
        let bed = bed_on(&backend);
        let (first, (second, _dir)) = tokio::join!(bed.start(), start_second(&bed));
        tokio::join!(first.until_revision(1), second.until_revision(1));
        assert_eq!((first.revision(), second.revision()), (1, 1));
        for value in 1..4 {
            bed.upstream
                .set_feature("counter", json!({"defaultValue": value}));
            tokio::join!(first.poll(), second.poll());
            let expected = value + 1;
            until_at(&first, &second, expected).await;
            let (one, other) = (face(&first).await, face(&second).await);
            assert_eq!(one.etags(), other.etags(), "{}", backend.name);
        }
        // The second sleeps through a revision.
        for value in 4..6 {
            bed.upstream
                .set_feature("counter", json!({"defaultValue": value}));
            first.poll().await;
        }
        second.poll().await;
        until_at(&first, &second, 6).await;
        assert_eq!(face(&first).await.etags(), face(&second).await.etags());
        let kept = store(&backend.url, bed.dir.path());
        assert_eq!(numbers(&kept).await, [1, 2, 3, 4, 5, 6]);
        first.stop().await;
        second.stop().await;
    })
    .await;
}

#[tokio::test]
async fn different_contents_never_share_a_number() {
    on_each(async |backend| {
        let bed = bed_on(&backend);
        let other = bed_on(&backend);
        let first = bed.start_loaded().await;
        let second = other.start_loaded().await;
        for value in 1..4 {
            bed.upstream
                .set_feature("counter", json!({"defaultValue": value}));
            other
                .upstream
                .set_feature("counter", json!({"defaultValue": 100 + value}));
            tokio::join!(first.poll(), second.poll());
            eventually("the numbers differ", async || {
                (first.revision() != second.revision()).then_some(())
            })
            .await;
            assert_eq!(counter(&first).await, value);
            assert_eq!(counter(&second).await, 100 + value);
        }
        let kept = store(&backend.url, bed.dir.path());
        eventually("both contents are in the history", async || {
            let there = numbers(&kept).await;
            let served = [first.revision(), second.revision()];
            served
                .iter()
                .all(|number| there.contains(number))
                .then_some(())
        })
        .await;
        assert!(first.revision().max(second.revision()) >= 7);
        first.stop().await;
        second.stop().await;
    })
    .await;
}
