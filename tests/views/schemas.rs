//! The consumers' schemas, written down from what their programs check and read.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The edge fetcher's schema (`wmfuniq_experiment_fetcher.py`).
pub(crate) fn varnish_schema() -> Value {
    let comment = json!({"type": "string"});
    let date = json!({
        "type": "string",
        "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
    });
    let bin = json!({"type": "integer", "minimum": 0, "maximum": 99_999});
    let groups = json!({
        "type": "object",
        "minProperties": 1,
        "additionalProperties": false,
        "properties": {"_comment": comment},
        "patternProperties": {
            "^[A-Za-z0-9][-_.A-Za-z0-9]{0,62}$":
                {"type": "array", "minItems": 2, "maxItems": 2, "items": bin}
        }
    });
    let domain = json!({
        "type": "object",
        "required": ["groups"],
        "additionalProperties": false,
        "properties":
            {"_comment": comment, "groups": groups, "unique_domain": {"type": "boolean"}}
    });
    let name = "^[A-Za-z0-9][-_.A-Za-z0-9]{7,62}$";
    json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "object",
        "additionalProperties": false,
        "properties": {"_comment": comment},
        "patternProperties": {name: {
            "type": "object",
            "required": ["start", "end", "domains"],
            "additionalProperties": false,
            "properties": {
                "_comment": comment,
                "start": date,
                "end": date,
                "cache_split": {"type": "boolean"},
                "shared_selector": {"type": "string", "pattern": name},
                "domains": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": false,
                    "properties": {"_comment": comment},
                    "patternProperties": {"^[a-z0-9][-_.a-z0-9]{0,254}$": domain}
                }
            }
        }}
    })
}

/// What the MediaWiki extension reads; with `analytics` what analysts get beside it.
pub(crate) fn list_schema(analytics: bool) -> Value {
    let date = json!({
        "type": "string",
        "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
    });
    let share = json!({"type": "number", "minimum": 0, "maximum": 1});
    let wikis = json!({
        "type": "array",
        "minItems": 1,
        "uniqueItems": true,
        "items": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
    });
    let text = json!({"type": "string", "minLength": 1, "maxLength": 255});
    let mut properties = json!({
        "name": text,
        "start": date,
        "end": date,
        "user_identifier_type": {"enum": ["mw-user", "edge-unique"]},
        "groups": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": true,
            "items": {"type": "string", "pattern": "^[A-Za-z0-9][-_.A-Za-z0-9]{0,62}$"}
        },
        "sample_rate": {
            "type": "object",
            "required": ["default"],
            "minProperties": if analytics { 1 } else { 2 },
            "maxProperties": 2,
            "additionalProperties": false,
            "properties": {"default": if analytics { share.clone() } else { json!({"enum": [0]}) }},
            "patternProperties": {"^(0(\\.[0-9]+)?|1)$": wikis}
        },
        "stream_name": text,
        "contextual_attributes": {"type": "array", "items": text},
        "phase_index": {"type": "integer", "minimum": 0},
        "version": {"type": "string", "pattern": "^[0-9a-f]{16}$"}
    });
    let mut required: Vec<String> = properties.as_object().unwrap().keys().cloned().collect();
    properties["sample_unit"] = text.clone();
    properties["schema_id"] = text;
    if analytics {
        let more = analytics_properties(&date, &share);
        required.extend(more.keys().cloned());
        properties.as_object_mut().unwrap().extend(more);
    }
    json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "array",
        "items": {
            "type": "object",
            "required": required,
            "additionalProperties": false,
            "properties": properties
        }
    })
}

/// What only analysts get.
fn analytics_properties(date: &Value, share: &Value) -> Map<String, Value> {
    let properties = json!({
        "source": {"type": "string"},
        "status": {"enum": ["running", "stopped"]},
        "hypothesis": {"type": "string"},
        "owner": {"type": "string"},
        "phases": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "start", "end", "coverage", "split"],
                "additionalProperties": false,
                "properties": {
                    "name": {"type": "string"},
                    "start": date,
                    "end": {"anyOf": [{"type": "null"}, date]},
                    "coverage": share,
                    "split": {"type": "object", "additionalProperties": share}
                }
            }
        }
    });
    properties.as_object().unwrap().clone()
}

/// Validators by document name, compiled once per thread: compiling costs more than a test case.
pub(crate) fn assert_fits(name: &str, document: &Value) {
    thread_local! {
        static SCHEMAS: BTreeMap<&'static str, jsonschema::Validator> = [
            ("varnish", varnish_schema()),
            ("mediawiki", list_schema(false)),
            ("analytics", list_schema(true)),
        ]
        .map(|(name, schema)| (name, jsonschema::draft4::new(&schema).unwrap()))
        .into();
    }
    SCHEMAS.with(|schemas| {
        let faults: Vec<String> = schemas[name]
            .iter_errors(document)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert_eq!(faults, [""; 0], "{name}: {document}");
    });
}
