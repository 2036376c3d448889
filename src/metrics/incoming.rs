//! What others do to us: payloads they push, webhooks they send, data they do not take.

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::{
    Metrics,
    labels::{PlaneLabel, PollLabels},
};

impl Metrics {
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
