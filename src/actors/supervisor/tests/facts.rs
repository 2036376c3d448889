//! What actix 0.13 does by itself: the facts that slots and supervision are designed around.

use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{
    ActorContext as _, Addr, AtomicResponse, MailboxError, Message, ResponseFuture, dev::SendError,
    fut::wrap_future,
};
use actix_rt::Arbiter;
use tokio::sync::oneshot;

use super::{probe::PATIENCE, *};

/// Counts what it handles.
#[derive(Default)]
struct Plain {
    handled: usize,
    total: Arc<AtomicUsize>,
}

impl Actor for Plain {
    type Context = Context<Self>;
}

impl actix::Supervised for Plain {}

#[derive(Message)]
#[rtype(result = "usize")]
struct Count;

#[derive(Message)]
#[rtype(result = "()")]
struct Die;

#[derive(Message)]
#[rtype(result = "()")]
struct End;

/// Nothing else is handled until the sender is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct Hold(oneshot::Receiver<()>);

/// Answered by a plain future once the sender is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct Beside(oneshot::Receiver<()>);

/// Answered atomically once the sender is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct Alone(oneshot::Receiver<()>);

impl actix::Handler<Count> for Plain {
    type Result = usize;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> usize {
        self.total.fetch_add(1, Ordering::SeqCst);
        self.handled += 1;
        self.handled
    }
}

impl actix::Handler<Die> for Plain {
    type Result = ();

    fn handle(&mut self, _: Die, _: &mut Context<Self>) {
        panic!("boom");
    }
}

impl actix::Handler<End> for Plain {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

impl actix::Handler<Hold> for Plain {
    type Result = ();

    fn handle(&mut self, Hold(until): Hold, ctx: &mut Context<Self>) {
        ctx.wait(wrap_future(async { drop(until.await) }));
    }
}

impl actix::Handler<Beside> for Plain {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Beside(until): Beside, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async { drop(until.await) })
    }
}

impl actix::Handler<Alone> for Plain {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Alone(until): Alone, _: &mut Context<Self>) -> Self::Result {
        AtomicResponse::new(Box::pin(wrap_future(async { drop(until.await) })))
    }
}

/// An actor that handles nothing until the sender is dropped.
async fn held() -> (Addr<Plain>, Arc<AtomicUsize>, oneshot::Sender<()>) {
    let actor = Plain::default();
    let total = Arc::clone(&actor.total);
    let address = actor.start();
    let (release, until) = oneshot::channel();
    address.send(Hold(until)).await.unwrap();
    (address, total, release)
}

#[actix_rt::test]
async fn actix_supervisor_does_not_survive_a_panic() {
    let address = actix::Supervisor::start(|_| Plain::default());
    assert_eq!(address.send(Count).await, Ok(1));
    let queued = address.send(Count);
    let (died, _) = tokio::join!(address.send(Die), queued);
    assert_eq!(died, Err(MailboxError::Closed));
    eventually("the address is closed", || !address.connected()).await;
    assert_eq!(address.send(Count).await, Err(MailboxError::Closed));
    assert!(matches!(address.try_send(Count), Err(SendError::Closed(_))));
}

#[actix_rt::test]
async fn actix_supervisor_keeps_the_instance_of_an_actor_that_stops() {
    let address = actix::Supervisor::start(|_| Plain::default());
    assert_eq!(address.send(Count).await, Ok(1));
    address.send(End).await.unwrap();
    assert_eq!(
        address.send(Count).await,
        Ok(2),
        "whatever was wrong with it"
    );
}

#[actix_rt::test]
async fn a_mailbox_holds_16_and_only_one_kept_address_respects_that() {
    let (address, _, release) = held().await;
    let taken = (0..1000)
        .filter(|_| address.try_send(Count).is_ok())
        .count();
    assert!((16..=17).contains(&taken), "{taken}");
    assert!(matches!(address.try_send(Count), Err(SendError::Full(_))));
    let by_clones = (0..1000).filter(|_| address.clone().try_send(Count).is_ok());
    assert_eq!(by_clones.count(), 1000, "each clone has a place of its own");
    drop(release);
}

#[actix_rt::test]
#[expect(
    clippy::disallowed_methods,
    reason = "why it is disallowed is what is shown"
)]
async fn do_send_ignores_the_bound_and_drops_silently_when_the_actor_is_gone() {
    let (address, total, release) = held().await;
    for _ in 0..1000 {
        address.do_send(Count);
    }
    drop(release);
    assert_eq!(address.send(Count).await, Ok(1001), "none was refused");
    address.send(End).await.unwrap();
    eventually("it is gone", || !address.connected()).await;
    address.do_send(Count);
    assert_eq!(total.load(Ordering::SeqCst), 1001);
}

#[actix_rt::test]
async fn a_question_whose_sender_gave_up_is_not_handled_any_more() {
    let (address, total, release) = held().await;
    let limit = Duration::from_millis(5);
    for _ in 0..10 {
        let answer = address.send(Count).timeout(limit).await;
        assert_eq!(answer, Err(MailboxError::Timeout));
    }
    drop(release);
    assert_eq!(address.send(Count).await, Ok(1));
    assert_eq!(total.load(Ordering::SeqCst), 1);
}

#[actix_rt::test]
async fn other_messages_pass_a_plain_future_but_not_an_atomic_response() {
    let address = Plain::default().start();
    let (release, until) = oneshot::channel();
    let beside = address.send(Beside(until));
    let passing = async {
        assert_eq!(address.send(Count).await, Ok(1));
        drop(release);
    };
    let (answer, ()) = tokio::join!(beside, passing);
    answer.unwrap();

    let (release, until) = oneshot::channel();
    let alone = address.send(Alone(until));
    let waiting = async {
        let limit = Duration::from_millis(20);
        let answer = address.send(Count).timeout(limit).await;
        assert_eq!(answer, Err(MailboxError::Timeout));
        drop(release);
    };
    let (answer, ()) = tokio::join!(alone, waiting);
    answer.unwrap();
    assert_eq!(address.send(Count).await, Ok(2));
}

#[actix_rt::test]
async fn a_plain_future_outlives_its_actor_and_keeps_its_sender_waiting() {
    let address = Plain::default().start();
    let (release, until) = oneshot::channel();
    let beside = address.send(Beside(until));
    let dying = async {
        assert_eq!(address.send(Die).await, Err(MailboxError::Closed));
        sleep(Duration::from_millis(5)).await;
        drop(release);
    };
    let (answer, ()) = tokio::join!(beside, dying);
    assert_eq!(
        answer,
        Ok(()),
        "answered by a task of its own, not `Closed`"
    );
}

#[actix_rt::test]
async fn an_actor_started_on_a_dead_arbiter_is_dead_and_nobody_says_so() {
    let arbiter = Arbiter::new();
    let handle = arbiter.handle();
    arbiter.stop();
    timeout(PATIENCE, tokio::task::spawn_blocking(|| arbiter.join()))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let address = Plain::start_in_arbiter(&handle, |_| Plain::default());
    assert_eq!(address.send(Count).await, Err(MailboxError::Closed));
}
