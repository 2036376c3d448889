//! Why a part of a fetch failed, by what the caller does next.
//!
//! Texts say the fact, then the cause. They hold no secret, no URL, and client keys only [masked](mask).

use std::{error::Error as StdError, io, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;

/// Why a part of a fetch failed.
#[derive(Clone, Debug, Error)]
pub enum FetchError {
    /// No complete answer within the time allowed, connecting included.
    #[error("timed out waiting for the upstream")]
    Timeout,
    /// No connection: refused, unknown host, TLS.
    #[error("failed to connect: {}", root_cause(.source.as_ref()))]
    Connect {
        /// What the HTTP client said, without the URL.
        source: Arc<reqwest::Error>,
    },
    /// The connection broke before the answer was complete.
    #[error("connection broke before the answer was complete: {}", root_cause(.source.as_ref()))]
    Transport {
        /// What the HTTP client said, without the URL.
        source: Arc<reqwest::Error>,
    },
    /// The body's compression is corrupt.
    #[error("failed to decompress the answer: {}", root_cause(.source.as_ref()))]
    Decompression {
        /// What the decoder said.
        source: Arc<reqwest::Error>,
    },
    /// A status that is neither 200 nor an expected 304, and has no variant of its own.
    #[error("upstream answered {status}{}", cause(.message))]
    Status {
        /// HTTP status code.
        status: u16,
        /// The upstream's own words, shortened; may be empty.
        message: String,
        /// How long the upstream asked to be left alone (503), at most [`RETRY_AFTER_MAX`](super::RETRY_AFTER_MAX).
        retry_after: Option<Duration>,
    },
    /// The upstream's rate limit is reached: nothing is sent until it is over.
    #[error("rate limited by the upstream for another {} s", whole_seconds(*.retry_after))]
    RateLimited {
        /// Time left.
        retry_after: Duration,
    },
    /// The credentials are refused (401, 403).
    #[error("upstream refused the credentials with {status}{}", cause(.message))]
    Unauthorized {
        /// HTTP status code.
        status: u16,
        /// The upstream's own words, shortened; may be empty.
        message: String,
    },
    /// The upstream says that asking again will not help (400 with `x-unrecoverable: 1`).
    #[error("upstream refused for good{}", cause(.message))]
    Unrecoverable {
        /// The upstream's own words, shortened; may be empty.
        message: String,
    },
    /// More bytes than `poll.max_body_bytes`, after decompression.
    #[error("answer is larger than `poll.max_body_bytes`, {limit_bytes} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// The body is not JSON.
    #[error("answer is not JSON ({content_type}): {source}")]
    NotJson {
        /// Content type of the answer, shortened.
        content_type: String,
        /// Where parsing stopped.
        source: Arc<serde_json::Error>,
    },
    /// The body is JSON but not the document that was asked for.
    #[error("answer has the wrong shape: {message}")]
    Shape {
        /// What is missing or of the wrong kind.
        message: String,
    },
    /// An encrypted payload could not be read.
    #[error("failed to decrypt the payload of `{connection}`: {message}")]
    Decryption {
        /// Client key, masked, or the file.
        connection: String,
        /// What went wrong and what to set.
        message: String,
    },
    /// A redirect that leaves the origin, or one too many.
    #[error("redirect refused: {to}")]
    RedirectRefused {
        /// Where it led: an origin, or how many there were.
        to: String,
    },
    /// A list kept changing while its pages were read.
    #[error("list changed in each of {reads} reads")]
    Shifting {
        /// How often it was read.
        reads: u32,
    },
    /// No SDK connection belongs to the source's environment and project.
    #[error("no SDK connection for environment `{environment}`: upstream has {}", names(.seen))]
    NoConnections {
        /// The source's environment.
        environment: String,
        /// Environments that the upstream's connections belong to.
        seen: Vec<String>,
    },
    /// A payload file could not be read.
    #[error("failed to read {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// A setting of the source cannot be used.
    #[error("`{key}` cannot be used: {message}")]
    Setting {
        /// Key within `[[sources]]`.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The work on the body was cut off: a panic, or the runtime is going down.
    #[error("work on the answer was interrupted: {source}")]
    Interrupted {
        /// What tokio said.
        source: Arc<tokio::task::JoinError>,
    },
}

impl FetchError {
    /// Sorts an error of the HTTP client.
    pub(super) fn from_http(error: reqwest::Error) -> Self {
        if let Some(refused) = find::<RefusedRedirect>(&error) {
            return Self::RedirectRefused {
                to: refused.0.clone(),
            };
        }
        if error.is_timeout() {
            return Self::Timeout;
        }
        let is_decompression = is_from_decoder(&error);
        let is_connect = error.is_connect();
        let source = Arc::new(error.without_url());
        match (is_connect, is_decompression) {
            (true, _) => Self::Connect { source },
            (false, true) => Self::Decompression { source },
            (false, false) => Self::Transport { source },
        }
    }

    /// Sorts a parse error: broken text is not JSON, a wrong kind of value is a wrong shape.
    pub(super) fn from_json(error: serde_json::Error, content_type: &str) -> Self {
        if error.is_data() {
            return Self::Shape {
                message: error.to_string(),
            };
        }
        Self::NotJson {
            content_type: content_type.to_owned(),
            source: Arc::new(error),
        }
    }

    /// Whether trying again within the same fetch may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout | Self::Connect { .. } | Self::Transport { .. } => true,
            // 400 without `x-unrecoverable` is how GrowthBook reports an outage of its own.
            Self::Status { status, .. } => {
                matches!(status, 400 | 404 | 408 | 425) || *status >= 500
            }
            _ => false,
        }
    }

    /// Whether only an operator can help: reported as `permanent`, asked again at the longest backoff.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized { .. } | Self::Unrecoverable { .. } | Self::Setting { .. }
        )
    }

    /// How long the upstream asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The reason in one word, the same in every version: for answers, metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect { source } => {
                let refused = find::<io::Error>(source.as_ref())
                    .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
                if refused { "refused" } else { "connect" }
            }
            Self::Transport { .. } => "reset",
            Self::Decompression { .. } => "bad_compression",
            Self::Status { .. } => "http_status",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Unrecoverable { .. } => "unrecoverable",
            Self::TooLarge { .. } => "too_large",
            Self::NotJson { .. } => "not_json",
            Self::Shape { .. } => "bad_shape",
            Self::Decryption { .. } => "decryption",
            Self::RedirectRefused { .. } => "redirect",
            Self::Shifting { .. } => "shifting_list",
            Self::NoConnections { .. } => "no_connections",
            Self::File { .. } => "file",
            Self::Setting { .. } => "setting",
            Self::Interrupted { .. } => "interrupted",
        }
    }
}

/// Why the redirect policy stopped; travels inside `reqwest::Error`.
#[derive(Debug, Error)]
#[error("redirect refused: {0}")]
pub(super) struct RefusedRedirect(pub(super) String);

/// A client key as logs and errors may show it: its beginning.
pub fn mask(key: &str) -> String {
    // `sdk-` and three characters tell one's own keys apart; a short key shows half of itself at most.
    let shown = key.chars().count().div_ceil(2).min(7);
    let mut text: String = key.chars().take(shown).collect();
    text.push('…');
    text
}

fn whole_seconds(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

fn cause(message: &str) -> String {
    if message.is_empty() {
        return String::new();
    }
    format!(": {message}")
}

fn names(seen: &[String]) -> String {
    if seen.is_empty() {
        return "no connections at all".to_owned();
    }
    format!("`{}`", seen.join("`, `"))
}

/// Whether a body broke in the decoder and not on the wire.
///
/// The client calls both a body that cannot be decoded. Below its own errors lies what happened: an I/O error is the
/// decoder's, because the connection's come wrapped by the HTTP library.
fn is_from_decoder(error: &reqwest::Error) -> bool {
    let mut below = chain(error).skip_while(|error| error.is::<reqwest::Error>());
    (error.is_decode() || error.is_body())
        && below.next().is_some_and(<dyn StdError>::is::<io::Error>)
}

/// The last error of a chain, which is the one that says what happened.
pub fn root_cause(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().unwrap_or(error).to_string()
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref())
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_key_shows_its_beginning_only() {
        assert_eq!(mask("sdk-abcdefghij"), "sdk-abc…");
        assert_eq!(mask("abcd"), "ab…");
        assert_eq!(mask(""), "…");
    }

    #[test]
    fn texts_say_fact_then_cause() {
        let status = |message: &str| FetchError::Status {
            status: 502,
            message: message.to_owned(),
            retry_after: None,
        };
        assert_eq!(status("").to_string(), "upstream answered 502");
        assert_eq!(
            status("bad gateway").to_string(),
            "upstream answered 502: bad gateway"
        );
        let limited = FetchError::RateLimited {
            retry_after: Duration::from_millis(1500),
        };
        assert_eq!(
            limited.to_string(),
            "rate limited by the upstream for another 2 s"
        );
        let none = FetchError::NoConnections {
            environment: "prod".to_owned(),
            seen: vec!["dev".to_owned(), "test".to_owned()],
        };
        assert_eq!(
            none.to_string(),
            "no SDK connection for environment `prod`: upstream has `dev`, `test`"
        );
    }

    #[test]
    fn only_an_outage_is_retried_and_only_a_refusal_is_permanent() {
        let status = |status| FetchError::Status {
            status,
            message: String::new(),
            retry_after: None,
        };
        for code in [400, 404, 500, 503] {
            assert!(status(code).is_retryable(), "{code}");
        }
        for code in [204, 206, 304, 405, 413] {
            assert!(!status(code).is_retryable(), "{code}");
        }
        let revoked = FetchError::Unrecoverable {
            message: String::new(),
        };
        assert!(revoked.is_permanent() && !revoked.is_retryable());
    }
}
