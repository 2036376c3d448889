//! Handlers that answer fixed bytes: what the service is measured against.
//!
//! A group has the service answer once, [`set`]s that answer and its headers, and serves it from a route of the same path.

use std::sync::OnceLock;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue, IF_NONE_MATCH},
    },
};
use bytes::Bytes;

/// Places of the answers, one for each route that is measured.
pub(crate) const SNAPSHOT: usize = 0;
pub(crate) const FEATURES: usize = 1;
pub(crate) const DECISION: usize = 2;
pub(crate) const EVALUATION: usize = 3;
pub(crate) const TOGGLES: usize = 4;
pub(crate) const FLAGS: usize = 5;
const PLACES: usize = 6;

/// Headers that a handler made.
pub(crate) type Headers = Vec<(HeaderName, HeaderValue)>;

/// What a handler answers.
#[derive(Default)]
pub(crate) struct Fixed {
    pub(crate) body: Bytes,
    pub(crate) found: Headers,
    /// Of a 304; empty where nobody asks for one.
    pub(crate) not_modified: Headers,
}

static FIXED: [OnceLock<Fixed>; PLACES] = [const { OnceLock::new() }; PLACES];

thread_local! {
    /// Each worker's own copy: reference counts that workers share cost more than the rest of the handler.
    static OF_WORKER: [Fixed; PLACES] =
        std::array::from_fn(|which| FIXED[which].get().map(Fixed::deep_copy).unwrap_or_default());
}

impl Fixed {
    fn deep_copy(&self) -> Self {
        Self {
            body: Bytes::copy_from_slice(&self.body),
            found: deep_copy(&self.found),
            not_modified: deep_copy(&self.not_modified),
        }
    }
}

fn deep_copy(headers: &Headers) -> Headers {
    let copy = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
    let headers = headers.iter();
    headers
        .filter_map(|(name, value)| Some((name.clone(), copy(value)?)))
        .collect()
}

/// Says what is answered, to be called once and before a server starts; gives the bytes of the body.
pub(crate) fn set(which: usize, fixed: Fixed) -> usize {
    FIXED[which].get_or_init(|| fixed).body.len()
}

/// 200, or 304 to whoever names a validator.
pub(crate) async fn document<const WHICH: usize>(request: HttpRequest) -> HttpResponse {
    let is_conditional = request.headers().contains_key(IF_NONE_MATCH);
    OF_WORKER.with(|fixed| {
        if is_conditional {
            let response = HttpResponse::new(StatusCode::NOT_MODIFIED);
            with_headers(response, &fixed[WHICH].not_modified)
        } else {
            found(&fixed[WHICH])
        }
    })
}

/// [`document`], having read the body.
pub(crate) async fn document_to_body<const WHICH: usize>(
    request: HttpRequest,
    _body: Bytes,
) -> HttpResponse {
    document::<WHICH>(request).await
}

/// 200 to everybody.
pub(crate) async fn answer<const WHICH: usize>() -> HttpResponse {
    OF_WORKER.with(|fixed| found(&fixed[WHICH]))
}

/// The same, having read the body, as the service has to; a server closes a connection whose request it did not read.
pub(crate) async fn answer_to_body<const WHICH: usize>(_body: Bytes) -> HttpResponse {
    answer::<WHICH>().await
}

fn found(fixed: &Fixed) -> HttpResponse {
    let response = HttpResponse::new(StatusCode::OK).set_body(fixed.body.clone());
    with_headers(response.map_into_boxed_body(), &fixed.found)
}

fn with_headers(mut response: HttpResponse, headers: &Headers) -> HttpResponse {
    for (name, value) in headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

/// The headers that the handler made; the others are made by middleware and server again.
pub(crate) fn headers_of(answer: &reqwest::Response) -> anyhow::Result<Headers> {
    let by_others = ["date", "content-length", "x-request-id"];
    let headers = answer.headers().iter();
    let by_handler = headers.filter(|(name, _)| !by_others.contains(&name.as_str()));
    by_handler
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_str().as_bytes())?;
            Ok((name, HeaderValue::from_bytes(value.as_bytes())?))
        })
        .collect()
}

/// Of many answers the one of median size.
pub(crate) fn of_median_size(mut answers: Vec<Fixed>) -> Fixed {
    answers.sort_by_key(|answer| answer.body.len());
    let middle = answers.len() / 2;
    answers.into_iter().nth(middle).unwrap_or_default()
}
