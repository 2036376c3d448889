//! The other ways in which an actor ends: it hangs, its thread ends, it stops by itself.

use std::sync::{
    Arc, Condvar, Mutex,
    atomic::{AtomicBool, Ordering},
};

use actix_rt::Arbiter;
use fail::FailScenario;

use crate::{
    load::Load,
    points::{Point, points},
    support::{Bed, eventually},
    triggers::{Scene, Trigger},
};

/// Blocks the thread that first comes to a fail point, until it is let go.
struct Hang {
    name: String,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Hang {
    fn at(name: &str) -> Self {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let (for_thread, is_taken) = (Arc::clone(&gate), AtomicBool::new(false));
        let hang_once = move || {
            if is_taken.swap(true, Ordering::SeqCst) {
                return;
            }
            let (is_open, opened) = &*for_thread;
            let guard = is_open.lock().unwrap();
            drop(opened.wait_while(guard, |is_open| !*is_open).unwrap());
        };
        fail::cfg_callback(name, hang_once).unwrap();
        Self {
            name: name.to_owned(),
            gate,
        }
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        fail::remove(&self.name);
        let (is_open, opened) = &*self.gate;
        *is_open.lock().unwrap() = true;
        opened.notify_all();
    }
}

/// Ends the thread that first comes to a fail point, as soon as it has nothing to do.
struct Beheading {
    name: String,
    is_done: Arc<AtomicBool>,
}

impl Beheading {
    fn at(name: &str) -> Self {
        let is_done = Arc::new(AtomicBool::new(false));
        let for_thread = Arc::clone(&is_done);
        let end_once = move || {
            if !for_thread.swap(true, Ordering::SeqCst) {
                Arbiter::current().stop();
            }
        };
        fail::cfg_callback(name, end_once).unwrap();
        Self {
            name: name.to_owned(),
            is_done,
        }
    }

    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::SeqCst)
    }
}

impl Drop for Beheading {
    fn drop(&mut self) {
        fail::remove(&self.name);
    }
}

/// `store` of `store`, `poller` of `poller:gb`.
fn kind(member: &str) -> &str {
    member.split(':').next().unwrap()
}

/// Waits until exactly this end is counted for exactly this actor, and everything works again.
async fn until_back(scene: &Scene, load: &Load, member: &str, cause: &'static str, what: &str) {
    let counted = async || {
        let restarts = scene.restarts();
        restarts[member].contains_key(cause).then_some(())
    };
    eventually(&format!("{what} is counted as {cause}"), counted).await;
    scene.until_all_up(what).await;
    load.check(what);
}

/// Nothing but this has ended anything; the metric says what the status says.
async fn check_counted(scene: &Scene, member: &str, cause: &str, number: u64, what: &str) {
    for (name, causes) in scene.restarts() {
        let expected: &[(&str, u64)] = &[(cause, number)];
        let expected = if name == member { expected } else { &[] };
        let found: Vec<(&str, u64)> = causes.into_iter().collect();
        assert_eq!(found, expected, "{what}: ends of {name}");
    }
    let metrics = scene.app.admin_get("/metrics").await;
    let line =
        format!("stitchd_actor_restarts_total{{actor=\"{member}\",cause=\"{cause}\"}} {number}\n");
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(text.contains(&line), "{what}: {line} is not in {text}");
    let status = scene.app.status().await;
    let actor = &status["actors"][member];
    assert_eq!(actor["up"], true, "{what}: {status}");
}

/// Every actor that the status lists, each in a service of its own, so that counts are exact.
async fn each_member(scenario: impl AsyncFn(&Scene, &Load, &str)) {
    let mut bed = Bed::new();
    let members = [
        "store",
        "config_service",
        "client:gb",
        "poller:gb",
        "supervisor",
        "token",
        "sticky",
        "announcer",
    ];
    for member in members {
        let scene = Scene::start(bed).await;
        let status = scene.app.status().await;
        let listed = status["actors"].as_object().unwrap();
        assert_eq!(listed.len(), members.len(), "{listed:?}");
        assert!(listed.contains_key(member), "{listed:?}");
        let load = Load::start(&scene.app);
        scene.check_whole(member).await;
        scenario(&scene, &load, member).await;
        scene.check_whole(member).await;
        load.end(member).await;
        scene.app.stop().await;
        bed = scene.bed;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_hangs_is_replaced_and_no_reader_notices() {
    let scenario = FailScenario::setup();
    each_member(async |scene, load, member| {
        let hang = Hang::at(&format!("{}.Ping", kind(member)));
        until_back(scene, load, member, "hung", member).await;
        scene.check_whole(member).await;
        // Its thread goes on now, and finds that it was given up.
        drop(hang);
        scene.check_whole(member).await;
        check_counted(scene, member, "hung", 1, member).await;
    })
    .await;
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_stops_by_itself_is_started_again() {
    let scenario = FailScenario::setup();
    each_member(async |scene, load, member| {
        let point = format!("{}.Ping", kind(member));
        fail::cfg(point.as_str(), "1*return").unwrap();
        until_back(scene, load, member, "stopped", member).await;
        fail::remove(&point);
        check_counted(scene, member, "stopped", 1, member).await;
    })
    .await;
    scenario.teardown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_whose_thread_ends_gets_another_one() {
    let scenario = FailScenario::setup();
    each_member(async |scene, load, member| {
        let end = Beheading::at(&format!("{}.Ping", kind(member)));
        until_back(scene, load, member, "arbiter_gone", member).await;
        assert!(end.is_done());
        check_counted(scene, member, "arbiter_gone", 1, member).await;
    })
    .await;
    scenario.teardown();
}

/// The thread ends in the middle of every piece of work that an actor does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_ends_at_work_loses_nothing() {
    let scenario = FailScenario::setup();
    let scene = Scene::start(Bed::new()).await;
    let load = Load::start(&scene.app);
    let is_on_an_arbiter = |point: &Point| {
        let is_loop = Trigger::of(point) == Trigger::Death;
        let is_blocking = ["config_service.blocking", "store.compress"];
        !is_loop && !is_blocking.contains(&point.name.as_str())
    };
    let mut ended = 0;
    for point in points().into_iter().filter(is_on_an_arbiter) {
        let (name, trigger) = (&point.name, Trigger::of(&point));
        // The end of the service has tests of its own.
        if trigger == Trigger::Stop {
            continue;
        }
        let member = Scene::member_of(point.actor());
        let mut expected = scene.restarts();
        let causes = expected.get_mut(&member).unwrap();
        *causes.entry("arbiter_gone").or_default() += 1;
        let end = Beheading::at(name);
        eventually(&format!("{name} is reached"), async || {
            scene.pull(trigger).await;
            end.is_done().then_some(())
        })
        .await;
        eventually(&format!("the end at {name} is counted"), async || {
            (scene.restarts() == expected).then_some(())
        })
        .await;
        drop(end);
        scene.until_all_up(name).await;
        scene.check_whole(name).await;
        assert_eq!(scene.restarts(), expected, "{name}: nothing else has ended");
        load.check(name);
        ended += 1;
    }
    assert!(ended > 30, "{ended} ends");
    load.end("all ends").await;
    scene.app.stop().await;
    scenario.teardown();
}
