//! Pause, resume, poll: for one source or for all of them.
//!
//! Each action runs in a task of its own, so that an operator who hangs up during a poll neither ends it nor loses its
//! audit entry.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::StatusCode, rt, web};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    audit::{self, Note},
    auth::Caller,
    error::ApiError,
    extract,
    health::answer,
    state::{HttpState, Shared},
};
use crate::actors::{
    AskError, SourceHandles,
    poller::{ForcePoll, Pause, PollReport, Resume},
};

/// How long a poller may take to pause or resume, storing it included; how long a poll waits for one to be up.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long an answer waits for the outcome of a poll; the poll itself goes on.
const POLL_LIMIT: Duration = Duration::from_secs(30);
/// Longest reason taken, in characters.
pub(super) const REASON_CHARS_MAX: usize = 1000;

/// What an operator wants of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Stop asking on schedule.
    Pause,
    /// Ask on schedule again.
    Resume,
    /// Ask now.
    Poll,
}

impl Verb {
    /// Name of the action in the audit.
    pub(super) const fn action(self) -> &'static str {
        match self {
            Self::Pause => "source.pause",
            Self::Resume => "source.resume",
            Self::Poll => "source.poll",
        }
    }
}

/// What came of it.
enum Done {
    /// The state the source is in now.
    State(&'static str),
    /// How the poll ended.
    Polled(PollReport),
    /// The poll takes longer than an answer waits.
    Running,
}

#[derive(Default, Deserialize)]
struct Body {
    reason: Option<String>,
}

/// Who wants what, and why.
struct Order {
    verb: Verb,
    caller: Caller,
    reason: Option<String>,
}

impl Order {
    async fn read(
        verb: Verb,
        caller: Caller,
        shared: &Shared,
        payload: web::Payload,
    ) -> Result<Self, ApiError> {
        let Body { reason } = extract::optional_json(shared, payload).await?;
        if reason
            .as_ref()
            .is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX)
        {
            return Err(ApiError::bad_request(
                "reason",
                format!("is longer than {REASON_CHARS_MAX} characters"),
            ));
        }
        Ok(Self {
            verb,
            caller,
            reason,
        })
    }

    /// Asks the source's poller and writes down what came of it.
    async fn carry_out(
        &self,
        shared: &Arc<Shared>,
        id: &str,
        source: &SourceHandles,
    ) -> Result<Done, ApiError> {
        let done = self.ask(id, source).await;
        self.write_down(shared, id, result_of(&done)).await;
        done
    }

    async fn ask(&self, id: &str, source: &SourceHandles) -> Result<Done, ApiError> {
        let Some((_, poller)) = &source.actors else {
            return Err(ApiError::SourceDisabled(id.to_owned()));
        };
        let (by, reason) = (self.caller.name.clone(), self.reason.clone());
        let done = match self.verb {
            Verb::Pause => Done::State(
                poller
                    .ask_again(Pause { by, reason }, ASK_LIMIT)
                    .await?
                    .state
                    .as_str(),
            ),
            Verb::Resume => Done::State(
                poller
                    .ask_again(Resume { by, reason }, ASK_LIMIT)
                    .await?
                    .state
                    .as_str(),
            ),
            // An actor that stays down is told at once; one that dies during the poll is asked again.
            Verb::Poll if !poller.wait_up(ASK_LIMIT).await => {
                return Err(AskError::Down("poller").into());
            }
            Verb::Poll => match poller.ask_again(ForcePoll, POLL_LIMIT).await {
                Ok(report) => Done::Polled(report),
                Err(AskError::Timeout(_)) => Done::Running,
                Err(error) => return Err(error.into()),
            },
        };
        Ok(done)
    }

    async fn write_down(&self, shared: &Arc<Shared>, target: &str, result: String) {
        let note = Note {
            target,
            reason: self.reason.as_deref(),
            result,
        };
        audit::record(shared, &self.caller, self.verb.action(), note).await;
    }
}

/// The audit's word for what came of an action.
fn result_of(done: &Result<Done, ApiError>) -> String {
    match done {
        Ok(Done::State(_)) => "ok".to_owned(),
        Ok(Done::Running) => "running".to_owned(),
        Ok(Done::Polled(report)) => match &report.reason {
            Some(reason) => format!("{}: {reason}", report.outcome.as_str()),
            None => report.outcome.as_str().to_owned(),
        },
        Err(error @ ApiError::Unavailable(_)) => format!("failed: {error}"),
        Err(error) => format!("failed: {}", error.code()),
    }
}

/// The status and body that tell one source's outcome.
fn shown(id: &str, done: &Done) -> (StatusCode, Value) {
    match done {
        Done::State(state) => (StatusCode::OK, json!({ "source": id, "state": state })),
        Done::Polled(report) => {
            let body = json!({
                "source": id,
                "outcome": report.outcome.as_str(),
                "revision": report.revision,
                "reason": report.reason,
                "failed_parts": report.failed_parts,
                "duration_ms": millis(report.duration),
            });
            (StatusCode::OK, body)
        }
        Done::Running => {
            let body = json!({
                "source": id,
                "outcome": "running",
                "revision": null,
                "reason": null,
                "failed_parts": [],
                "duration_ms": millis(POLL_LIMIT),
            });
            (StatusCode::ACCEPTED, body)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a list of outcomes says about one source.
fn listed(id: &str, done: &Result<Done, ApiError>) -> Value {
    match done {
        Ok(done) => shown(id, done).1,
        Err(ApiError::SourceDisabled(_)) => json!({ "source": id, "state": "disabled" }),
        Err(error) => json!({ "source": id, "error": error.code(), "detail": error.to_string() }),
    }
}

/// Runs to the end even when the caller hangs up.
pub(super) async fn detached<T: 'static>(
    action: impl Future<Output = T> + 'static,
) -> Result<T, ApiError> {
    match rt::spawn(action).await {
        Ok(done) => Ok(done),
        // The middleware that catches panics sees it as if it had happened here.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(ApiError::Internal),
    }
}

/// `POST /admin/sources/{id}/pause`, `…/resume` and `…/poll`.
pub(super) fn one(verb: Verb) -> actix_web::Route {
    web::route().to(
        move |state: web::Data<HttpState>,
              caller: Caller,
              id: web::Path<String>,
              payload: web::Payload| async move {
            let shared = Arc::clone(&state.shared);
            let order = Order::read(verb, caller, &shared, payload).await?;
            detached(one_source(shared, order, id.into_inner())).await?
        },
    )
}

async fn one_source(
    shared: Arc<Shared>,
    order: Order,
    id: String,
) -> Result<HttpResponse, ApiError> {
    let Some(source) = shared.handles.sources.get(&id) else {
        return Err(ApiError::UnknownSource {
            known: shared.handles.sources.keys().cloned().collect(),
        });
    };
    let done = order.carry_out(&shared, &id, source).await?;
    let (status, body) = shown(&id, &done);
    Ok(answer(status, &body))
}

/// `POST /admin/pause`, `/admin/resume` and `/admin/poll`.
pub(super) fn all(verb: Verb) -> actix_web::Route {
    web::route().to(
        move |state: web::Data<HttpState>, caller: Caller, payload: web::Payload| async move {
            let shared = Arc::clone(&state.shared);
            let order = Order::read(verb, caller, &shared, payload).await?;
            detached(all_sources(shared, order)).await?
        },
    )
}

/// Carries the order out on all sources at once.
///
/// Disabled ones are listed and no failure. Where an actor did not answer, the whole is 503 with what the others said:
/// a script that pauses everything must not take "most of it" for done.
async fn all_sources(shared: Arc<Shared>, order: Order) -> Result<HttpResponse, ApiError> {
    let enabled = shared.handles.sources.iter().map(async |(id, source)| {
        let done = match source.actors {
            Some(_) => order.carry_out(&shared, id, source).await,
            None => Err(ApiError::SourceDisabled(id.clone())),
        };
        (
            matches!(done, Err(ApiError::Unavailable(_))),
            listed(id, &done),
        )
    });
    let outcomes = join_all(enabled).await;
    let is_partial = outcomes.iter().any(|(is_unavailable, _)| *is_unavailable);
    let results: Vec<Value> = outcomes.into_iter().map(|(_, shown)| shown).collect();
    if is_partial {
        return Err(ApiError::PartlyUnavailable { results });
    }
    Ok(answer(StatusCode::OK, &json!({ "results": results })))
}
