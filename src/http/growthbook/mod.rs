//! What GrowthBook's SDKs, and GrowthBook itself, expect of a proxy.
//!
//! A client key comes from the path, or on a push from its own header, and from nowhere else: no header makes one
//! connection's payload appear under another's key. Nothing here goes upstream; a key that is not ours is answered from
//! memory. Errors have the shapes that SDKs know ([`GrowthbookError`]).

mod error;
pub(super) mod eval;
pub(super) mod features;
mod keys;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

pub(super) use self::error::GrowthbookError;

/// By which SDKs learn that they may follow changes on `/sub/{client_key}`.
pub(super) const SSE_SUPPORT: HeaderName = HeaderName::from_static("x-sse-support");
/// By which a poller learns that asking again will not help.
pub(super) const UNRECOVERABLE: HeaderName = HeaderName::from_static("x-unrecoverable");

/// Tells an SDK that it may follow changes; a browser's may read it, see [`super::cors`].
pub(super) fn offer_stream(headers: &mut HeaderMap) {
    headers.insert(SSE_SUPPORT, HeaderValue::from_static("enabled"));
}
