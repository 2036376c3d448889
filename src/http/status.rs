//! `/admin/status` and `/admin/environments/{environment}/issues`.
//!
//! The status page is for the moment when something is wrong, so it answers 200 whatever does not: every actor is
//! asked with a limit, all at the same time, and what is not known is null.

use std::{collections::BTreeSet, time::Duration};

use actix_web::{HttpResponse, http::StatusCode, web};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::{
    error::ApiError,
    health::answer,
    pin,
    state::{HttpState, Shared},
    times::{rfc3339_ms, rfc3339_or_null},
};
use crate::{
    actors::{
        AskError, Latest, SourceHandles,
        announcer::{GetTargets, TargetStatus},
        config_service::{FunnelStatus, GetFunnelStatus, GetIssues},
        poller::{GetPollerStatus, Outcome, PollerStatus},
        store::{GetStoreStatus, StoreStatus},
    },
    model::{Issue, Severity},
};

/// How long an actor may take to say how it is.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// `GET /admin/status`.
pub(super) async fn status(state: web::Data<HttpState>) -> HttpResponse {
    let shared = &state.shared;
    let handles = &shared.handles;
    let (store, funnel, sources, targets) = tokio::join!(
        handles.store.ask(GetStoreStatus, ASK_LIMIT),
        handles.config.ask(GetFunnelStatus, ASK_LIMIT),
        sources(shared),
        targets(shared),
    );
    let environments = environments(&state, store.as_ref().ok(), funnel.as_ref().ok()).await;
    let body = json!({
        "sources": sources,
        "environments": environments,
        "actors": actors(shared),
        "consumers": consumers(shared),
        "database": half(&store, |store| (store.database_up, store.database_error.clone())),
        "backup": half(&store, |store| (store.backup_up, store.backup_error.clone())),
        "publish": { "targets": targets },
        "queues": {
            "store_pending": store.as_ref().ok().map(|store| store.pending),
            "audit": store.as_ref().ok().map(|store| store.queued_audit),
            "funnel": funnel.as_ref().ok().map(|funnel| funnel.queued),
            "streams": shared.streams.open(),
        },
    });
    answer(StatusCode::OK, &body)
}

/// Database or backup: whether it works, and why not; null where the store itself does not answer.
fn half(
    store: &Result<StoreStatus, AskError>,
    health: impl Fn(&StoreStatus) -> (bool, Option<String>),
) -> Value {
    match store {
        Ok(store) => {
            let (is_up, error) = health(store);
            json!({ "up": is_up, "error": error })
        }
        Err(error) => json!({ "up": null, "error": error.to_string() }),
    }
}

/// Who is told of new revisions; null where the actor that tells them does not answer.
async fn targets(shared: &Shared) -> Option<Vec<Value>> {
    let Some(announcer) = &shared.handles.announcer else {
        return Some(Vec::new());
    };
    let targets = announcer.ask(GetTargets, ASK_LIMIT).await.ok()?;
    let shown = |target: TargetStatus| {
        json!({
            "kind": target.kind,
            "url": target.url,
            "last_success": rfc3339_or_null(target.last_success_ms),
            "last_error": target.last_error,
            "queued": target.queued,
        })
    };
    Some(targets.into_iter().map(shown).collect())
}

/// Every source of the settings, disabled ones included.
async fn sources(shared: &Shared) -> Map<String, Value> {
    let one = async |(id, source): (&String, &SourceHandles)| {
        let status = match &source.actors {
            Some((_, poller)) => Some(poller.ask(GetPollerStatus, ASK_LIMIT).await),
            None => None,
        };
        (
            id.clone(),
            source_status(shared, id, &source.environment, status),
        )
    };
    join_all(shared.handles.sources.iter().map(one))
        .await
        .into_iter()
        .collect()
}

/// `answer` is `None` for a disabled source. The clock is on the board, so its age is known in any case.
fn source_status(
    shared: &Shared,
    id: &str,
    environment: &str,
    answer: Option<Result<PollerStatus, AskError>>,
) -> Value {
    let clock = shared.handles.board.source(id);
    let (state, status, failure) = match answer {
        None => (Some("disabled"), None, None),
        Some(Ok(status)) => (Some(status.state.as_str()), Some(status), None),
        Some(Err(error)) => (None, None, Some(error.to_string())),
    };
    let status = status.as_ref();
    let paused = status.and_then(|status| {
        let by = status.paused_by.as_ref()?;
        Some(json!({ "by": by, "reason": status.pause_reason, "at": rfc3339_or_null(status.paused_at_ms) }))
    });
    json!({
        "state": state,
        "last_attempt": rfc3339_or_null(status.and_then(|status| status.last_attempt_ms)),
        "last_success": rfc3339_or_null(clock.and_then(|clock| clock.last_success_ms())),
        "last_error": status.and_then(|status| status.last_error.clone()).or(failure),
        "last_outcome": status.and_then(|status| status.last_outcome).map(Outcome::as_str),
        "next_poll": rfc3339_or_null(status.and_then(|status| status.next_poll_ms)),
        "age_seconds": clock.and_then(|clock| clock.age_seconds()),
        "stale": clock.is_some_and(|clock| clock.is_stale()),
        "environment": environment,
        "failure_streak": status.map(|status| status.failure_streak),
        "permanent": status.map(|status| status.is_permanent),
        "paused": paused,
    })
}

async fn environments(
    state: &HttpState,
    store: Option<&StoreStatus>,
    funnel: Option<&FunnelStatus>,
) -> Map<String, Value> {
    let mut all = Map::new();
    for cell in state.reader.board().environments() {
        let snapshot = match state.reader.latest(&cell.name).await {
            Latest::Loaded(snapshot) => Some(snapshot),
            Latest::NeverLoaded | Latest::UnknownEnvironment => None,
        };
        let snapshot = snapshot.as_deref();
        let inside = funnel.and_then(|funnel| funnel.environments.get(&*cell.name));
        let stored = store.and_then(|store| {
            store
                .environments
                .iter()
                .find(|stored| *stored.name == *cell.name)
        });
        let shown = json!({
            "revision": snapshot.map(|snapshot| snapshot.revision),
            "hash": snapshot.map(|snapshot| &snapshot.hash),
            "features": snapshot.map(|snapshot| snapshot.meta.features),
            "experiments": snapshot.map(|snapshot| snapshot.meta.experiments),
            "issues": inside.map(|inside| inside.issues),
            "held": inside.map(|inside| inside.held),
            "pinned": inside.map(|inside| inside.pinned.as_ref().map_or(Value::Bool(false), pin::shown)),
            "overrides": inside.map(|inside| inside.overrides),
            "durable": stored.map(|stored| stored.is_durable),
        });
        all.insert(cell.name.to_string(), shown);
    }
    all
}

fn actors(shared: &Shared) -> Map<String, Value> {
    let members = shared.handles.members.iter().map(|member| member.status());
    let shown = members.map(|status| {
        let value = json!({
            "up": status.is_up,
            "restarts": status.restarts.values().sum::<u64>(),
            "degraded": status.is_degraded,
            "causes": status.restarts,
            "last_exit": status.last_exit,
        });
        (status.name, value)
    });
    shown.collect()
}

fn consumers(shared: &Shared) -> Vec<Value> {
    let seen = shared.consumers.list().into_iter();
    seen.map(|consumer| {
        json!({
            "host": consumer.host,
            "authority": consumer.authority,
            "environment": consumer.environment,
            "revision": consumer.revision,
            "at": rfc3339_ms(consumer.at_ms),
        })
    })
    .collect()
}

/// Features that are missing from the documents of some tokens: known once somebody has asked for such a document.
async fn out_of_scope(state: &HttpState, environment: &str) -> Vec<Value> {
    let Latest::Loaded(snapshot) = state.reader.latest(environment).await else {
        return Vec::new();
    };
    let left_out: BTreeSet<(String, String)> = snapshot
        .views()
        .iter()
        .flat_map(|view| view.left_out().cloned().collect::<Vec<_>>())
        .collect();
    let issue = |(feature, parent): (String, String)| {
        json!({
            "severity": Severity::Warning.as_str(),
            "code": "prerequisite_out_of_scope",
            "source": "tokens",
            "path": format!("features.{feature}"),
            "message": format!(
                "left out of the documents of tokens that do not see its prerequisite `{parent}`, whose value depends on the user"
            ),
        })
    };
    left_out.into_iter().map(issue).collect()
}

/// `GET /admin/environments/{environment}/issues`.
pub(super) async fn issues(
    state: web::Data<HttpState>,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let environment = name.into_inner();
    if state.reader.board().environment(&environment).is_none() {
        return Err(state.unknown_environment());
    }
    let question = GetIssues {
        environment: environment.clone(),
    };
    let issues = state.shared.handles.config.ask(question, ASK_LIMIT).await?;
    let shown = |issue: Issue| {
        json!({
            "severity": issue.severity.as_str(),
            "code": issue.code,
            "source": issue.source,
            "path": issue.path,
            "message": issue.message,
        })
    };
    let mut issues: Vec<Value> = issues.into_iter().map(shown).collect();
    issues.extend(out_of_scope(&state, &environment).await);
    Ok(answer(
        StatusCode::OK,
        &json!({ "environment": environment, "issues": issues }),
    ))
}
