//! From a client key to what it stands for: its environment, its document, how its SDKs are served.

use std::sync::Arc;

use actix_web::HttpRequest;

use super::{super::state::HttpState, GrowthbookError};
use crate::{actors::ClientKey, http::error::ApiError};

/// What a client key stands for.
///
/// Answered from memory. Before a source that discovers its connections has done so once, a key that is not known may
/// yet turn out to be ours: then it is "not loaded", which SDKs get over, and never "invalid", which they may not.
pub(in crate::http) fn find(
    state: &HttpState,
    client_key: &str,
) -> Result<Arc<ClientKey>, GrowthbookError> {
    let keys = state.reader.board().client_keys();
    match keys.find(client_key) {
        Some(key) => Ok(key),
        None if keys.is_complete() => Err(GrowthbookError::UnknownKey),
        None => Err(ApiError::NotLoaded.into()),
    }
}

/// What the client key of the path stands for.
pub(in crate::http) fn of_path(
    request: &HttpRequest,
    state: &HttpState,
) -> Result<Arc<ClientKey>, GrowthbookError> {
    find(
        state,
        request.match_info().get("client_key").unwrap_or_default(),
    )
}
