//! Experiments: hostile ones, and one that fits every consumer.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use stitchd::{
    model::{CanonicalJson, Delivery, Experiment, Phase, Sourced, Status, Variation},
    pipeline::adapt::{FieldNames, adapt},
};
use time::{Duration, OffsetDateTime, UtcOffset};

pub(crate) fn sourced(experiment: Experiment) -> Sourced<Arc<Experiment>> {
    Sourced {
        source: "growthbook-\"prod\"".into(),
        item: Arc::new(experiment),
    }
}

/// Mostly a name that every consumer takes: an experiment has many places, and one bad one withholds it.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        40 => "[a-z][a-z0-9-]{7,12}",
        1 => "[A-Za-z0-9._-]{0,9}",
        1 => "[A-Za-z0-9._-]{61,65}",
        2 => "(?s).{0,12}",
        1 => Just("\"\\\u{0}</script>".to_owned()),
    ]
}

fn dates() -> impl Strategy<Value = Option<OffsetDateTime>> {
    let date = |seconds: i64, nanos: i64, offset: i32| {
        let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let date = date
            .checked_add(Duration::nanoseconds(nanos))
            .unwrap_or(date);
        let offset = UtcOffset::from_whole_seconds(offset).unwrap();
        date.checked_to_offset(offset).unwrap_or(date)
    };
    let nanos = 0..1_000_000_000i64;
    prop_oneof![
        30 => (1_780_000_000..1_790_000_000i64).prop_map(move |s| Some(date(s, 0, 0))),
        2 => (-377_705_116_800..=253_402_300_799i64, nanos, -90_000..90_000i32)
            .prop_map(move |(s, n, o)| Some(date(s, n, o.clamp(-86_399, 86_399)))),
        1 => Just(None),
    ]
}

fn shares() -> impl Strategy<Value = f64> {
    prop_oneof![
        20 => 0.0..=1.0f64,
        4 => Just(1.0),
        1 => prop_oneof![Just(-0.0), Just(f64::NAN), Just(f64::INFINITY), Just(5e-324)],
        1 => proptest::num::f64::ANY,
    ]
}

/// Weights for up to six variations: equal, adding up to one, or anything.
pub(crate) fn weights() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        8 => (1..6u8).prop_map(|n| vec![1.0 / f64::from(n); usize::from(n)]),
        4 => prop::collection::vec(1..1000u16, 1..6).prop_map(|parts| {
            let total: f64 = parts.iter().copied().map(f64::from).sum();
            parts.into_iter().map(|part| f64::from(part) / total).collect()
        }),
        1 => prop::collection::vec(shares(), 0..6),
    ]
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        names().prop_map(Value::from),
        prop::collection::vec(names(), 0..4).prop_map(|items| json!(items.join(","))),
        dates().prop_map(|date| json!(date.map(|date| date.to_string()))),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names(), inner, 0..3).prop_map(|m| json!(m)),
        ]
    })
}

/// Custom fields: each absent, as it should be, or anything.
fn custom_fields() -> impl Strategy<Value = Map<String, Value>> {
    let good = [
        ("domains", json!("fr.wikipedia.org, De.wikipedia.org")),
        ("wikis", json!(["frwiki", "dewiki"])),
        ("user_identifier_type", json!("edge-unique")),
        ("stream_name", json!("some.stream")),
        ("contextual_attributes", json!("[\"page_id\"]")),
        ("end", json!("2027-09-01 14:30")),
        ("sample_unit", json!("session")),
        ("schema_id", json!("/a/b/1.0.0")),
    ];
    let field = |(name, good): (&'static str, Value)| {
        let value = prop_oneof![
            20 => Just(Some(good)),
            12 => Just(None),
            1 => json_values().prop_map(Some),
        ];
        value.prop_map(move |value| value.map(|value| (name.to_owned(), value)))
    };
    good.map(field)
        .into_iter()
        .collect::<Vec<_>>()
        .prop_map(|fields| fields.into_iter().flatten().collect())
}

fn phases() -> impl Strategy<Value = (Phase, Vec<f64>)> {
    let dates = (dates(), prop_oneof![12 => Just(None), 1 => dates()]);
    (names(), dates, shares(), weights()).prop_map(|(name, (started, ended), coverage, weights)| {
        let split = weights.iter().enumerate();
        let phase = Phase {
            name,
            started,
            ended,
            seed: String::new(),
            coverage,
            split: split
                .map(|(i, weight)| (format!("var_{i}"), *weight))
                .collect(),
            targeting_condition: String::new(),
            saved_group_targeting: None,
            prerequisites: None,
            namespace: None,
        };
        (phase, weights)
    })
}

/// A delivery as no `adapt` would make it.
fn hostile_deliveries() -> impl Strategy<Value = Delivery> {
    let lists = || prop::collection::vec(names(), 0..4);
    let texts = || prop::option::of(names());
    (
        dates(),
        dates(),
        lists(),
        lists(),
        lists(),
        names(),
        texts(),
        texts(),
    )
        .prop_map(
            |(start, end, domains, wikis, contextual_attributes, stream_name, unit, schema)| {
                Delivery {
                    start,
                    end,
                    domains,
                    wikis,
                    user_identifier_type: "edge-unique".to_owned(),
                    stream_name,
                    contextual_attributes,
                    sample_unit: unit,
                    schema_id: schema,
                    problems: Vec::new(),
                }
            },
        )
}

pub(crate) fn experiments() -> impl Strategy<Value = Experiment> {
    let phases = prop_oneof![20 => prop::collection::vec(phases(), 1..3), 1 => Just(Vec::new())];
    let variation_names = prop::collection::vec((names(), names()), 6);
    // Sometimes one variation more or fewer than the split has.
    let surplus = prop_oneof![20 => Just(1usize), 1 => Just(0), 1 => Just(2)];
    let delivery = prop_oneof![4 => Just(None), 1 => hostile_deliveries().prop_map(Some)];
    let status = prop_oneof![Just(Status::Running), Just(Status::Stopped)];
    (
        (names(), names(), status),
        phases,
        (variation_names, surplus),
        custom_fields(),
        prop_oneof![12 => Just(None), 1 => dates()],
        delivery,
    )
        .prop_map(
            |(
                (tracking_key, text, status),
                phases,
                (names, surplus),
                custom_fields,
                stop,
                delivery,
            )| {
                let count = phases.last().map_or(2, |(_, weights)| weights.len());
                let count = (count + surplus).saturating_sub(1);
                let names = names.into_iter().take(count).enumerate();
                let variations = names.map(|(i, (name, key))| Variation {
                    id: format!("var_{i}"),
                    key,
                    name,
                });
                let mut experiment = blank(&tracking_key);
                experiment.hypothesis.clone_from(&text);
                experiment.owner = text;
                experiment.status = status;
                experiment.variations = variations.collect();
                experiment.phases = phases.into_iter().map(|(phase, _)| phase).collect();
                experiment.custom_fields = custom_fields;
                experiment.scheduled_stop = stop;
                adapt(&mut experiment, &field_names());
                if let Some(delivery) = delivery {
                    experiment.delivery = delivery;
                }
                experiment
            },
        )
}

pub(crate) fn field_names() -> FieldNames {
    FieldNames {
        domains: "domains".to_owned(),
        wikis: "wikis".to_owned(),
        user_identifier_type: "user_identifier_type".to_owned(),
        stream_name: "stream_name".to_owned(),
        contextual_attributes: "contextual_attributes".to_owned(),
        end: "end".to_owned(),
        max_duration: Duration::days(90),
    }
}

fn blank(tracking_key: &str) -> Experiment {
    Experiment {
        id: "exp_1".to_owned(),
        tracking_key: tracking_key.to_owned(),
        name: String::new(),
        hypothesis: String::new(),
        owner: String::new(),
        project: String::new(),
        status: Status::Running,
        archived: false,
        hash_attribute: "id".to_owned(),
        fallback_attribute: None,
        hash_version: 2,
        variations: Vec::new(),
        phases: Vec::new(),
        custom_fields: Map::new(),
        scheduled_stop: None,
        updated: None,
        delivery: Delivery::default(),
        definition: CanonicalJson::from_value(&json!({})),
    }
}

/// An experiment that fits, with these weights: groups `g0`, `g1`, … on one domain and one wiki.
pub(crate) fn fitting(coverage: f64, weights: &[f64]) -> Experiment {
    let mut experiment = blank("sticky-header-2026");
    let ids = || (0..weights.len()).map(|i| format!("var_{i}"));
    experiment.variations = ids()
        .enumerate()
        .map(|(i, id)| Variation {
            id,
            key: i.to_string(),
            name: format!("g{i}"),
        })
        .collect();
    experiment.phases = vec![Phase {
        name: "Main".to_owned(),
        started: OffsetDateTime::from_unix_timestamp(1_788_273_000).ok(),
        ended: None,
        seed: String::new(),
        coverage,
        split: ids().zip(weights.iter().copied()).collect(),
        targeting_condition: String::new(),
        saved_group_targeting: None,
        prerequisites: None,
        namespace: None,
    }];
    for (field, value) in [("domains", "fr.wikipedia.org"), ("wikis", "frwiki")] {
        let fields = &mut experiment.custom_fields;
        fields.insert(field.to_owned(), json!(value));
    }
    adapt(&mut experiment, &field_names());
    experiment
}
