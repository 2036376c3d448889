//! What the funnel must not forget when its actor dies: accepted inputs, issues, what is unsettled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{
    FunnelEnvironment, Ingest, connections::Kept, held::HeldInput, operator::Operated,
    parking::Parking,
};
use crate::{
    actors::board,
    model::{Issue, SourceVersion, snapshot::hex},
    pipeline::{
        FieldNames,
        guard::{Reaction, Rules},
        input::SourceInput,
    },
    settings::{self, Connection, Settings},
    sources::{PartId, PartOutcome},
};

/// What the funnel knows of a source from its settings.
#[derive(Clone, Debug)]
pub struct FunnelSource {
    /// Source id.
    pub id: Arc<str>,
    /// Environment it feeds.
    pub environment: Arc<str>,
    /// Disabled sources deliver nothing; what they delivered before stays.
    pub is_enabled: bool,
    /// See [`settings::Source::precedence`].
    pub precedence: i32,
    /// Whether a list of experiments belongs to it.
    pub has_experiments: bool,
    /// Client keys in order of the settings; empty: discovered, or a file.
    pub connections: Vec<String>,
    /// The same connections with their keys.
    pub listed: Arc<Vec<Connection>>,
    /// What opens connections that are discovered without a key of their own.
    pub decryption_key: Option<SecretString>,
    /// Its file is a plain map of flags to values.
    pub is_override: bool,
    /// Custom fields.
    pub fields: FieldNames,
    /// One word for all that decides how its inputs are read: the release, and the settings that views depend on.
    pub reading: String,
    /// What its inputs may change.
    pub rules: Rules,
    /// See [`settings::Guards::auto_accept_after_polls`].
    pub auto_accept_after: u32,
    /// See [`settings::Poll::max_body_bytes`].
    pub max_body_bytes: usize,
}

impl FunnelSource {
    /// Takes over what the funnel needs.
    pub fn new(source: &settings::Source, settings: &Settings) -> Self {
        let listed = source.listed_connections();
        let guards = settings.guards.with(&source.guards);
        let fields = field_names(&source.fields);
        let rules = Rules {
            allow_empty: source.allow_empty,
            lists_connections: !listed.is_empty(),
            ..rules(&guards, settings.dialect_of(&source.environment))
        };
        Self {
            id: source.id.as_str().into(),
            environment: source.environment.as_str().into(),
            is_enabled: source.enabled,
            precedence: source.precedence,
            has_experiments: source.kind == settings::SourceKind::Growthbook
                && !source.rest_host.is_empty(),
            connections: listed
                .iter()
                .map(|connection| connection.key.clone())
                .collect(),
            listed: Arc::new(listed),
            decryption_key: source.decryption_key.clone(),
            is_override: source.is_override,
            reading: reading(&fields, source.precedence),
            fields,
            rules,
            auto_accept_after: guards.auto_accept_after_polls,
            max_body_bytes: source.poll.max_body_bytes,
        }
    }

    /// Whether its connections may be discovered; a file has none.
    pub(super) fn discovers(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether everything that a first publish waits for is there.
    pub fn is_complete(&self, input: &SourceInput) -> bool {
        let has_payloads = if self.connections.is_empty() {
            !input.payloads.is_empty()
        } else {
            self.connections
                .iter()
                .all(|key| input.payloads.contains_key(key))
        };
        has_payloads && (!self.has_experiments || input.experiments.is_some())
    }

    /// Whether an accepted input is read otherwise now than when it was judged.
    pub(super) fn reads_otherwise(&self, input: &SourceInput) -> bool {
        input.reading.as_ref() != Some(&self.reading)
    }
}

/// See [`FunnelSource::reading`].
fn reading(fields: &FieldNames, precedence: i32) -> String {
    let numbers = format!("{precedence} {}", fields.max_duration.whole_nanoseconds());
    let words = [
        env!("CARGO_PKG_VERSION"),
        &numbers,
        &fields.domains,
        &fields.wikis,
        &fields.user_identifier_type,
        &fields.stream_name,
        &fields.contextual_attributes,
        &fields.end,
    ];
    let mut hash = Sha256::new();
    for word in words {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word.as_bytes());
    }
    let mut reading = hex(&hash.finalize());
    reading.truncate(16);
    reading
}

/// The limits as the pipeline wants them.
fn rules(guards: &settings::Guards, dialect: settings::Dialect) -> Rules {
    let reaction = |setting| match setting {
        settings::Reaction::Warn => Reaction::Warn,
        settings::Reaction::Hold => Reaction::Hold,
        settings::Reaction::Ignore => Reaction::Ignore,
    };
    Rules {
        max_removed_share: guards.max_removed_share,
        max_removed_min: guards.max_removed_min,
        max_growth: guards.max_growth,
        growth_floor_bytes: guards.growth_floor_bytes,
        max_changed_units_share: guards.max_changed_units_share,
        weights_changed: reaction(guards.weights_changed),
        hash_changed: reaction(guards.hash_changed),
        namespace_overlap: reaction(guards.namespace_overlap),
        allow_empty: false,
        lists_connections: false,
        dialect: board::dialect(dialect),
    }
}

/// The names of custom fields as the pipeline wants them.
pub fn field_names(fields: &settings::Fields) -> FieldNames {
    FieldNames {
        domains: fields.domains.clone(),
        wikis: fields.wikis.clone(),
        user_identifier_type: fields.user_identifier_type.clone(),
        stream_name: fields.stream_name.clone(),
        contextual_attributes: fields.contextual_attributes.clone(),
        end: fields.end.clone(),
        max_duration: time::Duration::try_from(fields.max_duration).unwrap_or(time::Duration::MAX),
    }
}

/// One source's last accepted input.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) input: Arc<SourceInput>,
    /// Hash of the input's stored form, and when it became what it is.
    pub(super) version: SourceVersion,
    /// Time of the last poll that was a success as a whole; what time-dependent views are counted from.
    pub(super) checked_at: OffsetDateTime,
    /// The source's connections as far as they are known; after a restart discovered ones are not until a poll.
    pub(super) connections: Arc<Vec<Connection>>,
    /// Whether a part of it could not be read back: nothing is stitched of it until the source has delivered all again.
    pub(super) is_lost: bool,
}

#[derive(Default)]
struct Inner {
    accepted: BTreeMap<Arc<str>, Accepted>,
    /// Numbers of the ingests that brought what is accepted, part by part.
    sequences: BTreeMap<(Arc<str>, PartId), u64>,
    issues: BTreeMap<Arc<str>, Vec<Issue>>,
    held: BTreeSet<Arc<str>>,
    /// Environments whose last job did not end well.
    unsettled: BTreeSet<Arc<str>>,
    /// Digests of stored inputs that could not be read, so that each is reported once.
    unreadable: BTreeSet<String>,
}

/// Shared by all incarnations of the `ConfigServiceActor`; locked for moments only.
pub struct ConfigMemory {
    sources: BTreeMap<Arc<str>, Arc<FunnelSource>>,
    inner: Mutex<Inner>,
    /// What operators decided.
    pub(super) operated: Operated,
    /// What guards keep from being published.
    pub(super) parking: Parking,
    /// The last order of each source by which something parked is taken in, or was.
    pub(super) approvals: Mutex<BTreeMap<Arc<str>, String>>,
    /// Discovered connections that outlive the process.
    pub(super) kept: Kept,
}

impl ConfigMemory {
    /// Knows the sources of the settings; inputs are loaded by the actor.
    pub fn new(settings: &Settings) -> Arc<Self> {
        let sources = settings
            .sources
            .iter()
            .map(|source| FunnelSource::new(source, settings))
            .map(|s| (Arc::clone(&s.id), Arc::new(s)));
        Arc::new(Self {
            sources: sources.collect(),
            inner: Mutex::default(),
            operated: Operated::default(),
            parking: Parking::default(),
            approvals: Mutex::default(),
            kept: Kept::default(),
        })
    }

    pub(super) fn source(&self, id: &str) -> Option<Arc<FunnelSource>> {
        self.sources.get(id).cloned()
    }

    pub(super) fn environments(&self) -> BTreeSet<Arc<str>> {
        self.sources
            .values()
            .map(|source| Arc::clone(&source.environment))
            .collect()
    }

    /// The sources of an environment with what was accepted from them.
    pub(super) fn of_environment(
        &self,
        environment: &str,
    ) -> Vec<(Arc<FunnelSource>, Option<Accepted>)> {
        let inner = self.inner.lock();
        let of_it = self
            .sources
            .values()
            .filter(|source| &*source.environment == environment);
        of_it
            .map(|source| (Arc::clone(source), inner.accepted.get(&source.id).cloned()))
            .collect()
    }

    pub(super) fn lacks_input(&self, source: &str) -> bool {
        self.sources.contains_key(source) && !self.inner.lock().accepted.contains_key(source)
    }

    pub(super) fn set_accepted(&self, source: &Arc<str>, accepted: Accepted) {
        self.inner
            .lock()
            .accepted
            .insert(Arc::clone(source), accepted);
    }

    /// The parts of an ingest, with "unchanged" in the place of those that are older than what is accepted.
    pub(super) fn not_older(&self, ingest: &Ingest) -> Arc<BTreeMap<PartId, PartOutcome>> {
        let inner = self.inner.lock();
        let source: Arc<str> = ingest.source.as_str().into();
        let is_older = |part: &PartId| {
            let known = inner.sequences.get(&(Arc::clone(&source), part.clone()));
            known.is_some_and(|known| *known > ingest.sequence)
        };
        if !ingest.parts.keys().any(&is_older) {
            return Arc::clone(&ingest.parts);
        }
        let mut parts = (*ingest.parts).clone();
        for (part, outcome) in &mut parts {
            if is_older(part) {
                *outcome = PartOutcome::NotModified;
            }
        }
        Arc::new(parts)
    }

    /// Notes which ingest brought these parts.
    pub(super) fn set_sequence<'a>(
        &self,
        source: &Arc<str>,
        parts: impl Iterator<Item = &'a PartId>,
        sequence: u64,
    ) {
        let mut inner = self.inner.lock();
        for part in parts {
            let key = (Arc::clone(source), part.clone());
            inner.sequences.insert(key, sequence);
        }
    }

    /// Notes a stored input that cannot be read; `true` the first time.
    pub(super) fn note_unreadable(&self, digest: &str) -> bool {
        self.inner.lock().unreadable.insert(digest.to_owned())
    }

    pub(super) fn is_unreadable(&self, digest: &str) -> bool {
        self.inner.lock().unreadable.contains(digest)
    }

    pub(super) fn set_issues(&self, environment: &Arc<str>, issues: Vec<Issue>) {
        self.inner
            .lock()
            .issues
            .insert(Arc::clone(environment), issues);
    }

    pub(super) fn issues(&self, environment: &str) -> Vec<Issue> {
        self.inner
            .lock()
            .issues
            .get(environment)
            .cloned()
            .unwrap_or_default()
    }

    /// Notes whether something of a source is held.
    pub(super) fn set_held(&self, source: &Arc<str>, is_held: bool) {
        let mut inner = self.inner.lock();
        if is_held {
            inner.held.insert(Arc::clone(source));
        } else {
            inner.held.remove(source);
        }
    }

    /// The parked inputs of an environment, sorted by source.
    pub(super) fn held(&self, environment: &str) -> Vec<HeldInput> {
        let of_it = self
            .sources
            .values()
            .filter(|source| *source.environment == *environment);
        of_it
            .filter_map(|source| Some(HeldInput::new(source, &self.parking.get(&source.id)?)))
            .collect()
    }

    pub(super) fn set_settled(&self, environment: &Arc<str>, is_settled: bool) {
        let mut inner = self.inner.lock();
        if is_settled {
            inner.unsettled.remove(environment);
        } else {
            inner.unsettled.insert(Arc::clone(environment));
        }
    }

    pub(super) fn is_settled(&self, environment: &str) -> bool {
        !self.inner.lock().unsettled.contains(environment)
    }

    pub(super) fn status(&self) -> BTreeMap<String, FunnelEnvironment> {
        let inner = self.inner.lock();
        let mut status: BTreeMap<String, FunnelEnvironment> = BTreeMap::new();
        for source in self.sources.values() {
            let entry = status.entry(source.environment.to_string()).or_default();
            entry.issues = inner.issues.get(&source.environment).map_or(0, Vec::len);
            entry.held += usize::from(inner.held.contains(&source.id));
        }
        drop(inner);
        self.add_decisions(&mut status);
        status
    }
}
