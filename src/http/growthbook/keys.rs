//! From a client key to what it stands for: its environment, its document, how its SDKs are served.
//!
//! A key is that of a source's connection, whose SDKs get what the connection delivered, or a client token, whose SDKs get
//! what its scope sees of all sources.

use std::sync::Arc;

use actix_web::HttpRequest;

use super::{super::state::HttpState, GrowthbookError};
use crate::{
    actors::{Board, ClientKey},
    http::{
        credentials::{self, Credential, Shown},
        error::ApiError,
        fields::decode_path,
        scoped::{self, Form},
    },
    model::{Document, Snapshot, TokenKind},
};

/// What an SDK shows in the path.
#[derive(Clone)]
pub(in crate::http) enum SdkKey {
    /// The client key of a source's connection.
    Connection(Arc<ClientKey>),
    /// A client token.
    Token(Credential),
}

impl SdkKey {
    /// Environment whose snapshot has its document.
    pub(in crate::http) fn environment(&self) -> &Arc<str> {
        match self {
            Self::Connection(key) => &key.environment,
            Self::Token(credential) => &credential.environment,
        }
    }

    /// Whether its SDKs have features evaluated remotely; then nobody gets the document itself.
    pub(in crate::http) fn is_remote_eval(&self) -> bool {
        matches!(self, Self::Connection(key) if key.is_remote_eval)
    }

    /// The same as it is now; `None`: it does not count any more.
    pub(in crate::http) fn renewed(&self, board: &Board) -> Option<Self> {
        match self {
            Self::Connection(key) => board.client_keys().find(&key.key).map(Self::Connection),
            Self::Token(credential) => credential.stands(board).then(|| self.clone()),
        }
    }

    /// Its document in a snapshot; `None`: there is none, or it cannot be made.
    pub(in crate::http) async fn document(
        &self,
        snapshot: &Arc<Snapshot>,
    ) -> Option<Arc<Document>> {
        match self {
            Self::Connection(key) => snapshot.document(&key.document).cloned(),
            Self::Token(credential) => {
                let made = scoped::document(snapshot, &credential.visibility, Form::Features);
                made.await.ok()
            }
        }
    }
}

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
) -> Result<SdkKey, GrowthbookError> {
    let client_key = request.match_info().get("client_key").unwrap_or_default();
    let client_key = decode_path(client_key).ok_or(GrowthbookError::UnknownKey)?;
    let credential = match credentials::find(state, &client_key) {
        Ok(credential) => credential,
        Err(ApiError::UnknownToken(_)) => return Err(GrowthbookError::UnknownKey),
        Err(error) => return Err(error.into()),
    };
    match &credential.shown {
        Shown::ClientKey(key) => Ok(SdkKey::Connection(Arc::clone(key))),
        Shown::Token(_, TokenKind::Client, _) => Ok(SdkKey::Token(credential)),
        // A secret of another kind has no business in an address.
        Shown::Token(..) => Err(GrowthbookError::UnknownKey),
    }
}
