//! From a bucket to a variation: ranges, weights, coverage, namespaces.
//!
//! The order of the floating-point operations is GrowthBook's and must stay: units sit exactly on range ends.

use serde_json::Value;

use super::{
    hash::{HashVersion, Seed},
    js::{self, Actual},
};

/// A half-open range of buckets: `start ≤ bucket < end`.
pub type Range = (f64, f64);

/// Whether a bucket is inside a range.
pub(super) fn in_range(bucket: f64, (start, end): Range) -> bool {
    bucket >= start && bucket < end
}

/// The first range that contains the bucket.
pub fn choose_variation(bucket: f64, ranges: &[Range]) -> Option<usize> {
    ranges.iter().position(|range| in_range(bucket, *range))
}

/// `count` equal shares of 1; none for zero or less.
pub fn equal_weights(count: i64) -> Vec<f64> {
    let Ok(length) = usize::try_from(count) else {
        return Vec::new();
    };
    #[expect(clippy::cast_precision_loss, reason = "JavaScript divides doubles too")]
    let share = 1.0 / count as f64;
    vec![share; length]
}

/// One range per variation: shares of `0..1` by weight, each filled from its start up to the coverage.
///
/// Coverage is held within 0 and 1. Weights of another length, or whose sum is off by more than 0.01, are equal ones.
#[expect(
    clippy::manual_clamp,
    clippy::manual_range_contains,
    reason = "what is not a number has to pass both as it does in JavaScript: nobody is in a range that ends there"
)]
pub fn bucket_ranges(variations: usize, coverage: f64, weights: Option<&[f64]>) -> Vec<Range> {
    let coverage = if coverage < 0.0 {
        0.0
    } else if coverage > 1.0 {
        1.0
    } else {
        coverage
    };
    let equal = || equal_weights(i64::try_from(variations).unwrap_or_default());
    let weights = match weights {
        Some(weights) if weights.len() == variations => {
            let total: f64 = weights.iter().sum();
            if total < 0.99 || total > 1.01 {
                equal()
            } else {
                weights.to_vec()
            }
        }
        _ => equal(),
    };
    let mut cumulative = 0.0;
    let range = |weight: f64| {
        let start = cumulative;
        cumulative += weight;
        (start, start + coverage * weight)
    };
    weights.into_iter().map(range).collect()
}

/// A part of a mutual-exclusion namespace.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    seed: Seed,
    range: Range,
}

impl Namespace {
    pub(super) fn new(id: &str, range: Range) -> Self {
        Self {
            seed: Seed::new(&format!("__{id}")),
            range,
        }
    }

    /// One that nobody is in.
    pub(super) fn nobody() -> Self {
        Self::new("", (1.0, 0.0))
    }

    /// Reads `[id, start, end]`.
    pub(super) fn from_value(value: &Value) -> Option<Self> {
        let [id, start, end, ..] = value.as_array()?.as_slice() else {
            return None;
        };
        let range = (js::number(start.into()), js::number(end.into()));
        Some(Self::new(&js::string(id.into()), range))
    }

    pub(super) fn contains(&self, value: Actual<'_>) -> bool {
        self.seed
            .bucket(value, HashVersion::V1)
            .is_some_and(|bucket| in_range(bucket, self.range))
    }
}

/// Whether a unit is in the part `range` of the namespace `id`.
pub fn in_namespace(value: &str, id: &str, range: Range) -> bool {
    Namespace::new(id, range).contains(Actual::String(value))
}

/// Reads a list of `[start, end]`; what is not one is a range that nothing is in.
pub(super) fn ranges(value: &Value) -> Box<[Range]> {
    value
        .as_array()
        .map_or_else(Box::default, |items| items.iter().map(range).collect())
}

/// Reads `[start, end]`.
pub(super) fn range(value: &Value) -> Range {
    let end = |index: usize| {
        value
            .get(index)
            .map_or(f64::NAN, |end| js::number(end.into()))
    };
    (end(0), end(1))
}

/// Reads a list of weights.
pub(super) fn weights(value: &Value) -> Option<Vec<f64>> {
    let items = value.as_array()?;
    Some(items.iter().map(|item| js::number(item.into())).collect())
}
