//! Every metric: its meaning, unit and labels.
//!
//! Labels are bounded: sources, environments and actors come from the settings, routes from the route table, the rest
//! are words listed here. Nothing a client sends becomes a label.
//!
//! | metric | meaning |
//! |---|---|
//! | `stitchd_source_age_seconds{source}` | seconds since the last successful check; absent when there was none |
//! | `stitchd_snapshot_loaded{environment}` | 1 when there is something to serve |
//! | `stitchd_snapshot_revision{environment}` | revision served; absent when none |
//! | `stitchd_snapshot_durable{environment}` | 1 when the revision is in the database or the backup |
//! | `stitchd_issues{environment}` | issues of the last stitch |
//! | `stitchd_held_inputs{source}` | 1 while an input of the source waits for an operator |
//! | `stitchd_guard_trips_total{source,guard}` | inputs that were held, by the guard that tripped; repeats do not count |
//! | `stitchd_polls_total{source,outcome}` | polls ended: `published`, `unchanged`, `held`, `failed` |
//! | `stitchd_poll_duration_seconds{source}` | time from the first request to the end of the funnel |
//! | `stitchd_fetch_part_failures_total{source,part,reason}` | parts of a poll that failed |
//! | `stitchd_source_paused{source}` | 1 while paused |
//! | `stitchd_publish_duration_seconds` | time from candidate to current |
//! | `stitchd_actor_up{actor}` | 1 while the actor can be asked |
//! | `stitchd_actor_restarts_total{actor,cause}` | restarts |
//! | `stitchd_reader_fallbacks_total` | reads answered from a worker's memory because the store did not answer |
//! | `stitchd_http_requests_total{plane,route,status}` | answers by route template and status class |
//! | `stitchd_http_panics_total` | handlers that panicked and were answered 500 |
//! | `stitchd_streams` | event streams open now |
//! | `stitchd_streams_refused_total` | event streams refused because `server.max_streams` were open |
//! | `stitchd_connections_blocked_total{plane}` | connections ended because the peer took no data for a minute |
//! | `stitchd_pushes_total{source,outcome}` | payloads pushed: `published`, `unchanged`, `held`, `refused`, `failed`, `ignored_paused`, `bad_signature` |
//! | `stitchd_webhooks_total{source,outcome}` | webhooks: `polling`, `duplicate`, `ignored_paused`, `too_old`, `bad_signature` |
//! | `stitchd_purges_total{target,outcome}` | paths that a cache was told to fetch anew: `purged`, `failed`, `dropped` |
//! | `stitchd_webhooks_sent_total{target,outcome}` | webhooks that we sent: `delivered`, `failed`, `dropped` |
//! | `stitchd_publish_queued{target}` | paths or webhooks that wait for a cache or a receiver |
//! | `stitchd_publish_target_up{target}` | 1 when the cache or receiver took what it was sent last |
//! | `stitchd_database_up` | 1 when the last database call succeeded |
//! | `stitchd_backup_up` | 1 when the backup takes, in time, all that is to be written to it |
//! | `stitchd_store_pending` | writes waiting for the database or the backup |
//! | `stitchd_audit_dropped_total` | audit entries lost because the queue was full while the database was away |
//! | `stitchd_sticky_buckets_total{outcome}` | requests that `read` sticky buckets or found them `unavailable`; documents `written` or `lost` |
//! | `stitchd_revisions_lost_total` | revisions that were served and will be missing from the history: too many waited for the database, or a harmed file |
//! | `stitchd_consumers` | pollers remembered by name (bounded) |
//! | `stitchd_tokens` | tokens known, those included that ended in the last 30 days |
//! | `stitchd_tokens_unwritten` | tokens that the database does not have as they are here |
//! | `stitchd_token_lookups_total{result}` | secrets that requests showed: `valid`, `unknown`, `expired`, `revoked`, `not_loaded` |
//! | `stitchd_database_reads_total{what}` | questions to the database while running: `tokens`, `decisions`, `revisions` |
//! | `stitchd_feature_usage_total{environment,feature,enabled}` | checks that clients of the frontend API reported; features of the configuration only, 20,000 series, `_other` beyond |
//! | `stitchd_type_mismatches_total{type}` | features asked for as this type that have a value of another |

mod incoming;
mod labels;
mod outgoing;
mod tokens;

use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::{
    labels::{
        ActorLabel, EnvironmentLabel, OutcomeLabel, PartLabels, PlaneLabel, PollLabels,
        RequestLabels, RestartLabels, SourceLabel, TypeLabel,
    },
    outgoing::Outgoing,
};

/// Bounds in seconds, from a fast publish to a poll that ran into its limits.
const SECONDS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

type FloatGauge = Gauge<f64, AtomicU64>;

/// All metrics of one service; cheap to update from any thread.
pub struct Metrics {
    registry: Registry,
    source_age: Family<SourceLabel, FloatGauge>,
    snapshot_loaded: Family<EnvironmentLabel, Gauge>,
    snapshot_revision: Family<EnvironmentLabel, Gauge>,
    snapshot_durable: Family<EnvironmentLabel, Gauge>,
    issues: Family<EnvironmentLabel, Gauge>,
    held: incoming::HeldMetrics,
    polls: Family<PollLabels, Counter>,
    poll_duration: Family<SourceLabel, Histogram>,
    part_failures: Family<PartLabels, Counter>,
    source_paused: Family<SourceLabel, Gauge>,
    publish_duration: Histogram,
    actor_up: Family<ActorLabel, Gauge>,
    actor_restarts: Family<RestartLabels, Counter>,
    reader_fallbacks: Counter,
    requests: Family<RequestLabels, Counter>,
    panics: Counter,
    streams: Gauge,
    streams_refused: Counter,
    connections_blocked: Family<PlaneLabel, Counter>,
    pushes: Family<PollLabels, Counter>,
    webhooks: Family<PollLabels, Counter>,
    outgoing: Outgoing,
    database_up: Gauge,
    backup_up: Gauge,
    store_pending: Gauge,
    audit_dropped: Counter,
    sticky_buckets: Family<OutcomeLabel, Counter>,
    revisions_lost: Counter,
    consumers: Gauge,
    type_mismatches: Family<TypeLabel, Counter>,
    tokens: tokens::TokenMetrics,
    /// Encoding walks every family; two scrapes at once take turns.
    encoding: Mutex<()>,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("stitchd"),
            source_age: Family::default(),
            snapshot_loaded: Family::default(),
            snapshot_revision: Family::default(),
            snapshot_durable: Family::default(),
            issues: Family::default(),
            held: incoming::HeldMetrics::default(),
            polls: Family::default(),
            poll_duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            part_failures: Family::default(),
            source_paused: Family::default(),
            publish_duration: histogram(),
            actor_up: Family::default(),
            actor_restarts: Family::default(),
            reader_fallbacks: Counter::default(),
            requests: Family::default(),
            panics: Counter::default(),
            streams: Gauge::default(),
            streams_refused: Counter::default(),
            connections_blocked: Family::default(),
            pushes: Family::default(),
            webhooks: Family::default(),
            outgoing: Outgoing::default(),
            database_up: Gauge::default(),
            backup_up: Gauge::default(),
            store_pending: Gauge::default(),
            audit_dropped: Counter::default(),
            sticky_buckets: Family::default(),
            revisions_lost: Counter::default(),
            consumers: Gauge::default(),
            type_mismatches: Family::default(),
            tokens: tokens::TokenMetrics::default(),
            encoding: Mutex::new(()),
        };
        metrics.register_configuration();
        metrics.register_machinery();
        metrics
    }
}

impl Metrics {
    fn register_configuration(&mut self) {
        let r = &mut self.registry;
        r.register(
            "source_age_seconds",
            "Seconds since the last successful check",
            self.source_age.clone(),
        );
        r.register(
            "snapshot_loaded",
            "Whether there is something to serve",
            self.snapshot_loaded.clone(),
        );
        r.register(
            "snapshot_revision",
            "Revision served",
            self.snapshot_revision.clone(),
        );
        r.register(
            "snapshot_durable",
            "Whether the revision is stored",
            self.snapshot_durable.clone(),
        );
        r.register("issues", "Issues of the last stitch", self.issues.clone());
        self.held.register(r);
        r.register("polls", "Polls ended", self.polls.clone());
        r.register(
            "poll_duration_seconds",
            "Duration of polls",
            self.poll_duration.clone(),
        );
        r.register(
            "fetch_part_failures",
            "Parts of a poll that failed",
            self.part_failures.clone(),
        );
        r.register(
            "source_paused",
            "Whether the source is paused",
            self.source_paused.clone(),
        );
        r.register(
            "publish_duration_seconds",
            "Duration of publishing",
            self.publish_duration.clone(),
        );
    }

    fn register_machinery(&mut self) {
        let r = &mut self.registry;
        r.register(
            "actor_up",
            "Whether the actor can be asked",
            self.actor_up.clone(),
        );
        r.register(
            "actor_restarts",
            "Restarts of actors",
            self.actor_restarts.clone(),
        );
        r.register(
            "sticky_buckets",
            "Reads and writes of sticky buckets",
            self.sticky_buckets.clone(),
        );
        r.register(
            "reader_fallbacks",
            "Reads answered from a worker's memory",
            self.reader_fallbacks.clone(),
        );
        r.register("http_requests", "HTTP answers", self.requests.clone());
        r.register("http_panics", "Handlers that panicked", self.panics.clone());
        r.register("streams", "Event streams open", self.streams.clone());
        r.register(
            "streams_refused",
            "Event streams refused",
            self.streams_refused.clone(),
        );
        r.register(
            "connections_blocked",
            "Connections whose peer took no data",
            self.connections_blocked.clone(),
        );
        r.register("pushes", "Payloads pushed", self.pushes.clone());
        r.register("webhooks", "Webhooks", self.webhooks.clone());
        self.outgoing.register(r);
        self.tokens.register(r);
        r.register("database_up", "Database answers", self.database_up.clone());
        r.register("backup_up", "Backup is written", self.backup_up.clone());
        r.register(
            "store_pending",
            "Writes waiting for database or backup",
            self.store_pending.clone(),
        );
        r.register(
            "audit_dropped",
            "Audit entries lost",
            self.audit_dropped.clone(),
        );
        r.register(
            "revisions_lost",
            "Served revisions missing from the history",
            self.revisions_lost.clone(),
        );
        r.register(
            "consumers",
            "Pollers remembered by name",
            self.consumers.clone(),
        );
        r.register(
            "type_mismatches",
            "Features asked for as another type than their value's",
            self.type_mismatches.clone(),
        );
    }

    /// `OpenMetrics` text of everything.
    pub fn encode(&self) -> String {
        let _one_at_a_time = self.encoding.lock();
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }

    /// Sets a source's age; `None` removes it, so that "never" does not look fresh.
    pub fn source_age(&self, source: &str, seconds: Option<f64>) {
        let label = SourceLabel {
            source: source.to_owned(),
        };
        match seconds {
            Some(seconds) => drop(self.source_age.get_or_create(&label).set(seconds)),
            None => drop(self.source_age.remove(&label)),
        }
    }

    /// A revision is served.
    pub fn snapshot_served(&self, environment: &str, revision: u64, is_durable: bool) {
        let label = EnvironmentLabel {
            environment: environment.to_owned(),
        };
        self.snapshot_loaded.get_or_create(&label).set(1);
        self.snapshot_revision
            .get_or_create(&label)
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.snapshot_durable
            .get_or_create(&label)
            .set(i64::from(is_durable));
    }

    /// An environment exists; until something is served it is not loaded.
    pub fn environment_known(&self, environment: &str) {
        let label = EnvironmentLabel {
            environment: environment.to_owned(),
        };
        drop(self.snapshot_loaded.get_or_create(&label));
    }

    /// Number of issues of the last stitch.
    pub fn issues(&self, environment: &str, issues: usize) {
        let label = EnvironmentLabel {
            environment: environment.to_owned(),
        };
        self.issues
            .get_or_create(&label)
            .set(i64::try_from(issues).unwrap_or(i64::MAX));
    }

    /// A poll ended.
    pub fn poll_ended(&self, source: &str, outcome: &'static str, seconds: f64) {
        self.polls
            .get_or_create(&PollLabels {
                source: source.to_owned(),
                outcome,
            })
            .inc();
        self.poll_duration
            .get_or_create(&SourceLabel {
                source: source.to_owned(),
            })
            .observe(seconds);
    }

    /// A part of a poll failed.
    pub fn part_failed(&self, source: &str, part: &'static str, reason: &'static str) {
        self.part_failures
            .get_or_create(&PartLabels {
                source: source.to_owned(),
                part,
                reason,
            })
            .inc();
    }

    /// Whether a source is paused.
    pub fn source_paused(&self, source: &str, is_paused: bool) {
        let label = SourceLabel {
            source: source.to_owned(),
        };
        self.source_paused
            .get_or_create(&label)
            .set(i64::from(is_paused));
    }

    /// A snapshot became current.
    pub fn published(&self, seconds: f64) {
        self.publish_duration.observe(seconds);
    }

    /// An actor came up or went down.
    pub fn actor_up(&self, actor: &str, is_up: bool) {
        self.actor_up
            .get_or_create(&ActorLabel {
                actor: actor.to_owned(),
            })
            .set(i64::from(is_up));
    }

    /// An actor is about to be restarted.
    pub fn actor_restarted(&self, actor: &str, cause: &'static str) {
        self.actor_restarts
            .get_or_create(&RestartLabels {
                actor: actor.to_owned(),
                cause,
            })
            .inc();
    }

    /// Sticky buckets were `read`, `unavailable`, `written` or `lost`.
    pub fn sticky(&self, outcome: &'static str, count: usize) {
        let label = OutcomeLabel { outcome };
        self.sticky_buckets
            .get_or_create(&label)
            .inc_by(count as u64);
    }

    /// A read was answered from a worker's memory.
    pub fn reader_fallback(&self) {
        self.reader_fallbacks.inc();
    }

    /// The counter of one route and status class; workers keep it, so that a request costs one atomic addition.
    pub fn requests(
        &self,
        plane: &'static str,
        route: &'static str,
        status: &'static str,
    ) -> Counter {
        self.requests
            .get_or_create(&RequestLabels {
                plane,
                route,
                status,
            })
            .clone()
    }

    /// A handler panicked.
    pub fn handler_panicked(&self) {
        self.panics.inc();
    }

    /// Event streams open now.
    pub fn streams(&self) -> &Gauge {
        &self.streams
    }

    /// An event stream was refused.
    pub fn stream_refused(&self) {
        self.streams_refused.inc();
    }

    /// Whether the last database call succeeded.
    pub fn database_up(&self, is_up: bool) {
        self.database_up.set(i64::from(is_up));
    }

    /// Whether the backup takes all that is to be written to it.
    pub fn backup_up(&self, is_up: bool) {
        self.backup_up.set(i64::from(is_up));
    }

    /// Writes waiting for the database or the backup.
    pub fn store_pending(&self, writes: usize) {
        self.store_pending
            .set(i64::try_from(writes).unwrap_or(i64::MAX));
    }

    /// An audit entry was lost.
    pub fn audit_dropped(&self) {
        self.audit_dropped.inc();
    }

    /// A revision that was served will be missing from the history.
    pub fn revision_lost(&self) {
        self.revisions_lost.inc();
    }

    /// Pollers remembered by name.
    pub fn consumers(&self, number: usize) {
        self.consumers
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// A feature was asked for as a type that its value is not of.
    pub fn type_mismatched(&self, wanted: &'static str) {
        let label = TypeLabel { r#type: wanted };
        self.type_mismatches.get_or_create(&label).inc();
    }
}
