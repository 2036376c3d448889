//! The ways in which the upstream misbehaves.
//!
//! A fault belongs to a class of routes. Some act on the wire ([`super::connection`] does those), the others put something in
//! place of the right answer. What they put there has a proper validator of its own, so that a caller that keeps the validator of a
//! body it refused gets stuck at 304.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Route, State, coding,
    http::{Answer, JSON, Request},
    payload, rest, routes,
    state::Connection,
};

/// Key that [`Fault::WrongEncryption`] encrypts with: base64 of `stitchd-demo-bad`.
const WRONG_KEY: &str = "c3RpdGNoZC1kZW1vLWJhZA==";

/// How a list changes between two of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// The oldest item is deleted: the first one of the next page is never seen.
    Delete,
    /// An older item is inserted: the last one of this page is seen twice.
    Insert,
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The right answer, as of now, arrives this much later.
    Delay(Duration),
    /// The request is taken and never answered.
    Hang,
    /// The connection is reset after the request.
    Reset,
    /// The right answer trickles.
    SlowBody {
        /// Bytes sent at a time.
        bytes_per_tick: usize,
        /// Wait after each.
        tick: Duration,
    },
    /// The right headers, half the body, then the end of the connection.
    HalfSent,
    /// An error status with the body it has in life. 400 is the transient one, without `x-unrecoverable`; 429 and 503 ask to come
    /// back after 60 s.
    Status(u16),
    /// An error status with this `Retry-After` (seconds or a date).
    RetryAfter {
        /// 429 or 503.
        status: u16,
        /// As sent.
        value: String,
    },
    /// 400 with `x-unrecoverable: 1`: the key was revoked.
    Unrecoverable,
    /// 200, the first half of the right body, with the length of that half.
    TruncatedJson,
    /// 200 `{}`.
    EmptyObject,
    /// 200 `[]`.
    EmptyArray,
    /// 200, a valid payload with neither features nor experiments.
    EmptyFeatures,
    /// 200, a valid list of nothing.
    EmptyList,
    /// 200, a web page.
    Html,
    /// 200, gzip, some 200 kB that unpack to about 200 MB of valid JSON.
    GzipBomb,
    /// 200, the right JSON with spaces up to this many bytes, never compressed.
    Oversized(usize),
    /// 200, encrypted with a key that is not the connection's.
    WrongEncryption,
    /// Anything.
    Body {
        /// Status code.
        status: u16,
        /// Content type.
        content_type: String,
        /// Body.
        bytes: Bytes,
    },
    /// The list changes after each page that is not the last.
    ShiftingList(Shift),
    /// 302 to this address.
    Redirect(String),
    /// The right body with this text as `ETag`, proper or not, for good: whoever sends it back gets 304.
    BadEtag(String),
    /// 304 to everybody, even those who named no validator.
    Always304,
}

/// The faults that are switched on.
#[derive(Debug, Default)]
pub(super) struct FaultPlan(HashMap<Route, Planned>);

#[derive(Debug)]
struct Planned {
    fault: Fault,
    skip: usize,
    left: Option<usize>,
}

impl FaultPlan {
    pub(super) fn set(&mut self, route: Route, fault: Fault, skip: usize, left: Option<usize>) {
        self.0.insert(route, Planned { fault, skip, left });
    }

    pub(super) fn clear(&mut self, route: Route) {
        self.0.remove(&route);
    }

    /// The fault for the request that is at hand, which counts.
    pub(super) fn take(&mut self, route: Route) -> Option<Fault> {
        let planned = self.0.get_mut(&route)?;
        if planned.skip > 0 {
            planned.skip -= 1;
            return None;
        }
        match &mut planned.left {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        Some(planned.fault.clone())
    }
}

/// The answer that a fault makes of the right one; those that act on the wire leave it alone.
pub(super) fn distort(
    fault: &Fault,
    mut right: Answer,
    state: &State,
    request: &Request,
    route: Route,
) -> Answer {
    match fault {
        Fault::Delay(_)
        | Fault::Hang
        | Fault::Reset
        | Fault::SlowBody { .. }
        | Fault::HalfSent
        | Fault::Always304 => {}
        Fault::Status(status) => {
            let wait = matches!(status, 429 | 503).then_some("60");
            return error(*status, wait, &right, route);
        }
        Fault::RetryAfter { status, value } => return error(*status, Some(value), &right, route),
        Fault::Unrecoverable => return routes::unrecoverable("Invalid API Key"),
        Fault::Redirect(to) => {
            return Answer::new(
                302,
                "text/plain; charset=utf-8",
                format!("Found. Redirecting to {to}"),
            )
            .with("Location", to.as_str());
        }
        Fault::Body {
            status,
            content_type,
            bytes,
        } => {
            right.status = *status;
            right.set("Content-Type", content_type.as_str());
            right.replace_body(bytes.clone());
        }
        Fault::TruncatedJson => {
            let half = right.body.slice(..right.body.len() / 2);
            right.replace_body(half);
        }
        Fault::EmptyObject => succeed(&mut right, "{}"),
        Fault::EmptyArray => succeed(&mut right, "[]"),
        Fault::EmptyFeatures => succeed(&mut right, empty_payload(state)),
        Fault::EmptyList => succeed(&mut right, rest::empty_list(route, request).to_string()),
        Fault::Html => {
            succeed(&mut right, PAGE);
            right.set("Content-Type", "text/html; charset=utf-8");
        }
        Fault::GzipBomb => {
            succeed(&mut right, coding::gzip_bomb());
            right.set("Content-Encoding", "gzip");
        }
        Fault::Oversized(bytes) => {
            let padded = pad(&right.body, *bytes);
            right.replace_body(padded);
            right.set("Content-Encoding", "identity");
        }
        Fault::WrongEncryption => {
            if let Some(body) = wrongly_encrypted(state, request) {
                succeed(&mut right, body);
            }
        }
        Fault::ShiftingList(shift) => shift_list(*shift, &right, state),
        Fault::BadEtag(tag) => right.etag = Some(tag.clone()),
    }
    right
}

/// Puts a good JSON answer in place; headers that belong to the route stay.
fn succeed(right: &mut Answer, body: impl Into<Bytes>) {
    right.status = 200;
    right.set("Content-Type", JSON);
    right.replace_body(body);
}

/// A realistic error in the shape of the route; rate limit headers stay.
fn error(status: u16, retry_after: Option<&str>, right: &Answer, route: Route) -> Answer {
    let mut answer = if matches!(status, 502 | 504) {
        // These come from what stands before the server, and that speaks HTML.
        let page = format!("<html><body><h1>{status}</h1>nginx</body></html>");
        Answer::new(status, "text/html", page)
    } else if route.is_rest() {
        Answer::json(status, &json!({"message": rest_message(status)}))
    } else {
        let body = json!({"status": status, "error": sdk_message(status)});
        Answer::json(status, &body)
    };
    let limits = right.headers.iter();
    let limits = limits.filter(|(name, _)| name.starts_with("RateLimit-"));
    answer.headers.extend(limits.cloned());
    if status == 429 {
        answer.set("RateLimit-Limit", "60");
        answer.set("RateLimit-Remaining", "0");
        answer.set("RateLimit-Reset", retry_after.unwrap_or("60"));
    }
    if let Some(value) = retry_after {
        answer.set("Retry-After", value);
    }
    answer
}

fn rest_message(status: u16) -> &'static str {
    match status {
        400 => "Unable to complete the request",
        401 => "Unauthorized",
        403 => "Your organization has been suspended",
        404 => "Unknown API endpoint",
        429 => rest::TOO_MANY,
        503 => "Service unavailable",
        _ => "Internal server error",
    }
}

fn sdk_message(status: u16) -> &'static str {
    match status {
        400 => "Failed to get features",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not found",
        429 => "Too many requests",
        503 => "Service unavailable",
        _ => "Internal server error",
    }
}

fn empty_payload(state: &State) -> String {
    let date = payload::iso(state.content.lock().date_updated);
    json!({"status": 200, "features": {}, "experiments": [], "dateUpdated": date}).to_string()
}

/// A JSON object with spaces before its last brace, up to a length.
fn pad(body: &[u8], bytes: usize) -> Vec<u8> {
    let mut padded = body.to_vec();
    let last = padded.pop();
    padded.resize(bytes.saturating_sub(1).max(padded.len()), b' ');
    padded.extend(last);
    padded
}

fn wrongly_encrypted(state: &State, request: &Request) -> Option<Bytes> {
    let key = request.path().rsplit('/').next()?;
    let mut content = state.content.lock();
    let salt = content.next_salt();
    let connection = Connection {
        encryption_key: Some(WRONG_KEY.to_owned()),
        ..content.connection(key)?.clone()
    };
    payload::render(&content, &connection, salt)
}

fn shift_list(shift: Shift, page: &Answer, state: &State) {
    let page: Value = serde_json::from_slice(&page.body).unwrap_or_default();
    if page["hasMore"] != true {
        return;
    }
    match (shift, &page["experiments"][0]) {
        (_, Value::Null) => shift_connections(shift, state),
        (Shift::Delete, _) => {
            let mut content = state.content.lock();
            let first = content
                .experiments_by_age()
                .first()
                .map(|e| e["id"].clone());
            content
                .experiments
                .retain(|experiment| Some(&experiment["id"]) != first.as_ref());
        }
        (Shift::Insert, oldest) => {
            let mut inserted = oldest.clone();
            let number = state.content.lock().experiments.len();
            inserted["id"] = json!(format!("exp_inserted{number}"));
            inserted["trackingKey"] = json!(format!("inserted-between-pages-{number}"));
            inserted["status"] = json!("draft");
            inserted["dateCreated"] = json!("2000-01-01T00:00:00.000Z");
            state.upsert_experiment(inserted);
        }
    }
}

/// An inserted connection belongs to an environment of its own: nobody reads it.
fn shift_connections(shift: Shift, state: &State) {
    let connections = &mut state.content.lock().connections;
    match shift {
        Shift::Delete => drop(connections.remove(0)),
        Shift::Insert => {
            let inserted = Connection {
                environment: "inserted".to_owned(),
                ..Connection::new(&format!("sdk-inserted-{}", connections.len()))
            };
            connections.insert(0, inserted);
        }
    }
}

const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Just a moment...</title></head><body><h1>Checking your browser</h1></body></html>\n";
