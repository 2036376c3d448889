//! The data plane's reads: `/v1/snapshot/{environment}` and `/api/v1/experiments`.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use super::{
    consumers::{self, Consumer},
    credentials,
    documents::{self, Served},
    error::ApiError,
    extract,
    scoped::Form,
    state::HttpState,
};
use crate::{clock, model::snapshot::SNAPSHOT_DOCUMENT};

/// `GET /v1/snapshot/{environment}`.
pub(super) async fn snapshot(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let environment = request.match_info().get("environment").unwrap_or_default();
    let credential = credentials::server(&state, &request)?;
    credentials::must_be_of(credential.as_ref(), environment)?;
    let Some(credential) = credential else {
        let served = documents::serve(&request, &state, environment, SNAPSHOT_DOCUMENT).await?;
        return Ok(served.response);
    };
    if !credential.sees_all() {
        let served = documents::serve_scoped(&request, &state, &credential, Form::Snapshot).await?;
        return Ok(served.response);
    }
    let served = documents::serve(&request, &state, environment, SNAPSHOT_DOCUMENT).await?;
    let mut response = served.response;
    documents::keep_private(&mut response);
    Ok(response)
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
    let credential = credentials::server(&state, &request)?;
    credentials::must_be_of(credential.as_ref(), environment)?;
    if credential
        .as_ref()
        .is_some_and(|credential| !credential.sees_all())
    {
        let reason = "consumers' documents hold every project; this needs a token for all of them";
        return Err(ApiError::Forbidden(reason.to_owned()));
    }
    let Served {
        mut response,
        revision,
    } = documents::serve(&request, &state, environment, document).await?;
    if credential.is_some() {
        documents::keep_private(&mut response);
    }
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
