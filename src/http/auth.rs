//! Who may use the control plane.
//!
//! With tokens in the settings a caller needs one, and its role must reach the route's. Without any, only callers on
//! this very machine get in: the peer must be loopback, and so must the `Host` (a name that an attacker's page made
//! point here is not) and the `Origin` of a browser (a page from elsewhere may send requests to loopback). The table
//! in `mod.rs` wraps each route with [`require`] according to its role, so that no handler can forget it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use actix_web::{
    Error, FromRequest, HttpMessage as _, HttpRequest,
    body::BoxBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{Uri, header, header::HeaderMap},
    middleware::Next,
    web,
};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use std::future::{Ready, ready};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::{audit, error::ApiError, state::HttpState};
use crate::settings::{self, Role};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Name of the token, or `loopback`.
    pub(super) name: String,
    /// What it may do.
    pub(super) role: Role,
}

struct Token {
    caller: Caller,
    digest: [u8; 32],
}

/// The tokens of the settings, as digests.
pub(super) struct Auth {
    /// Tokens are configured, so loopback alone is not enough, even if none of them can be used.
    needs_token: bool,
    tokens: Vec<Token>,
}

impl Auth {
    /// Takes the digests of the configured tokens.
    pub(super) fn new(settings: &settings::Admin) -> Self {
        let token = |token: &settings::AdminToken| {
            let secret = token.secret.as_ref()?.expose_secret();
            let caller = Caller {
                name: token.name.clone(),
                role: token.role,
            };
            // An empty secret would let in whoever sends `Bearer` alone.
            (!secret.is_empty()).then(|| Token {
                caller,
                digest: digest(secret.as_bytes()),
            })
        };
        let tokens = settings.tokens.iter().filter_map(token).collect();
        Self {
            needs_token: !settings.tokens.is_empty(),
            tokens,
        }
    }

    /// Who sends this request, or why nobody may.
    fn caller(&self, request: &ServiceRequest) -> Result<Caller, ApiError> {
        if !self.needs_token {
            let peer = request.peer_addr().map(|address| address.ip());
            return is_local(peer, request.uri(), request.headers()).map(|()| Caller {
                name: "loopback".to_owned(),
                role: Role::Admin,
            });
        }
        let authorization = request.headers().get(header::AUTHORIZATION);
        let sent = authorization
            .and_then(|value| bearer(value.as_bytes()))
            .ok_or(ApiError::Unauthorized)?;
        self.find(sent).cloned().ok_or(ApiError::Unauthorized)
    }

    /// Compares with every token, whichever matches, so that the time taken says nothing about any of them.
    fn find(&self, sent: &[u8]) -> Option<&Caller> {
        let sent = digest(sent);
        let mut found = 0_u64;
        for (number, token) in (1_u64..).zip(&self.tokens) {
            found.conditional_assign(&number, token.digest.ct_eq(&sent));
        }
        let index = usize::try_from(found.checked_sub(1)?).ok()?;
        self.tokens.get(index).map(|token| &token.caller)
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The credentials of an `Authorization` value of the scheme `Bearer`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, credentials) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| credentials.trim_ascii())
}

/// Whether a request without a token comes from this machine, and from nowhere else through a browser on it.
fn is_local(peer: Option<IpAddr>, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |reason: &str| Err(ApiError::Forbidden(reason.to_owned()));
    if !peer.is_some_and(|peer| peer.to_canonical().is_loopback()) {
        return refuse(
            "no admin token is configured, so only callers on this machine are answered",
        );
    }
    let mut hosts = headers.get_all(header::HOST).peekable();
    let is_host_missing = hosts.peek().is_none();
    let mut hosts = hosts.map(|host| host.to_str().ok().and_then(|text| text.parse::<Uri>().ok()));
    let is_target_local = uri.host().is_none_or(is_loopback_name);
    if is_host_missing
        || !is_target_local
        || !hosts.all(|host| host.is_some_and(|uri| names_loopback(&uri)))
    {
        return refuse("no admin token is configured, so `Host` must be a loopback address");
    }
    let mut origins = headers.get_all(header::ORIGIN);
    // `null` parses as a host name and is not a loopback one.
    let origin = |value: &header::HeaderValue| {
        value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<Uri>().ok())
    };
    if !origins.all(|value| origin(value).is_some_and(|uri| names_loopback(&uri))) {
        return refuse("no admin token is configured, so pages from elsewhere are not answered");
    }
    Ok(())
}

fn names_loopback(uri: &Uri) -> bool {
    uri.host().is_some_and(is_loopback_name)
}

/// `localhost`, 127.0.0.0/8 or `[::1]`.
fn is_loopback_name(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match address {
        Some(address) => address
            .parse::<Ipv6Addr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback()),
        None => {
            host.eq_ignore_ascii_case("localhost")
                || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}

/// Lets a request through to a route that needs `role`; a refused control action is audited.
pub(super) async fn require(
    role: Role,
    action: Option<&'static str>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, Error> {
    let Some(state) = request.app_data::<web::Data<HttpState>>().cloned() else {
        return Ok(request.error_response(ApiError::Internal));
    };
    let caller = match state.shared.auth.caller(&request) {
        Ok(caller) => caller,
        Err(error) => return Ok(request.error_response(error)),
    };
    if caller.role < role {
        let error = ApiError::Forbidden(format!("this needs the role `{}`", role.as_str()));
        if let Some(action) = action {
            let target = request.match_info().get("id").unwrap_or("*");
            audit::refused(&state.shared, &caller, action, target, &error).await;
        }
        return Ok(request.error_response(error));
    }
    request.extensions_mut().insert(caller);
    next.call(request).await
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // Missing only on a route whose entry in the table has no role: a fault of ours, and it lets nobody in.
        ready(
            request
                .extensions()
                .get::<Self>()
                .cloned()
                .ok_or(ApiError::Internal),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_count_as_local() {
        let check = |host: &str, expected: bool| {
            let uri = host.parse::<Uri>();
            assert_eq!(
                uri.is_ok_and(|uri| names_loopback(&uri)),
                expected,
                "{host}"
            );
        };
        check("localhost", true);
        check("LOCALHOST:8081", true);
        check("127.0.0.1:8081", true);
        check("127.8.9.10", true);
        check("[::1]:8081", true);
        check("[::ffff:127.0.0.1]:80", true);
        check("localhost.evil.example", false);
        check("127.0.0.1.evil.example", false);
        check("evil.example", false);
        check("10.0.0.1:8081", false);
        check("[::2]", false);
        check("0.0.0.0", false);
        check("localhost@evil.example", false);
        check("", false);
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer(b"Bearer abc"), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"bearer  abc "), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bearer"), None);
    }
}
