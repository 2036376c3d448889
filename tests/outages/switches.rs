//! A kill switch that is thrown while nothing else is there, and a power cut after it.

use crate::{
    Scene,
    support::{
        databases::{Backend, on_server, sqlite},
        eventually,
        storage::DatabaseTrouble,
    },
};

async fn outlives(backend: Option<Backend>, trouble: DatabaseTrouble) {
    let Some(backend) = backend else { return };
    let mut scene = Scene::new(backend, &[]).await;
    scene.start_loaded().await;
    scene.publish().await;
    scene.bed.upstream.go_down().await.unwrap();
    scene.storage.break_database(trouble).await;
    let set = scene.force_counter(99, "1h").await;
    assert_eq!(set["durable"], true, "{trouble:?}");
    assert_eq!(scene.served_counter().await, Some(99), "{trouble:?}");
    let served = scene.face().await;
    scene.kill();

    scene.start().await;
    assert_eq!(scene.face().await, served, "{trouble:?}");
    eventually("the database still lacks it", async || {
        let status = scene.status().await;
        let is_pending = status["queues"]["store_pending"] != 0;
        (is_pending || status["database"]["up"] == false).then_some(())
    })
    .await;
    let path = format!("/admin/environments/{}/overrides", crate::ENVIRONMENT);
    let listed = scene.admin_get(&path).await.json();
    assert_eq!(listed["overrides"][0]["id"], set["id"], "{trouble:?}");
    scene.storage.mend_database(trouble).await;
    scene.until_written().await;
    scene.stop().await;

    // The database has it by now: it alone gives it back.
    scene.storage.remove_backup();
    scene.start().await;
    assert_eq!(scene.face().await, served, "{trouble:?}");
    scene.stop().await;
}

#[tokio::test]
async fn a_kill_switch_outlives_sigkill_with_a_database_that_is_locked() {
    outlives(Some(sqlite()), DatabaseTrouble::Locked).await;
}

#[tokio::test]
async fn a_kill_switch_outlives_sigkill_with_a_database_that_refuses() {
    let backend = on_server("postgres", "STITCHD_TEST_POSTGRES");
    outlives(backend, DatabaseTrouble::Gone).await;
}

#[tokio::test]
async fn a_kill_switch_outlives_sigkill_with_a_database_that_hangs() {
    let backend = on_server("postgres", "STITCHD_TEST_POSTGRES");
    outlives(backend, DatabaseTrouble::Hanging).await;
}
