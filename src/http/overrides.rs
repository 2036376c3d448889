//! Forcing a feature's value or an experiment off: `/admin/environments/{environment}/overrides`.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    audit::bounded,
    auth::Caller,
    control::detached,
    decisions::{self, Decision, LIMIT},
    error::ApiError,
    extract,
    health::answer,
    state::{HttpState, Shared},
    times::{rfc3339_ms, rfc3339_or_null},
};
use crate::{
    actors::config_service::{ListOverrides, RemoveOverride, SetOverride},
    clock,
    model::{CanonicalJson, Forced, Override},
};

/// Names in the audit.
pub(super) const SET: &str = "environment.override";
pub(super) const REMOVE: &str = "environment.override.delete";

/// Longest key taken, in characters.
const KEY_CHARS_MAX: usize = 1000;
/// Longest life of an override that has an end.
const LIFE_MAX: Duration = Duration::from_hours(366 * 24);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    kind: Option<String>,
    key: Option<String>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
    off: Option<bool>,
    reason: Option<String>,
    expires_in: Option<String>,
}

/// A value that is null is a value, and not an absent one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Body {
    /// What is asked for, or what is wrong with it.
    fn read(self, caller: &Caller) -> Result<Override, ApiError> {
        let forced = self.forced()?;
        let key = self.key.filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| ApiError::bad_request("key", "say which one"))?;
        if key.chars().count() > KEY_CHARS_MAX {
            let reason = format!("is longer than {KEY_CHARS_MAX} characters");
            return Err(ApiError::bad_request("key", reason));
        }
        let reason = decisions::reason(self.reason)?;
        let life = self.expires_in.as_deref().map(life).transpose()?;
        let now_ms = clock::now_ms();
        Ok(Override {
            id: Uuid::new_v4().to_string(),
            key: key.into(),
            forced,
            reason,
            author: caller.name.clone(),
            created_at_ms: now_ms,
            expires_at_ms: life.map(|life| now_ms.saturating_add(life)),
        })
    }

    fn forced(&self) -> Result<Forced, ApiError> {
        match (self.kind.as_deref(), &self.value, self.off) {
            (Some("feature"), Some(value), None) => {
                Ok(Forced::Value(CanonicalJson::from_value(value)))
            }
            (Some("feature"), ..) => Err(ApiError::bad_request(
                "value",
                "a feature is forced to a `value`, and has no `off`",
            )),
            (Some("experiment"), None, Some(true)) => Ok(Forced::Off),
            (Some("experiment"), ..) => Err(ApiError::bad_request(
                "off",
                "an experiment is turned off with `\"off\": true`, and has no `value`",
            )),
            _ => Err(ApiError::bad_request(
                "kind",
                "use `feature` or `experiment`",
            )),
        }
    }
}

/// Milliseconds that an override lasts.
fn life(text: &str) -> Result<i64, ApiError> {
    let wrong = |reason: String| ApiError::bad_request("expires_in", reason);
    let life = humantime::parse_duration(text)
        .map_err(|error| wrong(format!("{error}; write `30m`, `2h` or `7days`")))?;
    if life.is_zero() || life > LIFE_MAX {
        return Err(wrong(
            "use more than nothing and at most one year".to_owned(),
        ));
    }
    i64::try_from(life.as_millis()).map_err(|error| wrong(error.to_string()))
}

/// An override as it is answered.
fn shown(forced: &Override) -> Map<String, Value> {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
    put("id", json!(forced.id));
    put("kind", json!(forced.kind()));
    put("key", json!(forced.key));
    match &forced.forced {
        Forced::Value(value) => put("value", value.to_value()),
        Forced::Off => put("off", json!(true)),
    };
    put("reason", json!(forced.reason));
    put("author", json!(forced.author));
    put("created_at", json!(rfc3339_ms(forced.created_at_ms)));
    put("expires_at", json!(rfc3339_or_null(forced.expires_at_ms)));
    members
}

/// `POST …/overrides`.
pub(super) async fn set(
    state: web::Data<HttpState>,
    caller: Caller,
    name: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let environment = decisions::environment(&state, &name)?;
    let shared = Arc::clone(&state.shared);
    let body: Body = extract::optional_json(&shared, payload).await?;
    let forced = body.read(&caller)?;
    detached(set_one(shared, caller, environment, forced)).await?
}

async fn set_one(
    shared: Arc<Shared>,
    caller: Caller,
    environment: Arc<str>,
    forced: Override,
) -> Result<HttpResponse, ApiError> {
    let message = SetOverride {
        environment: Arc::clone(&environment),
        forced: forced.clone(),
    };
    let decision = Decision {
        action: SET,
        target: format!("{environment} {} {}", forced.kind(), bounded(&forced.key)),
        reason: Some(forced.reason.clone()),
    };
    let done = decision.carry_out(&shared, &caller, message).await?;
    let mut body = shown(&forced);
    body.insert("revision".to_owned(), json!(done.revision));
    body.insert("durable".to_owned(), json!(done.is_durable));
    body.insert("replaced".to_owned(), json!(done.replaced));
    body.insert("not_applied".to_owned(), json!(done.not_applied));
    Ok(answer(StatusCode::CREATED, &Value::Object(body)))
}

/// `GET …/overrides`.
pub(super) async fn list(
    state: web::Data<HttpState>,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let environment = decisions::environment(&state, &name)?;
    let question = ListOverrides {
        environment: Arc::clone(&environment),
    };
    let overrides = state
        .shared
        .handles
        .config
        .ask_again(question, LIMIT)
        .await?;
    let overrides: Vec<Value> = overrides
        .iter()
        .map(|forced| Value::Object(shown(forced)))
        .collect();
    let body = json!({ "environment": environment, "overrides": overrides });
    Ok(answer(StatusCode::OK, &body))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveBody {
    reason: Option<String>,
}

/// `DELETE …/overrides/{id}`.
pub(super) async fn remove(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<(String, String)>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (name, id) = path.into_inner();
    let environment = decisions::environment(&state, &name)?;
    let shared = Arc::clone(&state.shared);
    let RemoveBody { reason } = extract::optional_json(&shared, payload).await?;
    let reason = decisions::said(&request, reason)?
        .map(|reason| decisions::reason(Some(reason)))
        .transpose()?;
    detached(remove_one(shared, caller, environment, (id, reason))).await?
}

async fn remove_one(
    shared: Arc<Shared>,
    caller: Caller,
    environment: Arc<str>,
    (id, reason): (String, Option<String>),
) -> Result<HttpResponse, ApiError> {
    let message = RemoveOverride {
        environment: Arc::clone(&environment),
        id: id.clone(),
        by: caller.name.clone(),
        reason: reason.clone(),
    };
    let decision = Decision {
        action: REMOVE,
        target: format!("{environment} {}", bounded(&id)),
        reason,
    };
    let done = decision.carry_out(&shared, &caller, message).await?;
    let body = json!({ "id": id, "revision": done.revision, "durable": done.is_durable });
    Ok(answer(StatusCode::OK, &body))
}
