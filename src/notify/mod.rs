//! Tells others about a new revision: one request to a cache or to the receiver of a webhook, and what it said.
//!
//! Knows how a request is spelt and signed. When it is sent, how often, and what of, is the `AnnouncerActor`'s business.
//! No redirect is followed: purging or posting somewhere else is never what was meant. Nothing of an answer is kept but its
//! status and `Retry-After`; errors name no address, because that may hold a password.

mod signature;

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Client, Method, RequestBuilder, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderValue},
    redirect::Policy,
};
use secrecy::SecretSlice;

use self::signature::sign;
use crate::sources::{retry_after, root_cause};

/// How others see us.
const USER_AGENT: &str = concat!("stitchd/", env!("CARGO_PKG_VERSION"));

/// Idle connections are closed after this: revisions come once a minute at most, usually.
const POOL_IDLE: Duration = Duration::from_secs(10);

/// Most of an answer that is read, in bytes: a connection is used again only if nothing is left on it.
const ANSWER_BYTES_MAX: usize = 16_384;

/// Why somebody was not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// No whole answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection, or one that broke.
    #[error("{0}")]
    Unreachable(String),
    /// It answered, and not with success.
    #[error("answered {status}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It answered with a redirect.
    #[error("answered {0}; redirects are not followed")]
    Redirected(u16),
}

impl NotifyError {
    /// Whether the same request may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unreachable(_) => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429) || *status >= 500,
            Self::Redirected(_) => false,
        }
    }

    /// Whether nobody was there to answer, so that another request would fare no better.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Unreachable(_))
    }

    /// How long it asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What the receiver of a webhook is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The same for each try, so that a receiver can tell a repetition.
    pub id: String,
    /// JSON.
    pub body: Bytes,
}

/// An HTTP client for all targets. Belongs to the runtime that it is first used on.
#[derive(Clone, Debug)]
pub struct Messenger(Client);

impl Messenger {
    /// Fails when the TLS provider or the system's resolver cannot be used.
    pub fn new() -> Result<Self, NotifyError> {
        Client::builder()
            .user_agent(USER_AGENT)
            .pool_idle_timeout(POOL_IDLE)
            .redirect(Policy::none())
            .referer(false)
            // As for sources: what is contacted stands in the settings alone.
            .no_proxy()
            .build()
            .map(Self)
            .map_err(|error| NotifyError::Unreachable(root_cause(&error)))
    }

    /// Asks a cache to fetch a path anew. A cache that does not have it (404) has nothing to forget.
    pub async fn purge(&self, base: &Url, path: &str, limit: Duration) -> Result<(), NotifyError> {
        let method = Method::from_bytes(b"PURGE").expect("letters are a method");
        let request = self.0.request(method, below(base, path));
        match send(request, limit).await {
            Err(NotifyError::Refused { status: 404, .. }) => Ok(()),
            sent => sent,
        }
    }

    /// Sends a webhook, signed for `seconds`, the Unix time of this try.
    pub async fn post(
        &self,
        url: &Url,
        key: &SecretSlice<u8>,
        message: &Message,
        seconds: i64,
        limit: Duration,
    ) -> Result<(), NotifyError> {
        let timestamp = seconds.to_string();
        let signature = sign(key, &message.id, &timestamp, &message.body);
        let request = self
            .0
            .post(url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(message.body.clone());
        send(request, limit).await
    }
}

/// A path with its query, behind a base URL that may have a path of its own.
fn below(base: &Url, path: &str) -> Url {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(query);
    url
}

async fn send(request: RequestBuilder, limit: Duration) -> Result<(), NotifyError> {
    let broken = |error: reqwest::Error| {
        if error.is_timeout() {
            NotifyError::Timeout(limit)
        } else {
            NotifyError::Unreachable(root_cause(&error))
        }
    };
    let mut response = request.timeout(limit).send().await.map_err(broken)?;
    let status = response.status();
    let answer = judge(status, retry_after(response.headers()));
    let mut left = ANSWER_BYTES_MAX;
    // What the status says counts, whatever becomes of the body.
    while let Ok(Some(chunk)) = response.chunk().await
        && chunk.len() < left
    {
        left -= chunk.len();
    }
    answer
}

fn judge(status: StatusCode, retry_after: Option<Duration>) -> Result<(), NotifyError> {
    let code = status.as_u16();
    if status.is_success() {
        Ok(())
    } else if status.is_redirection() {
        Err(NotifyError::Redirected(code))
    } else {
        let status = code;
        Err(NotifyError::Refused {
            status,
            retry_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_behind_the_base_and_queries_stay() {
        for (base, path, expected) in [
            ("http://a:6081", "/v1/x", "http://a:6081/v1/x"),
            ("http://a:6081/", "/v1/x?b=c", "http://a:6081/v1/x?b=c"),
            (
                "http://me:pw@a/cache/",
                "/v1/x",
                "http://me:pw@a/cache/v1/x",
            ),
            (
                "http://a",
                "/api/features/a%2Fb",
                "http://a/api/features/a%2Fb",
            ),
        ] {
            let base = Url::parse(base).unwrap();
            assert_eq!(below(&base, path).as_str(), expected);
        }
    }

    #[test]
    fn what_passes_is_tried_again_and_what_is_refused_is_not() {
        let refused = |code: u16| {
            let status = StatusCode::from_u16(code).unwrap();
            judge(status, None).unwrap_err()
        };
        for code in [408, 425, 429, 500, 502, 503] {
            assert!(refused(code).is_retryable(), "{code}");
        }
        for code in [301, 307, 400, 401, 403, 405, 410] {
            assert!(!refused(code).is_retryable(), "{code}");
        }
        assert_eq!(judge(StatusCode::NO_CONTENT, None), Ok(()));
        assert_eq!(refused(302), NotifyError::Redirected(302));
    }
}
