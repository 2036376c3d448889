//! The management API: credentials, rate limit, lists.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Route, State,
    http::{Answer, Request},
    state::{Connection, Content, Rendered},
};

/// Message of a 429.
pub(super) const TOO_MANY: &str = "Too many requests, limit to 60 per minute";

/// Page size where none is asked for, and the largest one (GrowthBook's API document).
const LIMIT_DEFAULT: usize = 10;
const LIMIT_MAX: usize = 100;

/// Counts requests in fixed windows, as express-rate-limit does.
#[derive(Debug)]
pub(super) struct RateLimiter {
    requests_max: u32,
    window: Duration,
    began: Option<Instant>,
    requests: u32,
}

impl Default for RateLimiter {
    /// GrowthBook's own: 60 per minute.
    fn default() -> Self {
        Self::new(60, Duration::from_mins(1))
    }
}

impl RateLimiter {
    pub(super) fn new(requests_max: u32, window: Duration) -> Self {
        Self {
            requests_max,
            window,
            began: None,
            requests: 0,
        }
    }

    /// Counts a request; the headers, and whether it is one too many.
    fn count(&mut self) -> (bool, Vec<(&'static str, String)>) {
        let now = Instant::now();
        let began = match self.began {
            Some(began) if now.duration_since(began) < self.window => began,
            _ => {
                self.requests = 0;
                *self.began.insert(now)
            }
        };
        self.requests = self.requests.saturating_add(1);
        let left = self.window.saturating_sub(now.duration_since(began));
        let mut headers = vec![
            ("RateLimit-Limit", self.requests_max.to_string()),
            (
                "RateLimit-Remaining",
                self.requests_max.saturating_sub(self.requests).to_string(),
            ),
            ("RateLimit-Reset", whole_secs(left).to_string()),
        ];
        let is_refused = self.requests > self.requests_max;
        if is_refused {
            // The whole window, not what is left of it; GrowthBook does so too.
            headers.push(("Retry-After", whole_secs(self.window).to_string()));
        }
        (is_refused, headers)
    }
}

/// Seconds, rounded up.
fn whole_secs(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Answers a request to `/api/v1/…`.
pub(super) fn answer(state: &State, request: &Request, route: Option<Route>) -> Answer {
    let secret = state.content.lock().secret.clone();
    if let Err(refusal) = authorize(request.header("authorization"), &secret) {
        return refusal;
    }
    let (is_refused, limits) = state.limiter.lock().count();
    let mut answer = if is_refused {
        Answer::json(429, &json!({"message": TOO_MANY}))
    } else {
        match route {
            Some(Route::Experiments) => list(request, |query| experiments(state, query)),
            Some(Route::Connections) => list(request, |query| connections(state, query)),
            Some(Route::SdkPayload) => sdk_payload(state, request),
            _ => match request.path() {
                "/api/v1/saved-groups" => list(request, |_| {
                    ("savedGroups", state.content.lock().group_list.clone())
                }),
                "/api/v1/namespaces" => list(request, |_| {
                    ("namespaces", state.content.lock().namespaces.clone())
                }),
                "/api/v1/features" => list(request, |_| ("features", state.listed_features())),
                _ => Answer::json(404, &json!({"message": "Unknown API endpoint"})),
            },
        }
    };
    answer.headers.extend(limits);
    answer
}

fn authorize(header: Option<&str>, secret: &str) -> Result<(), Answer> {
    let refuse = |status, message: &str| Err(Answer::json(status, &json!({"message": message})));
    let Some((scheme, value)) = header.and_then(|header| header.split_once(' ')) else {
        return refuse(400, "Missing Authorization header");
    };
    let given = match scheme {
        "Bearer" => value.trim().to_owned(),
        "Basic" => {
            let decoded = STANDARD.decode(value.trim()).unwrap_or_default();
            let pair = String::from_utf8_lossy(&decoded).into_owned();
            pair.split(':').next().unwrap_or("").to_owned()
        }
        _ => return refuse(400, "Authorization header must be Basic or Bearer"),
    };
    if given.is_empty() {
        return refuse(400, "Missing API key in Authorization header");
    }
    if given == secret {
        return Ok(());
    }
    if given.starts_with("sdk-") {
        return refuse(
            401,
            "The API key you provided is an SDK key and cannot be used for this endpoint; use a secret key",
        );
    }
    refuse(401, "Invalid API key")
}

type Query = Vec<(String, String)>;

/// The last value of a parameter.
fn parameter<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    let mut named = query.iter().rev().filter(|(known, _)| known == name);
    named.next().map(|(_, value)| value.as_str())
}

/// One page of a list, `select` being all of it under its key.
fn list(request: &Request, select: impl FnOnce(&Query) -> (&'static str, Vec<Value>)) -> Answer {
    let query = request.query();
    let (limit, offset) = match (page_limit(&query), page_offset(&query)) {
        (Ok(limit), Ok(offset)) => (limit, offset),
        (limit, offset) => {
            let problems: Vec<String> = [limit.err(), offset.err()].into_iter().flatten().collect();
            return Answer::json(400, &json!({"message": problems.join("\n")}));
        }
    };
    let (key, items) = select(&query);
    Answer::json(200, &page(key, &items, limit, offset))
}

fn page(key: &str, items: &[Value], limit: usize, offset: usize) -> Value {
    let total = items.len();
    let shown: Vec<&Value> = items.iter().skip(offset).take(limit).collect();
    let next = offset + limit;
    let has_more = next < total;
    let mut page = Map::new();
    page.insert(key.to_owned(), json!(shown));
    page.insert("limit".to_owned(), json!(limit));
    page.insert("offset".to_owned(), json!(offset));
    page.insert("count".to_owned(), json!(shown.len()));
    page.insert("total".to_owned(), json!(total));
    page.insert("hasMore".to_owned(), json!(has_more));
    page.insert("nextOffset".to_owned(), json!(has_more.then_some(next)));
    Value::Object(page)
}

/// A valid page without items.
pub(super) fn empty_list(route: Route, request: &Request) -> Value {
    let query = request.query();
    let key = match route {
        Route::Connections => "connections",
        _ => "experiments",
    };
    page(
        key,
        &[],
        page_limit(&query).unwrap_or(LIMIT_DEFAULT),
        page_offset(&query).unwrap_or(0),
    )
}

fn page_limit(query: &Query) -> Result<usize, String> {
    let Some(text) = parameter(query, "limit") else {
        return Ok(LIMIT_DEFAULT);
    };
    match text.parse() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Ok(0) => Err("Querystring: [limit] Too small: expected number to be >=1".to_owned()),
        Ok(_) => Err("Querystring: [limit] Too big: expected number to be <=100".to_owned()),
        Err(_) => Err("Querystring: [limit] Invalid input: expected int".to_owned()),
    }
}

fn page_offset(query: &Query) -> Result<usize, String> {
    parameter(query, "offset").map_or(Ok(0), |text| {
        text.parse().map_err(|error| {
            format!("Querystring: [offset] Invalid input: expected int >=0 ({error})")
        })
    })
}

fn experiments(state: &State, query: &Query) -> (&'static str, Vec<Value>) {
    let mut content = state.content.lock();
    let salt = content.next_salt();
    let equals = |item: &Value, member: &str, name: &str| {
        parameter(query, name).is_none_or(|wanted| item[member] == wanted)
    };
    let archived = parameter(query, "archived").map(|text| matches!(text, "true" | "1"));
    let mut items: Vec<Value> = content
        .experiments_by_age()
        .into_iter()
        .filter(|item| equals(item, "project", "projectId"))
        .filter(|item| equals(item, "status", "status"))
        .filter(|item| equals(item, "trackingKey", "trackingKey"))
        .filter(|item| archived.is_none_or(|wanted| item["archived"] == wanted))
        .cloned()
        .collect();
    if let Some(member @ ("dateUpdated" | "name")) = parameter(query, "sortBy") {
        items.sort_by_key(|item| item[member].as_str().unwrap_or("").to_owned());
    }
    if parameter(query, "sortOrder") == Some("desc") {
        items.reverse();
    }
    if salt > 0 {
        sign_screenshots(&mut items, salt);
    }
    ("experiments", items)
}

/// Gives every variation a screenshot whose address is new, as signed storage does.
fn sign_screenshots(items: &mut [Value], salt: u64) {
    for variation in items
        .iter_mut()
        .filter_map(|item| item["variations"].as_array_mut())
        .flatten()
    {
        let url = format!("https://storage.example.org/upload/shot.png?signature={salt}");
        variation["screenshots"] = json!([url]);
    }
}

fn connections(state: &State, query: &Query) -> (&'static str, Vec<Value>) {
    let content = state.content.lock();
    let wanted = parameter(query, "projectId");
    let items = content
        .connections
        .iter()
        .enumerate()
        .filter(|(_, connection)| wanted.is_none_or(|project| connection.project == project))
        .map(|(index, connection)| describe(&content, connection, index))
        .collect();
    ("connections", items)
}

fn describe(content: &Content, connection: &Connection, index: usize) -> Value {
    let projects: Vec<&str> = [connection.project.as_str()]
        .into_iter()
        .filter(|project| !project.is_empty())
        .collect();
    json!({
        "id": format!("sdk_{index:04}{}", connection.key.trim_start_matches("sdk-")),
        "dateCreated": format!("2026-01-{:02}T09:00:00.000Z", index % 28 + 1),
        "dateUpdated": "2026-06-01T09:00:00.000Z",
        "name": format!("Connection {}", connection.key),
        "organization": "org_demo",
        "languages": ["javascript", "python"],
        "sdkVersion": "1.8.0",
        "environment": connection.environment,
        "project": connection.project,
        "projects": projects,
        "encryptPayload": connection.encryption_key.is_some(),
        "encryptionKey": connection.encryption_key.as_deref().unwrap_or(""),
        "includeVisualExperiments": content.auto_experiments.is_some(),
        "includeDraftExperiments": false,
        "includeExperimentNames": true,
        "includeRedirectExperiments": content.auto_experiments.is_some(),
        "includeRuleIds": true,
        "key": connection.key,
        "proxyEnabled": false,
        "proxyHost": "",
        "proxySigningKey": "",
        "sseEnabled": connection.streaming,
        "hashSecureAttributes": false,
        "remoteEvalEnabled": connection.remote_eval,
        "savedGroupReferencesEnabled": content.saved_groups.is_some(),
    })
}

/// The payload of any connection, remote evaluation included.
fn sdk_payload(state: &State, request: &Request) -> Answer {
    let key = request.path().rsplit('/').next().unwrap_or("");
    let mut content = state.content.lock();
    if content.connection(key).is_none() {
        return Answer::json(400, &json!({"message": "Invalid API Key"}));
    }
    match content.payload(key) {
        Some(Rendered { body, etag }) => {
            let mut answer = Answer::new(200, super::http::JSON, body);
            answer.etag = Some(etag);
            answer
        }
        None => Answer::json(400, &json!({"message": "Failed to get features"})),
    }
}
