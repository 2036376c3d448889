//! An experiment that fits every consumer, for tests to spoil.

use std::sync::Arc;

use serde_json::{Map, json};
use time::macros::datetime;

use crate::model::{CanonicalJson, Delivery, Experiment, Phase, Sourced, Status, Variation};

/// A running two-arm experiment at 1 % with domains and wikis.
pub(crate) fn experiment(tracking_key: &str) -> Experiment {
    let start = datetime!(2026-09-01 14:30 UTC);
    let variation = |i: u8, name: &str| Variation {
        id: format!("var_{i}"),
        key: i.to_string(),
        name: name.to_owned(),
    };
    Experiment {
        id: "exp_1".to_owned(),
        tracking_key: tracking_key.to_owned(),
        name: "Sticky header".to_owned(),
        hypothesis: "More reading".to_owned(),
        owner: "web".to_owned(),
        project: String::new(),
        status: Status::Running,
        archived: false,
        hash_attribute: "id".to_owned(),
        fallback_attribute: None,
        hash_version: 2,
        variations: vec![variation(0, "control"), variation(1, "treatment")],
        phases: vec![Phase {
            name: "Main".to_owned(),
            started: Some(start),
            ended: None,
            seed: tracking_key.to_owned(),
            coverage: 0.01,
            split: vec![("var_0".to_owned(), 0.5), ("var_1".to_owned(), 0.5)],
            targeting_condition: String::new(),
            saved_group_targeting: None,
            prerequisites: None,
            namespace: None,
        }],
        custom_fields: Map::new(),
        scheduled_stop: None,
        updated: None,
        delivery: Delivery {
            start: Some(start),
            end: Some(datetime!(2026-09-29 14:30 UTC)),
            domains: vec!["fr.wikipedia.org".to_owned(), "de.wikipedia.org".to_owned()],
            wikis: vec!["frwiki".to_owned()],
            user_identifier_type: "edge-unique".to_owned(),
            stream_name: "product_metrics.web_base".to_owned(),
            contextual_attributes: vec!["page_id".to_owned()],
            sample_unit: None,
            schema_id: None,
            problems: Vec::new(),
        },
        definition: CanonicalJson::from_value(&json!({ "trackingKey": tracking_key })),
    }
}

/// The experiment as one of source `growthbook-prod`.
pub(crate) fn sourced(experiment: Experiment) -> Sourced<Arc<Experiment>> {
    Sourced {
        source: "growthbook-prod".into(),
        item: Arc::new(experiment),
    }
}
