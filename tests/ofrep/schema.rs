//! The protocol's answers as JSON schemas, and the check that every answer of these tests goes through.
//!
//! Written down from version 0.3.0 of the protocol; stricter where real clients are: `variant`, `errorDetails` and the
//! known reasons are what the Python provider cannot do without.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::stand::{Asked, Seen};

fn metadata() -> Value {
    json!({"type": "object", "additionalProperties": {"type": ["boolean", "string", "number"]}})
}

fn success() -> Value {
    json!({
        "type": "object",
        "required": ["key", "reason", "variant"],
        "additionalProperties": false,
        "properties": {
            "key": {"type": "string"},
            "reason": {"enum": [
                "CACHED", "DEFAULT", "DISABLED", "ERROR", "SPLIT", "STALE", "STATIC", "TARGETING_MATCH", "UNKNOWN"
            ]},
            // GrowthBook's JSON may be a list, which clients read as an object; the protocol has no word for it.
            "value": {"type": ["boolean", "string", "number", "object", "array"]},
            "variant": {"type": "string", "minLength": 1},
            "metadata": metadata()
        }
    })
}

/// One flag that has no answer; `codes` are those that may stand here.
fn failure(codes: &[&str]) -> Value {
    json!({
        "type": "object",
        "required": ["key", "errorCode", "errorDetails"],
        "additionalProperties": false,
        "properties": {
            "key": {"type": "string"},
            "errorCode": {"enum": codes},
            "errorDetails": {"type": "string", "minLength": 1},
            "metadata": metadata()
        }
    })
}

const CODES: &[&str] = &[
    "PARSE_ERROR",
    "TARGETING_KEY_MISSING",
    "INVALID_CONTEXT",
    "GENERAL",
];

fn all_flags() -> Value {
    json!({
        "type": "object",
        "required": ["flags"],
        "additionalProperties": false,
        "properties": {
            "flags": {"type": "array", "items": {"oneOf": [success(), failure(CODES)]}},
            "metadata": metadata(),
            "eventStreams": {"type": "array", "items": {
                "type": "object",
                "required": ["type"],
                "additionalProperties": false,
                "properties": {
                    "type": {"const": "sse"},
                    "url": {"type": "string"},
                    "endpoint": {
                        "type": "object",
                        "required": ["requestUri"],
                        "additionalProperties": false,
                        "properties": {"origin": {"type": "string"}, "requestUri": {"type": "string", "pattern": "^/"}}
                    },
                    "inactivityDelaySec": {"type": "integer", "minimum": 1}
                },
                "oneOf": [{"required": ["url"]}, {"required": ["endpoint"]}]
            }}
        }
    })
}

fn all_failed() -> Value {
    json!({
        "type": "object",
        "required": ["errorCode", "errorDetails"],
        "additionalProperties": false,
        "properties": {"errorCode": {"enum": CODES}, "errorDetails": {"type": "string", "minLength": 1}}
    })
}

/// What the protocol defines no body for: a problem document, with a request's id where the fault is ours.
fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "detail", "error"],
        "properties": {
            "status": {"type": "integer"},
            "code": {"type": "string"},
            "detail": {"type": "string", "minLength": 1},
            "request_id": {"type": "string"}
        },
        "not": {"anyOf": [{"required": ["errorCode"]}, {"required": ["flags"]}]}
    })
}

/// Data of an event.
fn event() -> Value {
    json!({
        "type": "object",
        "required": ["type"],
        "additionalProperties": false,
        "properties": {
            "type": {"const": "refetchEvaluation"},
            "etag": {"type": "string", "pattern": "^\".+\"$"},
            "lastModified": {"type": "integer", "minimum": 1}
        }
    })
}

fn compiled(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).unwrap()
}

static SUCCESS: LazyLock<Validator> = LazyLock::new(|| compiled(&success()));
static FAILURE: LazyLock<Validator> = LazyLock::new(|| compiled(&failure(CODES)));
static NOT_FOUND: LazyLock<Validator> = LazyLock::new(|| compiled(&failure(&["FLAG_NOT_FOUND"])));
static ALL: LazyLock<Validator> = LazyLock::new(|| compiled(&all_flags()));
static ALL_FAILED: LazyLock<Validator> = LazyLock::new(|| compiled(&all_failed()));
static PROBLEM: LazyLock<Validator> = LazyLock::new(|| compiled(&problem()));
static EVENT: LazyLock<Validator> = LazyLock::new(|| compiled(&event()));

fn validate(schema: &Validator, value: &Value) {
    let errors: Vec<String> = schema
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{value:#}");
}

/// Checks the data of an event.
pub(crate) fn check_event(data: &Value) {
    validate(&EVENT, data);
}

/// Checks status, headers and body of an answer.
pub(crate) fn check(asked: Asked, seen: &Seen) {
    let is_protocol = match (asked, seen.status) {
        (_, 304) => {
            assert_eq!(asked, Asked::All, "one flag has no entity tag");
            assert!(seen.body.is_empty(), "{seen:?}");
            assert_eq!(seen.header("content-type"), None);
            false
        }
        (Asked::One, 200) => is_valid(&SUCCESS, seen),
        (Asked::One, 400) => is_valid(&FAILURE, seen),
        (Asked::One, 404) => is_valid(&NOT_FOUND, seen),
        (Asked::All, 200) => is_valid(&ALL, seen),
        (Asked::All, 400) => is_valid(&ALL_FAILED, seen),
        (_, 401 | 413 | 429 | 503) => {
            validate(&PROBLEM, &seen.json());
            assert_eq!(seen.json()["status"], seen.status);
            false
        }
        (asked, status) => panic!("{status} is no answer to {asked:?}: {seen:?}"),
    };
    let media = seen.header("content-type").unwrap_or_default();
    let media = media.split(';').next().unwrap();
    let expected = match seen.status {
        304 => "",
        _ if is_protocol => "application/json",
        _ => "application/problem+json",
    };
    assert_eq!(media, expected, "{seen:?}");
    check_headers(asked, seen);
}

fn is_valid(schema: &Validator, seen: &Seen) -> bool {
    validate(schema, &seen.json());
    true
}

fn check_headers(asked: Asked, seen: &Seen) {
    let is_answered = matches!(seen.status, 200 | 304);
    let tag = seen.header("etag");
    assert_eq!(
        tag.is_some(),
        asked == Asked::All && is_answered,
        "{seen:?}"
    );
    let is_quoted = |tag: &str| tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"');
    assert!(tag.is_none_or(is_quoted), "{tag:?} is no strong tag");
    if is_answered {
        let revision = seen.header("x-config-revision").unwrap();
        assert!(revision.parse::<u64>().unwrap() > 0);
        assert_eq!(seen.header("cache-control"), Some("private, no-cache"));
        assert_eq!(
            seen.header("vary"),
            Some("Authorization, X-API-Key, Origin")
        );
    }
    let is_whole = |seconds: &str| seconds.parse::<u64>().is_ok_and(|seconds| seconds > 0);
    // A date is read as its year by one client, and seconds by all.
    let wait = seen.header("retry-after");
    assert!(wait.is_none_or(is_whole), "{wait:?}");
    assert_eq!(wait.is_some(), matches!(seen.status, 429 | 503), "{seen:?}");
    assert_eq!(
        seen.header("www-authenticate").is_some(),
        seen.status == 401
    );
}
