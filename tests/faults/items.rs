//! Large lists, and one bad item in them: the others are published in the same poll.

use serde_json::{Value, json};
use stitchd::cli::demo::upstream::{
    ExperimentExt as _, Route, experiment, many_experiments, many_features,
};

use crate::{
    stand::{self, DISCOVER, assert_report, assert_unmoved, json_body, snapshot},
    support::{Bed, SOURCE, TestApp},
};

#[tokio::test]
async fn two_hundred_and_fifty_experiments_on_three_pages_all_arrive() {
    let bed = Bed::new();
    bed.upstream.set_experiments(many_experiments(250));
    let app = stand::start(&bed, &[]).await;
    assert_eq!(bed.upstream.request_count(Route::Experiments), 3);
    let wanted: Vec<String> = (0..250).map(|i| format!("experiment-{i:05}")).collect();
    assert_eq!(stand::experiments(&app).await, wanted);
    for query in ["format=analytics", "authority=mediawiki&format=config"] {
        let list = app
            .get(&format!("/api/v1/experiments?{query}"))
            .await
            .json();
        let names = list
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["name"].as_str().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), wanted, "{query}");
    }
    let map = app
        .get("/api/v1/experiments?authority=varnish&format=config")
        .await
        .json();
    assert_eq!(map.as_object().unwrap().len(), 250);
    app.stop().await;
}

/// The bad feature keeps its last good version, also over a restart, until it is good again.
async fn one_bad_feature(bed: &Bed, changes: &[stand::Change<'_>]) {
    bed.upstream.set_features(many_features(500, 3));
    let app = stand::start(bed, changes).await;
    let good = snapshot(&app).await["features"].clone();
    let mut features = bed.upstream.features();
    for (key, feature) in &mut features {
        feature["defaultValue"] = json!(format!("new {key}"));
    }
    features["feature-00250"]["rules"][1]["coverage"] = json!({"not": "a number"});
    features["feature-00250"]["rules"] = json!("no list");
    bed.upstream.set_features(Value::Object(features));

    assert_report(&app.poll().await, "published", &[], "");
    let check = async |app: &TestApp| {
        let served = snapshot(app).await["features"].clone();
        assert_eq!(served.as_object().unwrap().len(), 500);
        for (key, feature) in served.as_object().unwrap() {
            if key == "feature-00250" {
                assert_eq!(*feature, good[key]);
            } else {
                assert_eq!(feature["defaultValue"], format!("new {key}"));
            }
        }
        let issues = stand::issues(app).await;
        let bad: Vec<&Value> = issues
            .iter()
            .filter(|i| i["code"] == "quarantined")
            .collect();
        assert_eq!(bad.len(), 1, "{issues:?}");
        assert_eq!(bad[0]["path"], "features.feature-00250.rules");
        assert_eq!(bad[0]["source"], SOURCE);
        assert!(
            bad[0]["message"]
                .as_str()
                .unwrap()
                .contains("last good version")
        );
    };
    check(&app).await;
    let before = app.served().await;
    assert_report(&app.poll().await, "unchanged", &[], "");
    app.stop().await;

    let app = stand::start(bed, changes).await;
    check(&app).await;
    assert_unmoved("restart", &before, &app.served().await);
    bed.upstream
        .set_feature("feature-00250", json!({"defaultValue": "mended"}));
    assert_report(&app.poll().await, "published", &[], "");
    let served = snapshot(&app).await;
    assert_eq!(
        served["features"]["feature-00250"]["defaultValue"],
        "mended"
    );
    assert!(!stand::has_issue(
        &stand::issues(&app).await,
        "quarantined",
        ""
    ));
    app.stop().await;
}

#[tokio::test]
async fn one_bad_feature_among_500() {
    one_bad_feature(&Bed::new(), &[]).await;
}

#[tokio::test]
async fn one_bad_feature_among_500_of_a_remote_evaluation_connection() {
    let bed = Bed::new();
    let connections = stand::remote_eval(&bed);
    one_bad_feature(&bed, &[("client_key = \"sdk-demo\"", &connections)]).await;
}

#[tokio::test]
async fn one_bad_experiment_among_500() {
    let bed = Bed::new();
    bed.upstream.set_experiments(many_experiments(500));
    let app = stand::start(&bed, &[]).await;
    let good = snapshot(&app).await["experiments"][250].clone();
    let changed = |(i, e): (usize, Value)| {
        let e = e.with_member("hypothesis", json!(format!("new {i}")));
        if i == 250 {
            e.with_member("variations", json!(7))
        } else {
            e
        }
    };
    let list = many_experiments(500).into_iter().enumerate().map(changed);
    bed.upstream.set_experiments(list.collect());

    assert_report(&app.poll().await, "published", &[], "");
    let check = async |app: &TestApp| {
        let served = snapshot(app).await["experiments"]
            .as_array()
            .unwrap()
            .clone();
        assert_eq!(served.len(), 500);
        for (i, experiment) in served.iter().enumerate() {
            if i == 250 {
                assert_eq!(*experiment, good);
            } else {
                assert_eq!(experiment["hypothesis"], format!("new {i}"));
            }
        }
        let map = app
            .get("/api/v1/experiments?authority=varnish&format=config")
            .await
            .json();
        assert_eq!(map.as_object().unwrap().len(), 500);
        let issues = stand::issues(app).await;
        assert!(
            stand::has_issue(&issues, "quarantined", "experiments.experiment-00250"),
            "{issues:?}"
        );
        assert_eq!(
            issues.iter().filter(|i| i["code"] == "quarantined").count(),
            1
        );
    };
    check(&app).await;
    let before = app.served().await;
    app.stop().await;

    let app = stand::start(&bed, &[]).await;
    assert_report(&app.poll().await, "unchanged", &[], "");
    check(&app).await;
    assert_unmoved("restart", &before, &app.served().await);
    bed.upstream.upsert_experiment(
        experiment("experiment-00250").with_member("hypothesis", json!("mended")),
    );
    assert_report(&app.poll().await, "published", &[], "");
    assert_eq!(
        snapshot(&app).await["experiments"][250]["hypothesis"],
        "mended"
    );
    app.stop().await;
}

/// An item that never had a good version is left out alone; one without a readable id too.
#[tokio::test]
async fn new_items_that_are_bad_are_left_out_alone() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    bed.upstream.set_feature("bad", json!([1]));
    bed.upstream.set_feature("good", json!({"defaultValue": 1}));
    let mut list = bed.upstream.experiments();
    list.push(experiment("nameless").with_member("id", json!({})));
    list.push(experiment("bad").with_member("phases", json!([7])));
    list.push(experiment("good"));
    bed.upstream.set_experiments(list);
    assert_report(&app.poll().await, "published", &[], "");
    let served = snapshot(&app).await;
    assert!(served["features"].get("bad").is_none());
    assert!(served["features"].get("good").is_some());
    assert_eq!(
        stand::experiments(&app).await,
        ["good", "search-box-2026", "sticky-header-2026"]
    );
    let issues = stand::issues(&app).await;
    for path in ["features.bad", "experiments.exp_bad", "experiments["] {
        assert!(
            stand::has_issue(&issues, "quarantined", path),
            "{path}: {issues:?}"
        );
    }
    app.stop().await;
}

/// A connection is no item: leaving it out would take all its features away, so the list is refused as a whole.
#[tokio::test]
async fn one_bad_connection_among_500_changes_nothing() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[DISCOVER]).await;
    let before = app.served().await;
    let connection = |i: usize| {
        let mut one = json!({"key": format!("sdk-{i}"), "environment": "dev", "projects": []});
        if i == 250 {
            one["key"] = json!(null);
        }
        one
    };
    let mut list: Vec<Value> = (0..499).map(connection).collect();
    list.push(json!({"key": "sdk-demo", "environment": "production", "projects": []}));
    let list = json!({"connections": list, "total": 500, "hasMore": false});
    bed.upstream
        .set_fault(Route::Connections, json_body(&list.to_string()));
    assert_report(
        &app.poll().await,
        "unchanged",
        &["connections"],
        "connections: bad_shape: ",
    );
    assert_unmoved("bad connection", &before, &app.served().await);
    // The connections known before are still asked.
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    assert_report(
        &app.poll().await,
        "published",
        &["connections"],
        "connections: bad_shape: ",
    );
    app.stop().await;
}
