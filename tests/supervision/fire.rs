//! Each fail point by itself.

use fail::FailScenario;

use crate::{
    load::Load,
    points::{Point, points},
    support::{Bed, eventually},
    triggers::{Armed, Scene, Trigger},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_panics_is_back_and_no_reader_notices() {
    let scenario = FailScenario::setup();
    let scene = Scene::start(Bed::new()).await;
    let load = Load::start(&scene.app);
    let mut fired = 0;
    for point in points() {
        let trigger = Trigger::of(&point);
        // The end of the service has tests of its own.
        if trigger != Trigger::Stop {
            check(&scene, &load, &point, trigger).await;
            fired += 1;
        }
    }
    assert!(fired > 30, "{fired} points fired");
    assert!(load.reads() > 1000, "{} reads", load.reads());
    load.end("all points").await;
    scene.app.stop().await;
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_supervisor_comes_back_even_when_its_own_supervision_is_lost() {
    let scenario = FailScenario::setup();
    let scene = Scene::start(Bed::new()).await;
    let point = |name: &str| points().into_iter().find(|point| point.name == name);
    // In this order: after a death the loop goes round at once.
    let loss = Armed::new(&point("supervisor.loop").unwrap());
    let death = Armed::new(&point("supervisor.Ping").unwrap());
    for armed in [&death, &loss] {
        let name = &armed.point.name;
        eventually(name, async || armed.has_fired().then_some(())).await;
    }
    scene.until_all_up("both").await;
    // Loops that are lost from now on are started again.
    check_death_of_a_loop(&scene).await;
    scene.app.stop().await;
    scenario.teardown();
}

async fn check_death_of_a_loop(scene: &Scene) {
    let is_loop = |point: &Point| point.name == "supervisor.loop";
    let point = points().into_iter().find(is_loop).unwrap();
    let loss = Armed::new(&point);
    scene.pull(Trigger::Death).await;
    eventually("a loop is lost", async || loss.has_fired().then_some(())).await;
    scene.until_all_up("the loss of a loop").await;
    scene.check_whole("the loss of a loop").await;
}

async fn check(scene: &Scene, load: &Load, point: &Point, trigger: Trigger) {
    let name = &point.name;
    let mut expected = scene.restarts();
    // Whoever dies so that its supervision goes round.
    let actor = match trigger {
        Trigger::Death => "client",
        _ => point.actor(),
    };
    if point.is_deadly {
        let causes = expected.get_mut(&Scene::member_of(actor)).unwrap();
        *causes.entry("panic").or_default() += 1;
    }
    let armed = Armed::new(point);
    eventually(&format!("{name} is reached"), async || {
        scene.pull(trigger).await;
        // The loop goes round after its actor's death, not with it.
        if trigger == Trigger::Death {
            eventually(name, async || armed.has_fired().then_some(())).await;
        }
        armed.has_fired().then_some(())
    })
    .await;
    if point.is_deadly {
        eventually(&format!("the end at {name} is counted"), async || {
            (scene.restarts() == expected).then_some(())
        })
        .await;
    }
    scene.until_all_up(name).await;
    scene.check_whole(name).await;
    assert_eq!(scene.restarts(), expected, "{name}: nothing else has died");
    load.check(name);
}
