use serde_json::{Map, Value, json};

use super::super::{Context, Dialect, Environment};

fn environment(features: &Value) -> Environment {
    let document = json!({"features": features, "experiments": []});
    Environment::new(document.to_string().as_bytes(), Dialect::Strict).unwrap()
}

fn attributes(attributes: &Value) -> Map<String, Value> {
    attributes.as_object().unwrap().clone()
}

fn all(environment: &Environment) -> Box<[u32]> {
    environment.flags().visible(|_| true)
}

fn ofrep(environment: &Environment, of: &Value) -> Value {
    let (attributes, mut out) = (attributes(of), b"[".to_vec());
    environment.write_ofrep(&Context::new(&attributes), &all(environment), &mut out);
    out.push(b']');
    serde_json::from_slice(&out).unwrap()
}

fn toggles(environment: &Environment, of: &Value) -> Value {
    let (attributes, mut out) = (attributes(of), b"[".to_vec());
    environment.write_toggles(&Context::new(&attributes), &all(environment), &mut out);
    out.push(b']');
    serde_json::from_slice(&out).unwrap()
}

/// A feature per way of getting a value.
fn samples() -> Environment {
    let experiment = json!({
        "id": "fr_x", "key": "exp", "hashAttribute": "id", "variations": ["a", "b"], "weights": [0, 1],
        "meta": [{"key": "control"}, {"key": "treatment"}],
    });
    environment(&json!({
        "z-experiment": {"defaultValue": "none", "rules": [experiment]},
        "blocked": {"defaultValue": true, "rules": [{"parentConditions": [
            {"id": "off", "condition": {"value": true}, "gate": true}]}]},
        "cyclic": {"defaultValue": 1, "rules": [{"parentConditions": [{"id": "cyclic", "condition": {}}]}]},
        "forced": {"defaultValue": {"a": 1}, "rules": [
            {"id": "fr_f", "condition": {"plan": "pro"}, "force": {"a": [2]}}]},
        "off": {"defaultValue": false},
        "on": {"defaultValue": true},
        "nothing": {"defaultValue": null},
        "rollout": {"defaultValue": 0, "rules": [{"force": 3.0, "coverage": 1, "hashAttribute": "id"}]},
        "ratio": {"defaultValue": 0.5, "rules": [{"condition": {"plan": "pro"}, "force": 2}]},
    }))
}

#[test]
fn every_source_has_its_reason_and_its_variant() {
    let found = ofrep(&samples(), &json!({"id": "u", "plan": "pro"}));
    let expected = json!([
        {"key": "blocked", "reason": "DISABLED", "variant": "default", "metadata": {"source": "prerequisite"}},
        {"key": "cyclic", "errorCode": "GENERAL",
         "errorDetails": "the flag's prerequisites lead back to it, or cost too much", "metadata": {"source": "error"}},
        {"key": "forced", "reason": "TARGETING_MATCH", "variant": "fr_f", "value": {"a": [2]},
         "metadata": {"source": "force", "ruleId": "fr_f"}},
        {"key": "nothing", "reason": "STATIC", "variant": "default", "metadata": {"source": "defaultValue"}},
        {"key": "off", "reason": "STATIC", "variant": "default", "value": false, "metadata": {"source": "defaultValue"}},
        {"key": "on", "reason": "STATIC", "variant": "default", "value": true, "metadata": {"source": "defaultValue"}},
        {"key": "ratio", "reason": "TARGETING_MATCH", "variant": "force", "value": 2.0, "metadata": {"source": "force"}},
        {"key": "rollout", "reason": "SPLIT", "variant": "force", "value": 3, "metadata": {"source": "force"}},
        {"key": "z-experiment", "reason": "SPLIT", "variant": "treatment", "value": "b",
         "metadata": {"source": "experiment", "ruleId": "fr_x", "experiment": "exp"}},
    ]);
    assert_eq!(found, expected);
    let text = found.to_string();
    assert!(
        text.contains("\"value\":2.0,") && text.contains("\"value\":3,"),
        "{text}"
    );
    let found = ofrep(&samples(), &json!({"id": "u"}));
    let reason = |at: usize| found[at]["reason"].as_str().unwrap();
    assert_eq!((reason(2), reason(6)), ("DEFAULT", "DEFAULT"));
}

#[test]
fn without_a_targeting_key_only_flags_that_split_by_it_fail() {
    let environment = environment(&json!({
        "by-company": {"defaultValue": 1, "rules": [{"force": 2, "coverage": 0.5, "hashAttribute": "company"}]},
        "child": {"defaultValue": 1, "rules": [
            {"parentConditions": [{"id": "split", "condition": {"value": 2}}], "force": 2}]},
        "elsewhere": {"defaultValue": 1, "rules": [
            {"condition": {"country": "DE"}, "force": 2, "coverage": 0.5, "hashAttribute": "id"}]},
        "plain": {"defaultValue": 1, "rules": [{"force": 2, "condition": {"country": "FR"}}]},
        "split": {"defaultValue": 1, "rules": [{"variations": [1, 2], "key": "e", "hashAttribute": "id"}]},
    }));
    let failed = |of: Value| -> Vec<String> {
        let found = ofrep(&environment, &of);
        let failed = found.as_array().unwrap().iter();
        let failed = failed.filter(|flag| flag["errorCode"] == "TARGETING_KEY_MISSING");
        failed
            .map(|flag| flag["key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(failed(json!({"country": "FR"})), ["child", "split"]);
    assert_eq!(
        failed(json!({"country": "DE", "id": ""})),
        ["child", "elsewhere", "split"]
    );
    assert!(failed(json!({"country": "DE", "id": "u"})).is_empty());
}

#[test]
fn toggles_are_what_is_enabled_with_text_for_payloads() {
    let found = toggles(&samples(), &json!({"id": "u", "plan": "pro"}));
    let variant = |name: &str, kind: &str, value: &str| json!({"name": name, "payload": {"type": kind, "value": value}, "enabled": true, "feature_enabled": true});
    let none = json!({"name": "disabled", "enabled": false, "feature_enabled": true});
    let expected = json!([
        {"name": "forced", "enabled": true, "variant": variant("fr_f", "json", "{\"a\":[2]}"), "impressionData": false},
        {"name": "on", "enabled": true, "variant": none, "impressionData": false},
        {"name": "ratio", "enabled": true, "variant": variant("force", "number", "2"), "impressionData": false},
        {"name": "rollout", "enabled": true, "variant": variant("force", "number", "3"), "impressionData": false},
        {"name": "z-experiment", "enabled": true, "variant": variant("treatment", "string", "b"), "impressionData": true},
    ]);
    assert_eq!(found, expected);
    // Zero is a value that a client must be able to read.
    let found = toggles(&samples(), &json!({}));
    let names: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|t| &t["name"])
        .collect();
    assert_eq!(names, ["forced", "on", "ratio", "rollout", "z-experiment"]);
    assert_eq!(found[3]["variant"]["payload"]["value"], "0");
}

#[test]
fn one_flag_is_found_among_those_that_may_be_seen() {
    let samples = samples();
    let flags = samples.flags();
    let visible = flags.visible(|flag| flag.key().starts_with('o'));
    assert_eq!(flags.find("forced", &visible), None);
    assert_eq!(flags.find("absent", &visible), None);
    let at = flags.find("on", &visible).unwrap();
    let (attributes, mut out) = (Map::new(), Vec::new());
    let context = Context::new(&attributes);
    assert!(samples.write_ofrep_one(&context, at, ",\"revision\":7", &mut out));
    let found: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        found["metadata"],
        json!({"source": "defaultValue", "revision": 7})
    );
    out.clear();
    let at = flags.find("cyclic", &all(&samples)).unwrap();
    assert!(!samples.write_ofrep_one(&context, at, "", &mut out));
}
