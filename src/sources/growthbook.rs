//! A GrowthBook server, its CDN or its proxy.
//!
//! One fetch asks for the payload of each SDK connection and, where the management API is configured, for the list of
//! experiments. Parts succeed and fail by themselves. Between fetches only what belongs to the conversation is kept:
//! rate limits, the last list of connections, who offers an event stream. Never a body, never a validator.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::{join, join_all, pending},
    stream,
};
use parking_lot::Mutex;
use reqwest::{Url, header::HeaderMap};
use tokio::time::Instant;

use super::{
    Asking, FetchError, Fetched, PartId, PartOutcome, StreamTarget, Validators,
    budget::ListCost,
    connections,
    decrypt::Opener,
    events,
    http::{Answer, Ask, Class, Http, base_url, content_type, endpoint, etag},
    mask,
    pages::{List, ListSpec, Reader},
    references::{self, Wanted},
    refusals::{self, Refusals, Refused},
};
use crate::settings::{Connection, Poll, Source};

/// Payloads asked for at the same time; a source with many connections must not look like an attack.
const PAYLOADS_AT_ONCE: usize = 4;

/// A fetch as a whole takes at most this many request time limits, for all connections and pages together.
const FETCH_TIMEOUTS: u32 = 6;

/// A fetch takes no longer than this, whatever the settings say.
const FETCH_TIME_MAX: Duration = Duration::from_hours(1);

/// The list of features, in which their projects are.
const FEATURES: &str = "features";

/// Header by which an upstream offers an event stream.
const SSE_SUPPORT: &str = "x-sse-support";

/// Bodies above this are checked and decrypted off the actor's thread, in bytes: about 100 µs of work.
const INLINE_MAX: usize = 65_536;

/// What talks to one GrowthBook source.
pub struct Growthbook {
    source: Source,
    api_host: Url,
    rest_host: Option<Url>,
    http: Http,
    state: Mutex<State>,
}

/// What one fetch leaves for the next.
#[derive(Default)]
struct State {
    /// The last good list, where connections are discovered.
    connections: Option<Vec<Connection>>,
    /// Requests of the last good read.
    connection_pages: u32,
    /// Requests of the last good read; `None` while there was none.
    experiment_pages: Option<u32>,
    lists_read_at: Option<Instant>,
    /// Why the last read of the list of features failed.
    features_error: Option<FetchError>,
    /// Client keys whose last payload came with the offer of an event stream.
    streaming: BTreeSet<String>,
    /// What the upstream refused for good.
    refusals: Refusals,
}

impl Growthbook {
    /// Fails when a setting cannot be used.
    pub fn new(source: &Source) -> Result<Self, FetchError> {
        let rest_host = (!source.rest_host.is_empty())
            .then(|| base_url("rest_host", &source.rest_host))
            .transpose()?;
        Ok(Self {
            api_host: base_url("api_host", &source.api_host)?,
            rest_host,
            http: Http::new(&source.poll, source.secret_key.as_ref())?,
            source: source.clone(),
            state: Mutex::default(),
        })
    }

    /// Longest time that one fetch can take.
    pub(super) fn fetch_time_max(&self) -> Duration {
        let Poll {
            timeout, retries, ..
        } = self.source.poll;
        // Two requests with all their retries fit into it in any case.
        let timeouts = FETCH_TIMEOUTS.max(retries.saturating_add(1).saturating_mul(2));
        timeout.saturating_mul(timeouts).min(FETCH_TIME_MAX)
    }

    pub(super) async fn fetch(&self, asking: Asking, validators: &Validators) -> Fetched {
        let deadline = Instant::now() + self.fetch_time_max();
        let lists_are_due = self.lists_are_due();
        let (connections, connections_error) =
            self.connections(asking, lists_are_due, deadline).await;
        let payloads: Vec<_> = connections
            .iter()
            .map(|connection| self.payload_part(asking, connection, validators, deadline))
            .collect();
        let payloads = stream::iter(payloads)
            .buffer_unordered(PAYLOADS_AT_ONCE)
            .collect::<BTreeMap<_, _>>();
        let experiments = self.experiments_part(asking, lists_are_due, deadline);
        let (mut parts, experiments) = join(payloads, experiments).await;
        if let Some(outcome) = experiments {
            parts.insert(PartId::Experiments, outcome);
        }
        let mut state = self.state.lock();
        state.refusals.keep(|part| parts.contains_key(part));
        let features_error = state.features_error.take();
        drop(state);
        Fetched {
            parts,
            connections_error,
            features_error,
            streams: self.streams(&connections),
            connections,
        }
    }

    pub(super) async fn follow(&self, targets: &[StreamTarget], on_change: &impl Fn()) {
        join_all(targets.iter().map(|StreamTarget(key)| {
            let url = endpoint(&self.api_host, &["sub", key]);
            events::follow(&self.http, url, on_change)
        }))
        .await;
        pending::<()>().await;
    }

    /// One decision for all lists of a fetch, so that they are read at the same pace.
    fn lists_are_due(&self) -> bool {
        let cost = {
            let state = self.state.lock();
            let known = state.connections.as_ref();
            let listed = self.source.listed_connections();
            let remote = known
                .unwrap_or(&listed)
                .iter()
                .filter(|connection| connection.remote_eval)
                .count();
            ListCost {
                requests: state.connection_pages + state.experiment_pages.unwrap_or(1),
                payload_requests: u32::try_from(remote).unwrap_or(u32::MAX),
                interval: self.source.poll.interval,
                last_read: state.lists_read_at,
            }
        };
        let is_due = self.http.lists_are_due(cost);
        if is_due {
            self.state.lock().lists_read_at = Some(Instant::now());
        }
        is_due
    }

    /// Why something is to be left alone in this fetch, if it is.
    fn standing(&self, asking: Asking, what: &Refused) -> Option<FetchError> {
        let due = || self.state.lock().refusals.standing(what, Instant::now());
        (asking == Asking::Due).then(due).flatten()
    }

    fn note(&self, what: Refused, error: Option<&FetchError>) {
        let rest = refusals::rest(&self.source.poll);
        let refusals = &mut self.state.lock().refusals;
        refusals.note(what, error, rest, Instant::now());
    }

    /// The connections to ask for; on trouble with a discovered list the last good one, and why.
    async fn connections(
        &self,
        asking: Asking,
        lists_are_due: bool,
        deadline: Instant,
    ) -> (Vec<Connection>, Option<FetchError>) {
        if !self.source.discovers_connections() {
            return (self.source.listed_connections(), None);
        }
        let known = self.state.lock().connections.clone();
        if let (Some(known), false) = (&known, lists_are_due) {
            return (known.clone(), None);
        }
        if let Some(error) = self.standing(asking, &Refused::Connections) {
            return (known.unwrap_or_default(), Some(error));
        }
        let discovered = self.discover(deadline).await;
        self.note(Refused::Connections, discovered.as_ref().err());
        match discovered {
            Ok(found) => (found, None),
            Err(error) => (known.unwrap_or_default(), Some(error)),
        }
    }

    async fn discover(&self, deadline: Instant) -> Result<Vec<Connection>, FetchError> {
        // The upstream's own project filter would drop the connections that cover all projects.
        let spec = ListSpec {
            path: "sdk-connections",
            member: "connections",
            project: "",
        };
        let list = self.list(spec, deadline).await?;
        let found = connections::select(&list.items, &self.source)?;
        let mut state = self.state.lock();
        state.connection_pages = list.pages;
        state.connections = Some(found.clone());
        Ok(found)
    }

    async fn experiments_part(
        &self,
        asking: Asking,
        lists_are_due: bool,
        deadline: Instant,
    ) -> Option<PartOutcome> {
        self.rest_host.as_ref()?;
        let part = Refused::Part(PartId::Experiments);
        if let Some(error) = self.standing(asking, &part) {
            return Some(PartOutcome::Failed(error));
        }
        let is_known = self.state.lock().experiment_pages.is_some();
        // While quiet is asked for the part has failed; only a budget that is running out is no failure.
        let is_closed = self.http.closed_for(Class::Rest).is_some();
        if is_known && !lists_are_due && !is_closed {
            return Some(PartOutcome::Skipped);
        }
        let spec = ListSpec {
            path: "experiments",
            member: "experiments",
            project: &self.source.project,
        };
        let document = self.experiments(spec, deadline).await;
        self.note(part, document.as_ref().err());
        Some(
            document.map_or_else(PartOutcome::Failed, |body| PartOutcome::Fetched {
                body,
                validator: None,
            }),
        )
    }

    /// The list of experiments with the lists that they refer to.
    async fn experiments(
        &self,
        spec: ListSpec<'_>,
        deadline: Instant,
    ) -> Result<Bytes, FetchError> {
        let list = self.list(spec, deadline).await?;
        let wanted = Wanted::of(&list.items, self.source.feature_projects);
        let mut pages = list.pages;
        let mut others = Vec::new();
        for (is_wanted, path, member) in [
            (wanted.saved_groups, "saved-groups", "savedGroups"),
            (wanted.namespaces, "namespaces", "namespaces"),
            (wanted.features, FEATURES, FEATURES),
        ] {
            if !is_wanted {
                continue;
            }
            let spec = ListSpec {
                path,
                member,
                project: "",
            };
            match self.list(spec, deadline).await {
                Ok(mut other) => {
                    pages += other.pages;
                    if member == FEATURES {
                        other.items = references::projects_only(other.items);
                    }
                    others.push((member, other));
                }
                // Without it the projects stay that are known; experiments are worth more than news of them.
                Err(error) if member == FEATURES => {
                    tracing::debug!("the projects of features are not to be had: {error}");
                    self.state.lock().features_error = Some(error);
                }
                Err(error) if references::is_withheld(&error) => {
                    pages += 1;
                    tracing::debug!(list = member, "the upstream does not give it: {error}");
                }
                Err(error) => return Err(error),
            }
        }
        self.state.lock().experiment_pages = Some(pages);
        Ok(list.to_document(spec.member, &others).into())
    }

    async fn list(&self, spec: ListSpec<'_>, deadline: Instant) -> Result<List, FetchError> {
        let reader = Reader {
            http: &self.http,
            rest_host: self.rest_host()?,
            limit_bytes: self.source.poll.max_body_bytes,
            deadline,
        };
        reader.read(spec).await
    }

    async fn payload_part(
        &self,
        asking: Asking,
        connection: &Connection,
        validators: &Validators,
        deadline: Instant,
    ) -> (PartId, PartOutcome) {
        let part = PartId::Payload(connection.key.clone());
        let refused = Refused::Part(part.clone());
        if let Some(error) = self.standing(asking, &refused) {
            return (part, PartOutcome::Failed(error));
        }
        let validator = validators.get(&part).map(String::as_str);
        let payload = self.payload(connection, validator, deadline).await;
        self.note(refused, payload.as_ref().err());
        (part, payload.unwrap_or_else(PartOutcome::Failed))
    }

    async fn payload(
        &self,
        connection: &Connection,
        validator: Option<&str>,
        deadline: Instant,
    ) -> Result<PartOutcome, FetchError> {
        let key = connection.key.as_str();
        let (url, class) = if connection.remote_eval {
            // The public endpoint refuses such connections.
            let path = ["api", "v1", "sdk-payload", key];
            (endpoint(self.rest_host()?, &path), Class::Rest)
        } else {
            let path = ["api", "features", key];
            (endpoint(&self.api_host, &path), Class::Sdk)
        };
        let ask = Ask {
            url,
            class,
            validator,
            limit_bytes: self.source.poll.max_body_bytes,
            deadline,
        };
        match self.http.get(&ask).await? {
            Answer::NotModified { headers } => {
                // A cache may leave the header out of a 304, so its absence there says nothing.
                if headers.contains_key(SSE_SUPPORT) {
                    self.note_stream(key, &headers);
                }
                Ok(PartOutcome::NotModified)
            }
            Answer::Body { body, headers } => {
                let opener = Opener {
                    label: mask(key),
                    decryption_key: connection.decryption_key.clone(),
                    content_type: content_type(&headers),
                };
                let body = open(opener, body).await?;
                self.note_stream(key, &headers);
                Ok(PartOutcome::Fetched {
                    body,
                    validator: etag(&headers),
                })
            }
        }
    }

    fn note_stream(&self, key: &str, headers: &HeaderMap) {
        let is_offered = headers
            .get(SSE_SUPPORT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"enabled"));
        let mut state = self.state.lock();
        if is_offered {
            state.streaming.insert(key.to_owned());
        } else {
            state.streaming.remove(key);
        }
    }

    fn streams(&self, connections: &[Connection]) -> Vec<StreamTarget> {
        if !self.source.poll.streaming {
            return Vec::new();
        }
        let state = self.state.lock();
        let offered = |connection: &&Connection| state.streaming.contains(&connection.key);
        connections
            .iter()
            .filter(offered)
            .map(|connection| StreamTarget(connection.key.clone()))
            .collect()
    }

    fn rest_host(&self) -> Result<&Url, FetchError> {
        self.rest_host.as_ref().ok_or_else(|| FetchError::Setting {
            key: "rest_host",
            message: "it is not set, and remote evaluation and discovery need it".to_owned(),
        })
    }
}

/// Checks and decrypts a body, a large one off this thread.
pub(super) async fn open(opener: Opener, body: Bytes) -> Result<Bytes, FetchError> {
    if body.len() <= INLINE_MAX {
        return opener.open(body);
    }
    tokio::task::spawn_blocking(move || opener.open(body))
        .await
        .unwrap_or_else(|error| {
            Err(FetchError::Interrupted {
                source: error.into(),
            })
        })
}
