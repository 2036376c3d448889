//! What readers may look at without asking an actor: a revision counter per environment, a clock per source, client keys,
//! tokens, and whether an environment is evaluated.
//!
//! The board belongs to the slots, not to an actor: it is made once at start and outlives every incarnation. The
//! `StoreActor` writes revisions after it has swapped a snapshot in; the `ConfigServiceActor` writes the clocks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use tokio::{sync::watch, time::Instant};

use super::{ClientKeys, Tokens};
use crate::{
    clock,
    eval::Dialect,
    model::Freshness,
    settings::{self, Settings},
};

/// Meaning of a [`SourceClock`] that was never set.
const NEVER: i64 = i64::MIN;

/// When a source was last checked with success.
pub struct SourceClock {
    /// Source id.
    pub id: String,
    /// Environment it feeds.
    pub environment: Arc<str>,
    /// Age in milliseconds from which on it is stale.
    stale_after_ms: i64,
    last_success_ms: AtomicI64,
    /// When this process began to measure time, and how many milliseconds later the last success was noted: what the wall
    /// clock says of an age is wrong when somebody sets that clock back.
    born: Instant,
    noted_after_ms: AtomicU64,
    is_held: AtomicBool,
}

impl SourceClock {
    /// Unix milliseconds of the last successful check; `None`: never.
    pub fn last_success_ms(&self) -> Option<i64> {
        Some(self.last_success_ms.load(Ordering::Relaxed)).filter(|ms| *ms != NEVER)
    }

    /// Seconds since the last successful check; `None`: never.
    pub fn age_seconds(&self) -> Option<f64> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "an age in milliseconds is far below 2^52"
        )]
        self.age_ms().map(|ms| ms as f64 / 1000.0)
    }

    /// Whether the last success is too long ago. A source that never succeeded is missing, not stale.
    pub fn is_stale(&self) -> bool {
        self.age_ms().is_some_and(|ms| ms > self.stale_after_ms)
    }

    /// By the wall clock, which goes on while the machine sleeps; at least by this process's own time, which nobody sets.
    fn age_ms(&self) -> Option<i64> {
        let by_wall = clock::now_ms() - self.last_success_ms()?;
        let noted_after_ms = self.noted_after_ms.load(Ordering::Relaxed);
        let measured = self.lived_ms().saturating_sub(noted_after_ms);
        Some(by_wall.max(i64::try_from(measured).unwrap_or(i64::MAX)))
    }

    fn lived_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether something that it delivered waits for an operator.
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Records whether something that it delivered waits for an operator.
    pub fn set_held(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Records a successful check.
    pub fn set_last_success_ms(&self, ms: i64) {
        self.last_success_ms.store(ms, Ordering::Relaxed);
        self.noted_after_ms
            .store(self.lived_ms(), Ordering::Relaxed);
    }
}

/// The revision counter of one environment.
pub struct EnvironmentCell {
    /// Environment name.
    pub name: Arc<str>,
    revision: AtomicU64,
    changed: watch::Sender<u64>,
    /// Dialect where a call names none.
    pub dialect: Dialect,
    /// By dialect: whether anybody ever asked for an evaluation.
    evaluated: [AtomicBool; Dialect::ALL.len()],
    /// By dialect: whether anybody ever asked for flags or toggles.
    flagged: [AtomicBool; Dialect::ALL.len()],
    sources: Vec<Arc<SourceClock>>,
    decisions: AtomicU64,
    is_pin_lost: AtomicBool,
}

impl EnvironmentCell {
    /// Current revision; 0: nothing was ever loaded.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// A receiver that is told each new revision.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Announces a revision; to be called after the snapshot can be had from the store. Never goes back.
    pub fn announce(&self, revision: u64) {
        self.revision.fetch_max(revision, Ordering::Release);
        self.changed.send_if_modified(|seen| {
            let is_newer = revision > *seen;
            *seen = (*seen).max(revision);
            is_newer
        });
    }

    /// Whether a revision is pinned that cannot be found.
    pub fn is_pin_lost(&self) -> bool {
        self.is_pin_lost.load(Ordering::Relaxed)
    }

    /// Notes whether that is so.
    pub(super) fn set_pin_lost(&self, is_lost: bool) {
        self.is_pin_lost.store(is_lost, Ordering::Relaxed);
    }

    /// How often news of operators' decisions came from other replicas, or from a database that was away.
    pub fn decisions(&self) -> u64 {
        self.decisions.load(Ordering::Acquire)
    }

    /// Notes such news; to be called after it can be had from the store.
    pub(super) fn note_decision(&self) {
        self.decisions.fetch_add(1, Ordering::Release);
    }

    /// Notes that somebody wants evaluations in a dialect; its next revisions are compiled before they are published.
    pub fn note_evaluated(&self, dialect: Dialect) {
        note(&self.evaluated, dialect);
    }

    /// Notes that somebody wants flags or toggles in a dialect; their answers are rendered before a revision is published.
    pub fn note_flags(&self, dialect: Dialect) {
        note(&self.evaluated, dialect);
        note(&self.flagged, dialect);
    }

    /// The dialects that somebody wanted evaluations in; none for most environments.
    pub fn evaluated(&self) -> Vec<Dialect> {
        noted(&self.evaluated)
    }

    /// The dialects that somebody wanted flags or toggles in.
    pub fn flagged(&self) -> Vec<Dialect> {
        noted(&self.flagged)
    }

    /// How old the configuration is, over all sources that ever delivered.
    pub fn freshness(&self) -> Freshness {
        let loaded = self
            .sources
            .iter()
            .filter_map(|source| source.last_success_ms());
        Freshness {
            checked_at_ms: loaded.min(),
            is_stale: self.sources.iter().any(|source| source.is_stale()),
        }
    }
}

fn note(flags: &[AtomicBool; Dialect::ALL.len()], dialect: Dialect) {
    let flag = &flags[dialect as usize];
    // Every request comes by here: a write would take the line from the other workers.
    if !flag.load(Ordering::Relaxed) {
        flag.store(true, Ordering::Relaxed);
    }
}

fn noted(flags: &[AtomicBool; Dialect::ALL.len()]) -> Vec<Dialect> {
    let is_noted = |dialect: &Dialect| flags[*dialect as usize].load(Ordering::Relaxed);
    Dialect::ALL.into_iter().filter(is_noted).collect()
}

/// All environments, source clocks, client keys and tokens.
pub struct Board {
    environments: BTreeMap<Arc<str>, Arc<EnvironmentCell>>,
    sources: BTreeMap<String, Arc<SourceClock>>,
    client_keys: ClientKeys,
    tokens: Tokens,
}

impl Board {
    /// One cell per environment that a source feeds, and one for the default environment.
    pub fn new(settings: &Settings) -> Arc<Self> {
        let mut sources = BTreeMap::new();
        for source in &settings.sources {
            let clock = SourceClock {
                id: source.id.clone(),
                environment: source.environment.as_str().into(),
                stale_after_ms: i64::try_from(source.stale_after.as_millis()).unwrap_or(i64::MAX),
                last_success_ms: AtomicI64::new(NEVER),
                born: Instant::now(),
                noted_after_ms: AtomicU64::new(0),
                is_held: AtomicBool::new(false),
            };
            sources.insert(source.id.clone(), Arc::new(clock));
        }
        let mut names = settings.environments();
        names.push(settings.server.default_environment.clone());
        let cell = |name: String| {
            let name: Arc<str> = name.into();
            let of_this = |clock: &&Arc<SourceClock>| clock.environment == name;
            let cell = EnvironmentCell {
                name: Arc::clone(&name),
                revision: AtomicU64::new(0),
                changed: watch::Sender::new(0),
                dialect: dialect(settings.dialect_of(&name)),
                evaluated: Default::default(),
                flagged: Default::default(),
                sources: sources.values().filter(of_this).cloned().collect(),
                decisions: AtomicU64::new(0),
                is_pin_lost: AtomicBool::new(false),
            };
            (name, Arc::new(cell))
        };
        let environments = names.into_iter().map(cell).collect();
        Arc::new(Self {
            environments,
            sources,
            client_keys: ClientKeys::new(settings),
            tokens: Tokens::default(),
        })
    }

    /// An environment by name; `None` for one that no source feeds.
    pub fn environment(&self, name: &str) -> Option<&Arc<EnvironmentCell>> {
        self.environments.get(name)
    }

    /// All environments, sorted by name.
    pub fn environments(&self) -> impl Iterator<Item = &Arc<EnvironmentCell>> {
        self.environments.values()
    }

    /// Whose client keys are ours.
    pub fn client_keys(&self) -> &ClientKeys {
        &self.client_keys
    }

    /// Tokens of clients.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A source's clock.
    pub fn source(&self, id: &str) -> Option<&Arc<SourceClock>> {
        self.sources.get(id)
    }

    /// All source clocks, sorted by id.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<SourceClock>> {
        self.sources.values()
    }
}

/// The evaluator's word for a setting's.
pub(super) fn dialect(setting: settings::Dialect) -> Dialect {
    match setting {
        settings::Dialect::Strict => Dialect::Strict,
        settings::Dialect::Legacy => Dialect::Legacy,
    }
}
