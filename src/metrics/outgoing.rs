//! What we do to others: caches that are purged, webhooks that are sent.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    Metrics,
    labels::{DeliveryLabels, TargetLabel},
};

/// Metrics of the targets of `[publish]`.
#[derive(Default)]
pub(super) struct Outgoing {
    purges: Family<DeliveryLabels, Counter>,
    webhooks_sent: Family<DeliveryLabels, Counter>,
    queued: Family<TargetLabel, Gauge>,
    target_up: Family<TargetLabel, Gauge>,
}

impl Outgoing {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("purges", "Paths purged", self.purges.clone());
        r.register("webhooks_sent", "Webhooks sent", self.webhooks_sent.clone());
        r.register(
            "publish_queued",
            "Paths or webhooks that wait",
            self.queued.clone(),
        );
        r.register(
            "publish_target_up",
            "Whether the target took what it was sent",
            self.target_up.clone(),
        );
    }
}

impl Metrics {
    /// Paths of a cache were `purged`, `failed` or `dropped`. Here and below, `target` holds no credentials.
    pub fn purged(&self, target: &str, outcome: &'static str, paths: usize) {
        count(&self.outgoing.purges, target, outcome, paths);
    }

    /// Webhooks for a receiver were `delivered`, `failed` or `dropped`.
    pub fn webhooks_sent(&self, target: &str, outcome: &'static str, webhooks: usize) {
        count(&self.outgoing.webhooks_sent, target, outcome, webhooks);
    }

    /// What waits for a target.
    pub fn publish_queued(&self, target: &str, number: usize) {
        self.outgoing
            .queued
            .get_or_create(&label(target))
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Whether a target took what it was sent.
    pub fn publish_target_up(&self, target: &str, is_up: bool) {
        self.outgoing
            .target_up
            .get_or_create(&label(target))
            .set(i64::from(is_up));
    }
}

fn label(target: &str) -> TargetLabel {
    let target = target.to_owned();
    TargetLabel { target }
}

fn count(
    family: &Family<DeliveryLabels, Counter>,
    target: &str,
    outcome: &'static str,
    number: usize,
) {
    let target = target.to_owned();
    let labels = DeliveryLabels { target, outcome };
    family.get_or_create(&labels).inc_by(number as u64);
}
