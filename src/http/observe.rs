//! Around every handler: a request id, a counter, a log line, and an answer even when the handler panics.
//!
//! Each route of each worker has its own [`RouteCounters`], so that a request costs one atomic addition.

use std::{panic::AssertUnwindSafe, rc::Rc, sync::Arc};

use actix_web::{
    Error,
    body::BoxBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, StatusCode,
        header::{HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
};
use futures_util::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use tracing::{Instrument as _, debug, debug_span, error};

use super::{Plane, error::ApiError, growthbook::GrowthbookError, state::Shared};
use crate::actors::supervisor::panic_text;

/// Header in which a request id is taken and given.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id taken from outside, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// Values of the label `status`.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The counters of one route in one worker.
pub(super) struct RouteCounters {
    shared: Arc<Shared>,
    route: &'static str,
    classes: [Counter; 5],
}

impl RouteCounters {
    /// `route` is the path's template, never what a client sent.
    pub(super) fn new(shared: &Arc<Shared>, plane: Plane, route: &'static str) -> Rc<Self> {
        let classes = CLASSES.map(|class| shared.metrics.requests(plane.as_str(), route, class));
        Rc::new(Self {
            shared: Arc::clone(shared),
            route,
            classes,
        })
    }

    fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.classes.get(class) {
            counter.inc();
        }
    }
}

/// The id that the client gave, if it may be repeated and logged; otherwise a fresh one.
fn request_id(headers: &HeaderMap, shared: &Shared) -> HeaderValue {
    let is_acceptable = |id: &&HeaderValue| {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(is_word)
    };
    headers
        .get(REQUEST_ID)
        .filter(is_acceptable)
        .cloned()
        .unwrap_or_else(|| shared.request_id())
}

/// Runs a handler and sees to everything that all of them have in common.
///
/// The span is at debug level: with the usual filter it costs nothing, a trace collector gets it all the same.
pub(super) async fn observe(
    counters: Rc<RouteCounters>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, Error> {
    let id = request_id(request.headers(), &counters.shared);
    let id_text = id.to_str().unwrap_or_default();
    let span =
        debug_span!("request", id = id_text, method = %request.method(), route = counters.route);
    // Routing is over, so a second handle to the request is allowed; the answer to a panic needs it.
    let handle = request.request().clone();
    let answer = AssertUnwindSafe(async move { next.call(request).await }).catch_unwind();
    let mut response = match answer.instrument(span).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => ServiceResponse::from_err(error, handle),
        Err(panic) => {
            counters.shared.metrics.handler_panicked();
            let text = panic_text(&*panic);
            error!(
                request.id = id_text,
                route = counters.route,
                "a handler of {} panicked: {text}",
                counters.route
            );
            ServiceResponse::new(handle, ApiError::Internal.respond(Some(id_text)))
        }
    };
    let status = response.status();
    counters.count(status);
    if status.is_server_error() {
        response = explain(response, &counters, id_text);
    }
    debug!(
        request.id = id_text,
        route = counters.route,
        status = status.as_u16(),
        "answered {status}"
    );
    response.headers_mut().insert(REQUEST_ID, id);
    if counters.shared.is_stopping() {
        // Whoever asks again does so elsewhere, and not on a connection that is about to end.
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

/// Logs what deserves it, and puts the request id into a failure's body.
fn explain(response: ServiceResponse, counters: &RouteCounters, id: &str) -> ServiceResponse {
    let failure = response.response().error();
    let growthbook = failure.and_then(Error::as_error::<GrowthbookError>);
    let failure = failure
        .and_then(Error::as_error::<ApiError>)
        .or_else(|| growthbook.and_then(GrowthbookError::api));
    let Some(failure) = failure else {
        return response;
    };
    if failure.is_loud() {
        let status = response.status();
        error!(
            request.id = id,
            route = counters.route,
            "answered {status} on {}: {failure}",
            counters.route
        );
    }
    let body = match growthbook {
        Some(growthbook) => growthbook.respond(Some(id)),
        None => failure.respond(Some(id)),
    };
    let (request, _) = response.into_parts();
    ServiceResponse::new(request, body)
}
