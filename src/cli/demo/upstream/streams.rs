//! The event stream, as GrowthBook's proxy sends it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::broadcast,
    time::{Instant, interval_at, sleep},
};

use super::{
    http::{Request, Wire},
    state::Content,
};

/// Frames that a slow reader may lag behind before it misses some.
const FRAMES_MAX: usize = 256;

/// How often an idle stream sends an empty message (GrowthBook Proxy 1.3.3).
const PING: Duration = Duration::from_secs(30);

/// After how long the server ends a stream (`EVENT_STREAM_MAX_DURATION_MS` of the proxy).
const DURATION_MAX: Duration = Duration::from_mins(1);

#[derive(Clone, Debug)]
enum Frame {
    Event { client_key: String, text: String },
    End,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    ping: Duration,
    duration_max: Duration,
}

/// All streams of the upstream.
#[derive(Debug)]
pub(super) struct Streams {
    frames: broadcast::Sender<Frame>,
    times: Mutex<Times>,
    /// The newest event of each client key with its number, for `Last-Event-ID`.
    newest: Mutex<HashMap<String, (u64, String)>>,
    open: AtomicUsize,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            frames: broadcast::Sender::new(FRAMES_MAX),
            times: Mutex::new(Times {
                ping: PING,
                duration_max: DURATION_MAX,
            }),
            newest: Mutex::default(),
            open: AtomicUsize::new(0),
        }
    }

    pub(super) fn set_times(&self, ping: Duration, duration_max: Duration) {
        *self.times.lock() = Times { ping, duration_max };
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Tells every streaming connection's listeners about the payload as it is now.
    pub(super) fn publish(&self, content: &mut Content) {
        let streaming = content.connections.iter().filter(|c| c.streaming);
        let keys: Vec<(String, bool)> = streaming.map(|c| (c.key.clone(), c.remote_eval)).collect();
        for (key, remote_eval) in keys {
            let (event, data) = if remote_eval {
                ("features-updated", String::new())
            } else {
                let Some(payload) = content.payload(&key) else {
                    continue;
                };
                let text = String::from_utf8_lossy(&payload.body).into_owned();
                ("features", text)
            };
            let mut newest = self.newest.lock();
            let number = newest.values().map(|(n, _)| *n).max().unwrap_or(0) + 1;
            // The proxy writes a space after the number.
            let text = format!("id: {number} \nevent: {event}\ndata: {data}\n\n");
            newest.insert(key.clone(), (number, text.clone()));
            drop(newest);
            self.send(&key, text);
        }
    }

    pub(super) fn send(&self, client_key: &str, text: String) {
        let client_key = client_key.to_owned();
        // An error means that nobody listens.
        drop(self.frames.send(Frame::Event { client_key, text }));
    }

    pub(super) fn close_all(&self) {
        drop(self.frames.send(Frame::End));
    }

    /// Serves one stream until its time is over, it is closed, or the caller goes.
    pub(super) async fn serve(
        &self,
        wire: &mut Wire,
        request: &Request,
        client_key: &str,
    ) -> std::io::Result<()> {
        let mut frames = self.frames.subscribe();
        let _open = OpenStream::new(&self.open);
        let times = *self.times.lock();
        wire.write_all(HEAD.as_bytes()).await?;
        wire.write_all(&chunk("retry: 10000\n\n")).await?;
        if let Some(missed) = self.missed_by(request, client_key) {
            wire.write_all(&chunk(&missed)).await?;
        }
        let mut pings = interval_at(Instant::now() + times.ping, times.ping);
        let end = sleep(times.duration_max);
        tokio::pin!(end);
        loop {
            let text = tokio::select! {
                () = wire.closed() => return Ok(()),
                () = &mut end => break,
                _ = pings.tick() => "data: \n\n".to_owned(),
                frame = frames.recv() => match frame {
                    Ok(Frame::Event { client_key: key, text }) if key == client_key => text,
                    Ok(Frame::Event { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Ok(Frame::End) | Err(broadcast::error::RecvError::Closed) => break,
                },
            };
            wire.write_all(&chunk(&text)).await?;
        }
        wire.write_all(b"0\r\n\r\n").await
    }

    /// The newest event, where the caller says that it has seen an older one.
    fn missed_by(&self, request: &Request, client_key: &str) -> Option<String> {
        let seen: u64 = request.header("last-event-id")?.trim().parse().ok()?;
        let newest = self.newest.lock();
        let (number, text) = newest.get(client_key)?;
        (*number > seen).then(|| text.clone())
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nConnection: keep-alive\r\n\
    Access-Control-Allow-Origin: *\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A piece of a chunked body.
fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// Counts a stream for as long as it is served.
struct OpenStream<'a>(&'a AtomicUsize);

impl<'a> OpenStream<'a> {
    fn new(open: &'a AtomicUsize) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(open)
    }
}

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
