//! `GET /api/features/{client_key}`: the payload of an SDK connection.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    super::{documents, scoped::Form, state::HttpState},
    GrowthbookError,
    keys::{self, SdkKey},
    offer_stream,
};

/// `GET /api/features/{client_key}`.
pub(in crate::http) async fn features(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, GrowthbookError> {
    let key = keys::of_path(&request, &state)?;
    if key.is_remote_eval() {
        return Err(GrowthbookError::RemoteEvalOnly);
    }
    let served = match &key {
        SdkKey::Connection(key) => {
            documents::serve(&request, &state, &key.environment, &key.document).await?
        }
        SdkKey::Token(credential) => {
            documents::serve_scoped(&request, &state, credential, Form::Features).await?
        }
    };
    let mut response = served.response;
    offer_stream(response.headers_mut());
    Ok(response)
}
