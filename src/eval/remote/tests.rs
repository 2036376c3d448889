use serde_json::json;

use super::*;
use crate::eval::StickyDocument;

/// Evaluates both ways, which must agree.
fn evaluate(payload: &Value, request: &Value, sticky: Option<&StickyBuckets>) -> Value {
    let remote = Remote::new(payload, Dialect::Legacy);
    let body = request.to_string();
    let request = RemoteRequest::parse(body.as_bytes()).unwrap();
    let plain = remote.answer_plainly(payload, &request, sticky.cloned().as_ref());
    let quick = String::from_utf8(remote.answer(&request, sticky)).unwrap();
    assert_eq!(quick, plain);
    serde_json::from_str(&quick).unwrap()
}

fn split() -> Value {
    json!({
        "key": "exp", "hashVersion": 2, "coverage": 1, "variations": ["a", "b"], "weights": [0.5, 0.5],
        "meta": [{"key": "control", "name": "Control"}, {"key": "treatment"}],
        "hashAttribute": "company", "fallbackAttribute": "id", "condition": {"country": "NL"}
    })
}

#[test]
fn a_feature_is_its_value_and_other_members_stay() {
    let payload = json!({
        "status": 200,
        "features": {
            "b": {"defaultValue": {"y": 1.0, "2": "é\u{1f}", "1": null}},
            "10": {"defaultValue": 1e21}, "9": null, "forced": {"rules": [{"force": [1.50]}]},
            "gated": {"defaultValue": 1, "rules": [{"parentConditions": [
                {"id": "b", "condition": {"value": 1}, "gate": true}]}]}
        },
        "dateUpdated": "2026-09-24T15:16:39.450Z"
    });
    let remote = Remote::new(&payload, Dialect::Legacy);
    let answer = remote.answer(&RemoteRequest::default(), None);
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        concat!(
            r#"{"status":200,"features":{"9":{"defaultValue":null},"10":{"defaultValue":1e+21},"#,
            r#""b":{"defaultValue":{"1":null,"2":"é\u001f","y":1}},"forced":{"defaultValue":[1.5]},"#,
            r#""gated":{"defaultValue":null}},"dateUpdated":"2026-09-24T15:16:39.450Z","experiments":[]}"#
        )
    );
    evaluate(&payload, &json!({}), None);
}

#[test]
fn an_exposure_shows_no_condition_and_no_other_variation() {
    let payload = json!({"features": {"flag": {"defaultValue": "off", "rules": [split()]}}});
    let answer = evaluate(
        &payload,
        &json!({"attributes": {"company": 17, "country": "NL"}}),
        None,
    );
    let rule = &answer["features"]["flag"]["rules"][0];
    let track = &rule["tracks"][0];
    let variation = track["result"]["variationId"].as_u64().unwrap();
    let mut variations = vec![json!({}), json!({})];
    let place = usize::try_from(variation).unwrap();
    variations[place] = json!(["a", "b"][place]);
    assert_eq!(track["experiment"]["variations"], json!(variations));
    assert_eq!(track["experiment"].get("condition"), None);
    assert_eq!(track["result"]["hashValue"], 17);
    assert_eq!(rule["force"], answer["features"]["flag"]["defaultValue"]);
}

#[test]
fn a_forced_variation_is_told_without_a_bucket() {
    let payload = json!({"features": {"flag": {"defaultValue": "off", "rules": [split()]}}});
    let answer = evaluate(
        &payload,
        &json!({"attributes": {"company": 17}, "forcedVariations": {"exp": 1}}),
        None,
    );
    let result = &answer["features"]["flag"]["rules"][0]["tracks"][0]["result"];
    assert_eq!(result["value"], "b");
    assert_eq!(result["hashUsed"], false);
    assert_eq!(result.get("bucket"), None);
}

#[test]
fn forced_features_go_first_and_count_for_prerequisites() {
    let payload = json!({"features": {
        "parent": {"defaultValue": false},
        "child": {"defaultValue": 0, "rules": [{"force": 1, "parentConditions": [
            {"id": "parent", "condition": {"value": true}}]}]},
        "gone": null
    }});
    let request = json!({"forcedFeatures": [["parent", true], ["gone", {"x": "\""}], ["new", 1]]});
    let answer = evaluate(&payload, &request, None);
    assert_eq!(
        answer["features"],
        json!({"parent": {"defaultValue": true}, "child": {"defaultValue": 1},
               "gone": {"defaultValue": {"x": "\""}}})
    );
}

#[test]
fn exposures_of_prerequisites_and_of_pages_are_told_once_each() {
    let page = json!({
        "key": "page", "status": "running", "variations": [{"css": "a"}, {"css": "b"}], "hashVersion": 2,
        "urlPatterns": [{"include": true, "type": "simple", "pattern": "https://example.com/*"}],
        "condition": {"country": "NL"}, "weights": [0.5, 0.5], "coverage": 1
    });
    let parent = json!({"parentConditions": [{"id": "flag", "condition": {"value": {"$exists": true}}}], "force": 1});
    let payload = json!({
        "experiments": [page],
        "features": {
            "first": {"defaultValue": 0},
            "child": {"defaultValue": 0, "rules": [
                {"parentConditions": [{"id": "flag", "condition": {"value": "none"}}], "force": 2}, parent]},
            "flag": {"defaultValue": "off", "rules": [split()]}
        }
    });
    let request = json!({
        "attributes": {"id": "u", "company": "c", "country": "NL"}, "url": "https://example.com/shop"
    });
    let answer = evaluate(&payload, &request, None);
    let tracks = |feature: &str| {
        answer["features"][feature]["rules"][0]["tracks"]
            .as_array()
            .cloned()
            .unwrap()
    };
    assert_eq!(tracks("first").len(), 1);
    assert_eq!(tracks("first")[0]["result"]["featureId"], Value::Null);
    assert_eq!(tracks("child").len(), 1);
    assert_eq!(tracks("child")[0]["result"]["featureId"], "flag");
    assert_eq!(answer["experiments"].as_array().unwrap().len(), 1);
    assert_eq!(answer["experiments"][0].get("condition"), None);
    let elsewhere =
        json!({"attributes": {"id": "u", "country": "NL"}, "url": "https://example.org/"});
    let answer = evaluate(&payload, &elsewhere, None);
    assert_eq!(answer["experiments"], json!([]));
    assert_eq!(answer["features"]["first"], json!({"defaultValue": 0}));
}

#[test]
fn sticky_buckets_are_kept_and_written() {
    let payload = json!({"features": {"flag": {"defaultValue": "off", "rules": [split()]}}});
    let request = json!({"attributes": {"id": "u", "company": "c", "country": "NL"}});
    let body = request.to_string();
    let parsed = RemoteRequest::parse(body.as_bytes()).unwrap();
    let remote = Remote::new(&payload, Dialect::Legacy);
    assert_eq!(
        remote.sticky_units(&parsed),
        [("company", "c".to_owned()), ("id", "u".to_owned())]
    );
    let fresh = StickyBuckets::default();
    let answer = evaluate(&payload, &request, Some(&fresh));
    let given = answer["features"]["flag"]["defaultValue"].clone();
    let documents = fresh.into_documents();
    assert_eq!(documents.len(), 1);
    assert!(documents[0].is_changed);

    let (other, key) = if given == "a" {
        ("b", "treatment")
    } else {
        ("a", "control")
    };
    let stored = StickyDocument::from_value(&json!({
        "attributeName": "id", "attributeValue": "u", "assignments": {"exp__0": key}
    }));
    let kept = StickyBuckets::new(stored);
    let answer = evaluate(&payload, &request, Some(&kept));
    assert_eq!(answer["features"]["flag"]["defaultValue"], other);
    let result = &answer["features"]["flag"]["rules"][0]["tracks"][0]["result"];
    assert_eq!(result["stickyBucketUsed"], true);
}

#[test]
fn a_contextual_bandit_is_evaluated() {
    let payload = json!({
        "features": {"flag": {"defaultValue": 0, "rules": [{
            "key": "exp", "contextualBanditRef": "cb", "contextualVariations": [1, 2], "coverage": 1}]}},
        "contextualBandits": {"cb": {"banditVersion": 3, "contexts": [
            {"leafId": 4, "condition": {"country": "NL"}, "weights": [0, 1]}]}}
    });
    let answer = evaluate(
        &payload,
        &json!({"attributes": {"id": "u", "country": "NL"}}),
        None,
    );
    let track = &answer["features"]["flag"]["rules"][0]["tracks"][0];
    assert_eq!(track["result"]["leafId"], 4);
    assert_eq!(track["experiment"]["weights"], json!([0, 1]));
    assert_eq!(answer["features"]["flag"]["defaultValue"], 2);
}

#[test]
fn hostile_payloads_end() {
    let chain = |index: usize| {
        let parents: Vec<Value> = (0..8)
            .map(|parent| json!({"id": format!("f{}", index + 1 + parent % 2), "condition": {"value": {"$exists": false}}}))
            .collect();
        json!({"defaultValue": 1, "rules": [{"parentConditions": parents, "force": 2}, {"parentConditions": parents, "force": 3}]})
    };
    let features: Map<String, Value> = (0..60)
        .map(|index| (format!("f{index}"), chain(index)))
        .collect();
    let answer = evaluate(&json!({"features": features}), &json!({}), None);
    assert_eq!(answer["features"].as_object().unwrap().len(), 60);
}
