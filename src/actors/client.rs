//! Speaks to one upstream.
//!
//! Owns the HTTP client of one source (or the watch on one file) through its [`Driver`]: endpoints, credentials,
//! conditional requests, paging, timeouts, retries within one fetch, limits, decryption. Knows nothing of what the
//! bytes mean and keeps no schedule.
//!
//! Messages in: [`Fetch`], [`Follow`], [`Unfollow`]. Messages out: `UpstreamChanged` to its `PollerActor`, left without
//! waiting. A failure is a value in the answer, never the end of the actor. A restart makes a new HTTP client and
//! forgets the rate-limit budget and refused parts; the `PollerActor` asks for the stream again after its next poll.

use std::sync::Arc;

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture,
    SpawnHandle, fut::wrap_future,
};
use tracing::debug;

use super::{
    MAILBOX,
    poller::{PollerActor, UpstreamChanged},
    slot::Slot,
};
use crate::{
    settings,
    sources::{Asking, Driver, FetchError, Fetched, StreamTarget, Validators},
};

/// Fetches everything once. Sent by the `PollerActor`; the answer holds an outcome per part.
#[derive(Clone, Message)]
#[rtype(result = "Result<Fetched, FetchError>")]
pub struct Fetch {
    /// Entity tags of the bodies that were accepted, and of no others.
    pub validators: Validators,
    /// Whether parts that were refused for good are asked for all the same.
    pub asking: Asking,
}

/// Follows the upstream's event streams from now on. Sent by the `PollerActor` after each poll; repeating it is free.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Follow {
    /// The streams that the last answer advertised; empty: stop following.
    pub targets: Vec<StreamTarget>,
}

/// Stops following. Sent by the `PollerActor` when it is paused.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Unfollow;

/// See the module's first paragraph.
pub struct ClientActor {
    source: String,
    driver: Result<Arc<Driver>, FetchError>,
    poller: Arc<Slot<PollerActor>>,
    following: Option<(Vec<StreamTarget>, SpawnHandle)>,
}

impl ClientActor {
    /// A client for `source` with an HTTP client of its own.
    pub fn new(source: &settings::Source, poller: Arc<Slot<PollerActor>>) -> Self {
        let driver = Driver::new(source).map(Arc::new);
        Self {
            source: source.id.clone(),
            driver,
            poller,
            following: None,
        }
    }

    fn on_follow(&mut self, targets: Vec<StreamTarget>, ctx: &mut Context<Self>) {
        if self
            .following
            .as_ref()
            .is_some_and(|(current, _)| *current == targets)
        {
            return;
        }
        self.on_unfollow(ctx);
        let Ok(driver) = self.driver.clone() else {
            return;
        };
        if targets.is_empty() {
            return;
        }
        debug!(
            source = self.source,
            streams = targets.len(),
            "following {} of {}",
            targets.len(),
            self.source
        );
        let (poller, watched) = (Arc::clone(&self.poller), targets.clone());
        let stream = async move {
            fail::fail_point!("client.follow");
            driver
                .follow(&watched, move || {
                    // A full mailbox means that a poll is due anyway; a poller that is down polls when it is back.
                    poller.tell(UpstreamChanged);
                })
                .await;
        };
        let ended = wrap_future::<_, Self>(stream).map(|(), this, _| this.following = None);
        self.following = Some((targets, ctx.spawn(ended)));
    }

    fn on_unfollow(&mut self, ctx: &mut Context<Self>) {
        if let Some((_, stream)) = self.following.take() {
            ctx.cancel_future(stream);
        }
    }
}

impl Actor for ClientActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

super::lifecycle!(ClientActor, "client");

impl Handler<Fetch> for ClientActor {
    // Needs no state while it runs: it goes on beside other messages, so that pings are answered.
    type Result = ResponseFuture<Result<Fetched, FetchError>>;

    fn handle(&mut self, message: Fetch, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("client.Fetch");
        let driver = self.driver.clone();
        Box::pin(async move {
            fail::fail_point!("client.fetch_future");
            Ok(driver?.fetch_as(message.asking, &message.validators).await)
        })
    }
}

impl Handler<Follow> for ClientActor {
    type Result = ();

    fn handle(&mut self, message: Follow, ctx: &mut Context<Self>) {
        fail::fail_point!("client.Follow");
        self.on_follow(message.targets, ctx);
    }
}

impl Handler<Unfollow> for ClientActor {
    type Result = ();

    fn handle(&mut self, _: Unfollow, ctx: &mut Context<Self>) {
        fail::fail_point!("client.Unfollow");
        self.on_unfollow(ctx);
    }
}
