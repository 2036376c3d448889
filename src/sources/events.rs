//! Follows an event stream, only to learn that something changed.
//!
//! What an event carries is not used: the poll that it triggers reads the same payload through all checks. So nothing of
//! a stream is kept but the name of the event that is being read; a data line of megabytes passes through.

use std::time::Duration;

use reqwest::{Response, Url, header::CONTENT_TYPE};
use tokio::time::{Instant, sleep, timeout};

use super::{FetchError, http::Http, jitter};

/// Events that mean a new payload: with its content, or only as a call to fetch it (remote evaluation).
const CHANGES: [&[u8]; 2] = [b"features", b"features-updated"];

/// Silence after which a stream is dead: upstream sends something every 30 s, and two of those may be late.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// A stream that lived this long was a good one; upstream ends each after 60 s.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Longest wait before a good stream is opened again.
const RECONNECT: Duration = Duration::from_secs(1);

/// First wait after a stream that failed; doubled with each further one.
const BACKOFF: Duration = Duration::from_secs(1);

/// Longest wait after streams that fail; GrowthBook's own SDK has the same.
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// Longest line beginning that is kept, in bytes: `event: features-updated` and some air.
const LINE_MAX: usize = 64;

/// Follows one stream for ever and calls `on_change` at each change.
///
/// Between two connections events pass unseen, so each connection but the first counts as a change.
pub(super) async fn follow(http: &Http, url: Url, on_change: &impl Fn()) {
    let mut was_connected = false;
    let mut failures = 0_u32;
    loop {
        let opened_at = Instant::now();
        let ended = match connect(http, url.clone()).await {
            Ok(stream) => {
                if was_connected {
                    on_change();
                }
                was_connected = true;
                read(stream, on_change).await
            }
            Err(error) => error,
        };
        let is_good = opened_at.elapsed() >= GOOD_AFTER && was_connected;
        failures = if is_good {
            0
        } else {
            failures.saturating_add(1)
        };
        let wait = wait(failures).max(ended.retry_after().unwrap_or_default());
        tracing::debug!(
            reason = ended.code(),
            failures,
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "event stream ended"
        );
        sleep(wait).await;
    }
}

async fn connect(http: &Http, url: Url) -> Result<Response, FetchError> {
    let response = http.open_stream(url).await?;
    let kind = response.headers().get(CONTENT_TYPE);
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if is_stream {
        return Ok(response);
    }
    Err(FetchError::Shape {
        message: "the answer is no event stream".to_owned(),
    })
}

/// Reads to the end of a stream, which is always reported as an error: a stream is not meant to end.
async fn read(mut stream: Response, on_change: &impl Fn()) -> FetchError {
    let mut parser = Parser::default();
    loop {
        match timeout(SILENCE_MAX, stream.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                // Several changes in one chunk are one reason to fetch.
                if parser.changes(&chunk) > 0 {
                    on_change();
                }
            }
            Ok(Ok(None)) => {
                return FetchError::Shape {
                    message: "the stream ended".to_owned(),
                };
            }
            Ok(Err(error)) => return FetchError::from_http(error),
            Err(_elapsed) => return FetchError::Timeout,
        }
    }
}

/// The wait before the next connection; jittered, so that many replicas do not come back at once.
fn wait(failures: u32) -> Duration {
    if failures == 0 {
        return jitter::uniform(RECONNECT);
    }
    let longest = jitter::doubled(BACKOFF, failures - 1).min(BACKOFF_MAX);
    longest / 2 + jitter::uniform(longest / 2)
}

/// Reads the lines of `text/event-stream` (HTML standard §9.2), as far as event names go.
#[derive(Default)]
struct Parser {
    /// The beginning of the current line.
    line: Vec<u8>,
    /// Length of the current line.
    line_bytes: usize,
    /// The last character was a carriage return, whose line feed belongs to it.
    after_return: bool,
    /// The event being read is a change.
    is_change: bool,
}

impl Parser {
    /// How many changes the next bytes complete.
    fn changes(&mut self, bytes: &[u8]) -> usize {
        let mut changes = 0;
        for &byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    changes += usize::from(self.end_line());
                }
                _ => {
                    self.after_return = false;
                    self.line_bytes = self.line_bytes.saturating_add(1);
                    if self.line.len() < LINE_MAX {
                        self.line.push(byte);
                    }
                }
            }
        }
        changes
    }

    /// Whether this line ends a change.
    fn end_line(&mut self) -> bool {
        let is_blank = self.line_bytes == 0;
        let is_done = is_blank && self.is_change;
        if is_blank {
            self.is_change = false;
        } else if let Some(name) = self.line.strip_prefix(b"event:") {
            let is_whole = self.line_bytes == self.line.len();
            self.is_change = is_whole && CHANGES.contains(&name.trim_ascii());
        }
        self.line.clear();
        self.line_bytes = 0;
        is_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str) -> usize {
        Parser::default().changes(text.as_bytes())
    }

    #[test]
    fn both_events_count_and_pings_do_not() {
        let stream = "retry: 10000\n\ndata: \n\nid: 2 \nevent: features\ndata: {\"a\":1}\n\nid: 3 \nevent: features-updated\ndata: \n\n";
        assert_eq!(changes(stream), 2);
        assert_eq!(changes(&stream.replace('\n', "\r\n")), 2);
        assert_eq!(changes(&stream.replace('\n', "\r")), 2);
        assert_eq!(changes("event: ping\ndata: 1\n\n: comment\n\n"), 0);
        assert_eq!(changes("event:features\ndata:\n"), 0, "not ended yet");
        assert_eq!(
            changes("data: event: features\n\n"),
            0,
            "only a line's beginning"
        );
    }

    #[test]
    fn cuts_make_no_difference() {
        let stream = "event: features\r\ndata: x\r\n\r\nevent: features\ndata: y\n\n";
        for cut in 0..stream.len() {
            let mut parser = Parser::default();
            let (head, tail) = stream.split_at(cut);
            let seen = parser.changes(head.as_bytes()) + parser.changes(tail.as_bytes());
            assert_eq!(seen, 2, "cut at {cut}");
        }
    }

    #[test]
    fn a_huge_line_is_not_kept() {
        let mut parser = Parser::default();
        parser.changes(b"event: features\ndata: ");
        for _ in 0..1000 {
            parser.changes(&[b'x'; 4096]);
        }
        assert!(parser.line.capacity() <= LINE_MAX * 2);
        assert_eq!(parser.changes(b"\n\n"), 1);
        let long_name = format!("event: features{}\n\n", " ".repeat(100));
        assert_eq!(parser.changes(long_name.as_bytes()), 0);
    }

    #[test]
    fn a_good_stream_comes_back_within_a_second_and_failures_wait_longer() {
        assert!(wait(0) <= RECONNECT);
        for failures in 1..40 {
            let longest = jitter::doubled(BACKOFF, failures - 1).min(BACKOFF_MAX);
            let wait = wait(failures);
            assert!(
                wait >= longest / 2 && wait <= longest,
                "{failures}: {wait:?}"
            );
        }
    }
}
