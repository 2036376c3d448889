//! `GET /ofrep/v1/events`: server-sent events that tell clients to ask for their flags again.
//!
//! A browser's `EventSource` sends no headers, so the address that clients are given carries a credential of its own: who it
//! is for, a window of time, and a code over both that only somebody who has the hash of the token's secret can make. All
//! replicas have it, so that any of them takes the address; nothing is stored. It opens this route and no other.
//!
//! An event comes with each revision, and on connecting, since a revision may have been published between the answer with
//! the address and the stream; a client that names the current one in `Last-Event-ID` is not told again.

use std::convert::Infallible;

use actix_web::{HttpRequest, HttpResponse, web};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::stream;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::super::{
    credentials::{self, Credential, Shown},
    error::ApiError,
    flags::config_tag,
    state::HttpState,
    stream::{Follower, Tell, events_wanted, respond},
};
use crate::{
    clock,
    model::{
        Snapshot, TokenId,
        token::{Verifier, verifier},
    },
};

/// The route, as clients are told it.
const PATH: &str = "/ofrep/v1/events";
/// Length of a window in milliseconds. An address counts in the window in which it is given out and in the next one; both
/// are the same for all clients, so that equal answers have equal bytes.
const WINDOW_MS: i64 = 12 * 3_600_000;
/// Bytes kept of the code.
const CODE_BYTES: usize = 16;

/// The address of the event stream for a credential: as long good as the secret that was shown for it.
pub(super) fn address(credential: &Credential, now_ms: i64) -> String {
    let window = now_ms.div_euclid(WINDOW_MS);
    let (name, key) = match &credential.shown {
        Shown::Token(id, _, proof) => (format!("t.{id}"), *proof),
        Shown::ClientKey(key) => {
            let name = URL_SAFE_NO_PAD.encode(key.key.as_bytes());
            (format!("k.{name}"), verifier(&key.key))
        }
    };
    let code = URL_SAFE_NO_PAD.encode(code(&key, &name, window));
    format!("{PATH}?credential={name}.{window}.{code}")
}

fn code(key: &Verifier, name: &str, window: i64) -> [u8; CODE_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{PATH} {name} {window}").as_bytes());
    let bytes = mac.finalize().into_bytes();
    std::array::from_fn(|at| bytes[at])
}

/// Who an address was given to, if it still counts.
fn owner(state: &HttpState, sent: &str, now_ms: i64) -> Option<Credential> {
    let mut parts = sent.split('.');
    let (kind, named, window, sent_code) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let window: i64 = window.parse().ok()?;
    let now = now_ms.div_euclid(WINDOW_MS);
    if parts.next().is_some() || !(now - 1..=now).contains(&window) {
        return None;
    }
    let sent_code = URL_SAFE_NO_PAD.decode(sent_code).ok()?;
    let is_made_with = |key: &Verifier| {
        let expected = code(key, &format!("{kind}.{named}"), window);
        bool::from(expected.as_slice().ct_eq(&sent_code))
    };
    let board = state.reader.board();
    match kind {
        "t" => {
            let id = TokenId::parse(named)?;
            let keys = board.tokens().verifiers_of(id, now_ms);
            let proof = keys.into_iter().find(is_made_with)?;
            let pass = board.tokens().standing(id, &proof, now_ms)?;
            Some(Credential::of_pass(&pass))
        }
        "k" => {
            let key = String::from_utf8(URL_SAFE_NO_PAD.decode(named).ok()?).ok()?;
            let known = board.client_keys().find(&key)?;
            is_made_with(&verifier(&key)).then(|| Credential::of_client_key(known))
        }
        _ => None,
    }
}

fn event(snapshot: &Snapshot) -> String {
    let data = json!({
        "type": "refetchEvaluation",
        "etag": config_tag(snapshot),
        "lastModified": snapshot.published_at.unix_timestamp(),
    });
    format!(
        "event: message\nid: {}\ndata: {data}\n\n",
        snapshot.revision
    )
}

/// `GET /ofrep/v1/events`.
pub(in crate::http) async fn follow(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let query = url::form_urlencoded::parse(request.query_string().as_bytes());
    let sent = query.into_iter().find(|(name, _)| name == "credential");
    let credential = match sent {
        Some((_, sent)) => owner(&state, &sent, clock::now_ms()).ok_or(ApiError::UnknownToken(
            "the address has expired, or its token does not count any more; ask for the flags again",
        ))?,
        None => credentials::needed(&state, &request)?,
    };
    let Some(cell) = state.reader.board().environment(&credential.environment) else {
        return Err(ApiError::NotLoaded);
    };
    let last = request.headers().get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let tell = Tell {
        event,
        known: last,
        credential: Some(credential),
        events_left: events_wanted(request.query_string())?,
    };
    let permit = state.shared.streams.acquire()?;
    let follower = Follower::new(&state, cell, permit, tell);
    let chunks = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await?;
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    Ok(respond(chunks))
}
