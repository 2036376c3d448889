//! `GET /healthcheck`: how GrowthBook finds out that a proxy is there.

use actix_web::{HttpResponse, http::StatusCode};
use serde_json::json;

use super::super::health::answer;

/// `GET /healthcheck`: the process answers, and is no GrowthBook proxy of a version that GrowthBook might look for.
///
/// GrowthBook reads 500 bytes and wants the text `proxyVersion`.
pub(in crate::http) async fn healthcheck() -> HttpResponse {
    let body = json!({
        "ok": true,
        "proxyVersion": concat!("stitchd-", env!("CARGO_PKG_VERSION")),
    });
    answer(StatusCode::OK, &body)
}
