//! What others do to us: inputs that are held, payloads they push, webhooks they send, data they do not take.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    Metrics,
    labels::{PlaneLabel, PollLabels, SourceLabel},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GuardLabels {
    source: String,
    guard: &'static str,
}

/// What guards keep from being published.
#[derive(Default)]
pub(super) struct HeldMetrics {
    inputs: Family<SourceLabel, Gauge>,
    trips: Family<GuardLabels, Counter>,
}

impl HeldMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "held_inputs",
            "Whether an input of the source waits for an operator",
            self.inputs.clone(),
        );
        registry.register("guard_trips", "Inputs held, by guard", self.trips.clone());
    }
}

impl Metrics {
    /// Whether an input of a source waits for an operator.
    pub fn held_input(&self, source: &str, is_held: bool) {
        let label = SourceLabel {
            source: source.to_owned(),
        };
        self.held
            .inputs
            .get_or_create(&label)
            .set(i64::from(is_held));
    }

    /// A guard tripped on something new.
    pub fn guard_tripped(&self, source: &str, guard: &'static str) {
        let source = source.to_owned();
        let labels = GuardLabels { source, guard };
        self.held.trips.get_or_create(&labels).inc();
    }

    /// A payload was pushed for a source.
    pub fn pushed(&self, source: &str, outcome: &'static str) {
        count(&self.pushes, source, outcome);
    }

    /// A webhook came for a source.
    pub fn webhook(&self, source: &str, outcome: &'static str) {
        count(&self.webhooks, source, outcome);
    }

    /// A connection was ended because its peer took no data.
    pub fn connection_blocked(&self, plane: &'static str) {
        self.connections_blocked
            .get_or_create(&PlaneLabel { plane })
            .inc();
    }
}

fn count(family: &Family<PollLabels, Counter>, source: &str, outcome: &'static str) {
    let source = source.to_owned();
    family.get_or_create(&PollLabels { source, outcome }).inc();
}
