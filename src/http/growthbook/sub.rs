//! `GET /sub/{client_key}`: the event stream that GrowthBook's SDKs follow.
//!
//! An event is the document of the connection as `/api/features` has it, sent when its bytes have changed: a revision
//! that leaves them alone is no event. For remote evaluation it is `features-updated` without data. Nothing is sent on
//! connect, unless `Last-Event-ID` names another document than the current one; ids are entity tags, so they mean the same
//! on every replica.
//!
//! **Memory.** As in [`super::super::stream`] a stream holds no queue. All streams send slices of the one document in
//! memory; a slice is copied when the connection's write buffer has room for it, so that a reader, however slow, costs
//! [`SLICE_BYTES`] and a write buffer. What is published meanwhile it skips.
//!
//! **A reader that takes nothing** is disconnected by the kernel, and counted, as on every connection; see `server.rs`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        error::ApiError,
        state::{HttpState, StreamPermit},
        stream::{RETRY, events_wanted},
    },
    GrowthbookError,
    keys::{self, SdkKey},
    offer_stream,
};
use crate::{
    actors::{Latest, SnapshotReader, board::EnvironmentCell},
    model::Document,
};

/// Milliseconds a client should wait before it connects again; as GrowthBook's proxy says it.
const RECONNECT: Bytes = Bytes::from_static(b"retry: 10000\n\n");
/// The proxy's own: an unnamed message without data, which no SDK delivers.
const KEEP_ALIVE: Bytes = Bytes::from_static(b"data: \n\n");
const UPDATED_TAIL: Bytes = Bytes::from_static(b"\nevent: features-updated\ndata: \n\n");
const EVENT_END: Bytes = Bytes::from_static(b"\n\n");
/// Largest piece of an event handed over at once, in bytes; half of what actix-web buffers before it waits.
const SLICE_BYTES: usize = 16 * 1024;

/// Follows one connection for one client.
pub(super) struct Follower {
    reader: SnapshotReader,
    cell: Arc<EnvironmentCell>,
    changed: watch::Receiver<u64>,
    /// Changes of tokens.
    tokens_changed: watch::Receiver<u64>,
    key: SdkKey,
    is_started: bool,
    /// Entity tag of the document told last, or known to the client.
    told: Option<String>,
    /// What is left of the event that is being sent, the next part first.
    sending: Vec<Bytes>,
    /// Events until the stream ends; `None`: it goes on.
    events_left: Option<u32>,
    keep_alive: Duration,
    end: CancellationToken,
    _permit: StreamPermit,
}

impl Follower {
    /// A follower that has not told anything yet.
    pub(super) fn new(
        state: &HttpState,
        cell: &Arc<EnvironmentCell>,
        key: SdkKey,
        permit: StreamPermit,
    ) -> Self {
        Self {
            reader: state.reader.clone(),
            cell: Arc::clone(cell),
            changed: cell.subscribe(),
            tokens_changed: state.reader.board().tokens().subscribe(),
            key,
            is_started: false,
            told: None,
            sending: Vec::new(),
            events_left: None,
            keep_alive: state.shared.http.stream_keepalive,
            end: state.shared.end().clone(),
            _permit: permit,
        }
    }

    /// The next chunk; `None` when the stream is to end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if self.end.is_cancelled() {
            return None;
        }
        if !self.is_started {
            self.is_started = true;
            if self.told.is_none() {
                self.told = self
                    .document()
                    .await?
                    .map(|(document, _)| document.tag.clone());
            }
            return Some(RECONNECT);
        }
        if let Some(piece) = self.piece() {
            return Some(piece);
        }
        if self.events_left == Some(0) {
            return None;
        }
        let keep_alive_at = Instant::now() + self.keep_alive;
        let mut seen = self.told_revision().await?;
        loop {
            if self.begin_event().await? {
                return self.piece();
            }
            if Instant::now() >= keep_alive_at {
                return Some(KEEP_ALIVE);
            }
            // Announced, and yet the store did not have it, or did not say.
            let is_behind = seen < self.cell.revision();
            let wake_at = if is_behind {
                keep_alive_at.min(Instant::now() + RETRY)
            } else {
                keep_alive_at
            };
            tokio::select! {
                biased;
                () = self.end.cancelled() => return None,
                // The board outlives every stream, so the channel only closes with the process.
                change = self.changed.changed() => change.ok()?,
                change = self.tokens_changed.changed() => change.ok()?,
                () = sleep_until(wake_at) => {}
            }
            seen = self.told_revision().await?;
        }
    }

    /// Revision that the reader has now; `None` ends the stream.
    async fn told_revision(&self) -> Option<u64> {
        match self.reader.latest(&self.cell.name).await {
            Latest::Loaded(snapshot) => Some(snapshot.revision),
            Latest::NeverLoaded => Some(0),
            Latest::UnknownEnvironment => None,
        }
    }

    /// The current document and whether it is for remote evaluation. The outer `None`: the key is not ours any more.
    async fn document(&mut self) -> Option<Option<(Arc<Document>, bool)>> {
        self.key = self.key.renewed(self.reader.board())?;
        let Latest::Loaded(snapshot) = self.reader.latest(&self.cell.name).await else {
            return Some(None);
        };
        let document = self.key.document(&snapshot).await;
        Some(document.map(|document| (document, self.key.is_remote_eval())))
    }

    /// Begins to tell the current document, unless it was told; `None` ends the stream.
    async fn begin_event(&mut self) -> Option<bool> {
        self.changed.mark_unchanged();
        let Some((document, is_remote_eval)) = self.document().await? else {
            return Some(false);
        };
        if self.told.as_ref() == Some(&document.tag) {
            return Some(false);
        }
        self.told = Some(document.tag.clone());
        self.events_left = self.events_left.map(|left| left.saturating_sub(1));
        let id = format!("id: {}", document.tag);
        self.sending = if is_remote_eval {
            vec![UPDATED_TAIL, id.into()]
        } else {
            let head = format!("{id}\nevent: features\ndata: ");
            vec![EVENT_END, document.line().clone(), head.into()]
        };
        Some(true)
    }

    /// The next piece of the event that is being sent: a slice of shared bytes, never a copy of them.
    fn piece(&mut self) -> Option<Bytes> {
        let part = self.sending.last_mut()?;
        if part.len() <= SLICE_BYTES {
            return self.sending.pop();
        }
        Some(part.split_to(SLICE_BYTES))
    }
}

/// `GET /sub/{client_key}`.
pub(in crate::http) async fn sub(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, GrowthbookError> {
    let key = keys::of_path(&request, &state)?;
    let Some(cell) = state.reader.board().environment(key.environment()) else {
        return Err(ApiError::Internal.into());
    };
    if cell.revision() == 0 {
        return Err(ApiError::NotLoaded.into());
    }
    let mut follower = Follower::new(&state, cell, key, state.shared.streams.acquire()?);
    follower.events_left = events_wanted(request.query_string())?;
    let last = request.headers().get("last-event-id");
    follower.told = last
        .and_then(|id| id.to_str().ok())
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty());
    let chunks = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await?;
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CONTENT_ENCODING, "identity"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"));
    let mut response = response.streaming(chunks);
    offer_stream(response.headers_mut());
    Ok(response)
}
