//! Unleash's Frontend API: `/api/frontend`, as its SDKs for browsers and apps speak it.
//!
//! GET and POST answer the enabled toggles alone. The entity tag is of the configuration, the token and the context, for
//! both methods, and known before anything is evaluated. What clients do with a status decides ours: some go quiet for
//! minutes at a 401, 403 or 404, so nothing transient is answered with one. Errors have Unleash's shape, `{"message"}`.
//!
//! Metrics and registrations are taken whatever they look like; what clients say that they use is counted.

mod context;
mod usage;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError as _,
    http::{
        Method, StatusCode,
        header::{self, HeaderName},
    },
    rt::task::spawn_blocking,
    web,
};
use serde_json::{Map, Value, json};

use super::{
    credentials::{self, Credential},
    documents::JSON,
    error::ApiError,
    evaluation::LIGHT_BYTES_MAX,
    extract,
    flags::Flagged,
    state::HttpState,
};
use crate::eval::Context;

/// An error that is the caller's, as Unleash's server tells it; others are problem documents like everywhere else.
fn failed(error: ApiError) -> Result<HttpResponse, ApiError> {
    let status = error.status_code();
    if status.is_server_error() {
        return Err(error);
    }
    let plain = error.respond(None);
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    response.insert_header((header::CONTENT_TYPE, JSON));
    let kept: [HeaderName; 2] = [header::RETRY_AFTER, header::WWW_AUTHENTICATE];
    for name in kept {
        if let Some(value) = plain.headers().get(&name) {
            response.insert_header((name, value.clone()));
        }
    }
    let body = json!({ "name": error.code(), "message": error.to_string() });
    Ok(response.body(body.to_string()))
}

/// `GET|POST /api/frontend`.
pub(super) async fn toggles(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    match answer(&request, payload, &state).await {
        Ok(response) => Ok(response),
        Err(error) => failed(error),
    }
}

async fn answer(
    request: &HttpRequest,
    payload: web::Payload,
    state: &HttpState,
) -> Result<HttpResponse, ApiError> {
    let credential = credentials::needed(state, request)?;
    let (attributes, bytes) = if request.method() == Method::POST {
        let body = extract::body(&state.shared, payload).await?;
        (context::from_body(&body)?, body.len())
    } else {
        let query = request.query_string();
        (context::from_query(query), query.len())
    };
    let attributes = Value::Object(attributes);
    let flagged = Flagged::of(state, credential).await?;
    let tag = flagged.tag("frontend", &attributes, &[]);
    if let Some(response) = flagged.known(request.headers(), &tag) {
        return Ok(response);
    }
    let work = move || {
        let body = write(&flagged, &attributes)?;
        Ok::<_, ApiError>((flagged, body))
    };
    let (flagged, body) = if bytes <= LIGHT_BYTES_MAX {
        work()?
    } else {
        spawn_blocking(work).await.or(Err(ApiError::Internal))??
    };
    Ok(flagged.respond(StatusCode::OK, Some(&tag), body))
}

fn write(flagged: &Flagged, attributes: &Value) -> Result<Vec<u8>, ApiError> {
    /// Of one toggle, to ask for memory once.
    const TOGGLE_BYTES: usize = 128;
    let empty = Map::new();
    let (environment, visible) = (flagged.environment()?, flagged.visible()?);
    let mut body = Vec::with_capacity(visible.len() * TOGGLE_BYTES + 16);
    body.extend_from_slice(b"{\"toggles\":[");
    let context = Context::new(attributes.as_object().unwrap_or(&empty));
    environment.write_toggles(&context, visible, &mut body);
    body.extend_from_slice(b"]}");
    Ok(body)
}

/// `POST /api/frontend/client/metrics`: always taken, if the token is.
pub(super) async fn metrics(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let counted = async {
        let credential = credentials::needed(&state, &request)?;
        let body = extract::body(&state.shared, payload).await?;
        count(&state, credential, &body).await;
        Ok(accepted())
    };
    counted.await.or_else(failed)
}

/// Counts what is reported of features that the token may see; there is nothing to count before the first load.
async fn count(state: &HttpState, credential: Credential, body: &[u8]) {
    let reports = usage::read(body);
    if reports.is_empty() {
        return;
    }
    let Ok(flagged) = Flagged::of(state, credential).await else {
        return;
    };
    let (Ok(environment), Ok(visible)) = (flagged.environment(), flagged.visible()) else {
        return;
    };
    let name = &flagged.snapshot.environment;
    let metrics = &state.shared.metrics;
    for report in reports {
        if environment.flags().find(&report.feature, visible).is_some() {
            for (is_enabled, checks) in [(true, report.yes), (false, report.no)] {
                if checks > 0 {
                    metrics.feature_used(name, &report.feature, is_enabled, checks);
                }
            }
        }
    }
}

/// `POST /api/frontend/client/register`: nothing is kept of it.
pub(super) async fn register(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    match credentials::needed(&state, &request) {
        Ok(_) => Ok(accepted()),
        Err(error) => failed(error),
    }
}

fn accepted() -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}
