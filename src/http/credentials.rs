//! Whose secret a request of the data plane shows, and what it may see.
//!
//! Answered from memory: tokens and client keys are on the board. Where a token is needed an unknown one is 401, one of
//! another kind 403; before it is known which tokens there are it is 503, which clients get over.

use std::{fmt, sync::Arc};

use actix_web::{
    HttpMessage as _, HttpRequest,
    http::header::{AUTHORIZATION, HeaderMap, HeaderName},
};
use prometheus_client::metrics::counter::Counter;

use super::{auth::Caller, error::ApiError, state::HttpState};
use crate::{
    actors::{Board, ClientKey, Denial, Pass},
    clock,
    eval::Dialect,
    metrics::Metrics,
    model::{Projects, TokenId, TokenKind, Visibility, token::Verifier},
    settings::DataAuth,
};

/// Where OpenFeature's clients may show their secret, too.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Who asks, and for what.
#[derive(Clone)]
pub(super) struct Credential {
    /// Whose configuration it may see.
    pub(super) environment: Arc<str>,
    /// Which part of it.
    pub(super) visibility: Visibility,
    /// Dialect of its users; `None`: the environment's.
    pub(super) dialect: Option<Dialect>,
    /// What it was shown as.
    pub(super) shown: Shown,
}

/// What a credential was shown as.
#[derive(Clone)]
pub(super) enum Shown {
    /// A token, and the hash of the secret that was shown.
    Token(TokenId, TokenKind, Verifier),
    /// A client key of a source.
    ClientKey(Arc<ClientKey>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("environment", &self.environment)
            .field("visibility", &self.visibility)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// Of a token that counts.
    pub(super) fn of_pass(pass: &Pass) -> Self {
        Self {
            environment: Arc::clone(&pass.scope.environment),
            visibility: Visibility::Scope(Arc::clone(&pass.scope)),
            dialect: pass.dialect,
            shown: Shown::Token(pass.id, pass.kind, pass.proof),
        }
    }

    /// Of a client key of a source.
    pub(super) fn of_client_key(key: Arc<ClientKey>) -> Self {
        Self {
            environment: Arc::clone(&key.environment),
            visibility: Visibility::Connection(Arc::clone(&key.document)),
            dialect: key.dialect,
            shown: Shown::ClientKey(key),
        }
    }

    /// Whether it sees everything that its environment has.
    pub(super) fn sees_all(&self) -> bool {
        matches!(&self.visibility, Visibility::Scope(scope) if scope.projects == Projects::All)
    }

    /// Whether it still counts.
    pub(super) fn stands(&self, board: &Board) -> bool {
        match &self.shown {
            Shown::Token(id, _, proof) => {
                let pass = board.tokens().standing(*id, proof, clock::now_ms());
                pass.is_some()
            }
            Shown::ClientKey(key) => board.client_keys().find(&key.key).is_some(),
        }
    }
}

/// How secrets that were shown ended; one set per worker.
pub(super) struct Lookups {
    valid: Counter,
    unknown: Counter,
    expired: Counter,
    revoked: Counter,
    not_loaded: Counter,
}

impl Lookups {
    /// Counters that all workers share.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let of = |result| metrics.token_lookups(result);
        Self {
            valid: of("valid"),
            unknown: of("unknown"),
            expired: of("expired"),
            revoked: of("revoked"),
            not_loaded: of("not_loaded"),
        }
    }

    fn count(&self, found: &Result<Pass, Denial>) {
        match found {
            Ok(_) => &self.valid,
            Err(Denial::Unknown) => &self.unknown,
            Err(Denial::Expired) => &self.expired,
            Err(Denial::Revoked) => &self.revoked,
            Err(Denial::NotLoaded) => &self.not_loaded,
        }
        .inc();
    }
}

/// What a secret stands for; counts it against its token's limit.
pub(super) fn find(state: &HttpState, secret: &str) -> Result<Credential, ApiError> {
    let board = state.reader.board();
    if let Some(key) = board.client_keys().find(secret) {
        return Ok(Credential::of_client_key(key));
    }
    let found = board.tokens().find(secret, clock::now_ms());
    state.lookups.count(&found);
    match found {
        Ok(pass) => {
            if let Some(class) = pass.rate_class.as_deref() {
                let admitted = state.shared.limits.admit(class, pass.id);
                admitted.map_err(|seconds| ApiError::TooManyRequests { seconds })?;
            }
            Ok(Credential::of_pass(&pass))
        }
        Err(Denial::NotLoaded) => Err(ApiError::NotLoaded),
        // It may be one that a source has not told us yet.
        Err(Denial::Unknown) if !board.client_keys().is_complete() => Err(ApiError::NotLoaded),
        Err(Denial::Unknown) => Err(ApiError::UnknownToken("the token is not known")),
        Err(Denial::Expired) => Err(ApiError::UnknownToken("the token has expired")),
        Err(Denial::Revoked) => Err(ApiError::UnknownToken("the token was revoked")),
    }
}

/// The secret in the headers, with or without a scheme before it.
pub(super) fn shown(headers: &HeaderMap) -> Option<&str> {
    let header = headers
        .get(AUTHORIZATION)
        .or_else(|| headers.get(API_KEY))?;
    let text = header.to_str().ok()?;
    let secret = match text.split_at_checked(7) {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("Bearer ") => secret,
        _ => text,
    };
    let secret = secret.trim();
    (!secret.is_empty()).then_some(secret)
}

/// Who asks, on routes that need to know; any kind of token and a source's own client keys will do.
pub(super) fn needed(state: &HttpState, request: &HttpRequest) -> Result<Credential, ApiError> {
    let secret = shown(request.headers()).ok_or(ApiError::TokenNeeded)?;
    find(state, secret)
}

/// Who asks, on routes that servers may read; `None`: anybody, who sees everything.
///
/// With `data_auth = "required"` a server token is needed. Without, one that is shown still says what its owner sees, and
/// everything else is nobody's: other programs use these headers too.
pub(super) fn server(
    state: &HttpState,
    request: &HttpRequest,
) -> Result<Option<Credential>, ApiError> {
    let is_required = state.shared.server.data_auth == DataAuth::Required;
    if is_required && request.extensions().get::<Caller>().is_some() {
        // On the control plane, which has asked already.
        return Ok(None);
    }
    let Some(secret) = shown(request.headers()) else {
        return if is_required {
            Err(ApiError::TokenNeeded)
        } else {
            Ok(None)
        };
    };
    if !is_required && !secret.starts_with("srv-") {
        return Ok(None);
    }
    let credential = find(state, secret)?;
    if matches!(credential.shown, Shown::Token(_, TokenKind::Server, _)) {
        return Ok(Some(credential));
    }
    let reason = "this needs a server token".to_owned();
    Err(ApiError::Forbidden(reason))
}

/// Fails with 403 where a credential is for another environment.
pub(super) fn must_be_of(
    credential: Option<&Credential>,
    environment: &str,
) -> Result<(), ApiError> {
    match credential {
        Some(credential) if *credential.environment != *environment => {
            let own = &credential.environment;
            Err(ApiError::Forbidden(format!(
                "the token is for environment `{own}`"
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn a_secret_is_taken_with_and_without_a_scheme() {
        let check = |name: HeaderName, value: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(shown(&headers), expected, "{value}");
        };
        check(AUTHORIZATION, "*:production.abc", Some("*:production.abc"));
        check(AUTHORIZATION, "Bearer  sdk-1", Some("sdk-1"));
        check(AUTHORIZATION, "bearer sdk-1", Some("sdk-1"));
        check(AUTHORIZATION, "Bearer ", None);
        check(AUTHORIZATION, "", None);
        check(API_KEY, "srv-1", Some("srv-1"));
        assert_eq!(shown(&HeaderMap::new()), None);
    }
}
