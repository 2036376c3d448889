//! The data plane's reads: `/v1/snapshot/{environment}` and `/api/v1/experiments`.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use super::{
    consumers::{self, Consumer},
    documents::{self, Served},
    error::ApiError,
    extract,
    state::HttpState,
};
use crate::{clock, model::snapshot::SNAPSHOT_DOCUMENT};

/// `GET /v1/snapshot/{environment}`.
pub(super) async fn snapshot(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let environment = request.match_info().get("environment").unwrap_or_default();
    let served = documents::serve(&request, &state, environment, SNAPSHOT_DOCUMENT).await?;
    Ok(served.response)
}

#[derive(Deserialize)]
struct Query {
    authority: Option<String>,
    format: Option<String>,
    environment: Option<String>,
}

/// `GET /api/v1/experiments`.
pub(super) async fn experiments(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let query: Query = extract::query(request.query_string())?;
    let (authority, document) = view(query.authority.as_deref(), query.format.as_deref())?;
    let environment = query
        .environment
        .as_deref()
        .unwrap_or(&state.shared.server.default_environment);
    let Served { response, revision } =
        documents::serve(&request, &state, environment, document).await?;
    if let Some(host) = consumers::host(request.headers()) {
        let (host, environment) = (host.to_owned(), environment.to_owned());
        let consumer = Consumer {
            host,
            authority,
            environment,
            revision,
            at_ms: clock::now_ms(),
        };
        state
            .shared
            .metrics
            .consumers(state.shared.consumers.note(consumer));
    }
    Ok(response)
}

/// The authority that asks and the document it is shown.
fn view(
    authority: Option<&str>,
    format: Option<&str>,
) -> Result<(&'static str, &'static str), ApiError> {
    let authority = match authority {
        Some("varnish") => "varnish",
        Some("mediawiki") | None => "mediawiki",
        Some(_) => {
            return Err(ApiError::bad_request(
                "authority",
                "use `varnish` or `mediawiki`",
            ));
        }
    };
    match format {
        Some("config") | None => Ok((authority, authority)),
        Some("analytics") => Ok((authority, "analytics")),
        Some(_) => Err(ApiError::bad_request(
            "format",
            "use `config` or `analytics`",
        )),
    }
}
