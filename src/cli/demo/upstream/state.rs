//! What the upstream holds, and every way to change it while it runs.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    CLIENT_KEY, Encoding, RequestLog, Route, SECRET_KEY,
    coding::Compressed,
    faults::{Fault, FaultPlan},
    http::Request,
    journal::Journal,
    payload,
    rest::RateLimiter,
    streams::Streams,
};
use crate::clock;

/// An SDK connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Client key, `sdk-…`.
    pub key: String,
    /// Environment id it delivers.
    pub environment: String,
    /// Project id; empty: all.
    pub project: String,
    /// Base64 of 16 bytes, which makes the connection an encrypted one.
    pub encryption_key: Option<String>,
    /// Whether SDKs have to evaluate remotely; the payload is then had through the management API alone.
    pub remote_eval: bool,
    /// Whether an event stream is offered and served.
    pub streaming: bool,
}

impl Connection {
    /// A plain connection of environment `production`, without project, encryption or stream.
    pub fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            environment: "production".to_owned(),
            project: String::new(),
            encryption_key: None,
            remote_eval: false,
            streaming: false,
        }
    }
}

/// A rendered payload.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    pub(super) body: Bytes,
    pub(super) etag: String,
}

/// Everything that answers are made from.
#[derive(Debug)]
pub(super) struct Content {
    features: Map<String, Value>,
    own_features: HashMap<String, Map<String, Value>>,
    pub(super) auto_experiments: Option<Vec<Value>>,
    pub(super) saved_groups: Option<Map<String, Value>>,
    pub(super) contextual_bandits: Option<Map<String, Value>>,
    pub(super) date_updated: OffsetDateTime,
    pub(super) experiments: Vec<Value>,
    /// Saved groups as the management API lists them.
    pub(super) group_list: Vec<Value>,
    pub(super) namespaces: Vec<Value>,
    /// Project ids by feature key, as the management API lists them.
    feature_projects: HashMap<String, String>,
    pub(super) connections: Vec<Connection>,
    pub(super) secret: String,
    pub(super) encodings: Vec<Encoding>,
    pub(super) compressed: Compressed,
    /// Raw bodies in place of payloads, by client key.
    overrides: HashMap<String, Bytes>,
    rendered: HashMap<String, Rendered>,
    /// Whether payload dates and screenshot addresses differ in every answer.
    volatile: bool,
    answers: u64,
}

impl Content {
    fn new() -> Self {
        Self {
            features: Map::new(),
            own_features: HashMap::new(),
            auto_experiments: None,
            saved_groups: None,
            contextual_bandits: None,
            date_updated: clock::now(),
            experiments: Vec::new(),
            group_list: Vec::new(),
            namespaces: Vec::new(),
            feature_projects: HashMap::new(),
            connections: Vec::new(),
            secret: SECRET_KEY.to_owned(),
            encodings: vec![Encoding::Gzip],
            compressed: Compressed::default(),
            overrides: HashMap::new(),
            rendered: HashMap::new(),
            volatile: false,
            answers: 0,
        }
    }

    /// The connection with this client key.
    pub(super) fn connection(&self, key: &str) -> Option<&Connection> {
        self.connections.iter().find(|known| known.key == key)
    }

    /// What a connection delivers as features.
    pub(super) fn features_of(&self, key: &str) -> &Map<String, Value> {
        self.own_features.get(key).unwrap_or(&self.features)
    }

    /// The payload of a known connection; `None` where it cannot be made.
    pub(super) fn payload(&mut self, key: &str) -> Option<Rendered> {
        if let Some(rendered) = self.rendered.get(key) {
            return Some(rendered.clone());
        }
        let salt = self.next_salt();
        let body = match self.overrides.get(key) {
            Some(raw) => raw.clone(),
            None => payload::render(self, self.connection(key)?, salt)?,
        };
        let etag = payload::weak_etag(&body);
        let rendered = Rendered { body, etag };
        if !self.volatile {
            self.rendered.insert(key.to_owned(), rendered.clone());
        }
        Some(rendered)
    }

    /// Zero, or a number never given before where answers are volatile.
    pub(super) fn next_salt(&mut self) -> u64 {
        if self.volatile {
            self.answers += 1;
        }
        self.answers
    }

    /// Experiments as listed, oldest first.
    pub(super) fn experiments_by_age(&self) -> Vec<&Value> {
        let mut sorted: Vec<&Value> = self.experiments.iter().collect();
        sorted.sort_by_key(|item| item["dateCreated"].as_str().unwrap_or("").to_owned());
        sorted
    }

    fn touch(&mut self) {
        // Two changes within a millisecond still need two dates: SDKs ignore a payload whose date did not move.
        let next = self.date_updated + time::Duration::milliseconds(1);
        self.date_updated = clock::now().max(next);
        self.forget_rendered();
    }

    fn forget_rendered(&mut self) {
        self.rendered.clear();
        self.compressed.clear();
    }
}

/// What the upstream holds, how it misbehaves, and what it was asked.
///
/// A change of the payload moves its `dateUpdated` and is told to open streams at once.
#[derive(Debug)]
pub struct State {
    pub(super) content: Mutex<Content>,
    pub(super) limiter: Mutex<RateLimiter>,
    pub(super) streams: Streams,
    faults: Mutex<FaultPlan>,
    journal: Mutex<Journal>,
    arrivals: watch::Sender<u64>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            content: Mutex::new(Content::new()),
            limiter: Mutex::new(RateLimiter::default()),
            streams: Streams::new(),
            faults: Mutex::new(FaultPlan::default()),
            journal: Mutex::new(Journal::default()),
            arrivals: watch::Sender::new(0),
        }
    }

    fn change_payload(&self, change: impl FnOnce(&mut Content)) {
        let mut content = self.content.lock();
        change(&mut content);
        content.touch();
        self.streams.publish(&mut content);
    }
}

/// Features and the rest of the payload.
impl State {
    /// Replaces all features; anything but an object counts as none.
    pub fn set_features(&self, features: Value) {
        self.change_payload(|content| content.features = object(features));
    }

    /// Adds or replaces one feature.
    pub fn set_feature(&self, key: &str, definition: Value) {
        self.change_payload(|content| {
            content.features.insert(key.to_owned(), definition);
        });
    }

    /// Removes one feature; the order of the others stays.
    pub fn remove_feature(&self, key: &str) {
        self.change_payload(|content| {
            content.features.shift_remove(key);
        });
    }

    /// Says which project the management API lists a feature under; payloads stay as they are.
    pub fn set_feature_project(&self, key: &str, project: &str) {
        let projects = &mut self.content.lock().feature_projects;
        projects.insert(key.to_owned(), project.to_owned());
    }

    /// The features as the management API lists them, in short.
    pub(super) fn listed_features(&self) -> Vec<Value> {
        let content = self.content.lock();
        let feature = |(key, definition): (&String, &Value)| {
            let project = content.feature_projects.get(key).map_or("", String::as_str);
            json!({
                "id": key,
                "archived": false,
                "description": "",
                "owner": "u_ada",
                "project": project,
                "valueType": "string",
                "defaultValue": definition["defaultValue"].to_string(),
                "tags": [],
                "environments": {},
            })
        };
        content.features.iter().map(feature).collect()
    }

    /// The features that connections without their own deliver.
    pub fn features(&self) -> Map<String, Value> {
        self.content.lock().features.clone()
    }

    /// Gives one connection features of its own; `Value::Null` takes them away again.
    pub fn set_connection_features(&self, client_key: &str, features: Value) {
        self.change_payload(|content| {
            if features.is_null() {
                content.own_features.remove(client_key);
            } else {
                let features = object(features);
                content.own_features.insert(client_key.to_owned(), features);
            }
        });
    }

    /// Replaces the auto experiments; `None`: the payload has no such member.
    pub fn set_auto_experiments(&self, experiments: Option<Vec<Value>>) {
        self.change_payload(|content| content.auto_experiments = experiments);
    }

    /// Replaces the saved groups; anything but an object: the payload has no such member.
    pub fn set_saved_groups(&self, groups: Value) {
        self.change_payload(|content| content.saved_groups = optional_object(groups));
    }

    /// Replaces the contextual bandits; anything but an object: the payload has no such member.
    pub fn set_contextual_bandits(&self, bandits: Value) {
        self.change_payload(|content| content.contextual_bandits = optional_object(bandits));
    }

    /// Serves these bytes as the payload of a connection, whatever they are.
    pub fn set_payload(&self, client_key: &str, body: impl Into<Bytes>) {
        let body = body.into();
        self.change_payload(|content| {
            content.overrides.insert(client_key.to_owned(), body);
        });
    }

    /// Serves the connection's real payload again.
    pub fn clear_payload(&self, client_key: &str) {
        self.change_payload(|content| {
            content.overrides.remove(client_key);
        });
    }

    /// Makes payload dates and screenshot addresses differ in every answer, as with payload caching off and signed storage.
    pub fn set_volatile(&self, volatile: bool) {
        let mut content = self.content.lock();
        content.volatile = volatile;
        content.forget_rendered();
    }
}

/// Experiments of the management API.
impl State {
    /// Replaces what the management API lists as saved groups and as namespaces, just as given.
    pub fn set_references(&self, saved_groups: Vec<Value>, namespaces: Vec<Value>) {
        let mut content = self.content.lock();
        content.group_list = saved_groups;
        content.namespaces = namespaces;
    }

    /// Replaces all experiments, just as given.
    pub fn set_experiments(&self, experiments: Vec<Value>) {
        self.content.lock().experiments = experiments;
    }

    /// Adds an experiment, or replaces the one with the same `id`; `dateUpdated` becomes now.
    pub fn upsert_experiment(&self, mut experiment: Value) {
        experiment["dateUpdated"] = json!(payload::iso(clock::now()));
        let mut content = self.content.lock();
        let known = content.experiments.iter_mut();
        match known.into_iter().find(|e| e["id"] == experiment["id"]) {
            Some(place) => *place = experiment,
            None => content.experiments.push(experiment),
        }
    }

    /// Changes the experiments with this tracking key in place; `dateUpdated` becomes now.
    pub fn update_experiment(&self, tracking_key: &str, change: impl Fn(&mut Value)) {
        let mut content = self.content.lock();
        for experiment in &mut content.experiments {
            if experiment["trackingKey"] == tracking_key {
                change(experiment);
                experiment["dateUpdated"] = json!(payload::iso(clock::now()));
            }
        }
    }

    /// Removes the experiments with this tracking key.
    pub fn remove_experiment(&self, tracking_key: &str) {
        let mut content = self.content.lock();
        content
            .experiments
            .retain(|experiment| experiment["trackingKey"] != tracking_key);
    }

    /// All experiments, in the order they were given.
    pub fn experiments(&self) -> Vec<Value> {
        self.content.lock().experiments.clone()
    }

    /// The first experiment with this tracking key.
    pub fn experiment(&self, tracking_key: &str) -> Option<Value> {
        let content = self.content.lock();
        let mut all = content.experiments.iter();
        all.find(|e| e["trackingKey"] == tracking_key).cloned()
    }
}

/// Connections, credentials and manners.
impl State {
    /// Adds a connection, or replaces the one with the same key.
    pub fn add_connection(&self, connection: Connection) {
        self.change_payload(|content| {
            let known = content.connections.iter_mut();
            match known.into_iter().find(|c| c.key == connection.key) {
                Some(place) => *place = connection,
                None => content.connections.push(connection),
            }
        });
    }

    /// Removes a connection: its key is invalid from now on.
    pub fn remove_connection(&self, client_key: &str) {
        let mut content = self.content.lock();
        content.connections.retain(|known| known.key != client_key);
        content.forget_rendered();
    }

    /// Changes the secret of the management API.
    pub fn set_secret(&self, secret: &str) {
        secret.clone_into(&mut self.content.lock().secret);
    }

    /// Allows so many management requests per window, and starts a new window. 60 per minute unless set.
    pub fn set_rate_limit(&self, requests: u32, window: Duration) {
        *self.limiter.lock() = RateLimiter::new(requests, window);
    }

    /// The content encodings it may answer with, best first; gzip unless set, none: identity only.
    pub fn set_encodings(&self, encodings: &[Encoding]) {
        self.content.lock().encodings = encodings.to_vec();
    }

    /// How often streams send a ping, and after how long they are ended. 30 s and 60 s unless set.
    pub fn set_stream_times(&self, ping: Duration, duration_max: Duration) {
        self.streams.set_times(ping, duration_max);
    }

    /// Sends raw text to the open streams of a connection, be it proper or not.
    pub fn send_to_streams(&self, client_key: &str, text: &str) {
        self.streams.send(client_key, text.to_owned());
    }

    /// Ends all open streams; callers may open new ones at once.
    pub fn close_streams(&self) {
        self.streams.close_all();
    }

    /// Number of open streams.
    pub fn open_streams(&self) -> usize {
        self.streams.open()
    }

    /// Switches the default connection ([`CLIENT_KEY`]) to streaming.
    pub fn enable_streaming(&self) {
        self.add_connection(Connection {
            streaming: true,
            ..Connection::new(CLIENT_KEY)
        });
    }
}

/// Faults.
impl State {
    /// Misbehaves on every request of a class until cleared; replaces the fault it had.
    pub fn set_fault(&self, route: Route, fault: Fault) {
        self.faults.lock().set(route, fault, 0, None);
    }

    /// Misbehaves on the next `times` requests of a class.
    pub fn set_fault_times(&self, route: Route, fault: Fault, times: usize) {
        self.faults.lock().set(route, fault, 0, Some(times));
    }

    /// Lets `skip` requests of a class pass, then misbehaves on the `times` next ones (a later page, say).
    pub fn set_fault_after(&self, route: Route, skip: usize, fault: Fault, times: usize) {
        self.faults.lock().set(route, fault, skip, Some(times));
    }

    /// Behaves again on one class of routes.
    pub fn clear_fault(&self, route: Route) {
        self.faults.lock().clear(route);
    }

    /// Behaves again everywhere.
    pub fn clear_all(&self) {
        *self.faults.lock() = FaultPlan::default();
    }

    pub(super) fn take_fault(&self, route: Route) -> Option<Fault> {
        self.faults.lock().take(route)
    }
}

/// What was asked.
impl State {
    /// The newest requests (at most 10 000), oldest first.
    pub fn requests(&self) -> Vec<RequestLog> {
        self.journal.lock().requests()
    }

    /// How many requests of a class arrived since the start or [`Self::clear_requests`].
    pub fn request_count(&self, route: Route) -> usize {
        self.journal.lock().count(route)
    }

    /// Forgets what was asked.
    pub fn clear_requests(&self) {
        self.journal.lock().clear();
    }

    /// Waits until at least `count` requests of a class have arrived.
    pub async fn until_requests(&self, route: Route, count: usize) {
        let mut arrivals = self.arrivals.subscribe();
        while self.request_count(route) < count {
            // The sender is ours, so the channel is open.
            if arrivals.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn record(&self, request: &Request) {
        self.journal.lock().record(request);
        self.arrivals.send_modify(|count| *count += 1);
    }
}

fn object(value: Value) -> Map<String, Value> {
    optional_object(value).unwrap_or_default()
}

fn optional_object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}
