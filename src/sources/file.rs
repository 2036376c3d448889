//! A payload file on disk, re-read when it changes.

use std::{
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    FetchError, Fetched, PartId, PartOutcome, StreamTarget, Validators, decrypt::Opener,
    growthbook::open,
};
use crate::settings::Source;

/// How often the file is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What reads one payload file.
pub struct File {
    source: Source,
    /// What the file looked like when it was last read or reported; `None`: it could not be looked at.
    seen: Mutex<Option<String>>,
}

impl File {
    /// Never touches the file: one that appears later is as good.
    pub fn new(source: &Source) -> Self {
        Self {
            source: source.clone(),
            seen: Mutex::default(),
        }
    }

    pub(super) async fn fetch(&self, validators: &Validators) -> Fetched {
        let part = PartId::Payload(String::new());
        let outcome = self
            .payload(validators.get(&part))
            .await
            .unwrap_or_else(PartOutcome::Failed);
        let is_watched = self.source.poll.streaming;
        Fetched {
            parts: [(part, outcome)].into(),
            connections_error: None,
            features_error: None,
            connections: Vec::new(),
            streams: Vec::from_iter(is_watched.then(|| StreamTarget(String::new()))),
        }
    }

    /// Looks at the file once a second; what the last fetch saw is not reported again.
    pub(super) async fn follow(&self, on_change: &impl Fn()) {
        let mut ticks = interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let path = &self.source.path;
            let now = tokio::fs::metadata(path).await.ok();
            if self.note(now.as_ref().map(signature)) {
                on_change();
            }
        }
    }

    /// Remembers what the file looks like, and tells whether that is new.
    fn note(&self, now: Option<String>) -> bool {
        let mut seen = self.seen.lock();
        let is_new = *seen != now;
        *seen = now;
        is_new
    }

    async fn payload(&self, validator: Option<&String>) -> Result<PartOutcome, FetchError> {
        let path = self.source.path.clone();
        let limit_bytes = self.source.poll.max_body_bytes;
        let known = validator.cloned();
        let read = tokio::task::spawn_blocking(move || read(&path, limit_bytes, known.as_deref()));
        let contents = read.await.map_err(|error| FetchError::Interrupted {
            source: error.into(),
        })?;
        let contents = contents.inspect_err(|_| {
            self.note(None);
        })?;
        self.note(Some(contents.signature.clone()));
        let Some(body) = contents.body else {
            return Ok(PartOutcome::NotModified);
        };
        // An override file is a plain map of flags, which has nothing of a payload's outer shape.
        let body = if self.source.is_override {
            body
        } else {
            let opener = Opener {
                label: self.source.path.display().to_string(),
                decryption_key: self.source.decryption_key.clone(),
                content_type: "file".to_owned(),
            };
            open(opener, body).await?
        };
        Ok(PartOutcome::Fetched {
            body,
            validator: Some(contents.signature),
        })
    }
}

struct Contents {
    signature: String,
    /// `None`: as the caller knows it.
    body: Option<Bytes>,
}

/// Reads a file unless it is as `known`. The signature is taken first: a write during the read shows at the next look.
fn read(path: &Path, limit_bytes: usize, known: Option<&str>) -> Result<Contents, FetchError> {
    let fail = |error: io::Error| FetchError::File {
        path: PathBuf::from(path),
        source: error.into(),
    };
    let file = std::fs::File::open(path).map_err(fail)?;
    let signature = signature(&file.metadata().map_err(fail)?);
    if known == Some(signature.as_str()) {
        let body = None;
        return Ok(Contents { signature, body });
    }
    let mut body = Vec::new();
    let limit = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
    // One byte more than allowed tells a file that is too large from one that just fits.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut body)
        .map_err(fail)?;
    if body.len() > limit_bytes {
        return Err(FetchError::TooLarge { limit_bytes });
    }
    Ok(Contents {
        signature,
        body: Some(body.into()),
    })
}

/// Time of the last change, length and inode: one of them moves with every write and every replacement.
fn signature(metadata: &std::fs::Metadata) -> String {
    format!(
        "{}.{:09}-{}-{}",
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len(),
        metadata.ino()
    )
}
