//! `/v1/stream/{environment}`: server-sent events that say which revision is current.
//!
//! **Memory.** A stream holds no queue. Its body is a future that actix-web polls only while the connection's write
//! buffer has room; it waits on the environment's `watch` channel, which remembers the newest revision alone. So a
//! slow reader costs at most one event and skips revisions instead of piling them up.
//!
//! **A reader whose socket stays blocked** is dropped by the kernel: the data listener carries a `TCP_USER_TIMEOUT`
//! (see `server.rs`), so data that the peer does not take for that long resets the connection, which ends the body and
//! is counted. Keep-alive comments see to it that there is such data.
//!
//! `?events=N` ends the stream after N events, for callers that cannot end it themselves.

use std::{convert::Infallible, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    credentials::{self, Credential},
    error::ApiError,
    extract,
    state::{HttpState, StreamPermit},
};
use crate::{
    actors::{Latest, SnapshotReader, board::EnvironmentCell},
    model::{Snapshot, snapshot::SNAPSHOT_DOCUMENT},
};

/// Milliseconds a client should wait before it connects again.
const RECONNECT: &str = "retry: 3000\n\n";
const KEEP_ALIVE: &str = ": keep-alive\n\n";
/// Wait before the store is asked again for a revision that was announced but could not be had.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// Most events that a caller may limit a stream to; whoever wants more does not want a limit.
const EVENTS_MAX: u32 = 1000;

/// What a stream tells, and whom.
pub(super) struct Tell {
    /// The event for a revision.
    pub(super) event: fn(&Snapshot) -> String,
    /// Revision that the client knows already.
    pub(super) known: Option<u64>,
    /// Whose token the stream ends with; `None`: anybody's.
    pub(super) credential: Option<Credential>,
    /// Events until the stream ends; `None`: it goes on.
    pub(super) events_left: Option<u32>,
}

/// Follows one environment for one client.
pub(super) struct Follower {
    reader: SnapshotReader,
    cell: Arc<EnvironmentCell>,
    changed: watch::Receiver<u64>,
    /// Changes of tokens.
    tokens_changed: watch::Receiver<u64>,
    tell: Tell,
    /// Newest revision told; `None` before the first chunk was asked for.
    told: Option<u64>,
    keep_alive: Duration,
    end: CancellationToken,
    _permit: StreamPermit,
}

impl Follower {
    /// A follower that has not told anything yet.
    pub(super) fn new(
        state: &HttpState,
        cell: &Arc<EnvironmentCell>,
        permit: StreamPermit,
        tell: Tell,
    ) -> Self {
        Self {
            reader: state.reader.clone(),
            cell: Arc::clone(cell),
            changed: cell.subscribe(),
            tokens_changed: state.reader.board().tokens().subscribe(),
            tell,
            told: None,
            keep_alive: state.shared.http.stream_keepalive,
            end: state.shared.end().clone(),
            _permit: permit,
        }
    }

    /// The next chunk; `None` when the stream is to end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if self.end.is_cancelled() || self.tell.events_left == Some(0) {
            return None;
        }
        if self.told.is_none() {
            // Another number is of a replica that is ahead, or of a history that is gone.
            let known = self.tell.known;
            let known = known.filter(|known| *known == self.cell.revision());
            self.told = Some(known.unwrap_or(0));
            let event = self.news().await.unwrap_or_default();
            return Some(Bytes::from(format!("{RECONNECT}{event}")));
        }
        let keep_alive_at = Instant::now() + self.keep_alive;
        loop {
            let is_behind = self.told < Some(self.cell.revision());
            let retry_at = if is_behind {
                Instant::now() + RETRY
            } else {
                keep_alive_at
            };
            tokio::select! {
                biased;
                () = self.end.cancelled() => return None,
                // The board outlives every stream, so the channel only closes with the process.
                change = self.changed.changed() => change.ok()?,
                change = self.tokens_changed.changed() => change.ok()?,
                () = sleep_until(retry_at.min(keep_alive_at)) => {}
            }
            // Looked at with each keep-alive, too: time alone may have ended it.
            if !self.is_welcome() {
                return None;
            }
            if let Some(event) = self.news().await {
                return Some(Bytes::from(event));
            }
            if Instant::now() >= keep_alive_at {
                return Some(Bytes::from_static(KEEP_ALIVE.as_bytes()));
            }
        }
    }

    /// Whether the token that the stream was opened with still counts.
    fn is_welcome(&self) -> bool {
        let credential = self.tell.credential.as_ref();
        credential.is_none_or(|credential| credential.stands(self.reader.board()))
    }

    /// The event for the newest revision, unless it was told already.
    async fn news(&mut self) -> Option<String> {
        self.changed.mark_unchanged();
        let Latest::Loaded(snapshot) = self.reader.latest(&self.cell.name).await else {
            return None;
        };
        if Some(snapshot.revision) <= self.told {
            return None;
        }
        self.told = Some(snapshot.revision);
        let left = &mut self.tell.events_left;
        *left = left.map(|left| left.saturating_sub(1));
        Some((self.tell.event)(&snapshot))
    }
}

fn event(snapshot: &Snapshot) -> String {
    let revision = snapshot.revision;
    let etag = snapshot
        .document(SNAPSHOT_DOCUMENT)
        .map(|document| format!("\"{}\"", document.tag));
    let data = json!({ "environment": &*snapshot.environment, "revision": revision, "etag": etag });
    format!("event: revision\nid: {revision}\ndata: {data}\n\n")
}

#[derive(Deserialize)]
struct Query {
    events: Option<String>,
}

/// How many events the caller wants; `None`: all there will ever be.
pub(super) fn events_wanted(query: &str) -> Result<Option<u32>, ApiError> {
    let query: Query = extract::query(query)?;
    let Some(text) = query.events else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number @ 1..=EVENTS_MAX) => Ok(Some(number)),
        _ => Err(ApiError::bad_request(
            "events",
            format!("use a number from 1 to {EVENTS_MAX}"),
        )),
    }
}

/// An answer that goes on.
pub(super) fn respond<E>(chunks: impl Stream<Item = Result<Bytes, E>> + 'static) -> HttpResponse
where
    E: Into<Box<dyn std::error::Error>> + 'static,
{
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CONTENT_ENCODING, "identity"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(chunks)
}

/// `GET /v1/stream/{environment}`.
pub(super) async fn follow(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let environment = request.match_info().get("environment").unwrap_or_default();
    let credential = credentials::server(&state, &request)?;
    let Some(cell) = state.reader.board().environment(environment) else {
        return Err(state.unknown_environment());
    };
    credentials::must_be_of(credential.as_ref(), environment)?;
    let tell = Tell {
        event,
        known: None,
        credential,
        events_left: events_wanted(request.query_string())?,
    };
    let follower = Follower::new(&state, cell, state.shared.streams.acquire()?, tell);
    let chunks = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await?;
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    Ok(respond(chunks))
}

#[cfg(test)]
mod tests {
    use actix_web::rt;

    use super::*;
    use crate::http::tests::{Rig, snapshot};

    fn follower(rig: &Rig) -> Follower {
        let cell = rig.shared.handles.board.environment("production").unwrap();
        let tell = Tell {
            event,
            known: None,
            credential: None,
            events_left: None,
        };
        Follower::new(
            &rig.state(),
            cell,
            rig.shared.streams.acquire().unwrap(),
            tell,
        )
    }

    async fn text(follower: &mut Follower) -> String {
        String::from_utf8(follower.next().await.unwrap().to_vec()).unwrap()
    }

    #[rt::test]
    async fn a_slow_reader_is_told_the_newest_revision_only() {
        let rig = Rig::loaded();
        let mut follower = follower(&rig);
        let tag = |rig: &Rig| {
            rig.snapshot
                .as_ref()
                .unwrap()
                .document(SNAPSHOT_DOCUMENT)
                .unwrap()
                .tag
                .clone()
        };
        let expected = format!(
            "retry: 3000\n\nevent: revision\nid: 7\ndata: {{\"environment\":\"production\",\"revision\":7,\"etag\":\"\\\"{}\\\"\"}}\n\n",
            tag(&rig)
        );
        assert_eq!(text(&mut follower).await, expected);
        for revision in 8..1008 {
            follower.cell.announce(revision);
        }
        let newer = rig.clone_with(snapshot("production", 1007));
        follower.reader = newer.state().reader.clone();
        assert!(text(&mut follower).await.contains("id: 1007\n"));
        assert_eq!(text(&mut follower).await, KEEP_ALIVE);
    }

    #[test]
    fn a_caller_may_ask_for_1_to_1000_events() {
        assert_eq!(events_wanted("").unwrap(), None);
        assert_eq!(events_wanted("events=1").unwrap(), Some(1));
        assert_eq!(events_wanted("a=b&events=1000").unwrap(), Some(1000));
        for bad in [
            "events=0",
            "events=1001",
            "events=-1",
            "events=two",
            "events=",
        ] {
            assert_eq!(
                events_wanted(bad).unwrap_err().code(),
                "bad_request",
                "{bad}"
            );
        }
    }

    #[rt::test]
    async fn a_limited_stream_ends_after_its_last_event() {
        let rig = Rig::loaded();
        let mut follower = follower(&rig);
        follower.tell.events_left = Some(1);
        assert!(text(&mut follower).await.contains("id: 7\n"));
        assert!(follower.next().await.is_none());
    }

    #[rt::test]
    async fn an_idle_stream_is_kept_open_and_ends_at_the_stop() {
        let rig = Rig::never_loaded();
        let mut follower = follower(&rig);
        assert_eq!(text(&mut follower).await, RECONNECT);
        assert_eq!(text(&mut follower).await, KEEP_ALIVE);
        rig.shared.end_streams();
        assert!(follower.next().await.is_none());
        assert_eq!(rig.shared.streams.open(), 1);
        drop(follower);
        assert_eq!(rig.shared.streams.open(), 0);
    }

    #[rt::test]
    async fn keep_alives_go_on_while_an_announced_revision_cannot_be_had() {
        let rig = Rig::loaded();
        let mut follower = follower(&rig);
        text(&mut follower).await;
        follower.cell.announce(8);
        assert_eq!(text(&mut follower).await, KEEP_ALIVE);
    }
}
