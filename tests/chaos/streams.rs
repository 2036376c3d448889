//! Followers of event streams: what they are told only rises.

use std::sync::Arc;

use serde_json::Value;
use stitchd::cli::demo::upstream::CLIENT_KEY;
use tokio::sync::watch;

use crate::{
    load::counter_in,
    seen::{Life, Seen},
    support::{ENVIRONMENT, PATIENCE},
};

/// Tells revisions.
pub(crate) fn revisions() -> String {
    format!("/v1/stream/{ENVIRONMENT}")
}

/// Tells SDKs their features, and with them the counter.
pub(crate) fn features() -> String {
    format!("/sub/{CLIENT_KEY}")
}

/// Follows `/v1/stream`, life after life.
pub(crate) async fn follow_revisions(
    at: watch::Receiver<Option<Life>>,
    seen: Arc<Seen>,
    follower: usize,
) {
    follow(at, &seen, (&revisions(), follower), |life, event, last| {
        let data: Value = serde_json::from_str(&event.data).map_err(|error| error.to_string())?;
        let revision = data["revision"].as_u64().ok_or("no revision")?;
        if revision < life.floor {
            return Err(format!("{revision} after {} had been read", life.floor));
        }
        if last.is_some_and(|last| last >= revision) {
            return Err(format!("{revision} after {last:?}"));
        }
        Ok(revision)
    })
    .await;
}

/// Follows `/sub` as SDKs do, life after life.
pub(crate) async fn follow_features(
    at: watch::Receiver<Option<Life>>,
    seen: Arc<Seen>,
    follower: usize,
) {
    follow(at, &seen, (&features(), follower), |_, event, last| {
        let counter = counter_in(event.data.as_bytes()).ok_or("no counter")?;
        if last.is_some_and(|last| last > counter) {
            return Err(format!("counter {counter} after {last:?}"));
        }
        Ok(counter)
    })
    .await;
}

/// One event as it was sent.
#[derive(Default)]
struct Event {
    name: String,
    data: String,
}

impl Event {
    /// `None` for a comment, a keep-alive, an advice.
    fn read(block: &str) -> Option<Self> {
        let mut event = Self::default();
        for line in block.lines() {
            let (field, value) = line.split_once(':')?;
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "data" => value.clone_into(&mut event.data),
                _ => {}
            }
        }
        (!event.name.is_empty()).then_some(event)
    }
}

/// Opens the stream again whenever a process has ended. `number` gives what may only rise.
async fn follow(
    mut at: watch::Receiver<Option<Life>>,
    seen: &Seen,
    (path, follower): (&str, usize),
    number: impl Fn(&Life, &Event, Option<u64>) -> Result<u64, String>,
) {
    // No limit on the whole: a stream does not end. Keep-alive comments come every 15 s.
    let http = reqwest::Client::builder()
        .no_proxy()
        .read_timeout(PATIENCE)
        .build()
        .unwrap();
    loop {
        let Ok(life) = at.wait_for(Option::is_some).await.map(|life| life.clone()) else {
            return;
        };
        let life = life.unwrap();
        let check = |event: &Event, last| {
            let value = number(&life, event, last)?;
            seen.note_event(path, follower, value);
            Ok(value)
        };
        match read_on(&http, &format!("{}{path}", life.data), check).await {
            Ok(()) => seen.cut(&life, &format!("{path} has ended")),
            Err(failure) => {
                let failure = format!("{path}: {failure}");
                // An answer that is wrong stays wrong, whatever ends.
                if failure.contains("wrong: ") {
                    seen.fail(failure);
                } else {
                    seen.cut(&life, &failure);
                }
            }
        }
        // Until the next life: asking the one that ends again and again helps nobody.
        let is_next =
            |next: &Option<Life>| next.as_ref().is_some_and(|next| next.number > life.number);
        if at.wait_for(is_next).await.is_err() {
            return;
        }
    }
}

/// Reads one connection to its end.
async fn read_on(
    http: &reqwest::Client,
    url: &str,
    number: impl Fn(&Event, Option<u64>) -> Result<u64, String>,
) -> Result<(), String> {
    let broken = |error: reqwest::Error| format!("{error:?}");
    let mut answer = http.get(url).send().await.map_err(broken)?;
    if answer.status() != 200 {
        return Err(format!("wrong: {}", answer.status()));
    }
    let (mut text, mut last) = (Vec::new(), None);
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        text.extend_from_slice(&chunk);
        while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = text.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            if let Some(event) = Event::read(block.trim_end()) {
                last = Some(number(&event, last).map_err(|wrong| format!("wrong: {wrong}"))?);
            }
        }
    }
    Ok(())
}
