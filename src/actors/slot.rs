//! Where the current incarnation of an actor is found.
//!
//! Callers hold a [`Slot`], never a bare address: the supervisor publishes each new incarnation here and withdraws it
//! first thing when it ends. The slot outlives every incarnation, so restart counters live here too.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Addr, Context, Handler, MailboxError, Message, dev::ToEnvelope};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

/// Asks an actor whether it still handles messages.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Ping;

/// Asks an actor to finish what it is doing and stop; the answer means that nothing is left to lose.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Quit;

/// Whether an actor can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not started yet, or between two incarnations.
    Down,
    /// Published: it has started and answered.
    Up,
    /// Ended in order; will not come back.
    Ended,
}

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No incarnation is up; a later call may find one.
    #[error("actor `{0}` is restarting")]
    Down(&'static str),
    /// It did not answer in time; whether the request was carried out is unknown.
    #[error("actor `{0}` did not answer in time")]
    Timeout(&'static str),
    /// It died, or was given up because it hung, while the request was queued or in flight.
    #[error("actor `{0}` stopped before it answered")]
    Closed(&'static str),
}

/// What the supervisor and the status page know of an actor, whatever its type.
#[derive(Clone, Debug)]
pub struct ActorStatus {
    /// `store`, `poller:growthbook-prod`.
    pub name: String,
    /// Whether an incarnation is published.
    pub is_up: bool,
    /// Past the restart limit and retried at the longest backoff.
    pub is_degraded: bool,
    /// Restarts by cause: `panic`, `stopped`, `arbiter_gone`, `hung`, `never_came_up`.
    pub restarts: BTreeMap<&'static str, u64>,
    /// Text of the last panic or other end, if any.
    pub last_exit: Option<String>,
}

/// Anything whose state can be listed.
pub trait Member: Send + Sync {
    /// Current state.
    fn status(&self) -> ActorStatus;
}

#[derive(Default)]
struct Record {
    restarts: BTreeMap<&'static str, u64>,
    last_exit: Option<String>,
    is_degraded: bool,
}

/// The address of an actor's current incarnation, and its record.
pub struct Slot<A: Actor> {
    kind: &'static str,
    name: String,
    address: ArcSwapOption<Addr<A>>,
    health: watch::Sender<Health>,
    /// Incarnations that hung: their mailboxes stay open, and nobody empties them.
    given_up: watch::Sender<u64>,
    starts: AtomicU64,
    record: Mutex<Record>,
}

impl<A: Actor<Context = Context<A>>> Slot<A> {
    /// An empty slot. `kind` names the type of actor, `instance` (may be empty) which one of them.
    pub fn new(kind: &'static str, instance: &str) -> Arc<Self> {
        let name = if instance.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}:{instance}")
        };
        Arc::new(Self {
            kind,
            name,
            address: ArcSwapOption::empty(),
            health: watch::Sender::new(Health::Down),
            given_up: watch::Sender::new(0),
            starts: AtomicU64::new(0),
            record: Mutex::default(),
        })
    }

    /// Name in logs, metrics and status.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether an incarnation is published.
    pub fn is_up(&self) -> bool {
        *self.health.borrow() == Health::Up
    }

    /// Incarnations published so far.
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Asks the current incarnation once.
    pub async fn ask<M>(&self, message: M, limit: Duration) -> Result<M::Result, AskError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        Context<A>: ToEnvelope<A, M>,
    {
        let mut given_up = self.given_up.subscribe();
        let address = self.address.load_full().ok_or(AskError::Down(self.kind))?;
        tokio::select! {
            biased;
            answer = address.send(message).timeout(limit) => match answer {
                Ok(answer) => Ok(answer),
                Err(MailboxError::Timeout) => Err(AskError::Timeout(self.kind)),
                Err(MailboxError::Closed) => Err(AskError::Closed(self.kind)),
            },
            Ok(()) = given_up.changed() => Err(AskError::Closed(self.kind)),
        }
    }

    /// Asks, and asks the next incarnation when this one dies first; all within `limit`.
    ///
    /// Only for requests that may be carried out twice.
    pub async fn ask_again<M>(&self, message: M, limit: Duration) -> Result<M::Result, AskError>
    where
        M: Message + Clone + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        Context<A>: ToEnvelope<A, M>,
    {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ask(message.clone(), left).await {
                Err(AskError::Down(_) | AskError::Closed(_)) if !left.is_zero() => {}
                other => return other,
            }
            // The short pause covers the moment in which an actor is dead but not yet withdrawn.
            tokio::time::sleep(Duration::from_millis(2).min(left)).await;
            let mut health = self.health.subscribe();
            let came_up = health.wait_for(|health| *health != Health::Down);
            match tokio::time::timeout_at(deadline, came_up).await {
                Ok(Ok(health)) if *health == Health::Up => {}
                _ => return Err(AskError::Down(self.kind)),
            }
        }
    }

    /// Leaves a message without waiting; `false` when the actor is down or its mailbox is full.
    ///
    /// Goes through the one kept address, so that the mailbox bound holds.
    pub fn tell<M>(&self, message: M) -> bool
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        Context<A>: ToEnvelope<A, M>,
    {
        self.address
            .load()
            .as_ref()
            .is_some_and(|address| address.try_send(message).is_ok())
    }

    pub(super) fn publish(&self, address: Addr<A>) {
        self.address.store(Some(Arc::new(address)));
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.health.send_replace(Health::Up);
    }

    pub(super) fn withdraw(&self, health: Health) {
        self.address.store(None);
        self.health.send_replace(health);
    }

    /// After a withdrawal: whoever waits for that incarnation need not wait any longer.
    pub(super) fn give_up(&self) {
        self.given_up.send_modify(|number| *number += 1);
    }

    pub(super) fn record_exit(&self, cause: &'static str, text: String, is_degraded: bool) {
        let mut record = self.record.lock();
        *record.restarts.entry(cause).or_default() += 1;
        record.last_exit = Some(text);
        record.is_degraded = is_degraded;
    }

    /// Notes that it has been up for long enough to count as well.
    pub(super) fn set_calm(&self) {
        self.record.lock().is_degraded = false;
    }

    /// Waits until an incarnation is up.
    pub async fn wait_up(&self, limit: Duration) -> bool {
        let mut health = self.health.subscribe();
        let up = health.wait_for(|health| *health == Health::Up);
        matches!(tokio::time::timeout(limit, up).await, Ok(Ok(_)))
    }
}

impl<A: Actor<Context = Context<A>>> Member for Slot<A> {
    fn status(&self) -> ActorStatus {
        let record = self.record.lock();
        ActorStatus {
            name: self.name.clone(),
            is_up: self.is_up(),
            is_degraded: record.is_degraded,
            restarts: record.restarts.clone(),
            last_exit: record.last_exit.clone(),
        }
    }
}
