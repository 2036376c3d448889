//! One conditional GET: credentials, time limits, retries, rate limits, a body that cannot grow without bound.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap,
        HeaderValue, IF_NONE_MATCH,
    },
    redirect::{Attempt, Policy},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep, timeout};

use super::{
    FetchError,
    budget::{self, Budget, ListCost},
    error::RefusedRedirect,
    jitter, mask,
};
use crate::settings::Poll;

/// How the upstream sees us.
const USER_AGENT: &str = concat!("stitchd/", env!("CARGO_PKG_VERSION"));

/// Most redirects that one request follows within its origin.
const REDIRECTS_MAX: usize = 5;

/// Idle connections are closed after this; load balancers in front of GrowthBook keep them for 60 s or more.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Most of a refusal's body that is read for its message, in bytes.
const MESSAGE_BODY_MAX: usize = 4096;

/// Longest upstream message that an error carries, in characters.
const MESSAGE_MAX: usize = 200;

/// Which of the upstream's rate limits a request counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Public SDK endpoints of `api_host`.
    Sdk,
    /// Management API of `rest_host`, with the secret.
    Rest,
}

/// One request.
pub(super) struct Ask<'a> {
    pub(super) url: Url,
    pub(super) class: Class,
    /// `ETag` of the body that the caller has.
    pub(super) validator: Option<&'a str>,
    /// Largest body, in bytes after decompression.
    pub(super) limit_bytes: usize,
    /// When the whole fetch has to be over.
    pub(super) deadline: Instant,
}

/// What a request brought.
pub(super) enum Answer {
    /// 200 with a body.
    Body { body: Bytes, headers: HeaderMap },
    /// 304 to a request with a validator.
    NotModified { headers: HeaderMap },
}

/// The HTTP client of one source.
pub(super) struct Http {
    client: Client,
    poll: Poll,
    bearer: Option<HeaderValue>,
    secret: Option<SecretString>,
    sdk: Mutex<Budget>,
    rest: Mutex<Budget>,
}

impl Http {
    pub(super) fn new(poll: &Poll, secret: Option<&SecretString>) -> Result<Self, FetchError> {
        super::install_tls_provider();
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(poll.connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .redirect(Policy::custom(within_origin))
            .referer(false)
            // Proxies come from no environment variable: what a source contacts stands in its settings.
            .no_proxy()
            .build()
            .map_err(FetchError::from_http)?;
        let bearer = secret.map(bearer).transpose()?;
        Ok(Self {
            client,
            poll: poll.clone(),
            bearer,
            secret: secret.cloned(),
            sdk: Mutex::default(),
            rest: Mutex::default(),
        })
    }

    /// Gets a body, with retries. To a class that asked for quiet nothing is sent until its time is up.
    pub(super) async fn get(&self, ask: &Ask<'_>) -> Result<Answer, FetchError> {
        let mut retry = 0;
        loop {
            if let Some(retry_after) = self.budget(ask.class).lock().wait(Instant::now()) {
                return Err(FetchError::RateLimited { retry_after });
            }
            let error = match self.once(ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = jitter::full(self.poll.retry_backoff, retry)
                .max(error.retry_after().unwrap_or_default());
            let is_over = Instant::now() + wait >= ask.deadline;
            if !error.is_retryable() || retry >= self.poll.retries || is_over {
                return Err(error);
            }
            sleep(wait).await;
            retry += 1;
        }
    }

    /// Opens an event stream; only the time until its headers is limited.
    pub(super) async fn open_stream(&self, url: Url) -> Result<Response, FetchError> {
        if let Some(retry_after) = self.sdk.lock().wait(Instant::now()) {
            return Err(FetchError::RateLimited { retry_after });
        }
        let request = self
            .client
            .get(url)
            .header(ACCEPT, "text/event-stream")
            .header(CACHE_CONTROL, "no-cache")
            // A compressed stream would be held back by whoever compresses it.
            .header(ACCEPT_ENCODING, "identity")
            .send();
        let response = match timeout(self.poll.timeout, request).await {
            Ok(sent) => sent.map_err(FetchError::from_http)?,
            Err(_elapsed) => return Err(FetchError::Timeout),
        };
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        match timeout(self.poll.timeout, self.refusal(response)).await {
            Ok(error) => Err(error),
            Err(_elapsed) => Err(FetchError::Timeout),
        }
    }

    /// Time until anything may be sent to a class that asked for quiet.
    pub(super) fn closed_for(&self, class: Class) -> Option<Duration> {
        self.budget(class).lock().closed_for(Instant::now())
    }

    /// Whether the management API has that many requests left for us.
    pub(super) fn affords(&self, requests: u32) -> bool {
        self.rest.lock().affords(requests, Instant::now())
    }

    /// Whether the lists may be read now.
    pub(super) fn lists_are_due(&self, cost: ListCost) -> bool {
        self.rest.lock().lists_are_due(cost, Instant::now())
    }

    fn budget(&self, class: Class) -> &Mutex<Budget> {
        match class {
            Class::Sdk => &self.sdk,
            Class::Rest => &self.rest,
        }
    }

    async fn once(&self, ask: &Ask<'_>) -> Result<Answer, FetchError> {
        let left = ask.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(FetchError::Timeout);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let (Class::Rest, Some(bearer)) = (ask.class, &self.bearer) {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        // A validator that is no header value was never an ETag; the request is sent without it.
        let validator = ask
            .validator
            .and_then(|text| HeaderValue::from_str(text).ok());
        let is_conditional = validator.is_some();
        if let Some(validator) = validator {
            headers.insert(IF_NONE_MATCH, validator);
        }
        let response = self
            .client
            .get(ask.url.clone())
            .headers(headers)
            .timeout(left.min(self.poll.timeout))
            .send()
            .await
            .map_err(FetchError::from_http)?;
        self.budget(ask.class)
            .lock()
            .observe(response.headers(), Instant::now());
        match response.status() {
            StatusCode::OK => {
                let headers = response.headers().clone();
                let body = read(response, ask.limit_bytes).await?;
                Ok(Answer::Body { body, headers })
            }
            StatusCode::NOT_MODIFIED if is_conditional => Ok(Answer::NotModified {
                headers: response.headers().clone(),
            }),
            status => {
                if let Some(wait) = budget::quiet_after(status, response.headers()) {
                    self.budget(ask.class).lock().close(wait, Instant::now());
                }
                Err(self.refusal(response).await)
            }
        }
    }

    async fn refusal(&self, response: Response) -> FetchError {
        let status = response.status();
        let headers = response.headers().clone();
        let is_final = headers
            .get("x-unrecoverable")
            .is_some_and(|value| value.as_bytes() == b"1");
        if status == StatusCode::TOO_MANY_REQUESTS {
            let retry_after = budget::wait_after_429(&headers);
            return FetchError::RateLimited { retry_after };
        }
        let message = self.message(response).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FetchError::Unauthorized {
                status: status.as_u16(),
                message,
            },
            StatusCode::BAD_REQUEST if is_final => FetchError::Unrecoverable { message },
            _ => FetchError::Status {
                status: status.as_u16(),
                message,
                retry_after: budget::quiet_after(status, &headers),
            },
        }
    }

    /// GrowthBook's own words: `error` of the SDK endpoints, `message` of the management API.
    async fn message(&self, response: Response) -> String {
        let key = client_key(response.url());
        let Ok(body) = read(response, MESSAGE_BODY_MAX).await else {
            return String::new();
        };
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(&body) else {
            return String::new();
        };
        let Some(text) = body["error"].as_str().or_else(|| body["message"].as_str()) else {
            return String::new();
        };
        // Upstreams quote what they were sent.
        let mut text = text.to_owned();
        if let Some(secret) = &self.secret {
            text = text.replace(secret.expose_secret(), "***");
        }
        if let Some(key) = key {
            text = text.replace(&key, &mask(&key));
        }
        shortened(&text)
    }
}

/// Content type of an answer, for errors.
pub(super) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE);
    value
        .and_then(|value| value.to_str().ok())
        .map_or_else(|| "no content type".to_owned(), shortened)
}

/// `ETag` of an answer, as it was sent.
pub(super) fn etag(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(ETAG)?.to_str().ok()?;
    Some(value.to_owned())
}

/// A base URL of the settings.
pub(super) fn base_url(key: &'static str, text: &str) -> Result<Url, FetchError> {
    let fail = |message: String| FetchError::Setting { key, message };
    let mut url = Url::parse(text).map_err(|error| fail(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(fail(
            "it begins with neither `http://` nor `https://`".to_owned(),
        ));
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// A path below a base URL; segments are percent-encoded.
pub(super) fn endpoint(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.path_segments_mut()
        .expect("`base_url` lets only http and https through, which have paths")
        .pop_if_empty()
        .extend(segments);
    url
}

/// Reads a body up to a limit, which counts what the decoder gives: a small body may unfold to gigabytes.
async fn read(mut response: Response, limit_bytes: usize) -> Result<Bytes, FetchError> {
    let too_large = FetchError::TooLarge { limit_bytes };
    let announced = response.content_length().unwrap_or_default();
    if announced > u64::try_from(limit_bytes).unwrap_or(u64::MAX) {
        return Err(too_large);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(FetchError::from_http)? {
        if chunk.len() > limit_bytes - body.len() {
            return Err(too_large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

fn bearer(secret: &SecretString) -> Result<HeaderValue, FetchError> {
    let text = format!("Bearer {}", secret.expose_secret());
    let mut value = HeaderValue::from_str(&text).map_err(|_quotes_the_secret| {
        let message = "it has characters that no header may have".to_owned();
        FetchError::Setting {
            key: "secret_key",
            message,
        }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Follows redirects only to the scheme, host and port that were asked: elsewhere the bytes are somebody else's.
fn within_origin(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().first().map(Url::origin);
    let to = attempt.url().origin();
    if from.is_some_and(|from| from != to) {
        let text = format!("it leads to {}", to.ascii_serialization());
        return attempt.error(RefusedRedirect(text));
    }
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error(RefusedRedirect(format!(
            "more than {REDIRECTS_MAX} in a row"
        )));
    }
    attempt.follow()
}

/// The client key that a URL ends with, if it does.
fn client_key(url: &Url) -> Option<String> {
    let last = url.path_segments()?.next_back()?;
    last.starts_with("sdk-").then(|| last.to_owned())
}

fn shortened(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MESSAGE_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_keep_the_base_path_and_encode_segments() {
        for base in [
            "https://gb.example.org/api",
            "https://gb.example.org/api/?x=1",
        ] {
            let base = base_url("rest_host", base).unwrap();
            assert_eq!(
                endpoint(&base, &["v1", "sdk/x?y"]).as_str(),
                "https://gb.example.org/api/v1/sdk%2Fx%3Fy"
            );
        }
        let root = base_url("api_host", "https://cdn.growthbook.io").unwrap();
        assert_eq!(
            endpoint(&root, &["sub", "sdk-1"]).as_str(),
            "https://cdn.growthbook.io/sub/sdk-1"
        );
        assert!(base_url("api_host", "ftp://example.org").is_err());
        assert!(base_url("api_host", "example").is_err());
    }

    #[test]
    fn a_secret_with_a_line_break_is_refused_without_showing_it() {
        let error = bearer(&SecretString::from("secret\nkey")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`secret_key` cannot be used: it has characters that no header may have"
        );
    }
}
