//! A wall clock that somebody sets.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    Scene,
    support::{
        SOURCE,
        databases::{on_server, sqlite},
        eventually,
        storage::DatabaseTrouble,
    },
};

const HOUR: i64 = 3600;
const OFTEN: (&str, &str) = ("\"1h\"", "\"200ms\"");

#[tokio::test]
async fn a_clock_that_jumps_expires_nothing_stops_nothing_and_publishes_nothing() {
    let Some(mut scene) = Scene::with_clock(sqlite(), &[OFTEN]).await else {
        return;
    };
    scene.start_loaded().await;
    let before = scene.face().await;
    for ahead in [3 * HOUR, -5 * HOUR, HOUR / 2, -HOUR, 0] {
        scene.set_clock(ahead);
        // Polls go on; the first may have begun before.
        scene.until_polled("unchanged", 2.0).await;
        assert_eq!(scene.face().await, before, "{ahead} s ahead");
        assert!(!scene.is_stale().await, "{ahead} s ahead");
        let status = scene.status().await;
        let age = status["sources"][SOURCE]["age_seconds"].as_f64().unwrap();
        assert!((0.0..60.0).contains(&age), "{age} s old, {ahead} s ahead");
        let name = format!("stitchd_source_age_seconds{{source=\"{SOURCE}\"}}");
        let age = scene.metric(&name).await.unwrap();
        assert!((0.0..60.0).contains(&age), "{age} s old, {ahead} s ahead");
    }
    assert_eq!(scene.revision().await, 1);
    let log = scene.stop().await.without_slow_disks();
    log.assert_lines("WARN", "", 0);
    log.assert_lines("ERROR", "", 0);
    log.assert_lines("INFO", "published revision", 1);
}

/// By the wall clock it is over, or has hours to go.
#[tokio::test]
async fn an_override_lasts_as_long_as_it_was_given_whatever_the_clock_says() {
    let Some(mut scene) = Scene::with_clock(sqlite(), &[]).await else {
        return;
    };
    scene.start_loaded().await;
    scene.publish().await;
    let set_at = Instant::now();
    scene.force_counter(99, "10s").await;
    scene.set_clock(3 * HOUR);
    // Overrides that end are looked for each second.
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(scene.served_counter().await, Some(99));
    scene.set_clock(-5 * HOUR);
    eventually("it is over", async || {
        (scene.served_counter().await == Some(1)).then_some(())
    })
    .await;
    let lasted = set_at.elapsed();
    assert!(lasted >= Duration::from_secs(10), "{lasted:?}");
    scene.set_clock(0);
    scene.kill();

    // It was taken back for good.
    scene.start().await;
    scene.until_written().await;
    assert_eq!(scene.served_counter().await, Some(1));
    scene.stop().await;
}

/// By the wall clock the last success lies hours ahead, so that its age would be nothing for as long.
#[tokio::test]
async fn a_source_goes_stale_in_time_although_the_clock_was_set_back() {
    let fresh_for = (
        "poll.retries = 1",
        "poll.retries = 1\n            stale_after = \"2s\"",
    );
    let Some(mut scene) = Scene::with_clock(sqlite(), &[OFTEN, fresh_for]).await else {
        return;
    };
    scene.set_clock(5 * HOUR);
    scene.start_loaded().await;
    scene.bed.upstream.go_down().await.unwrap();
    scene.set_clock(0);
    eventually("it is stale", async || scene.is_stale().await.then_some(())).await;
    let status = scene.status().await;
    let age = status["sources"][SOURCE]["age_seconds"].as_f64().unwrap();
    assert!(age > 2.0, "{age}");

    // A restart does not make it younger than the process.
    scene.stop().await;
    scene.start().await;
    eventually("it is stale again", async || {
        scene.is_stale().await.then_some(())
    })
    .await;
    scene.stop().await;
}

/// A start takes the later of what database and backup have. What came later was accepted at an earlier time.
#[tokio::test]
async fn a_clock_that_is_set_back_undoes_nothing_after_a_restart() {
    let Some(backend) = on_server("postgres", "STITCHD_TEST_POSTGRES") else {
        return;
    };
    let Some(mut scene) = Scene::with_clock(backend, &[]).await else {
        return;
    };
    scene.set_clock(5 * HOUR);
    scene.start_loaded().await;
    scene.publish().await;
    scene.until_written().await;
    scene.set_clock(0);
    scene.storage.break_database(DatabaseTrouble::Gone).await;
    scene.publish().await;
    eventually("the backup has it", async || {
        let status = scene.status().await;
        (status["environments"][crate::ENVIRONMENT]["durable"] == true).then_some(())
    })
    .await;
    let (served, revision) = (scene.face().await, scene.revision().await);
    scene.kill();

    scene.bed.upstream.go_down().await.unwrap();
    scene.storage.mend_database(DatabaseTrouble::Gone).await;
    scene.start().await;
    scene.until_written().await;
    // The stitch from the stored inputs comes before the first poll ends.
    scene.poll().await;
    assert_eq!(scene.face().await, served);
    assert_eq!(scene.revision().await, revision);
    scene.stop().await;
}
