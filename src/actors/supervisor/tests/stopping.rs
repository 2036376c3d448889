//! The orderly end, and actors that make trouble even then.

use std::sync::atomic::Ordering;

use super::{
    probe::{PATIENCE, Probe, State},
    *,
};

#[actix_rt::test]
async fn children_are_started_in_order_and_stopped_in_reverse() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut tree = Tree::new(Arc::default(), policy());
    let mut slots = Vec::new();
    for name in ["first", "second", "third"] {
        let slot = Slot::<Probe>::new("probe", name);
        let (log, state) = (Arc::clone(&log), Arc::new(State::default()));
        tree.add(&slot, move || {
            log.lock().push(name);
            Probe::new(Arc::clone(&state))
        });
        slots.push(slot);
    }
    tree.start_missing().await;
    assert_eq!(*log.lock(), ["first", "second", "third"]);
    let watch = async {
        let mut order = Vec::new();
        while order.len() < slots.len() {
            for slot in slots.iter().filter(|slot| !slot.is_up()) {
                let name = slot.name().to_owned();
                if !order.contains(&name) {
                    order.push(name);
                }
            }
            tokio::task::yield_now().await;
        }
        order
    };
    let ((), order) = tokio::join!(tree.stop(PATIENCE), watch);
    assert_eq!(order, ["probe:third", "probe:second", "probe:first"]);
    tree.start_missing().await;
    assert_eq!(
        log.lock().len(),
        3,
        "what was told to quit is not started again"
    );
}

#[actix_rt::test]
async fn an_actor_that_dies_of_its_last_words_comes_back_to_say_them() {
    let rig = Rig::start(policy()).await;
    rig.state.fail_quits(2);
    let (state, slot) = (Arc::clone(&rig.state), Arc::clone(&rig.slot));
    rig.stop().await;
    assert_eq!(state.quits.load(Ordering::SeqCst), 1);
    assert_eq!(slot.status().restarts, [("panic", 2)].into());
    eventually("nothing is left", || state.alive() == 0).await;
}

#[actix_rt::test]
async fn an_actor_that_cannot_say_its_last_words_does_not_hold_up_the_end() {
    let rig = Rig::start(policy()).await;
    rig.state.fail_quits(usize::MAX);
    let (state, neighbours) = (Arc::clone(&rig.state), Arc::clone(&rig.neighbours));
    assert!(rig.stop().await < Duration::from_secs(10));
    assert_eq!(state.quits.load(Ordering::SeqCst), 0);
    assert_eq!(neighbours.quits.load(Ordering::SeqCst), 1);
    assert!(
        state.made() <= 5,
        "it was not tried for ever: {}",
        state.made()
    );
    eventually("nothing is left", || state.alive() == 0).await;
}

#[actix_rt::test]
async fn an_actor_that_waits_for_its_restart_comes_back_for_its_last_words() {
    let patience = Policy {
        restarts_max: 0,
        backoff_max: Duration::from_mins(10),
        ..policy()
    };
    let rig = Rig::start(patience).await;
    strike(&rig.slot, Blow::Panic).await;
    eventually("it is given up for long", || rig.slot.status().is_degraded).await;
    let state = Arc::clone(&rig.state);
    rig.stop().await;
    assert_eq!((state.made(), state.quits.load(Ordering::SeqCst)), (2, 1));
}

#[actix_rt::test]
async fn hung_actors_share_one_limit_and_the_first_child_has_its_own() {
    let patience = Policy {
        // The watchdog must not come first.
        pings_missed_max: 1000,
        ..policy()
    };
    let rig = Rig::start(patience).await;
    strike(&rig.neighbour, Blow::Wait).await;
    let since = Instant::now();
    rig.tree.stop(Duration::from_millis(300)).await;
    assert!(since.elapsed() < Duration::from_secs(5));
    assert_eq!(rig.state.quits.load(Ordering::SeqCst), 1);
    assert_eq!(rig.neighbours.quits.load(Ordering::SeqCst), 0);
}
