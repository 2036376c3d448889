//! `GET /api/features/{client_key}`: the payload of an SDK connection.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{documents, state::HttpState},
    GrowthbookError, keys, offer_stream,
};

/// `GET /api/features/{client_key}`.
pub(in crate::http) async fn features(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, GrowthbookError> {
    let key = keys::of_path(&request, &state)?;
    if key.is_remote_eval {
        return Err(GrowthbookError::RemoteEvalOnly);
    }
    let served = documents::serve(&request, &state, &key.environment, &key.document).await?;
    let mut response = served.response;
    offer_stream(response.headers_mut());
    Ok(response)
}
