//! Small configurations for the tests of guards.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Reaction, Rules};
use crate::{
    eval::Dialect,
    model::Stitched,
    pipeline::{
        FieldNames, Payload,
        stitch::{self, StitchInput},
        validate,
    },
};

/// The limits of the shipped settings.
pub(in crate::pipeline) fn rules() -> Rules {
    Rules {
        max_removed_share: 0.3,
        max_removed_min: 3,
        max_growth: 2.0,
        growth_floor_bytes: 65_536,
        max_changed_units_share: 0.05,
        weights_changed: Reaction::Warn,
        hash_changed: Reaction::Warn,
        namespace_overlap: Reaction::Warn,
        allow_empty: false,
        lists_connections: false,
        dialect: Dialect::Strict,
    }
}

pub(in crate::pipeline) fn payload(document: &Value) -> Payload {
    validate::payload("s", document.to_string().as_bytes(), None).unwrap()
}

/// A running experiment of the management API with two even variations.
pub(in crate::pipeline) fn listed(key: &str) -> Value {
    json!({
        "id": format!("exp_{key}"), "trackingKey": key, "status": "running", "hashAttribute": "id", "hashVersion": 2,
        "variations": [{"variationId": "v0", "key": "0", "name": "a"}, {"variationId": "v1", "key": "1", "name": "b"}],
        "phases": [{"name": "Main", "dateStarted": "2026-10-01T00:00:00Z", "seed": key, "coverage": 0.5,
            "trafficSplit": [{"variationId": "v0", "weight": 0.5}, {"variationId": "v1", "weight": 0.5}]}],
    })
}

/// Source `s` alone, with this payload and these experiments.
pub(in crate::pipeline) fn stitched(document: &Value, experiments: &[Value]) -> Stitched {
    let list = json!({ "experiments": experiments });
    stitched_with(document, &list)
}

/// Source `s` alone, with this payload and this list of experiments and what they refer to.
pub(in crate::pipeline) fn stitched_with(document: &Value, list: &Value) -> Stitched {
    let fields = FieldNames::default();
    let list = validate::experiments("s", list.to_string().as_bytes(), None, &fields).unwrap();
    let input = StitchInput {
        source: "s".into(),
        precedence: 1,
        payloads: vec![Arc::new(payload(document))],
        experiments: Some(Arc::new(list)),
        checked_at: OffsetDateTime::UNIX_EPOCH,
    };
    stitch::stitch("test", &[input])
}
