//! Three incidents that happened elsewhere, and what stitchd did.

use serde_json::{Value, json};
use stitchd::cli::demo::upstream::{CLIENT_KEY, feature, many_experiments, many_features};

use crate::{
    stand::{assert_held, bed, counts, held, keep_experiments, only_held, start},
    support::{Bed, ENVIRONMENT, TestApp},
};

/// A payload in which every feature stands twice under its own key.
fn with_duplicate_rows(features: &Value) -> String {
    let members = features.as_object().unwrap().iter();
    let rows: Vec<String> = members
        .map(|(key, definition)| format!("{}:{definition}", json!(key)))
        .collect();
    format!(
        "{{\"status\":200,\"features\":{{{0},{0}}}}}",
        rows.join(",")
    )
}

/// A payload that has every feature a second time under another key, as rows from another schema would be.
fn with_foreign_rows(features: &Value) -> String {
    let mut doubled = features.as_object().unwrap().clone();
    for (key, definition) in features.as_object().unwrap() {
        doubled.insert(format!("{key} (r0)"), definition.clone());
    }
    json!({"status": 200, "features": doubled}).to_string()
}

/// A permission change made a query return every row twice; the file doubled, passed a limit at its consumers, and they
/// crashed. Good and bad files alternated.
#[tokio::test]
async fn the_doubled_file() {
    let bed = Bed::new();
    let features = many_features(120, 3);
    bed.upstream.set_features(features.clone());
    let experiments = many_experiments(60);
    bed.upstream.set_experiments(experiments.clone());
    let app = start(&bed).await;
    let before = app.served().await;

    // Rows that are the same twice are one: not a byte changes, and an issue says so.
    bed.upstream
        .set_payload(CLIENT_KEY, with_duplicate_rows(&features));
    let twice: Vec<Value> = experiments.iter().chain(&experiments).cloned().collect();
    bed.upstream.set_experiments(twice);
    for _ in 0..2 {
        assert_eq!(app.poll().await["outcome"], "unchanged");
        assert_eq!(before, app.served().await);
    }
    let path = format!("/admin/environments/{ENVIRONMENT}/issues");
    let issues = String::from_utf8(app.admin_get(&path).await.body.to_vec()).unwrap();
    assert!(issues.contains("duplicate_key"), "{issues}");

    // Rows that are there a second time under other keys double the file: it is held, and each good file ends that.
    bed.upstream.set_experiments(experiments);
    bed.upstream.clear_payload(CLIENT_KEY);
    assert_eq!(app.poll().await["outcome"], "unchanged");
    for _ in 0..3 {
        bed.upstream
            .set_payload(CLIENT_KEY, with_foreign_rows(&features));
        assert_held(&app, "growth").await;
        let growth = only_held(&app).await["reasons"][0].clone();
        assert!(growth["after"].as_u64() > growth["before"].as_u64().map(|b| 2 * b));
        bed.upstream.clear_payload(CLIENT_KEY);
        assert_eq!(app.poll().await["outcome"], "unchanged");
        assert_eq!(held(&app).await, [Value::Null; 0]);
        assert_eq!(before, app.served().await);
    }
    assert_eq!(app.revision(), 1);
    app.stop().await;
}

/// Fails unless the service answers, with nothing moved.
async fn assert_alive(
    app: &TestApp,
    before: &std::collections::BTreeMap<String, crate::support::Answer>,
) {
    assert_eq!(*before, app.served().await);
    assert_eq!(app.admin_get("/readyz").await.status, 200);
    let status = app.status().await;
    for (name, actor) in status["actors"].as_object().unwrap() {
        assert_eq!(actor["restarts"], 0, "{name}");
    }
}

/// A policy row with blank fields was replicated everywhere within seconds, and every consumer crashed on it.
#[tokio::test]
async fn the_blank_fields() {
    let bed = bed();
    let app = start(&bed).await;
    let before = app.served().await;
    let blanks = [
        json!(""),
        json!({"defaultValue": "", "rules": ""}),
        json!({"defaultValue": false, "rules": [{"key": "", "variations": "", "weights": ""}]}),
        json!({"defaultValue": false, "rules": [""]}),
    ];
    // A row whose fields are blank is quarantined: its last good version is served.
    for blank in blanks {
        bed.upstream.set_feature("feature-00002", blank.clone());
        bed.upstream.update_experiment("experiment-00002", |e| {
            e["phases"] = json!("");
            e["variations"] = json!("");
        });
        assert_eq!(app.poll().await["outcome"], "unchanged", "{blank}");
        assert_alive(&app, &before).await;
    }
    // Blank where blank is well-formed: the rows are there and say nothing. Their experiments would all be over.
    let blank: serde_json::Map<String, Value> = bed
        .upstream
        .features()
        .into_iter()
        .map(|(key, _)| (key, json!({"defaultValue": "", "rules": []})))
        .collect();
    bed.upstream.set_features(Value::Object(blank));
    assert_held(&app, "shrink").await;
    assert_alive(&app, &before).await;
    app.stop().await;
}

/// The same of flags without any experiment: every value would become null.
#[tokio::test]
async fn the_blank_flags() {
    let bed = Bed::new();
    let flags = |definition: &Value| -> Value {
        let flags = (0..100).map(|i| (format!("flag-{i}"), definition.clone()));
        flags.collect::<serde_json::Map<_, _>>().into()
    };
    bed.upstream
        .set_features(flags(&json!({"defaultValue": true})));
    let app = start(&bed).await;
    let before = app.served().await;
    for blank in [json!({}), json!({"defaultValue": null, "rules": []})] {
        bed.upstream.set_features(flags(&blank));
        assert_held(&app, "shrink").await;
        let reason = only_held(&app).await["reasons"][0].clone();
        assert_eq!(
            reason["message"],
            "nothing is left of 100 features: 100 are blank"
        );
        assert_alive(&app, &before).await;
    }
    app.stop().await;
}

/// A cache table was empty after a change and was served as "no experiments" for ten minutes.
#[tokio::test]
async fn the_empty_cache_table() {
    let bed = bed();
    let app = start(&bed).await;
    let before = app.served().await;
    keep_experiments(&bed, 0);
    for repeats in 0..3 {
        assert_held(&app, "empty_experiments").await;
        assert_eq!(only_held(&app).await["repeats"], repeats);
        assert_alive(&app, &before).await;
    }
    // Everything else goes on.
    bed.upstream.set_feature("meanwhile", feature(true));
    assert_eq!(app.poll().await["outcome"], "published");
    assert_eq!(counts(&app).await, (13, 12));
    // A start with the table still empty serves what was served.
    let before = app.served().await;
    app.stop().await;
    let app = start(&bed).await;
    assert_eq!(before, app.served().await);
    bed.upstream.set_experiments(many_experiments(12));
    assert_eq!(app.poll().await["outcome"], "unchanged");
    assert_eq!(held(&app).await, [Value::Null; 0]);
    app.stop().await;
}
