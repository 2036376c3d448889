//! Making, listing, rotating and revoking tokens: `/admin/tokens`.

use std::{borrow::Cow, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    audit::{self, Note},
    auth::Caller,
    control::detached,
    decisions::{self, LIMIT},
    error::ApiError,
    extract,
    fields::Fields,
    health::answer,
    state::{HttpState, Shared},
    times::{rfc3339_ms, rfc3339_or_null},
};
use crate::{
    actors::{
        AskError,
        tokens::{Changed, MakeToken, RevokeToken, RotateToken, TokenError, TokenSpec},
    },
    clock,
    eval::Dialect,
    model::{Projects, Scope, Token, TokenId, TokenKind, Validity},
};

/// Names in the audit.
pub(super) const CREATE: &str = "token.create";
pub(super) const ROTATE: &str = "token.rotate";
pub(super) const REVOKE: &str = "token.revoke";

/// Characters kept of the name of whoever makes a token; as many as the audit keeps.
const NAME_CHARS_MAX: usize = 128;
/// Longest life of a token that has an end.
const LIFE_MAX: Duration = Duration::from_hours(10 * 366 * 24);
/// How long the old secret counts beside the new one unless the caller says so.
const GRACE: Duration = Duration::from_hours(24);
/// The longest that a caller may say.
const GRACE_MAX: Duration = Duration::from_hours(90 * 24);
/// Most projects of one token, and characters of one's id.
const PROJECTS_MAX: usize = 100;
const PROJECT_CHARS_MAX: usize = 100;
/// Tokens listed unless asked otherwise, and at most.
const LIST_DEFAULT: u64 = 100;
const LIST_MAX: u64 = 1000;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    kind: Option<String>,
    environment: Option<String>,
    projects: Option<Vec<String>>,
    dialect: Option<String>,
    rate_class: Option<String>,
    expires_in: Option<String>,
    reason: Option<String>,
}

impl Body {
    /// What is asked for, or what is wrong with it.
    fn read(&self, state: &HttpState, caller: &Caller) -> Result<TokenSpec, ApiError> {
        let kind = self.kind.as_deref().and_then(TokenKind::from_word);
        let kind = kind
            .ok_or_else(|| ApiError::bad_request("kind", "use `client`, `server` or `frontend`"))?;
        let named = self.environment.as_deref();
        let named = named.ok_or_else(|| {
            ApiError::bad_request("environment", "say which one; a token is for one alone")
        })?;
        let dialect = match self.dialect.as_deref() {
            None => None,
            Some(word) => Some(
                Dialect::from_word(word)
                    .ok_or_else(|| ApiError::bad_request("dialect", "use `strict` or `legacy`"))?,
            ),
        };
        Ok(TokenSpec {
            kind,
            scope: Scope {
                environment: decisions::environment(state, named)?,
                projects: self.projects()?,
            },
            dialect,
            rate_class: self.rate_class(state)?,
            life: self
                .expires_in
                .as_deref()
                .map(|text| duration("expires_in", text, LIFE_MAX))
                .transpose()?,
            by: caller
                .name
                .chars()
                .take(NAME_CHARS_MAX)
                .collect::<String>()
                .into(),
        })
    }

    fn projects(&self) -> Result<Projects, ApiError> {
        let wrong = |reason: String| ApiError::bad_request("projects", reason);
        let Some(projects) = &self.projects else {
            return Ok(Projects::All);
        };
        if projects.len() > PROJECTS_MAX {
            return Err(wrong(format!("are more than {PROJECTS_MAX}; use [\"*\"]")));
        }
        // A frontend token begins with its project and a colon, and is sent in a header.
        let is_plain = |c: char| c.is_ascii_graphic() && c != ':';
        let is_odd = |name: &&String| {
            !(1..=PROJECT_CHARS_MAX).contains(&name.len()) || !name.chars().all(is_plain)
        };
        if let Some(odd) = projects.iter().find(is_odd) {
            return Err(wrong(format!(
                "`{}` is no id of a project",
                audit::bounded(odd)
            )));
        }
        Projects::from_names(projects.iter().map(String::as_str)).ok_or_else(|| {
            wrong("is empty; name the ids of GrowthBook's projects, or [\"*\"] for all".to_owned())
        })
    }

    fn rate_class(&self, state: &HttpState) -> Result<Option<Arc<str>>, ApiError> {
        let Some(name) = self.rate_class.as_deref() else {
            return Ok(None);
        };
        if state.shared.limits.has(name) {
            return Ok(Some(name.into()));
        }
        let known: Vec<&str> = state.shared.limits.names().collect();
        let reason = format!("is no class of `rate_limit.classes`; known are {known:?}");
        Err(ApiError::bad_request("rate_class", reason))
    }
}

/// A duration as settings write it, not longer than `max`.
fn duration(field: &str, text: &str, max: Duration) -> Result<Duration, ApiError> {
    let wrong = |reason: String| ApiError::bad_request(field, reason);
    let read = humantime::parse_duration(text)
        .map_err(|error| wrong(format!("{error}; write `30m`, `24h` or `90days`")))?;
    if read > max {
        let max = humantime::format_duration(max);
        return Err(wrong(format!("is too long; use at most {max}")));
    }
    Ok(read)
}

/// A token as it is answered; its secret is nowhere but in the answer that issues it.
fn shown(token: &Token) -> Map<String, Value> {
    let now_ms = clock::now_ms();
    let state = match token.validity(now_ms) {
        Validity::Valid => "valid",
        Validity::Expired => "expired",
        Validity::Revoked => "revoked",
    };
    let former = token.former.as_ref().map(|former| former.until_ms);
    let former = former.filter(|until_ms| *until_ms > now_ms);
    let shown = json!({
        "id": token.id.to_string(),
        "kind": token.kind.as_str(),
        "environment": token.scope.environment,
        "projects": token.scope.projects.names(),
        "dialect": token.dialect.map(Dialect::as_str),
        "rate_class": token.rate_class,
        "state": state,
        "created_by": token.created_by,
        "created_at": rfc3339_ms(token.created_at_ms),
        "expires_at": rfc3339_or_null(token.expires_at_ms),
        "revoked_at": rfc3339_or_null(token.revoked_at_ms),
        "former_secret_until": rfc3339_or_null(former),
    });
    match shown {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// `GET /admin/tokens`.
pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let mut fields = Fields::from_query(request.query_string())?;
    let limit = fields.limit(LIST_DEFAULT, LIST_MAX)?;
    let after = fields.text("after")?.map(Cow::into_owned);
    let after = match after {
        None => None,
        Some(text) => Some(TokenId::parse(&text).ok_or_else(|| {
            fields.wrong(
                "after",
                "is no id of a token; use the `next` of the page before",
            )
        })?),
    };
    fields.finish("limit, after")?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let tokens = state.reader.board().tokens();
    let page = tokens.list(after, limit);
    let next = page.last().filter(|_| page.len() == limit);
    let body = json!({
        "tokens": page.iter().map(|token| Value::Object(shown(token))).collect::<Vec<_>>(),
        "next": next.map(|token| token.id.to_string()),
        "total": tokens.len(),
    });
    Ok(answer(StatusCode::OK, &body))
}

/// `POST /admin/tokens`.
pub(super) async fn create(
    state: web::Data<HttpState>,
    caller: Caller,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let shared = Arc::clone(&state.shared);
    let body: Body = extract::optional_json(&shared, payload).await?;
    let spec = body.read(&state, &caller)?;
    let reason = said(body.reason)?;
    detached(async move {
        let target = format!("{} {}", spec.scope.environment, spec.kind.as_str());
        let made = shared.handles.tokens.ask(MakeToken(spec), LIMIT).await;
        let made = outcome(made);
        let id = made.as_ref().ok().map(|made| made.token.id.to_string());
        let order = Order {
            action: CREATE,
            target: id.unwrap_or(target),
            reason,
        };
        order
            .answer(&shared, &caller, StatusCode::CREATED, made)
            .await
    })
    .await?
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateBody {
    grace: Option<String>,
    reason: Option<String>,
}

/// `POST /admin/tokens/{id}/rotate`.
pub(super) async fn rotate(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let shared = Arc::clone(&state.shared);
    let body: RotateBody = extract::optional_json(&shared, payload).await?;
    let grace = body
        .grace
        .as_deref()
        .map(|text| duration("grace", text, GRACE_MAX));
    let grace = grace.transpose()?.unwrap_or(GRACE);
    let (order, id) = Order::about(ROTATE, &path, body.reason)?;
    detached(async move {
        let rotated = shared
            .handles
            .tokens
            .ask(RotateToken { id, grace }, LIMIT)
            .await;
        let done = outcome(rotated);
        order.answer(&shared, &caller, StatusCode::OK, done).await
    })
    .await?
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeBody {
    reason: Option<String>,
}

/// `DELETE /admin/tokens/{id}`.
pub(super) async fn revoke(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let shared = Arc::clone(&state.shared);
    let body: RevokeBody = extract::optional_json(&shared, payload).await?;
    let (order, id) = Order::about(REVOKE, &path, body.reason)?;
    detached(async move {
        let revoked = shared
            .handles
            .tokens
            .ask_again(RevokeToken { id }, LIMIT)
            .await;
        let done = outcome(revoked);
        order.answer(&shared, &caller, StatusCode::OK, done).await
    })
    .await?
}

/// A change on its way.
struct Order {
    action: &'static str,
    target: String,
    reason: Option<String>,
}

impl Order {
    /// A change of the token in a path.
    fn about(
        action: &'static str,
        path: &str,
        reason: Option<String>,
    ) -> Result<(Self, TokenId), ApiError> {
        let order = Self {
            action,
            target: audit::bounded(path).to_owned(),
            reason: said(reason)?,
        };
        let id = TokenId::parse(path).ok_or_else(|| failure(TokenError::Unknown))?;
        Ok((order, id))
    }

    /// Writes down what came of it, and tells the caller; where there is a new secret, that too.
    async fn answer(
        self,
        shared: &Arc<Shared>,
        caller: &Caller,
        status: StatusCode,
        done: Result<Changed, ApiError>,
    ) -> Result<HttpResponse, ApiError> {
        let result = match &done {
            Ok(changed) if changed.is_durable => "ok".to_owned(),
            Ok(_) => "ok, not durable".to_owned(),
            Err(error) => format!("failed: {}", error.code()),
        };
        let note = Note {
            target: &self.target,
            reason: self.reason.as_deref(),
            result,
        };
        audit::record(shared, caller, self.action, note).await;
        let changed = done?;
        let mut body = shown(&changed.token);
        if let Some(secret) = changed.secret {
            body.insert("secret".to_owned(), json!(secret));
        }
        body.insert("durable".to_owned(), json!(changed.is_durable));
        Ok(answer(status, &Value::Object(body)))
    }
}

fn said(reason: Option<String>) -> Result<Option<String>, ApiError> {
    reason
        .map(|reason| decisions::reason(Some(reason)))
        .transpose()
}

/// What the actor's answer to an order says.
fn outcome(answered: Result<Result<Changed, TokenError>, AskError>) -> Result<Changed, ApiError> {
    answered?.map_err(failure)
}

/// How a change that was not made is answered.
fn failure(error: TokenError) -> ApiError {
    let message = error.to_string();
    match error {
        TokenError::Unknown => ApiError::Missing {
            code: "unknown_token",
            message: format!("{message}; `GET /admin/tokens` lists them"),
            near: Vec::new(),
        },
        TokenError::Ended(_) => ApiError::Conflict {
            code: "token_ended",
            message,
        },
        TokenError::TooMany => ApiError::Conflict {
            code: "too_many_tokens",
            message,
        },
        TokenError::NoEntropy => ApiError::Internal,
    }
}
