//! The history over HTTP: lists, what is known about a revision, its bytes, and what differs.

use serde_json::{Value, json};

use crate::{
    at_revision, publish,
    support::{
        Answer, Bed, ENVIRONMENT, SOURCE, TestApp, answer,
        databases::on_each,
        eventually,
        proxy::Wire,
        trouble::{Case, cases_with},
    },
    until_written,
};

fn at(rest: &str) -> String {
    format!("/admin/environments/{ENVIRONMENT}/revisions{rest}")
}

async fn get(app: &TestApp, rest: &str) -> Value {
    let answer = app.admin_get(&at(rest)).await;
    assert_eq!(answer.status, 200, "{rest}: {answer:?}");
    answer.json()
}

/// Status, code and field of a refusal.
async fn refused(app: &TestApp, rest: &str) -> (u16, Value) {
    let answer = app.admin_get(&at(rest)).await;
    (answer.status, answer.json())
}

fn numbers(page: &Value) -> Vec<u64> {
    let revisions = page["revisions"].as_array().unwrap().iter();
    revisions
        .map(|one| one["revision"].as_u64().unwrap())
        .collect()
}

/// The snapshot of a revision is what was served, bytes and tag.
async fn check_bytes(app: &TestApp, number: u64, served: &Answer, name: &str) {
    let old = app.admin_get(&at(&format!("/{number}/snapshot"))).await;
    assert_eq!(old.status, 200, "{name}: {number}: {old:?}");
    assert_eq!(
        (&old.body, &old.etag),
        (&served.body, &served.etag),
        "{name}: {number}"
    );
}

#[tokio::test]
async fn pages_lead_from_the_newest_revision_to_the_first() {
    on_each(async |backend| {
        let name = backend.name;
        let bed = Bed::on(&backend);
        let (app, _) = at_revision(&bed, 5).await;
        let all = get(&app, "").await;
        assert_eq!(numbers(&all), [5, 4, 3, 2, 1], "{name}");
        assert_eq!(
            (&all["next"], &all["environment"]),
            (&Value::Null, &json!(ENVIRONMENT))
        );
        assert!(all.get("error").is_none(), "{name}: {all}");
        let current: Vec<bool> = all["revisions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["current"].as_bool().unwrap())
            .collect();
        assert_eq!(current, [true, false, false, false, false], "{name}");

        let mut seen = Vec::new();
        let mut rest = "?limit=2".to_owned();
        loop {
            let page = get(&app, &rest).await;
            seen.extend(numbers(&page));
            match page["next"].as_u64() {
                Some(next) => rest = format!("?limit=2&before={next}"),
                None => break,
            }
        }
        assert_eq!(seen, [5, 4, 3, 2, 1], "{name}");
        for (rest, field) in [
            ("?limit=0", "limit"),
            ("?limit=1001", "limit"),
            ("?limit=x", "limit"),
            ("?before=-1", "before"),
            ("?befor=3", "befor"),
            ("/x", "revision"),
            ("/1/diff/-2", "other"),
        ] {
            let (status, problem) = refused(&app, rest).await;
            assert_eq!((status, &problem["field"]), (400, &json!(field)), "{rest}");
        }
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_revision_says_where_it_came_from_what_is_wrong_with_it_and_what_it_served() {
    on_each(async |backend| {
        let name = backend.name;
        let bed = Bed::on(&backend);
        bed.upstream.set_feature(
            "odd",
            json!({"defaultValue": 1, "rules": [{"coverage": 2, "force": 2}]}),
        );
        let (app, served) = at_revision(&bed, 3).await;
        // A poll without news changes nothing about the input that a revision was made of.
        assert_eq!(app.poll().await["outcome"], "unchanged");
        let list = get(&app, "").await;
        for (number, served) in (1_u64..).zip(&served) {
            let listed = &list["revisions"][3 - usize::try_from(number).unwrap()];
            let one = get(&app, &format!("/{number}")).await;
            for member in [
                "hash",
                "published_at",
                "cause",
                "features",
                "experiments",
                "size_bytes",
                "sources",
                "current",
                "revision",
            ] {
                assert_eq!(one[member], listed[member], "{name}: {member}");
                assert!(!one[member].is_null(), "{name}: {member}");
            }
            for member in ["author", "reason", "pinned_from"] {
                assert!(one[member].is_null(), "{name}: {member}");
            }
            assert_eq!(one["cause"], format!("poll {SOURCE}"), "{name}");
            let snapshot = served.json();
            let features = snapshot["features"].as_object().unwrap().len();
            assert_eq!(one["features"], features, "{name}");
            assert_eq!(
                listed["issues"],
                json!({"errors": 0, "warnings": 1}),
                "{name}"
            );
            assert_eq!(one["issues"]["items"][0]["code"], "odd_coverage", "{name}");
            let document = one["documents"]
                .as_array()
                .unwrap()
                .iter()
                .find(|document| document["name"] == "snapshot")
                .unwrap();
            assert_eq!(document["size_bytes"], served.body.len(), "{name}");
            assert_eq!(document["etag"].as_str(), served.etag.as_deref(), "{name}");
            check_bytes(&app, number, served, name).await;
        }
        let digest = |at: usize| &list["revisions"][at]["sources"][SOURCE]["digest"];
        assert_eq!(digest(0).as_str().unwrap().len(), 64, "{name}");
        assert_ne!(digest(0), digest(1), "{name}");
        app.stop().await;

        // After a restart the next revision is made of what was stored.
        let app = bed.start().await;
        publish(&bed, &app, 99).await;
        let after = get(&app, "?limit=2").await;
        assert_eq!(after["revisions"][1], {
            let mut third = list["revisions"][0].clone();
            third["current"] = json!(false);
            third
        });
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_bytes_of_a_revision_are_revalidated_and_never_cached() {
    let bed = Bed::new();
    let (app, served) = at_revision(&bed, 2).await;
    let url = format!("{}{}", app.admin, at("/1/snapshot"));
    let tag = served[0].etag.clone().unwrap();
    let known = app
        .http
        .get(&url)
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(known.status(), 304);
    assert_eq!(known.headers()["etag"], tag.as_str());
    assert_eq!(known.headers()["x-config-revision"], "1");
    assert_eq!(known.headers()["cache-control"], "no-store");
    let head = app.http.head(&url).send().await.unwrap();
    assert_eq!(
        head.headers()["content-type"],
        "application/json; charset=utf-8"
    );
    let other = app
        .http
        .get(&url)
        .header("if-none-match", "\"x\"")
        .send()
        .await
        .unwrap();
    assert_eq!(answer(other).await.body, served[0].body);
    app.stop().await;
}

#[tokio::test]
async fn a_difference_names_item_field_and_documents() {
    on_each(async |backend| {
        let name = backend.name;
        let bed = Bed::on(&backend);
        bed.upstream.set_feature("gone", json!({"defaultValue": 1}));
        let (app, _) = at_revision(&bed, 1).await;
        let mut features = bed.upstream.features();
        features.remove("gone");
        features.insert("new".to_owned(), json!({"defaultValue": null}));
        bed.upstream.set_features(features.into());
        publish(&bed, &app, 7).await;
        publish(&bed, &app, 8).await;
        until_written(&app).await;

        let diff = get(&app, "/2/diff/3").await;
        assert_eq!(
            diff["changes"],
            json!([{"kind": "feature", "key": "counter", "change": "changed",
                "fields": [{"field": "defaultValue", "from": 7, "to": 8}]}]),
            "{name}"
        );
        let documents = |diff: &Value| -> Vec<String> {
            let names = diff["documents"].as_array().unwrap().iter();
            names
                .map(|one| one["name"].as_str().unwrap().to_owned())
                .collect()
        };
        let payload = format!("features/{}", stitchd::cli::demo::upstream::CLIENT_KEY);
        assert_eq!(documents(&diff), [payload.as_str(), "snapshot"], "{name}");

        let diff = get(&app, "/1/diff/2").await;
        assert_eq!(
            (
                &diff["from"],
                &diff["to"],
                &diff["added"],
                &diff["removed"],
                &diff["changed"]
            ),
            (&json!(1), &json!(2), &json!(2), &json!(1), &json!(0)),
            "{name}: {diff}"
        );
        let kinds: Vec<(&str, &str)> = diff["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                (
                    one["key"].as_str().unwrap(),
                    one["change"].as_str().unwrap(),
                )
            })
            .collect();
        let expected = [("counter", "added"), ("gone", "removed"), ("new", "added")];
        assert_eq!(kinds, expected, "{name}");
        let same = get(&app, "/2/diff/2").await;
        assert_eq!(
            (&same["changes"], &same["documents"]),
            (&json!([]), &json!([]))
        );
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_404_and_the_range_is_named() {
    let bed = Bed::new();
    let (app, _) = at_revision(&bed, 2).await;
    for rest in ["/9", "/9/snapshot", "/9/diff/1", "/1/diff/9", "/0"] {
        let (status, problem) = refused(&app, rest).await;
        assert_eq!(status, 404, "{rest}: {problem}");
        assert_eq!(problem["code"], "unknown_revision", "{rest}");
        assert_eq!(
            (&problem["oldest"], &problem["newest"]),
            (&json!(1), &json!(2))
        );
    }
    let other = app.admin_get("/admin/environments/nope/revisions").await;
    assert_eq!(
        (other.status, &other.json()["code"]),
        (404, &json!("unknown_environment"))
    );
    app.stop().await;
}

async fn outage(mut case: Case) {
    let name = &case.name;
    let (app, mut served) = at_revision(&case.bed, 5).await;
    case.trouble.begin().await;
    served.push(publish(&case.bed, &app, 6).await);
    eventually("the backup has it", async || {
        let page = get(&app, "").await;
        assert!(page["error"].is_string(), "{name}: {page}");
        (numbers(&page) == [6, 5, 4]).then_some(())
    })
    .await;
    check_bytes(&app, 5, &served[4], name).await;
    let diff = get(&app, "/5/diff/6").await;
    assert_eq!(diff["changes"][0]["key"], "counter", "{name}: {diff}");
    let (status, problem) = refused(&app, "/1").await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("revision_unavailable")),
        "{name}"
    );

    case.trouble.end().await;
    until_written(&app).await;
    let page = get(&app, "").await;
    assert_eq!(numbers(&page), [6, 5, 4, 3, 2, 1], "{name}");
    for (number, served) in (1..).zip(&served) {
        check_bytes(&app, number, served, name).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn without_its_database_a_list_says_that_it_is_not_whole() {
    for case in cases_with(Wire::Cut).await {
        outage(case).await;
    }
}
