//! What operators force: overrides and pins. Never held by a guard, and ahead of every input that waits.
//!
//! A decision is kept in the store, is then in force, and is then published; it is answered after all three. Where neither
//! database nor backup answers in time it is in force all the same, and the answer says so. Decisions of other replicas
//! and overrides that end are looked for each second. How long one lasts is measured; the wall clock says only what is left
//! of it when this process first hears of it.

mod act;
mod decisions;
mod ends;
mod memory;

use std::sync::Arc;

use actix::{Context, Handler, Message, MessageResult, ResponseActFuture, fut::wrap_future};
use tokio::sync::oneshot;

pub use self::decisions::Pin;
pub(super) use self::{
    act::{carry_out, restore},
    memory::{Operated, Plan},
};
use super::{ConfigServiceActor, Work};
use crate::model::{Candidate, Override};

/// Most overrides of an environment.
pub const OVERRIDES_MAX: usize = 1000;

/// Most bytes that the values of an environment's overrides have together. The database takes them as one row.
pub const OVERRIDES_BYTES_MAX: usize = 4 << 20;

/// What came of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Revision served after it.
    pub revision: u64,
    /// Whether the decision is in the database or the backup.
    pub is_durable: bool,
    /// The override of the same target that it put an end to.
    pub replaced: Option<String>,
    /// Client keys of the connections that a new override does not reach: they are encrypted, and their keys not known.
    pub not_applied: Vec<String>,
}

/// Why a decision was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nothing was ever loaded.
    #[error("nothing was loaded for this environment yet")]
    NotLoaded,
    /// There is no such feature or experiment.
    #[error("no {kind} has this key")]
    UnknownTarget {
        /// `feature` or `experiment`.
        kind: &'static str,
        /// Keys that look like it.
        near: Vec<String>,
    },
    /// The value has another type than the feature's default.
    #[error("the value is of type {got}, the feature's default of type {wanted}")]
    WrongType {
        /// Type of the default.
        wanted: &'static str,
        /// Type of the value.
        got: &'static str,
    },
    /// The value has more levels than a source's value may have: this many.
    #[error("the value is nested deeper than {0} levels")]
    TooDeep(usize),
    /// There are as many overrides as there may be, or as large ones.
    #[error("{0}")]
    TooMany(String),
    /// No override has this id.
    #[error("no override has this id")]
    UnknownOverride,
    /// No revision has this number.
    #[error("no revision has this number")]
    UnknownRevision,
    /// There is no pin.
    #[error("the environment is not pinned")]
    NotPinned,
    /// It could not be done now.
    #[error("{0}")]
    Unavailable(String),
}

/// Forces a feature's value or an experiment off; replaces an override of the same target. Sent by the control plane; may be
/// sent twice.
#[derive(Clone, Message)]
#[rtype(result = "Result<Decided, OrderError>")]
pub struct SetOverride {
    /// Which environment.
    pub environment: Arc<str>,
    /// What to force.
    pub forced: Override,
}

/// Puts an end to an override. Sent by the control plane; may be sent twice.
#[derive(Clone, Message)]
#[rtype(result = "Result<Decided, OrderError>")]
pub struct RemoveOverride {
    /// Which environment.
    pub environment: Arc<str>,
    /// Its id.
    pub id: String,
    /// Who.
    pub by: String,
    /// Why, if said.
    pub reason: Option<String>,
}

/// Asks for the overrides in force, sorted by kind and key. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "Vec<Override>")]
pub struct ListOverrides {
    /// Which environment.
    pub environment: Arc<str>,
}

/// Serves the content of a revision until that is taken back. Sent by the control plane; may be sent twice.
#[derive(Clone, Message)]
#[rtype(result = "Result<Decided, OrderError>")]
pub struct SetPin {
    /// Which environment.
    pub environment: Arc<str>,
    /// What to pin, and who wants it.
    pub pin: Pin,
}

/// Serves the newest accepted content again. Sent by the control plane; may be sent twice.
#[derive(Clone, Message)]
#[rtype(result = "Result<Decided, OrderError>")]
pub struct RemovePin {
    /// Which environment.
    pub environment: Arc<str>,
    /// Who.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
}

/// Asks for an environment's pin; `None`: it is not pinned. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "Option<PinStatus>")]
pub struct GetPin {
    /// Which environment.
    pub environment: Arc<str>,
}

/// How a pin is doing.
#[derive(Clone, Debug)]
pub struct PinStatus {
    /// The pin.
    pub pin: Pin,
    /// Live contents that were not served because of it, since it was set or this process started.
    pub skipped: u64,
    /// Whether the live content is another than the pinned one.
    pub differs: bool,
    /// Why the pinned content is not served: it cannot be found.
    pub lost: Option<String>,
    /// What would be served without it.
    pub live: Option<Arc<Candidate>>,
    /// What is served, overrides left out.
    pub content: Option<Arc<Candidate>>,
}

/// What an operator, or time, wants of an environment.
pub(super) enum Order {
    Override(SetOverride),
    RemoveOverride(RemoveOverride),
    Pin(SetPin),
    Unpin(RemovePin),
    /// Looks at what may have changed without anybody calling here.
    Refresh {
        environment: Arc<str>,
    },
}

/// Where the answer goes.
pub(super) type Reply = oneshot::Sender<Result<Decided, OrderError>>;

impl ConfigServiceActor {
    /// Queues an order before the inputs that wait, and waits for what comes of it.
    fn order(
        &mut self,
        order: Order,
        ctx: &mut Context<Self>,
    ) -> ResponseActFuture<Self, Result<Decided, OrderError>> {
        let (reply, decided) = oneshot::channel();
        self.enqueue_first(Work::Operate { order, reply }, ctx);
        let decided = async move {
            fail::fail_point!("config_service.order_future");
            match decided.await {
                Ok(decided) => decided,
                // The actor ends, and this future with it: the next incarnation is asked.
                Err(_) => std::future::pending().await,
            }
        };
        Box::pin(wrap_future(decided))
    }
}

impl Handler<SetOverride> for ConfigServiceActor {
    type Result = ResponseActFuture<Self, Result<Decided, OrderError>>;

    fn handle(&mut self, message: SetOverride, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.SetOverride");
        self.order(Order::Override(message), ctx)
    }
}

impl Handler<RemoveOverride> for ConfigServiceActor {
    type Result = ResponseActFuture<Self, Result<Decided, OrderError>>;

    fn handle(&mut self, message: RemoveOverride, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.RemoveOverride");
        self.order(Order::RemoveOverride(message), ctx)
    }
}

impl Handler<SetPin> for ConfigServiceActor {
    type Result = ResponseActFuture<Self, Result<Decided, OrderError>>;

    fn handle(&mut self, message: SetPin, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.SetPin");
        self.order(Order::Pin(message), ctx)
    }
}

impl Handler<RemovePin> for ConfigServiceActor {
    type Result = ResponseActFuture<Self, Result<Decided, OrderError>>;

    fn handle(&mut self, message: RemovePin, ctx: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.RemovePin");
        self.order(Order::Unpin(message), ctx)
    }
}

impl Handler<ListOverrides> for ConfigServiceActor {
    type Result = MessageResult<ListOverrides>;

    fn handle(&mut self, message: ListOverrides, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.ListOverrides");
        MessageResult(self.memory.overrides(&message.environment))
    }
}

impl Handler<GetPin> for ConfigServiceActor {
    type Result = MessageResult<GetPin>;

    fn handle(&mut self, message: GetPin, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("config_service.GetPin");
        MessageResult(self.memory.pin_status(&message.environment))
    }
}
