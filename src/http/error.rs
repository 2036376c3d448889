//! What goes wrong on our own routes, and the only place that knows status codes.
//!
//! Every error is a problem document (RFC 9457) with a stable `code`, and none may be cached. The body of a 5xx names
//! the request, so that a person can find the log line; it never carries an inner error's text.

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde_json::{Map, Value, json};

use crate::actors::AskError;

/// Seconds a client should wait while nothing was ever loaded; also the longest a cache misses the first load.
const RETRY_NOT_LOADED: &str = "5";
/// Seconds a client should wait for an actor that is restarting, for a place among the streams.
const RETRY_SOON: &str = "1";

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No route has this path.
    #[error("no route has this path")]
    UnknownPath,
    /// The route exists, its method does not. Holds the value of `Allow`.
    #[error("this route answers {0}")]
    MethodNotAllowed(String),
    /// No source feeds this environment.
    #[error("no source feeds an environment of this name")]
    UnknownEnvironment {
        /// Environments that exist.
        known: Vec<String>,
    },
    /// The settings hold no such source.
    #[error("the settings hold no source of this id")]
    UnknownSource {
        /// Sources that exist.
        known: Vec<String>,
    },
    /// The history has no such revision.
    #[error("{}", unknown_revision(*revision, *range))]
    UnknownRevision {
        /// The one that was asked for.
        revision: u64,
        /// The lowest and the highest that are there; there may be gaps.
        range: Option<(u64, u64)>,
    },
    /// The database may have the revision, and is away.
    #[error(
        "revision {0} is neither in memory nor in the backup, and the database does not answer; ask again when it is back"
    )]
    RevisionUnavailable(u64),
    /// The revision is stored, and not as it once was.
    #[error("revision {0} is stored and cannot be read")]
    RevisionHarmed(u64),
    /// Nothing of this source is held.
    #[error("nothing of this source is held")]
    NotHeld {
        /// Sources of the environment of which something is held.
        held: Vec<String>,
    },
    /// Another input is held than the caller has seen.
    #[error("another input is held now; look at it before you decide")]
    HeldChanged {
        /// Its digest.
        digest: String,
    },
    /// A held input does not pass validation.
    #[error("the held input is not valid: {0}")]
    HeldRefused(String),
    /// The source is disabled in the settings.
    #[error("source `{0}` has `enabled = false`; nothing runs for it")]
    SourceDisabled(String),
    /// The environment exists, but nothing was ever loaded for it.
    #[error("nothing was loaded for this environment yet")]
    NotLoaded,
    /// Something that was named is not there.
    #[error("{message}")]
    Missing {
        /// Stable word for machines.
        code: &'static str,
        /// What is not there.
        message: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// It cannot be done as things are.
    #[error("{message}")]
    Conflict {
        /// Stable word for machines.
        code: &'static str,
        /// What is in the way.
        message: String,
    },
    /// A part of the request cannot be understood.
    #[error("`{field}`: {reason}")]
    BadRequest {
        /// Query parameter, body member or `body`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The body is larger than `server.max_request_bytes`.
    #[error("the request body is larger than {0} bytes")]
    BodyTooLarge(usize),
    /// The body did not arrive within `server.request_timeout`.
    #[error("the request body did not arrive in time")]
    BodyTimeout,
    /// No token, or none of ours.
    #[error("a bearer token is needed")]
    Unauthorized,
    /// A route of the data plane that needs a token was asked without one.
    #[error("a token is needed; send it as `Authorization: Bearer …`")]
    TokenNeeded,
    /// The token does not count.
    #[error("{0}")]
    UnknownToken(&'static str),
    /// The token's rate class has no room.
    #[error("too many requests with this token; wait {seconds} s")]
    TooManyRequests {
        /// Whole seconds after which there is room.
        seconds: u64,
    },
    /// The caller is known and may not do this, or may not call at all.
    #[error("{0}")]
    Forbidden(String),
    /// `server.max_streams` event streams are open.
    #[error("too many event streams are open")]
    TooManyStreams,
    /// Something that may work when it is asked again.
    #[error("{0}")]
    TryAgain(&'static str),
    /// An actor did not answer.
    #[error("{0}")]
    Unavailable(#[from] AskError),
    /// Some sources were not reached; what the others answered.
    #[error("not every source answered")]
    PartlyUnavailable {
        /// One entry per source, those that failed with an `error`.
        results: Vec<Value>,
    },
    /// A fault of ours.
    #[error("the request could not be completed")]
    Internal,
}

fn unknown_revision(revision: u64, range: Option<(u64, u64)>) -> String {
    match range {
        None => format!("there is no revision {revision}, nor any other"),
        Some((oldest, newest)) => {
            format!("there is no revision {revision}; those from {oldest} to {newest} are there")
        }
    }
}

impl ApiError {
    /// A part of the request cannot be understood.
    pub(super) fn bad_request(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadRequest {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// Stable word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown_path",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::UnknownEnvironment { .. } => "unknown_environment",
            Self::UnknownSource { .. } => "unknown_source",
            Self::UnknownRevision { .. } => "unknown_revision",
            Self::RevisionUnavailable(_) => "revision_unavailable",
            Self::RevisionHarmed(_) => "revision_harmed",
            Self::NotHeld { .. } => "not_held",
            Self::HeldChanged { .. } => "held_changed",
            Self::HeldRefused(_) => "held_refused",
            Self::SourceDisabled(_) => "source_disabled",
            Self::Missing { code, .. } | Self::Conflict { code, .. } => code,
            Self::NotLoaded => "not_loaded",
            Self::BadRequest { .. } => "bad_request",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Unauthorized | Self::TokenNeeded | Self::UnknownToken(_) => "unauthorized",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::Forbidden(_) => "forbidden",
            Self::TooManyStreams => "too_many_streams",
            Self::Unavailable(_) | Self::TryAgain(_) => "unavailable",
            Self::PartlyUnavailable { .. } => "partly_unavailable",
            Self::Internal => "internal",
        }
    }

    /// Whether it deserves a line at error level.
    ///
    /// Before the first load, and at the limit of streams, every request would write one; metrics count those.
    pub(super) fn is_loud(&self) -> bool {
        self.status_code().is_server_error()
            && !matches!(
                self,
                Self::NotLoaded | Self::TooManyStreams | Self::RevisionUnavailable(_)
            )
    }

    /// Seconds to wait before trying again, where trying again makes sense.
    fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::NotLoaded | Self::RevisionUnavailable(_) => Some(RETRY_NOT_LOADED),
            Self::TooManyStreams
            | Self::TryAgain(_)
            | Self::Unavailable(_)
            | Self::PartlyUnavailable { .. } => Some(RETRY_SOON),
            _ => None,
        }
    }

    fn members(&self) -> Map<String, Value> {
        let status = self.status_code();
        let mut problem = Map::new();
        problem.insert("type".to_owned(), json!("about:blank"));
        problem.insert("title".to_owned(), json!(status.canonical_reason()));
        problem.insert("status".to_owned(), json!(status.as_u16()));
        problem.insert("code".to_owned(), json!(self.code()));
        problem.insert("detail".to_owned(), json!(self.to_string()));
        // The same once more, where clients of other decision services look for it.
        problem.insert("error".to_owned(), json!(self.to_string()));
        match self {
            Self::UnknownEnvironment { known } | Self::UnknownSource { known } => {
                problem.insert("known".to_owned(), json!(known));
            }
            Self::UnknownRevision {
                range: Some((oldest, newest)),
                ..
            } => {
                problem.insert("oldest".to_owned(), json!(oldest));
                problem.insert("newest".to_owned(), json!(newest));
            }
            Self::Missing { near, .. } if !near.is_empty() => {
                problem.insert("near".to_owned(), json!(near));
            }
            Self::NotHeld { held } => {
                problem.insert("held".to_owned(), json!(held));
            }
            Self::HeldChanged { digest } => {
                problem.insert("digest".to_owned(), json!(digest));
            }
            Self::BadRequest { field, .. } => {
                problem.insert("field".to_owned(), json!(field));
            }
            Self::PartlyUnavailable { results } => {
                problem.insert("results".to_owned(), json!(results));
            }
            _ => {}
        }
        problem
    }

    /// The answer; `request_id` goes into the body where it helps to find a log line.
    pub(super) fn respond(&self, request_id: Option<&str>) -> HttpResponse {
        self.respond_with(Map::new(), request_id)
    }

    /// The answer with further members.
    pub(super) fn respond_with(
        &self,
        members: Map<String, Value>,
        request_id: Option<&str>,
    ) -> HttpResponse {
        let mut problem = self.members();
        problem.extend(members);
        if let Some(id) = request_id {
            problem.insert("request_id".to_owned(), json!(id));
        }
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after() {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        match self {
            Self::MethodNotAllowed(allow) => {
                response.insert_header((header::ALLOW, allow.as_str()))
            }
            Self::Unauthorized | Self::TokenNeeded | Self::UnknownToken(_) => {
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer"))
            }
            Self::TooManyRequests { seconds } => {
                response.insert_header((header::RETRY_AFTER, *seconds))
            }
            _ => &mut response,
        };
        response
            .content_type("application/problem+json")
            .body(Value::Object(problem).to_string())
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::UnknownPath
            | Self::UnknownEnvironment { .. }
            | Self::UnknownSource { .. }
            | Self::UnknownRevision { .. }
            | Self::Missing { .. }
            | Self::NotHeld { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::SourceDisabled(_)
            | Self::Conflict { .. }
            | Self::HeldChanged { .. }
            | Self::HeldRefused(_) => StatusCode::CONFLICT,
            Self::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized | Self::TokenNeeded | Self::UnknownToken(_) => {
                StatusCode::UNAUTHORIZED
            }
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotLoaded
            | Self::TooManyStreams
            | Self::TryAgain(_)
            | Self::Unavailable(_)
            | Self::RevisionUnavailable(_)
            | Self::PartlyUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::RevisionHarmed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        self.respond(None)
    }
}
