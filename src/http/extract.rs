//! Parts of a request, with every mistake answered as a problem document that names the field.

use actix_web::web;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{error::ApiError, state::Shared};

/// The query parameters; unknown ones are ignored.
pub(super) fn query<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    match web::Query::<T>::from_query(text) {
        Ok(query) => Ok(query.into_inner()),
        Err(error) => Err(ApiError::bad_request("query", error.to_string())),
    }
}

/// The body: at most `server.max_request_bytes`, and it must have arrived within `server.request_timeout`.
pub(super) async fn body(shared: &Shared, payload: web::Payload) -> Result<Bytes, ApiError> {
    let limit = shared.server.max_request_bytes;
    let whole = payload.to_bytes_limited(limit);
    match timeout(shared.server.request_timeout, whole).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(error))) => Err(ApiError::bad_request("body", error.to_string())),
        Ok(Err(_)) => Err(ApiError::BodyTooLarge(limit)),
        Err(_) => Err(ApiError::BodyTimeout),
    }
}

/// A JSON body that may be left out; unknown members are ignored.
///
/// Limits are those of [`body`].
pub(super) async fn optional_json<T>(shared: &Shared, payload: web::Payload) -> Result<T, ApiError>
where
    T: DeserializeOwned + Default,
{
    let body = body(shared, payload).await?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    // A derived `Deserialize` would take `["deploy"]` for `{"reason":"deploy"}`.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_request("body", "is not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(&body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // `.` is the body itself, `?` a place that cannot be named because the text is not JSON.
        let field = if matches!(path.as_str(), "." | "?") {
            "body".to_owned()
        } else {
            path
        };
        ApiError::bad_request(field, error.inner().to_string())
    })?;
    json.end()
        .map_err(|error| ApiError::bad_request("body", error.to_string()))?;
    Ok(parsed)
}
