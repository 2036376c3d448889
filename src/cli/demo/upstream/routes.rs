//! The right answer to each request, and the finish that every answer gets.

use serde_json::json;

use super::{
    Fault, Route, State, coding,
    http::{Answer, JSON, Request},
    payload, rest,
    state::Rendered,
};

/// Caching of payloads, as GrowthBook's API server sends it by default.
const PAYLOAD_CACHING: &str =
    "public, max-age=30, stale-while-revalidate=3600, stale-if-error=36000";

/// What a well-behaved upstream answers; streams, once accepted, are not answered but served.
pub(super) fn answer(state: &State, request: &Request, route: Option<Route>) -> Answer {
    let path = request.path();
    match request.method.as_str() {
        "OPTIONS" if path.starts_with("/api/") => preflight(),
        "POST" if path.starts_with("/api/eval/") => Answer::json(
            400,
            &json!({"status": 400, "error": "Failed to get evaluated features"}),
        ),
        "GET" if path == "/healthcheck" => {
            Answer::json(200, &json!({"status": 200, "healthy": true}))
        }
        "GET" if route == Some(Route::Features) => features(state, request),
        "GET" if path == "/api" || path == "/api/" => {
            Answer::json(200, &json!({"name": "GrowthBook API", "apiVersion": 1}))
        }
        "GET" if path.starts_with("/api/v1/") => rest::answer(state, request, route),
        method => {
            let page = format!("<pre>Cannot {method} {path}</pre>\n");
            Answer::new(404, "text/html; charset=utf-8", page)
        }
    }
    .with("Access-Control-Allow-Origin", "*")
}

fn preflight() -> Answer {
    Answer::new(200, "text/plain", "")
        .with(
            "Access-Control-Allow-Methods",
            "GET,HEAD,PUT,PATCH,POST,DELETE",
        )
        .with("Access-Control-Allow-Headers", "*")
        .with("Access-Control-Max-Age", "86400")
}

fn features(state: &State, request: &Request) -> Answer {
    let key = request.path().trim_start_matches("/api/features/");
    let mut content = state.content.lock();
    let Some(connection) = content.connection(key).cloned() else {
        return unrecoverable("Invalid API Key");
    };
    let mut answer = if connection.remote_eval {
        unrecoverable("Remote evaluation required for this connection")
    } else if let Some(Rendered { body, etag }) = content.payload(key) {
        let mut answer = Answer::new(200, JSON, body).with("Cache-control", PAYLOAD_CACHING);
        answer.etag = Some(etag);
        answer
    } else {
        Answer::json(
            400,
            &json!({"status": 400, "error": "Failed to get features"}),
        )
    };
    if connection.streaming {
        answer.set("x-sse-support", "enabled");
        answer.set("Access-Control-Expose-Headers", "x-sse-support");
    }
    answer
}

/// The answer for a fault that asking again will not mend.
pub(super) fn unrecoverable(error: &str) -> Answer {
    Answer::json(400, &json!({"status": 400, "error": error})).with("x-unrecoverable", "1")
}

/// Why a stream is not served; `None` where it is.
pub(super) fn refuse_stream(state: &State, client_key: &str) -> Option<Answer> {
    let content = state.content.lock();
    match content.connection(client_key) {
        Some(connection) if connection.streaming => None,
        Some(_) => Some(Answer::new(
            404,
            "text/html; charset=utf-8",
            format!("<pre>Cannot GET /sub/{client_key}</pre>\n"),
        )),
        None => Some(Answer::json(400, &json!({"message": "No channel found"}))),
    }
}

/// Adds the validator, answers 304 where it is due, and compresses.
pub(super) fn finish(
    mut answer: Answer,
    state: &State,
    request: &Request,
    fault: Option<&Fault>,
) -> Answer {
    let always = matches!(fault, Some(Fault::Always304));
    if answer.status == 200 && request.method == "GET" {
        let etag = answer
            .etag
            .get_or_insert_with(|| payload::weak_etag(&answer.body))
            .clone();
        let is_fresh = is_fresh(request, &etag);
        answer.set("ETag", etag);
        if is_fresh || always {
            answer.status = 304;
            answer.headers.retain(|(name, _)| *name != "Content-Type");
            return answer;
        }
    }
    let mut content = state.content.lock();
    let offered = content.encodings.clone();
    coding::encode(&mut answer, request, &offered, &mut content.compressed);
    answer
}

/// Whether the caller has it already, as Express decides it: a caller that forbids caches gets the body.
fn is_fresh(request: &Request, etag: &str) -> bool {
    let forbids = request
        .header("cache-control")
        .is_some_and(|value| value.contains("no-cache"));
    let named = request.header("if-none-match");
    !forbids && named.is_some_and(|named| payload::matches_etag(named, etag))
}
