//! Builders of what an upstream holds: experiments as the management API lists them, features as a payload carries them.
//!
//! Everything is a plain [`Value`], to be bent further by index or with [`ExperimentExt`].

use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime, Time};

use super::payload::iso;
use crate::clock;

/// A complete running experiment, halves control and treatment, of everybody on en.wikipedia.org, for 7 days now.
///
/// Its `id` follows from the tracking key. Dates are whole days, so that two calls give equal experiments.
pub fn experiment(tracking_key: &str) -> Value {
    let created = iso(days_ago(8));
    json!({
        "id": format!("exp_{tracking_key}"),
        "trackingKey": tracking_key,
        "dateCreated": created,
        "dateUpdated": iso(days_ago(7)),
        "name": title(tracking_key),
        "type": "standard",
        "project": "",
        "hypothesis": "More readers find what they came for.",
        "description": "",
        "tags": ["growth"],
        "owner": "u_ada",
        "ownerEmail": "ada@example.org",
        "archived": false,
        "status": "running",
        "autoRefresh": true,
        "hashAttribute": "id",
        "hashVersion": 2,
        "variations": [variation(0, "control"), variation(1, "treatment")],
        "phases": [phase(tracking_key, "Main", days_ago(7), &["control", "treatment"])],
        "settings": {
            "datasourceId": "ds_events",
            "assignmentQueryId": "user_id",
            "experimentId": tracking_key,
            "segmentId": "",
            "queryFilter": "",
            "inProgressConversions": "include",
            "attributionModel": "firstExposure",
            "statsEngine": "bayesian",
            "goals": [{"metricId": "met_clickthrough", "overrides": {}}],
            "secondaryMetrics": [],
            "guardrails": [],
        },
        "linkedFeatures": [],
        "hasVisualChangesets": false,
        "hasURLRedirects": false,
        "customFields": {"domains": "en.wikipedia.org", "wikis": ["enwiki"]},
        "statusUpdateSchedule": null,
        "nextScheduledStatusUpdate": null,
    })
}

/// Tweaks of an experiment as the management API lists it; each takes and gives the whole value.
pub trait ExperimentExt: Sized {
    /// `draft`, `running` or `stopped`. A draft loses its phases; a stopped one ended an hour ago.
    #[must_use]
    fn with_status(self, status: &str) -> Self;

    /// Stopped at a moment, releasing the first variation.
    #[must_use]
    fn stopped_at(self, at: OffsetDateTime) -> Self;

    /// Archived or not.
    #[must_use]
    fn with_archived(self, archived: bool) -> Self;

    /// Coverage of the last phase, 0..=1.
    #[must_use]
    fn with_coverage(self, coverage: f64) -> Self;

    /// Variations by key, evenly split in every phase.
    #[must_use]
    fn with_variations(self, keys: &[&str]) -> Self;

    /// Weights of the last phase, in the order of the variations.
    #[must_use]
    fn with_weights(self, weights: &[f64]) -> Self;

    /// Ends the last phase now, unless it has ended, and starts another that is like it, with a coverage of its own.
    #[must_use]
    fn with_next_phase(self, name: &str, coverage: f64) -> Self;

    /// A custom field; `Value::Null` removes it.
    #[must_use]
    fn with_custom_field(self, name: &str, value: Value) -> Self;

    /// Targeting condition of the last phase.
    #[must_use]
    fn with_condition(self, condition: &Value) -> Self;

    /// Any member.
    #[must_use]
    fn with_member(self, name: &str, value: Value) -> Self;
}

impl ExperimentExt for Value {
    fn with_status(self, status: &str) -> Self {
        match status {
            "draft" => self
                .with_member("phases", json!([]))
                .with_member("status", json!("draft")),
            "stopped" => self.stopped_at(clock::now() - Duration::hours(1)),
            _ => self.with_member("status", json!(status)),
        }
    }

    fn stopped_at(mut self, at: OffsetDateTime) -> Self {
        self["status"] = json!("stopped");
        self["resultSummary"] = json!({
            "status": "inconclusive",
            "winner": "",
            "conclusions": "",
            "releasedVariationId": self["variations"][0]["variationId"],
            "excludeFromPayload": false,
        });
        if let Some(phase) = last_phase(&mut self) {
            phase["dateEnded"] = json!(iso(at));
            phase["reasonForStopping"] = json!("Enough was seen");
        }
        self
    }

    fn with_archived(self, archived: bool) -> Self {
        self.with_member("archived", json!(archived))
    }

    fn with_coverage(mut self, coverage: f64) -> Self {
        if let Some(phase) = last_phase(&mut self) {
            phase["coverage"] = json!(coverage);
        }
        self
    }

    fn with_variations(mut self, keys: &[&str]) -> Self {
        let variations = keys.iter().enumerate();
        self["variations"] = variations
            .map(|(index, key)| variation(index, key))
            .collect();
        let split = even_split(keys);
        for phase in self["phases"].as_array_mut().into_iter().flatten() {
            phase["trafficSplit"] = split.clone();
        }
        self
    }

    fn with_weights(mut self, weights: &[f64]) -> Self {
        if let Some(phase) = last_phase(&mut self) {
            let split = phase["trafficSplit"].as_array_mut();
            for (part, weight) in split.into_iter().flatten().zip(weights) {
                part["weight"] = json!(weight);
            }
        }
        self
    }

    fn with_next_phase(mut self, name: &str, coverage: f64) -> Self {
        let now = iso(clock::now());
        let mut next = match last_phase(&mut self) {
            Some(phase) => {
                let next = phase.clone();
                // A stopped experiment's phase has ended already.
                if phase["dateEnded"] == "" {
                    phase["dateEnded"] = json!(now);
                }
                next
            }
            None => fresh_phase(&self),
        };
        next["name"] = json!(name);
        next["dateStarted"] = json!(now);
        next["dateEnded"] = json!("");
        next["reasonForStopping"] = json!("");
        next["coverage"] = json!(coverage);
        if let Some(phases) = self["phases"].as_array_mut() {
            phases.push(next);
        }
        self
    }

    fn with_custom_field(mut self, name: &str, value: Value) -> Self {
        if let Some(fields) = self["customFields"].as_object_mut() {
            if value.is_null() {
                fields.shift_remove(name);
            } else {
                fields.insert(name.to_owned(), value);
            }
        }
        self
    }

    fn with_condition(mut self, condition: &Value) -> Self {
        if let Some(phase) = last_phase(&mut self) {
            phase["targetingCondition"] = json!(condition.to_string());
        }
        self
    }

    fn with_member(mut self, name: &str, value: Value) -> Self {
        self[name] = value;
        self
    }
}

/// A feature without rules.
pub fn feature(default: impl Into<Value>) -> Value {
    json!({"defaultValue": default.into()})
}

/// A feature with one rule that forces a value where a condition holds.
pub fn condition_feature(default: Value, condition: &Value, forced: &Value) -> Value {
    let mut feature = feature(default);
    feature["rules"] = json!([{"id": "fr_condition", "condition": condition, "force": forced}]);
    feature
}

/// A boolean feature that is on for a share of units, 0..=1, by attribute `id`.
pub fn rollout_feature(key: &str, coverage: f64) -> Value {
    let mut feature = feature(false);
    feature["rules"] = json!([rollout_rule(key, &json!(true), coverage)]);
    feature
}

/// The feature rule that the server makes of an experiment: its last phase, one value per variation.
///
/// A stopped experiment forces its released variation; a draft or archived one gives no rule.
pub fn experiment_rule(experiment: &Value, values: &[Value]) -> Option<Value> {
    let variations = experiment["variations"].as_array()?;
    let phases = experiment["phases"].as_array()?;
    let phase = phases.last()?;
    if experiment["archived"] == true {
        return None;
    }
    let id = format!("fr_{}", experiment["trackingKey"].as_str()?);
    let condition = phase["targetingCondition"].as_str().unwrap_or("");
    let condition: Value = serde_json::from_str(condition).unwrap_or_default();
    let has_condition = condition.as_object().is_some_and(|c| !c.is_empty());
    let mut rule = json!({"id": id, "coverage": phase["coverage"]});
    if has_condition {
        rule["condition"] = condition;
    }
    match experiment["status"].as_str()? {
        "running" => {
            let split = phase["trafficSplit"].as_array()?.iter();
            let meta = variations.iter();
            rule["hashAttribute"] = experiment["hashAttribute"].clone();
            rule["hashVersion"] = experiment["hashVersion"].clone();
            rule["seed"] = phase["seed"].clone();
            rule["variations"] = json!(values);
            rule["weights"] = split.map(|part| part["weight"].clone()).collect();
            rule["key"] = experiment["trackingKey"].clone();
            rule["meta"] = meta
                .map(|v| json!({"key": v["key"], "name": v["name"]}))
                .collect();
            rule["phase"] = json!((phases.len() - 1).to_string());
            rule["name"] = experiment["name"].clone();
        }
        "stopped" => {
            let released = &experiment["resultSummary"]["releasedVariationId"];
            let index = variations
                .iter()
                .position(|v| v["variationId"] == *released)?;
            rule["force"] = values.get(index)?.clone();
        }
        _ => return None,
    }
    Some(rule)
}

/// `count` features `feature-00000`… with `rules` rules each: condition, percentage rollout, experiment, and over again.
pub fn many_features(count: usize, rules: usize) -> Value {
    let features: Map<String, Value> = (0..count)
        .map(|index| {
            let key = format!("feature-{index:05}");
            let rules: Vec<Value> = (0..rules).map(|rule| any_rule(&key, index, rule)).collect();
            (key, json!({"defaultValue": false, "rules": rules}))
        })
        .collect();
    Value::Object(features)
}

/// `count` running experiments `experiment-00000`….
pub fn many_experiments(count: usize) -> Vec<Value> {
    let keys = (0..count).map(|index| format!("experiment-{index:05}"));
    keys.map(|key| experiment(&key)).collect()
}

fn any_rule(key: &str, index: usize, rule: usize) -> Value {
    match rule % 3 {
        0 => json!({
            "id": format!("fr_{index:05}_{rule}"),
            "condition": {
                "country": {"$in": ["DE", "FR", "US"]},
                "plan": if index.is_multiple_of(2) { "pro" } else { "free" },
                "appVersion": {"$vgte": format!("{}.4.0", index % 7)},
            },
            "force": true,
        }),
        1 => rollout_rule(key, &json!(true), 0.25),
        _ => json!({
            "id": format!("fr_{index:05}_{rule}"),
            "coverage": 0.8,
            "hashAttribute": "id",
            "hashVersion": 2,
            "seed": format!("{key}-seed"),
            "variations": [false, true],
            "weights": [0.5, 0.5],
            "key": format!("{key}-test-{rule}"),
            "meta": [{"key": "0", "name": "Control"}, {"key": "1", "name": "Treatment"}],
            "phase": "0",
            "name": format!("Test of {key}"),
        }),
    }
}

fn rollout_rule(key: &str, value: &Value, coverage: f64) -> Value {
    json!({
        "id": format!("fr_rollout_{key}"),
        "force": value,
        "coverage": coverage,
        "hashAttribute": "id",
        "seed": key,
        "hashVersion": 2,
    })
}

fn variation(index: usize, key: &str) -> Value {
    json!({
        "variationId": format!("var_{index}{key}"),
        "key": key,
        "name": title(key),
        "description": "",
        "screenshots": [],
    })
}

fn phase(tracking_key: &str, name: &str, started: OffsetDateTime, keys: &[&str]) -> Value {
    json!({
        "name": name,
        "dateStarted": iso(started),
        "dateEnded": "",
        "reasonForStopping": "",
        "seed": tracking_key,
        "coverage": 1,
        "trafficSplit": even_split(keys),
        "targetingCondition": "",
    })
}

/// The first phase of an experiment that has none.
fn fresh_phase(experiment: &Value) -> Value {
    let variations = experiment["variations"].as_array().into_iter().flatten();
    let keys: Vec<&str> = variations.filter_map(|v| v["key"].as_str()).collect();
    let tracking_key = experiment["trackingKey"].as_str().unwrap_or("");
    phase(tracking_key, "Main", clock::now(), &keys)
}

fn even_split(keys: &[&str]) -> Value {
    let whole = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let parts = keys.iter().enumerate().map(|(index, key)| {
        json!({"variationId": format!("var_{index}{key}"), "weight": 1.0 / f64::from(whole)})
    });
    parts.collect()
}

fn last_phase(experiment: &mut Value) -> Option<&mut Value> {
    experiment["phases"].as_array_mut()?.last_mut()
}

fn days_ago(days: i64) -> OffsetDateTime {
    (clock::now() - Duration::days(days)).replace_time(Time::MIDNIGHT)
}

/// `sticky-header` as `Sticky header`.
fn title(key: &str) -> String {
    let words = key.replace(['-', '_'], " ");
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => words,
    }
}
