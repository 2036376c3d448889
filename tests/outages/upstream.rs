//! An upstream that is gone for a week.

use crate::{
    Scene,
    support::{SOURCE, databases::sqlite, eventually},
};

const DAY: i64 = 86_400;
const OFTEN: (&str, &str) = (
    "\"1h\"",
    "\"200ms\"\n            poll.failure_backoff_max = \"300ms\"",
);

async fn age_days(scene: &Scene) -> f64 {
    let name = format!("stitchd_source_age_seconds{{source=\"{SOURCE}\"}}");
    scene.metric(&name).await.unwrap() / 86_400.0
}

#[tokio::test]
async fn an_upstream_that_is_gone_for_a_week_changes_no_byte_and_fills_no_log() {
    let Some(mut scene) = Scene::with_clock(sqlite(), &[OFTEN]).await else {
        return;
    };
    scene.start_loaded().await;
    let before = scene.face().await;
    scene.bed.upstream.go_down().await.unwrap();
    for day in 1..=7 {
        scene.set_clock(day * DAY);
        scene.until_polled("failed", 3.0).await;
        assert_eq!(scene.face().await, before, "day {day}");
        assert!(scene.is_stale().await, "day {day}");
        let age = age_days(&scene).await;
        #[expect(clippy::cast_precision_loss, reason = "seven at most")]
        let days = day as f64;
        assert!(
            (days..days + 0.1).contains(&age),
            "{age} days old on day {day}"
        );
        if day == 4 {
            // Whoever is restarted meanwhile knows how old it is, and says so once.
            let log = scene.kill().without_slow_disks();
            log.assert_lines("WARN", "", 1);
            log.assert_lines("ERROR", "is stale", 1);
            log.assert_lines("ERROR", "", 1);
            scene.start().await;
            assert_eq!(scene.face().await, before, "after the restart");
            assert!(scene.is_stale().await, "after the restart");
        }
    }
    let ready = scene.admin_get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert!(ready.json()["degraded"].to_string().contains(SOURCE));
    assert_eq!(scene.revision().await, 1);

    scene.bed.upstream.come_back().unwrap();
    scene.process().logged("is well again").await;
    eventually("it is fresh", async || {
        (!scene.is_stale().await).then_some(())
    })
    .await;
    // The same content is no news, however long it was away.
    assert_eq!(scene.revision().await, 1);
    assert_eq!(scene.face().await, before, "it is back");
    scene.publish().await;
    let log = scene.stop().await.without_slow_disks();
    log.assert_lines("WARN", &format!("poll of {SOURCE} failed"), 1);
    log.assert_lines("ERROR", "is stale", 1);
    log.assert_lines("INFO", "is well again", 1);
    log.assert_lines("WARN", "", 1);
    log.assert_lines("ERROR", "", 1);
}
