//! Actors that die of the end of the service.

use std::time::Duration;

use fail::FailScenario;
use tokio::time::Instant;

use crate::{
    points::{Point, points},
    support::{Bed, TestApp},
    triggers::{Armed, Scene, Trigger, policy, settings},
};

/// `shutdown_grace` of these tests.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_at_the_end_neither_delays_it_nor_loses_anything() {
    let scenario = FailScenario::setup();
    let mut bed = Bed::new();
    let mut fired = 0;
    for point in points() {
        if Trigger::of(&point) == Trigger::Stop {
            bed = check(bed, &point).await;
            fired += 1;
        }
    }
    assert!(fired > 5, "{fired} points fired");
    scenario.teardown();
}

async fn check(bed: Bed, point: &Point) -> Bed {
    let name = &point.name;
    let scene = Scene::start(bed).await;
    scene.check_whole(name).await;
    let paused = scene
        .app
        .admin_post("/admin/pause", &format!(r#"{{"reason":"before {name}"}}"#))
        .await;
    assert_eq!(paused.status, 200, "{name}: {paused:?}");
    let before = scene.app.served().await;
    let armed = Armed::new(point);
    let since = Instant::now();
    scene.app.stop().await;
    let took = since.elapsed();
    assert!(armed.has_fired(), "{name} was not reached");
    assert!(took < GRACE, "{name}: the end took {took:?}");
    drop(armed);

    let (bed, told) = (scene.bed, scene.told);
    bed.upstream.go_down().await.unwrap();
    let app = TestApp::spawn_with(settings(&bed, &told), policy()).await;
    assert_eq!(app.served().await, before, "{name}: served again");
    let status = app.status().await;
    assert_eq!(status["sources"]["gb"]["state"], "paused", "{name}");
    let audit = app.admin_get("/admin/audit").await;
    let audit = String::from_utf8_lossy(&audit.body).into_owned();
    assert!(audit.contains(&format!("before {name}")), "{name}: {audit}");
    let resumed = app.admin_post("/admin/resume", "").await;
    assert_eq!(resumed.status, 200, "{name}: {resumed:?}");
    app.stop().await;
    bed.upstream.come_back().unwrap();
    bed
}
