//! The actors and who talks to whom.
//!
//! ```text
//!            http handlers                                   http handlers (SnapshotReader, one per worker)
//!  Pause, Resume, ForcePoll │ GetPollerStatus, TakePush, PollSoon     │ GetSnapshot, only when the revision moved
//!                           ▼ 64                                      ▼ 1024
//!   timer ──────────► PollerActor ── Fetch ──► ClientActor        StoreActor ──► SQL database, disk backup
//!                      │   ▲        Follow, Open │                    ▲
//!                      │   └── UpstreamChanged ─┘                     │ Publish, SaveInput
//!                      └────────── Ingest 64 ──► ConfigServiceActor ──┘
//!
//!   board ── revision moved ──► AnnouncerActor ── GetStored ──► StoreActor
//!   status page ── GetTargets 64 ──►    └── PURGE, webhooks ──► caches, receivers
//!
//!   control plane ── MakeToken, RotateToken, RevokeToken 64 ──► TokenActor ──► SQL database, disk backup
//!
//!   SupervisorActor ── Ping, Quit ──► every actor
//! ```
//!
//! Numbers are mailbox capacities. The graph of questions that wait for an answer has no cycle: the only arrow
//! backwards, `UpstreamChanged`, is left in the mailbox without waiting. Every caller goes through a [`slot::Slot`].

pub mod announcer;
pub mod board;
pub mod client;
pub mod client_keys;
pub mod config_service;
pub mod poller;
pub mod random;
pub mod slot;
pub mod snapshot_reader;
pub mod sticky;
pub mod store;
pub mod supervisor;
pub mod tokens;

use std::{collections::BTreeMap, sync::Arc};

use secrecy::SecretString;

pub use board::Board;
pub use client_keys::{ClientKey, ClientKeys, Origin};
pub use slot::{ActorStatus, AskError, Member, Ping, Quit, Slot};
pub use snapshot_reader::{Latest, SnapshotReader};
pub use sticky::{STICKY_BYTES_MAX, StickyLink};
pub use tokens::{Denial, Pass, Tokens};

/// Mailbox capacity of actors that only other actors and operators talk to.
///
/// Far above what one source can have under way, so that a refusal means something is wrong.
pub(crate) const MAILBOX: usize = 64;

/// Implements [`Ping`]: whoever answers is alive. A test can have the answer be the actor's end.
macro_rules! ping {
    ($actor:ty, $name:literal) => {
        impl actix::Handler<$crate::actors::Ping> for $actor {
            type Result = ();
            fn handle(&mut self, _: $crate::actors::Ping, ctx: &mut actix::Context<Self>) {
                fail::fail_point!(concat!($name, ".Ping"), |_| actix::ActorContext::stop(ctx));
                // The fail point alone has a use for it.
                let _ = ctx;
            }
        }
    };
}
pub(crate) use ping;

/// Implements [`Ping`] and [`Quit`] for an actor that has nothing to save when it stops.
macro_rules! lifecycle {
    ($actor:ty, $name:literal) => {
        $crate::actors::ping! { $actor, $name }
        impl actix::Handler<$crate::actors::Quit> for $actor {
            type Result = ();
            fn handle(&mut self, _: $crate::actors::Quit, ctx: &mut actix::Context<Self>) {
                fail::fail_point!(concat!($name, ".Quit"));
                actix::ActorContext::stop(ctx);
            }
        }
    };
}
pub(crate) use lifecycle;

/// The slot of a source's client.
pub type ClientSlot = Arc<Slot<client::ClientActor>>;
/// The slot of a source's poller.
pub type PollerSlot = Arc<Slot<poller::PollerActor>>;

/// The slots of one source's actors.
#[derive(Clone)]
pub struct SourceHandles {
    /// Environment the source feeds.
    pub environment: String,
    /// Largest payload that may be pushed, in bytes.
    pub max_body_bytes: usize,
    /// Secret of GrowthBook's webhook.
    pub webhook_secret: Option<SecretString>,
    /// Its client and poller; `None` when the source is disabled.
    pub actors: Option<(ClientSlot, PollerSlot)>,
}

/// Everything the HTTP layer may reach.
#[derive(Clone)]
pub struct Handles {
    /// Revision counters and source clocks.
    pub board: Arc<Board>,
    /// The store.
    pub store: Arc<Slot<store::StoreActor>>,
    /// The funnel.
    pub config: Arc<Slot<config_service::ConfigServiceActor>>,
    /// The supervisor.
    pub supervisor: Arc<Slot<supervisor::SupervisorActor>>,
    /// Sticky buckets, where the settings name a store for them.
    pub sticky: Option<StickyLink>,
    /// Who makes and keeps tokens.
    pub tokens: Arc<Slot<tokens::TokenActor>>,
    /// Who tells caches and receivers of webhooks, where the settings name any.
    pub announcer: Option<Arc<Slot<announcer::AnnouncerActor>>>,
    /// Sources by id.
    pub sources: Arc<BTreeMap<String, SourceHandles>>,
    /// Every actor, in order of start.
    pub members: Arc<Vec<Arc<dyn Member>>>,
}
