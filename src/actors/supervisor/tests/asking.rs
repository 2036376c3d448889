//! What callers are told while an actor is up, restarting, busy, or gone.

use super::{
    probe::{Forever, PATIENCE},
    *,
};
use crate::actors::AskError;

const SHORT: Duration = Duration::from_millis(50);

#[actix_rt::test]
async fn a_question_to_an_actor_that_is_not_up_fails_at_once() {
    let rig = Rig::prepare(policy());
    let since = Instant::now();
    assert_eq!(
        rig.slot.ask(Hello, PATIENCE).await,
        Err(AskError::Down("probe"))
    );
    assert!(since.elapsed() < Duration::from_secs(1));
    assert!(!rig.slot.tell(Hello), "nothing is left for nobody");
    assert_eq!(
        rig.slot.ask_again(Hello, SHORT).await,
        Err(AskError::Down("probe")),
        "asking again ends with the time that it was given"
    );
}

#[actix_rt::test]
async fn a_question_that_takes_too_long_is_not_asked_again() {
    let rig = Rig::start(policy()).await;
    let timeout = Err(AskError::Timeout("probe"));
    assert_eq!(rig.slot.ask(Forever, SHORT).await, timeout);
    assert_eq!(rig.slot.ask_again(Forever, SHORT).await, timeout);
    assert_eq!(rig.slot.starts(), 1);
    rig.stop().await;
}

#[actix_rt::test]
async fn what_is_queued_or_in_flight_when_an_actor_dies_is_answered_as_closed() {
    let rig = Rig::start(policy()).await;
    let in_flight = rig.slot.ask(Forever, PATIENCE);
    let struck = async {
        sleep(Duration::from_millis(5)).await;
        let strike = rig.slot.ask(Strike(Blow::Panic), PATIENCE);
        let queued_behind = rig.slot.ask(Hello, PATIENCE);
        tokio::join!(strike, queued_behind)
    };
    let (in_flight, (struck, queued)) = tokio::join!(in_flight, struck);
    let closed = AskError::Closed("probe");
    assert_eq!((in_flight, struck), (Err(closed), Err(closed)));
    // The strike may have been handled before the question behind it was sent.
    assert!(
        queued == Err(closed) || queued == Err(AskError::Down("probe")),
        "{queued:?}"
    );
    rig.stop().await;
}

#[actix_rt::test]
async fn asking_again_hides_every_restart_from_the_caller() {
    let rig = Rig::start(policy()).await;
    for round in 2..8 {
        let question = rig.slot.ask_again(Hello, PATIENCE);
        let strike = rig.slot.ask(Strike(Blow::Panic), PATIENCE);
        let (_, answer) = tokio::join!(strike, question);
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(rig.slot.ask_again(Hello, PATIENCE).await, Ok(round));
    }
    rig.stop().await;
}

#[actix_rt::test]
async fn what_is_left_in_a_mailbox_is_bounded() {
    let rig = Rig::start(policy()).await;
    strike(&rig.slot, Blow::Wait).await;
    let taken = (0..1000).filter(|_| rig.slot.tell(Hello)).count();
    // 16 of the mailbox, one of its one kept address; pings of the watchdog may have taken some.
    assert!((10..=17).contains(&taken), "{taken} of 1000 were taken");
    eventually("the hung actor is replaced", || rig.slot.starts() == 2).await;
    rig.stop().await;
}
