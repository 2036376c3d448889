//! `stitchd eval` and `stitchd diff`.

use serde_json::{Value, json};

use crate::{
    Folder,
    support::{Bed, process::Ended},
};

fn payload() -> Value {
    json!({"features": {
        "dark-mode": {"defaultValue": false, "rules": [
            {"id": "fr_1", "condition": {"country": {"$in": ["DE"]}}, "force": true}]},
        "button": {"defaultValue": "grey", "rules": [{"id": "fr_2", "key": "colors", "coverage": 1, "hashVersion": 2,
            "variations": ["blue", "green"], "weights": [0, 1], "meta": [{"key": "b"}, {"key": "g"}]}]},
        "five": {"defaultValue": 0, "rules": [{"condition": {"age": 5}, "force": 5}]},
    }, "dateUpdated": "2026-11-20T00:00:00.000Z"})
}

fn folder() -> Folder {
    let folder = Folder::with("");
    folder.write("payload.json", &payload().to_string());
    folder
}

fn eval(folder: &Folder, more: &[&str]) -> Ended {
    folder.run(&[&["eval", "--payload", "payload.json"], more].concat())
}

#[track_caller]
fn output(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn every_feature_is_evaluated_in_the_form_of_growthbook() {
    let found = output(&eval(
        &folder(),
        &["--attributes", r#"{"id":"1","country":"DE"}"#],
    ));
    let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["dark-mode", "button", "five"]);
    assert_eq!(
        found["dark-mode"],
        json!({"value": true, "on": true, "off": false, "source": "force", "ruleId": "fr_1"})
    );
    let button = &found["button"];
    assert_eq!(
        (&button["value"], &button["source"], &button["ruleId"]),
        (&json!("green"), &json!("experiment"), &json!("fr_2"))
    );
    assert_eq!(button["experiment"]["key"], "colors");
    assert_eq!(button["experimentResult"]["variationId"], 1);
}

#[test]
fn one_feature_a_dialect_and_the_reasons_can_be_asked_for() {
    let folder = folder();
    let five = |dialect: &str| {
        let ended = eval(
            &folder,
            &[
                "--attributes",
                r#"{"age":"5"}"#,
                "--feature",
                "five",
                "--dialect",
                dialect,
            ],
        );
        output(&ended)["five"]["value"].clone()
    };
    assert_eq!(five("strict"), 0);
    assert_eq!(five("legacy"), 5);
    let ended = eval(
        &folder,
        &[
            "--attributes",
            r#"{"country":"FR"}"#,
            "--feature",
            "dark-mode",
            "--explain",
        ],
    );
    let found = output(&ended);
    assert_eq!(found.as_object().unwrap().len(), 1);
    let steps = &found["dark-mode"]["explanation"]["steps"];
    assert_eq!(
        steps[0],
        json!({"why": "condition", "failed": {"at": "country.$in", "expected": ["DE"], "found": "FR"},
            "step": "rule_skipped", "feature": "dark-mode", "rule": 0})
    );
    let ended = eval(&folder, &["--attributes", "{}", "--feature", "nobody"]);
    assert_eq!(output(&ended)["nobody"]["source"], "unknownFeature");
}

#[test]
fn what_cannot_be_read_is_one_clear_line() {
    let folder = folder();
    folder.write("list.json", "[]");
    folder.write(
        "secret.json",
        r#"{"features":{},"encryptedFeatures":"x.y"}"#,
    );
    folder.write("empty.json", "{}");
    folder.write("half.json", "{");
    let id = r#"{"id":"1"}"#;
    for (file, attributes, more, says) in [
        ("absent.json", id, "--explain", "absent.json"),
        ("list.json", id, "--explain", "is not a JSON object"),
        ("secret.json", id, "--explain", "is encrypted"),
        ("empty.json", id, "--explain", "has no object `features`"),
        ("half.json", id, "--explain", "half.json is not JSON"),
        ("payload.json", "[]", "--explain", "`--attributes`"),
        ("payload.json", "{", "--explain", "`--attributes`"),
        (
            "payload.json",
            id,
            "--dialect=loose",
            "use strict or legacy",
        ),
    ] {
        let ended = folder.run(&["eval", "--payload", file, "--attributes", attributes, more]);
        assert_eq!(ended.code, Some(2), "{file}: {ended:?}");
        assert!(ended.stderr.contains(says), "{file}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn differences_are_told_item_by_item_and_field_by_field() {
    let folder = folder();
    let same = folder.run(&["diff", "payload.json", "payload.json"]);
    assert_eq!(
        (same.code, same.stdout.as_str()),
        (Some(0), "no differences\n")
    );
    let mut later = payload();
    later["features"]["dark-mode"]["rules"][0]["condition"]["country"]["$in"] = json!(["DE", "FR"]);
    later["features"]["button"]["rules"][0]["weights"] = json!([1, 0]);
    later["features"]["new"] = json!({"defaultValue": 1});
    later["features"]
        .as_object_mut()
        .unwrap()
        .shift_remove("five");
    later["dateUpdated"] = json!("2026-11-21T00:00:00.000Z");
    folder.write("later.json", &later.to_string());
    let ended = folder.run(&["diff", "payload.json", "later.json", "--units", "50"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "changed feature `button`",
            "  rules[0].weights[0]: 0 -> 1",
            "  rules[0].weights[1]: 1 -> 0",
            "changed feature `dark-mode`",
            "  rules[0].condition.country.$in[1]: (absent) -> \"FR\"",
            "removed feature `five`",
            "added feature `new`",
            "units: 50 of 50 (100.00 %) get another answer",
            "  feature `button`: 50 (100.00 %)",
            "  experiment `colors`: 50 (100.00 %)",
        ]
    );
    let ended = folder.run(&["diff", "payload.json", "absent.json"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for named in ["rev:production", "rev:production:x"] {
        let ended = folder.run(&["diff", named, "payload.json"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(named), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn stored_revisions_are_compared_by_number() {
    let bed = Bed::new();
    bed.upstream
        .set_features(json!({"flag": {"defaultValue": 1}}));
    let app = bed.start_loaded().await;
    bed.upstream
        .set_features(json!({"flag": {"defaultValue": 2}}));
    assert_eq!(app.poll().await["revision"], 2);
    app.stop().await;
    let backup = bed.dir.path().join("backup");
    let settings = |url: &str| {
        let dir = backup.display();
        format!("[database]\nurl = \"{url}\"\n[backup]\ndir = \"{dir}\"\n")
    };
    let folder = Folder::with(&settings(&bed.database_url));
    let ended = folder.run(&["diff", "rev:production:1", "rev:production:2"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(1), "changed feature `flag`\n  defaultValue: 1 -> 2\n"),
        "{ended:?}"
    );
    let ended = folder.run(&["diff", "rev:production:2", "rev:production:2"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = folder.run(&["diff", "rev:production:1", "rev:production:9"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no revision 9"), "{}", ended.stderr);
    // Without its database too.
    let folder = Folder::with(&settings("sqlite:///nonexistent/test.db?mode=rw"));
    let ended = folder.run(&["diff", "rev:production:1", "rev:production:2"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(1), "changed feature `flag`\n  defaultValue: 1 -> 2\n"),
        "{ended:?}"
    );
    let ended = folder.run(&["diff", "rev:production:1", "rev:production:9"]);
    assert!(ended.stderr.contains("no revision 9"), "{}", ended.stderr);
    assert!(ended.stderr.contains("the database"), "{}", ended.stderr);
}
