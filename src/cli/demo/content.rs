//! What the demo's upstream holds at the start: flags of every type and experiments in every state.

use serde_json::{Map, Value, json};
use time::Duration;

use super::upstream::{
    CLIENT_KEY, Connection, ExperimentExt, Upstream, condition_feature, experiment,
    experiment_rule, feature, rollout_feature,
};
use crate::clock;

/// Environment of the demo.
pub const ENVIRONMENT: &str = "demo";

/// Management requests per minute that the demo's upstream allows: as of a self-hosted server with a raised limit, because a demo
/// polls often.
const REQUESTS_PER_MINUTE: u32 = 6000;

/// A feature that follows an experiment, with the value of each variation.
pub(super) struct Linked {
    pub(super) feature: &'static str,
    pub(super) experiment: &'static str,
    values: fn() -> Vec<Value>,
}

/// Features whose rule is made of an experiment; each value list begins with the default.
pub(super) const LINKED: &[Linked] = &[
    Linked {
        feature: "search-suggestions",
        experiment: "search-suggestions-2026",
        values: || vec![json!("off"), json!("titles"), json!("titles-and-images")],
    },
    Linked {
        feature: "contents-sidebar",
        experiment: "contents-sidebar-2026",
        values: || vec![json!(false), json!(true)],
    },
    Linked {
        feature: "donate-button-color",
        experiment: "donate-button-color",
        values: || vec![json!("#3366cc"), json!("#00af89")],
    },
    Linked {
        feature: "results-per-page",
        experiment: "results-per-page-2026",
        values: || vec![json!(20), json!(50)],
    },
];

impl Linked {
    /// The feature's definition while the experiment is as given.
    pub(super) fn definition(&self, experiment: &Value) -> Value {
        let values = (self.values)();
        let mut definition = feature(values[0].clone());
        if let Some(rule) = experiment_rule(experiment, &values) {
            definition["rules"] = json!([rule]);
        }
        definition
    }
}

/// Fills an upstream with the demo's content.
pub fn fill(upstream: &Upstream) {
    upstream.add_connection(Connection {
        environment: ENVIRONMENT.to_owned(),
        streaming: true,
        ..Connection::new(CLIENT_KEY)
    });
    upstream.set_rate_limit(REQUESTS_PER_MINUTE, std::time::Duration::from_mins(1));
    upstream.set_saved_groups(json!({
        "grp_beta_testers": ["ada", "grace", "linus"],
        "grp_staff": ["ada", "edsger"],
    }));
    let experiments = experiments();
    upstream.set_features(Value::Object(features(&experiments)));
    upstream.set_experiments(experiments);
}

fn features(experiments: &[Value]) -> Map<String, Value> {
    let linked = LINKED.iter().filter_map(|linked| {
        let mut all = experiments.iter();
        let experiment = all.find(|e| e["trackingKey"] == linked.experiment)?;
        Some((linked.feature, linked.definition(experiment)))
    });
    let plain = [
        ("dark-mode", feature(false)),
        ("max-upload-megabytes", feature(25)),
        (
            "welcome-text",
            condition_feature(
                json!("Welcome!"),
                &json!({"language": "fr"}),
                &json!("Bienvenue !"),
            ),
        ),
        ("new-editor", rollout_feature("new-editor", 0.1)),
        (
            "beta-gadgets",
            condition_feature(
                json!(false),
                &json!({"id": {"$inGroup": "grp_beta_testers"}}),
                &json!(true),
            ),
        ),
        (
            "search-limits",
            condition_feature(
                json!({"timeout_ms": 800, "results": 20}),
                &json!({"plan": "pro", "appVersion": {"$vgte": "2.1.0"}}),
                &json!({"timeout_ms": 2000, "results": 100}),
            ),
        ),
        ("new-checkout", rollout_feature("new-checkout", 0.5)),
        ("express-checkout", after_new_checkout()),
        ("maintenance-notice", feature("")),
    ];
    plain
        .into_iter()
        .chain(linked)
        .map(|(key, definition)| (key.to_owned(), definition))
        .collect()
}

/// A feature that needs `new-checkout` to be on.
fn after_new_checkout() -> Value {
    json!({
        "defaultValue": false,
        "rules": [
            {
                "id": "fr_gate",
                "parentConditions": [{"id": "new-checkout", "condition": {"value": true}, "gate": true}],
            },
            {"id": "fr_countries", "condition": {"country": {"$in": ["DE", "FR", "NL"]}}, "force": true},
        ],
    })
}

fn experiments() -> Vec<Value> {
    let now = clock::now();
    vec![
        experiment("search-suggestions-2026")
            .with_variations(&["control", "titles", "images"])
            .with_coverage(0.01)
            .with_custom_field("domains", json!("en.wikipedia.org, fr.wikipedia.org"))
            .with_custom_field("wikis", json!(["enwiki", "frwiki"]))
            .with_member("linkedFeatures", json!(["search-suggestions"])),
        experiment("sticky-header-2026")
            .with_coverage(0.1)
            .with_next_phase("Wider", 0.2)
            .with_custom_field("domains", json!(["fr.wikipedia.org"]))
            .with_custom_field("wikis", json!("frwiki"))
            .with_custom_field("contextual_attributes", json!("page_id, page_namespace_id")),
        experiment("contents-sidebar-2026")
            .with_coverage(0.05)
            .with_custom_field(
                "end",
                json!((now + Duration::days(30)).date().to_string() + "T14:30:00Z"),
            )
            .with_member("linkedFeatures", json!(["contents-sidebar"])),
        experiment("donate-button-color")
            .with_weights(&[0.8, 0.2])
            .with_coverage(0.5)
            .with_custom_field("domains", json!("de.wikipedia.org"))
            .with_custom_field("wikis", Value::Null)
            .with_member("linkedFeatures", json!(["donate-button-color"])),
        experiment("edit-check-newcomers")
            .with_coverage(0.5)
            .with_custom_field("user_identifier_type", json!("mw-user"))
            .with_custom_field("domains", Value::Null)
            .with_custom_field("wikis", json!(["enwiki", "frwiki", "dewiki"]))
            .with_condition(&json!({"editCount": {"$lt": 100}})),
        experiment("results-per-page-2026")
            .stopped_at(now - Duration::hours(3))
            .with_member("linkedFeatures", json!(["results-per-page"])),
        experiment("mobile-toolbar-2025").stopped_at(now - Duration::days(5)),
        experiment("reading-lists-2027").with_status("draft"),
        experiment("old-main-page-test")
            .stopped_at(now - Duration::days(6))
            .with_archived(true),
    ]
}
