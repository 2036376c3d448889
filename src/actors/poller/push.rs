//! What an upstream tells by itself: a payload that it pushes, or that something changed.
//!
//! A push goes the way of a fetch, without one: opened by the `ClientActor`, taken in by the `ConfigServiceActor`. It gets
//! its number when it arrives, as a poll does when it begins, and the funnel never puts a part of a lower number over one
//! of a higher: a poll that began before a push brings nothing back that the push has replaced.

use std::sync::Arc;

use actix::{Context, Handler, ResponseFuture};
use tracing::{Instrument as _, debug_span};

use super::{INGEST_LIMIT, Outcome, PollSoon, PollerActor, PollerLinks, PushReport, TakePush};
use crate::{
    actors::{
        client::Open,
        config_service::{Ingest, IngestReport},
    },
    clock,
    sources::{PartId, PartOutcome},
};

impl PollerActor {
    /// Polls now, or once more after the poll in flight, which may have asked too early.
    pub(super) fn poll_soon(&mut self, ctx: &mut Context<Self>) {
        match self.poll {
            Some(_) => self.is_changed = true,
            None => self.start_poll(Vec::new(), ctx),
        }
    }
}

impl Handler<PollSoon> for PollerActor {
    type Result = bool;

    fn handle(&mut self, _: PollSoon, ctx: &mut Context<Self>) -> bool {
        fail::fail_point!("poller.PollSoon");
        if self.memory.is_paused() {
            return false;
        }
        self.poll_soon(ctx);
        true
    }
}

impl Handler<TakePush> for PollerActor {
    // Needs nothing of the actor but what outlives it: it goes on beside polls.
    type Result = ResponseFuture<PushReport>;

    fn handle(&mut self, message: TakePush, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("poller.TakePush");
        if self.memory.is_paused() {
            return Box::pin(async { PushReport::IgnoredPaused });
        }
        let (memory, links) = (Arc::clone(&self.memory), self.links.clone());
        let (source, sequence) = (self.id.clone(), memory.next_sequence());
        let span = debug_span!("push", source.id = %source);
        let taken = async move {
            fail::fail_point!("poller.push_future");
            let part = PartId::Payload(message.connection.key.clone());
            match ingest(&links, message, source, sequence).await {
                Ok(report) => {
                    memory.forget_validators(report.accepted.keys());
                    judge(report, &part)
                }
                Err(report) => report,
            }
        };
        Box::pin(taken.instrument(span))
    }
}

/// Opens a push and runs it through the funnel.
async fn ingest(
    links: &PollerLinks,
    push: TakePush,
    source: String,
    sequence: u64,
) -> Result<IngestReport, PushReport> {
    let part = PartId::Payload(push.connection.key.clone());
    let open = Open {
        connection: push.connection,
        body: push.body,
    };
    let body = match links.client.ask_again(open, INGEST_LIMIT).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return Err(PushReport::Refused(error.to_string())),
        Err(error) => return Err(PushReport::Failed(error.to_string())),
    };
    let fetched = PartOutcome::Fetched {
        body,
        validator: None,
    };
    let ingest = Ingest {
        source,
        parts: Arc::new([(part, fetched)].into()),
        has_all_parts: false,
        is_push: true,
        connections: None,
        sequence,
        at: clock::now(),
    };
    let report = links.config.ask_again(ingest, INGEST_LIMIT).await;
    report.map_err(|error| PushReport::Failed(error.to_string()))
}

/// What to tell the upstream.
fn judge(report: IngestReport, part: &PartId) -> PushReport {
    let is_accepted = report.accepted.contains_key(part);
    match report.outcome {
        Outcome::Failed if is_accepted => PushReport::Taken(Outcome::Unchanged),
        Outcome::Failed => {
            let reason = report
                .reason
                .unwrap_or_else(|| "no reason given".to_owned());
            if report.refused_parts.is_empty() {
                PushReport::Failed(reason)
            } else {
                PushReport::Refused(reason)
            }
        }
        outcome => PushReport::Taken(outcome),
    }
}
