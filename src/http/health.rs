//! `/livez`, `/readyz` and `/metrics`.
//!
//! Ready means: something can be served. Everything else that is wrong is listed as degraded and changes no status,
//! because taking a service that serves out of rotation would make things worse (ARCHITECTURE.md, "Health").

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Plane,
    state::{HttpState, Shared},
};
use crate::actors::{
    Latest,
    store::{GetStoreStatus, StoreStatus},
};

/// How long the store may take to say how it is; a probe must not wait for it.
const STORE_LIMIT: Duration = Duration::from_millis(100);
/// How old the store's answer may be on the data plane, where caches probe each second.
const STORE_MEMORY: Duration = Duration::from_secs(1);

/// The store's last word about itself, shared by the workers.
#[derive(Default)]
pub(super) struct StoreMemory(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    asked_at: Option<Instant>,
    status: Option<StoreStatus>,
}

impl StoreMemory {
    /// Asks the store unless it was asked within `age`; what it said before where it does not answer.
    async fn get(&self, shared: &Shared, age: Duration) -> Option<StoreStatus> {
        {
            let mut memory = self.0.lock();
            let is_recent = memory.asked_at.is_some_and(|at| at.elapsed() < age);
            if is_recent {
                return memory.status.clone();
            }
            // Set before the answer is there, so that other workers do not ask at the same time.
            memory.asked_at = Some(Instant::now());
        }
        let answer = shared.handles.store.ask(GetStoreStatus, STORE_LIMIT).await;
        let mut memory = self.0.lock();
        if let Ok(status) = answer {
            memory.status = Some(status);
        }
        memory.status.clone()
    }
}

/// `GET /livez`: the process answers.
pub(super) async fn livez() -> HttpResponse {
    answer(StatusCode::OK, &json!({ "status": "alive" }))
}

/// `GET /readyz` of a plane.
pub(super) async fn readyz(plane: Plane, state: web::Data<HttpState>) -> HttpResponse {
    let age = match plane {
        Plane::Data => STORE_MEMORY,
        Plane::Admin => Duration::ZERO,
    };
    let store = state.shared.store_memory.get(&state.shared, age).await;
    let degraded = degraded(&state.shared, store.as_ref());
    let is_ready = !state.shared.is_stopping() && is_servable(&state).await;
    let (status, word) = if is_ready {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    let body = json!({ "status": word, "environments": state.revisions(), "degraded": degraded });
    let mut response = answer(status, &body);
    if !is_ready {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

/// Whether at least one environment is servable and none that ever was is missing.
///
/// An environment is missing when the store is up and says that it has nothing; while it is down, what was announced
/// still counts.
async fn is_servable(state: &HttpState) -> bool {
    let mut is_any = false;
    for cell in state.reader.board().environments() {
        if cell.revision() == 0 {
            continue;
        }
        is_any = true;
        let is_missing = !matches!(state.reader.latest(&cell.name).await, Latest::Loaded(_));
        if is_missing && state.shared.handles.store.is_up() {
            return false;
        }
    }
    is_any
}

/// Everything that is wrong and yet no reason to stop sending requests here, in words.
fn degraded(shared: &Shared, store: Option<&StoreStatus>) -> Vec<String> {
    let mut list = Vec::new();
    for clock in shared.handles.board.sources() {
        let is_enabled = shared
            .handles
            .sources
            .get(&clock.id)
            .is_some_and(|source| source.actors.is_some());
        if is_enabled && clock.last_success_ms().is_none() {
            list.push(format!("source `{}` was never loaded", clock.id));
        } else if is_enabled && clock.is_stale() {
            list.push(format!("source `{}` is stale", clock.id));
        }
        if clock.is_held() {
            list.push(format!("held: an input of source `{}`", clock.id));
        }
    }
    let unpinned = shared.handles.board.environments();
    let unpinned = unpinned.filter(|cell| cell.is_pin_lost());
    list.extend(unpinned.map(|cell| {
        format!(
            "the pinned revision of environment `{}` cannot be found",
            cell.name
        )
    }));
    for member in shared.handles.members.iter() {
        let status = member.status();
        if !status.is_up {
            list.push(format!("actor `{}` is down", status.name));
        } else if status.is_degraded {
            list.push(format!("actor `{}` restarts too often", status.name));
        }
    }
    // Why is told on the admin plane only: an error may name hosts and paths.
    if let Some(store) = store {
        if !store.database_up {
            list.push("the database is down".to_owned());
        }
        if !store.backup_up {
            list.push("the backup cannot be written".to_owned());
        }
        let volatile = store
            .environments
            .iter()
            .filter(|environment| !environment.is_durable);
        list.extend(volatile.map(|e| {
            format!(
                "environment `{}` is neither in the database nor in the backup",
                e.name
            )
        }));
    }
    list
}

/// `GET /metrics`: `OpenMetrics` text.
pub(super) async fn metrics(state: web::Data<HttpState>) -> HttpResponse {
    let shared = &state.shared;
    for clock in shared.handles.board.sources() {
        shared.metrics.source_age(&clock.id, clock.age_seconds());
    }
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(shared.metrics.encode())
}

/// A JSON answer that no cache may keep.
pub(super) fn answer(status: StatusCode, body: &serde_json::Value) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("application/json; charset=utf-8")
        .body(body.to_string())
}
