//! Errors as GrowthBook's own proxy answers them: `{"status":400,"error":"…"}`.
//!
//! SDKs look at the status alone; pollers, other stitchds among them, stop for good at `x-unrecoverable`. What is no fault
//! of the caller (not loaded yet, too many streams) is a problem document like everywhere else, with `error` added.

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde_json::{Map, Value, json};

use super::{super::error::ApiError, UNRECOVERABLE};

/// Why a request of an SDK or of GrowthBook was not served.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum GrowthbookError {
    /// No connection of any source has this client key.
    #[error("Invalid API Key")]
    UnknownKey,
    /// The payload of a remote-evaluation connection is not for SDKs.
    #[error("Failed to get features (remote eval not supported)")]
    RemoteEvalOnly,
    /// The connection's SDKs evaluate by themselves.
    #[error("Failed to get features (remote eval required)")]
    RemoteEvalRequired,
    /// The request cannot be understood; the text says why, and holds nothing of what it says about a person.
    #[error("Invalid input")]
    InvalidInput(String),
    /// The request is longer than so many bytes.
    #[error("Request body too large")]
    BodyTooLarge(usize),
    /// Shared with our own routes.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl GrowthbookError {
    /// What it has in common with our own routes.
    pub(in crate::http) fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }

    /// The answer; no cache keeps it.
    pub(in crate::http) fn respond(&self, request_id: Option<&str>) -> HttpResponse {
        if let Self::Api(error) = self {
            let text = Value::String(error.to_string());
            let members = Map::from_iter([("error".to_owned(), text)]);
            return error.respond_with(members, request_id);
        }
        let status = self.status_code();
        let mut body = json!({ "status": status.as_u16(), "error": self.to_string() });
        match self {
            Self::InvalidInput(reason) => body["detail"] = json!(reason),
            Self::BodyTooLarge(limit) => {
                body["detail"] = json!(format!("send at most {limit} bytes"));
            }
            _ => {}
        }
        let mut response = HttpResponse::build(status);
        response
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .content_type("application/json; charset=utf-8");
        if matches!(self, Self::UnknownKey) {
            response.insert_header((UNRECOVERABLE, HeaderValue::from_static("1")));
        }
        response.body(body.to_string())
    }
}

impl ResponseError for GrowthbookError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::UnknownKey
            | Self::RemoteEvalOnly
            | Self::RemoteEvalRequired
            | Self::InvalidInput(_) => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Api(error) => error.status_code(),
        }
    }

    fn error_response(&self) -> HttpResponse {
        self.respond(None)
    }
}
