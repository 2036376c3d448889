//! Supervision with small actors that die on demand; `tests/supervision` does the same to the real ones under load.

mod asking;
mod facts;
mod probe;
mod stopping;

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::actors::slot::Member;

use self::probe::{Blow, Hello, Rig, Strike, eventually, policy, strike};

/// Strikes an actor once and sees it come back as a new instance, its end counted under `cause`.
async fn check(blow: Blow, cause: &'static str, text: &str) {
    let rig = Rig::start(policy()).await;
    strike(&rig.slot, blow).await;
    let what = format!("{blow:?} is noticed");
    eventually(&what, || !rig.slot.status().restarts.is_empty()).await;
    let number = rig.slot.ask_again(Hello, probe::PATIENCE).await;
    assert_eq!(number, Ok(2), "{blow:?}: a new instance answers");
    let status = rig.slot.status();
    assert_eq!(status.restarts, [(cause, 1)].into(), "{blow:?}");
    assert_eq!(status.last_exit.as_deref(), Some(text), "{blow:?}");
    assert!(status.is_up && !status.is_degraded, "{blow:?}: {status:?}");
    let neighbour = rig.neighbour.status();
    assert!(neighbour.is_up && neighbour.restarts.is_empty());
    assert_eq!(rig.neighbour.starts(), 1, "{blow:?}: others are left alone");
    // Timers belong to an incarnation: the new one has armed its own.
    let ticks = rig.state.ticks_of(2);
    eventually("the timer runs", || rig.state.ticks_of(2) > ticks).await;
    rig.stop().await;
}

#[actix_rt::test]
async fn a_panic_ends_an_actor_wherever_its_own_task_runs_it() {
    for blow in [
        Blow::Panic,
        Blow::PanicInSpawn,
        Blow::PanicInTimer,
        Blow::PanicInActFuture,
    ] {
        check(blow, "panic", "panicked: boom").await;
    }
}

#[actix_rt::test]
async fn an_actor_that_stops_by_itself_comes_back() {
    check(Blow::Stop, "stopped", "stopped by itself").await;
}

#[actix_rt::test]
async fn an_actor_whose_thread_ends_comes_back_on_another() {
    check(Blow::StopArbiter, "arbiter_gone", "its thread ended").await;
}

#[actix_rt::test]
async fn an_actor_that_waits_for_ever_or_blocks_its_thread_is_hung() {
    check(Blow::Wait, "hung", "stopped answering").await;
    check(Blow::Block, "hung", "stopped answering").await;
}

#[actix_rt::test]
async fn the_thread_of_a_hung_actor_is_abandoned_and_ends_when_it_unblocks() {
    let rig = Rig::start(policy()).await;
    strike(&rig.slot, Blow::Block).await;
    eventually("the next one is up", || rig.slot.starts() == 2).await;
    assert_eq!(rig.state.alive(), 2, "the blocked one still sits there");
    eventually("the blocked one is gone", || rig.state.alive() == 1).await;
    assert_eq!(
        rig.slot.ask(Hello, probe::PATIENCE).await,
        Ok(2),
        "its end does not touch the new one"
    );
    assert_eq!(rig.slot.status().restarts, [("hung", 1)].into());
    rig.stop().await;
}

#[actix_rt::test]
async fn a_panic_in_a_plain_future_reaches_its_sender_alone() {
    let rig = Rig::start(policy()).await;
    let answer = rig.slot.ask(probe::PanicBeside, probe::PATIENCE).await;
    assert_eq!(answer, Err(crate::actors::AskError::Closed("probe")));
    assert_eq!(rig.slot.ask(Hello, probe::PATIENCE).await, Ok(1));
    assert!(rig.slot.status().restarts.is_empty());
    rig.stop().await;
}

#[actix_rt::test]
async fn an_actor_that_dies_at_its_start_is_never_seen_by_callers() {
    let rig = Rig::prepare(policy());
    rig.state.fail_starts(2, 2);
    let rig = rig.run();
    assert_eq!(rig.slot.ask_again(Hello, probe::PATIENCE).await, Ok(5));
    assert_eq!(
        rig.slot.starts(),
        1,
        "published once, by the one that came up"
    );
    assert_eq!(rig.slot.status().restarts, [("panic", 4)].into());
    rig.stop().await;
}

#[actix_rt::test]
async fn an_actor_that_hangs_at_its_start_is_given_up() {
    let rig = Rig::prepare(policy());
    rig.state.block_starts(1);
    let rig = rig.run();
    assert_eq!(rig.slot.ask_again(Hello, probe::PATIENCE).await, Ok(2));
    assert_eq!(rig.slot.status().restarts, [("never_came_up", 1)].into());
    rig.stop().await;
}

#[actix_rt::test]
async fn past_the_limit_an_actor_is_degraded_and_retried_until_it_is_calm() {
    let patience = Policy {
        restarts_max: 3,
        // Shorter than what four waits of the longest kind take: rare restarts must not look like health.
        window: Duration::from_millis(300),
        backoff_max: Duration::from_millis(100),
        calm: Duration::from_millis(400),
        ..policy()
    };
    let rig = Rig::prepare(patience);
    rig.state.fail_starts(0, 10);
    let rig = rig.run();
    eventually("it is degraded", || rig.slot.status().is_degraded).await;
    let since = Instant::now();
    let before = rig.slot.status().restarts["panic"];
    eventually("it is tried again", || {
        let status = rig.slot.status();
        assert!(
            status.is_degraded || status.is_up,
            "degraded until it is up"
        );
        status.restarts["panic"] >= before + 4
    })
    .await;
    assert!(
        since.elapsed() >= patience.backoff_max * 3,
        "at the longest backoff, not in a tight loop"
    );
    assert!(rig.slot.wait_up(probe::PATIENCE).await);
    assert!(rig.slot.status().is_degraded, "up, but for how long?");
    eventually("it counts as well again", || !rig.slot.status().is_degraded).await;
    // All is forgotten: the next end is a first one.
    strike(&rig.slot, Blow::Panic).await;
    eventually("it is back", || rig.slot.starts() == 2).await;
    assert!(!rig.slot.status().is_degraded);
    rig.stop().await;
}

#[actix_rt::test]
async fn a_lost_loop_is_started_again_and_its_actor_does_not_go_on_alone() {
    let rig = Rig::start(policy()).await;
    rig.abort_loop(0);
    eventually("another is up", || rig.slot.starts() == 2).await;
    assert_eq!(rig.slot.ask_again(Hello, probe::PATIENCE).await, Ok(2));
    eventually("the orphan is gone", || rig.state.alive() == 1).await;
    let ticks = rig.state.ticks_of(1);
    eventually("the new timer runs", || rig.state.ticks_of(2) > 2).await;
    assert_eq!(rig.state.ticks_of(1), ticks, "the orphan's timer is gone");
    assert_eq!(rig.neighbour.starts(), 1);
    rig.stop().await;
}

#[actix_rt::test]
async fn the_supervisor_dies_without_losing_a_child() {
    let rig = Rig::start(policy()).await;
    strike(&rig.supervisor, Blow::Panic).await;
    eventually("it is back", || rig.supervisor.starts() == 2).await;
    assert_eq!(rig.supervisor.status().restarts, [("panic", 1)].into());
    assert_eq!(rig.slot.ask(Hello, probe::PATIENCE).await, Ok(1));
    assert_eq!((rig.slot.starts(), rig.neighbour.starts()), (1, 1));
    // And the new one looks after the loops.
    rig.abort_loop(0);
    eventually("another is up", || rig.slot.starts() == 2).await;
    rig.stop().await;
}
