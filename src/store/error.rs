//! What can go wrong in the store, by what the caller does next.

use std::{
    error::Error as _,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sea_orm::DbErr;

/// A failure of the database or of the disk backup.
///
/// No variant ever holds a URL or a password. [`StoreError::explain`] gives the whole story in one line.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away or busy: ask again soon.
    #[error("the database does not answer")]
    Unavailable {
        /// What was seen of it.
        #[source]
        source: Outage,
    },
    /// The database answers but refuses: somebody has to look; ask again at the longest interval.
    #[error("the database refused a statement")]
    Refused {
        /// What it said.
        #[source]
        source: Box<DbErr>,
    },
    /// Migrations are pending and `database.migrate_on_start` is off: ask again at the longest interval.
    #[error("the database schema is {pending} migration(s) behind; run `stitchd migrate up`")]
    SchemaBehind {
        /// How many.
        pending: usize,
    },
    /// The same bytes will never fit: keep them in the backup alone.
    #[error(
        "{size_bytes} bytes are more than the database's `max_allowed_packet` of {limit_bytes} bytes; raise it on the server"
    )]
    PacketTooLarge {
        /// The statement's size.
        size_bytes: u64,
        /// The server's limit; 0 where it did not say.
        limit_bytes: u64,
    },
    /// Stored bytes are not what was once written: take another copy.
    #[error("{what} is corrupt: {problem}")]
    Corrupt {
        /// Which record or file.
        what: String,
        /// What does not fit.
        problem: String,
    },
    /// The disk backup cannot be read or written: ask again later.
    #[error("failed to {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `database.url` cannot be used at all: stop the start.
    #[error("`database.url` cannot be used: {problem}")]
    Url {
        /// What is wrong, without the URL.
        problem: String,
    },
    /// The store's own threads could not be started, or ended: only at the end of the process.
    #[error("the store's threads are not running")]
    Stopped {
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How it showed that the database is away.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Outage {
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The file that was opened is not there any more; it is opened afresh next time.
    #[error("the database file was deleted or replaced")]
    FileReplaced,
    /// Other replicas were faster each time.
    #[error("other replicas wrote the same first, each time")]
    Contended,
    /// The connection failed, or the database said that it cannot work now.
    #[error(transparent)]
    Failed(DbErr),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Io { .. })
    }

    /// Whether the disk did not answer in time.
    pub fn is_slow_disk(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut)
    }

    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether a file will never be read: it is not there, or not what was written.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Corrupt { .. }) || self.is_missing()
    }

    /// The error with its causes, each said once: for a log line or `last_error`.
    pub fn explain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let said = error.to_string();
            // sea-orm's errors repeat their source in their own text.
            if !text.contains(&said) {
                write!(text, ": {said}").expect("writing to a String cannot fail");
            }
            cause = error.source();
        }
        text
    }

    pub(super) fn timed_out(after: Duration) -> Self {
        Self::Unavailable {
            source: Outage::TimedOut(after),
        }
    }

    /// The disk did not `action` something at `path` in time.
    pub(super) fn slow_disk(action: &'static str, path: &Path, after: Duration) -> Self {
        let problem = format!("not done within {after:?}");
        Self::Io {
            action,
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::TimedOut, problem),
        }
    }

    pub(super) fn corrupt(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            problem: problem.into(),
        }
    }
}
