//! Tokens, what is read from the database, and what clients say that they use.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Metrics;

/// Series of feature usage, all environments together; what comes beyond is counted without the feature's name.
const USAGE_SERIES_MAX: usize = 20_000;
/// Name under which usage beyond the bound is counted.
const OTHER_FEATURES: &str = "_other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WhatLabel {
    what: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UsageLabels {
    environment: String,
    feature: String,
    enabled: &'static str,
}

/// See the module's first line.
#[derive(Default)]
pub(super) struct TokenMetrics {
    tokens: Gauge,
    unwritten: Gauge,
    lookups: Family<ResultLabel, Counter>,
    database_reads: Family<WhatLabel, Counter>,
    usage: Family<UsageLabels, Counter>,
    usage_series: std::sync::atomic::AtomicUsize,
}

impl TokenMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("tokens", "Tokens known", self.tokens.clone());
        registry.register(
            "tokens_unwritten",
            "Tokens that the database does not have as they are",
            self.unwritten.clone(),
        );
        registry.register(
            "token_lookups",
            "Secrets that requests showed",
            self.lookups.clone(),
        );
        registry.register(
            "database_reads",
            "Questions to the database beyond writing",
            self.database_reads.clone(),
        );
        registry.register(
            "feature_usage",
            "Checks of features that clients reported",
            self.usage.clone(),
        );
    }
}

impl Metrics {
    /// How many tokens there are, and how many the database lacks.
    pub fn tokens(&self, known: usize, unwritten: usize) {
        let set = |gauge: &Gauge, value| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.tokens.tokens, known);
        set(&self.tokens.unwritten, unwritten);
    }

    /// Counts secrets that ended so.
    pub fn token_lookups(&self, result: &'static str) -> Counter {
        let label = ResultLabel { result };
        self.tokens.lookups.get_or_create(&label).clone()
    }

    /// The database was asked something.
    pub fn database_read(&self, what: &'static str) {
        let label = WhatLabel { what };
        self.tokens.database_reads.get_or_create(&label).inc();
    }

    /// A client reported so many checks of a feature, which must be one that exists.
    pub fn feature_used(&self, environment: &str, feature: &str, is_enabled: bool, checks: u64) {
        use std::sync::atomic::Ordering;
        let labels = |feature: &str| UsageLabels {
            environment: environment.to_owned(),
            feature: feature.to_owned(),
            enabled: if is_enabled { "yes" } else { "no" },
        };
        let usage = &self.tokens.usage;
        if let Some(known) = usage.get(&labels(feature)) {
            known.inc_by(checks);
            return;
        }
        let series = &self.tokens.usage_series;
        let has_room = series.fetch_add(1, Ordering::Relaxed) < USAGE_SERIES_MAX;
        if !has_room {
            series.fetch_sub(1, Ordering::Relaxed);
        }
        let feature = if has_room { feature } else { OTHER_FEATURES };
        usage.get_or_create(&labels(feature)).inc_by(checks);
    }
}
