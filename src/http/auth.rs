//! Who may use the control plane.
//!
//! With tokens in the settings a caller needs one, and its role must reach the route's. Without any, only callers on
//! this very machine get in: the peer must be loopback, and so must the `Host` (a name that an attacker's page made
//! point here is not) and the `Origin` of a browser (a page from elsewhere may send requests to loopback). The table
//! in `mod.rs` wraps each route with [`require`] according to its role, so that no handler can forget it.

use std::{
    future::{Ready, ready},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

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
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::{audit, error::ApiError, state::HttpState};
use crate::settings::{self, Role};

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Name of the token, or `loopback`.
    pub(super) name: String,
    /// What it may do.
    pub(super) role: Role,
    /// Whether what it asked for is in the audit; shared by the clones of one request.
    is_recorded: Arc<AtomicBool>,
}

impl Caller {
    fn new(name: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            role,
            is_recorded: Arc::default(),
        }
    }

    /// Notes that what it asked for is in the audit.
    pub(super) fn set_recorded(&self) {
        self.is_recorded.store(true, Ordering::Relaxed);
    }

    /// Fails with 403 for one who may not do what this role may.
    fn must_be(&self, role: Role) -> Result<(), ApiError> {
        if self.role >= role {
            return Ok(());
        }
        let reason = format!("this needs the role `{}`", role.as_str());
        Err(ApiError::Forbidden(reason))
    }
}

struct Token {
    name: String,
    role: Role,
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
            // An empty secret would let in whoever sends `Bearer` alone.
            (!secret.is_empty()).then(|| Token {
                name: token.name.clone(),
                role: token.role,
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
    fn caller(&self, request: &HttpRequest) -> Result<Caller, ApiError> {
        if !self.needs_token {
            let peer = request.peer_addr().map(|address| address.ip());
            return is_local(peer, request.uri(), request.headers())
                .map(|()| Caller::new("loopback", Role::Admin));
        }
        let authorization = request.headers().get(header::AUTHORIZATION);
        let sent = authorization
            .and_then(|value| bearer(value.as_bytes()))
            .ok_or(ApiError::Unauthorized)?;
        self.find(sent).ok_or(ApiError::Unauthorized)
    }

    /// Compares with every token, whichever matches, so that the time taken says nothing about any of them.
    fn find(&self, sent: &[u8]) -> Option<Caller> {
        let sent = digest(sent);
        let mut found = 0_u64;
        for (number, token) in (1_u64..).zip(&self.tokens) {
            found.conditional_assign(&number, token.digest.ct_eq(&sent));
        }
        let index = usize::try_from(found.checked_sub(1)?).ok()?;
        let token = self.tokens.get(index)?;
        Some(Caller::new(&token.name, token.role))
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
    let caller = match state.shared.auth.caller(request.request()) {
        Ok(caller) => caller,
        Err(error) => {
            if let Some(action) = action {
                audit::stranger(&state.shared, action, &target(&request), &error);
            }
            return Ok(request.error_response(error));
        }
    };
    if let Err(error) = caller.must_be(role) {
        if let Some(action) = action {
            audit::refused(&state.shared, &caller, action, &target(&request), &error).await;
        }
        return Ok(request.error_response(error));
    }
    request.extensions_mut().insert(caller.clone());
    let Some(action) = action else {
        return next.call(request).await;
    };
    let target = target(&request);
    let response = next.call(request).await?;
    // The handler did not get as far as writing down what came of it.
    if !caller.is_recorded.load(Ordering::Relaxed) {
        let failure = response.response().error();
        match failure.map(Error::as_error::<ApiError>) {
            None => audit::done(&state.shared, &caller, action, &target).await,
            Some(failure) => {
                let failure = failure.unwrap_or(&ApiError::Internal);
                audit::refused(&state.shared, &caller, action, &target, failure).await;
            }
        }
    }
    Ok(response)
}

/// What the names in a path mean together: `growthbook-prod`, `production/growthbook-prod`; `*` where there are none.
fn target(request: &ServiceRequest) -> String {
    let names: Vec<&str> = request.match_info().iter().map(|(_, name)| name).collect();
    match names.as_slice() {
        [] => "*".to_owned(),
        names => audit::bounded(&names.join("/")).to_owned(),
    }
}

/// Whether a request may look into the history: on the control plane it was asked for its role already, on the data plane
/// the rules of the control plane hold for it alone.
///
/// There a proxy on this machine makes everybody's request a local one, so without tokens a request that was passed on is
/// nobody's.
pub(super) fn may_look_back(state: &HttpState, request: &HttpRequest) -> Result<(), ApiError> {
    if request.extensions().get::<Caller>().is_some() {
        return Ok(());
    }
    let auth = &state.shared.auth;
    let caller = auth.caller(request)?;
    let is_passed_on = |name: &&str| request.headers().contains_key(*name);
    if !auth.needs_token && PASSED_ON.iter().any(is_passed_on) {
        let reason =
            "no admin token is configured, so requests that a proxy passes on are not answered";
        return Err(ApiError::Forbidden(reason.to_owned()));
    }
    caller.must_be(Role::Viewer)
}

/// Headers that a proxy adds.
const PASSED_ON: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-varnish"];

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
