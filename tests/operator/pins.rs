//! Pins: what was served before is served again until that is taken back, whatever happens meanwhile.

use reqwest::Method;
use serde_json::{Value, json};
use stitchd::cli::demo::upstream::{CLIENT_KEY, Connection};

use crate::{
    stand::{
        REMOTE, ask, bytes, default_of, evaluated, feature, features, force, furnish, loaded, pin,
        remove, snapshot, start, start_discovering, start_with, text, unpin,
    },
    support::{Bed, ENVIRONMENT, TestApp, eventually, store},
};

async fn counter(bed: &Bed, app: &TestApp, value: u64) -> Value {
    bed.upstream
        .set_feature("counter", json!({"defaultValue": value}));
    app.poll().await
}

async fn pinned(app: &TestApp) -> Value {
    ask(app, Method::GET, "pin", &Value::Null).await.json()["pinned"].clone()
}

#[tokio::test]
async fn a_pin_holds_until_it_is_taken_back_and_shows_what_was_skipped() {
    let (bed, app) = loaded().await;
    counter(&bed, &app, 1).await;
    let (first, revision) = (bytes(&app).await, app.revision());
    counter(&bed, &app, 2).await;
    let done = pin(&app, revision).await;
    assert_eq!(done["revision"], revision + 2, "a new number");
    assert_eq!(bytes(&app).await, first);
    let report = counter(&bed, &app, 3).await;
    assert_eq!(
        (&report["outcome"], &report["reason"]),
        (&json!("unchanged"), &json!("pinned"))
    );
    counter(&bed, &app, 4).await;
    assert_eq!(
        (bytes(&app).await, app.revision()),
        (first.clone(), revision + 2)
    );
    let shown = pinned(&app).await;
    assert_eq!(
        (&shown["revision"], &shown["skipped"], &shown["differs"]),
        (&json!(revision), &json!(2), &json!(true))
    );
    assert_eq!(
        (&shown["by"], &shown["reason"]),
        (&json!("loopback"), &json!("as on Tuesday"))
    );
    let mut in_status = app.status().await["environments"]["production"]["pinned"].clone();
    in_status["diff"] = shown["diff"].clone();
    assert_eq!(in_status, shown);
    // After a restart, with the upstream away.
    app.stop().await;
    bed.upstream.go_down().await.unwrap();
    let app = start(&bed).await;
    assert_eq!((bytes(&app).await, app.revision()), (first, revision + 2));
    let shown = pinned(&app).await;
    assert_eq!(shown["differs"], true);
    let change = &shown["diff"]["changes"][0];
    assert_eq!(
        (&change["key"], &change["change"]),
        (&json!("counter"), &json!("changed"))
    );
    assert_eq!(
        change["fields"][0],
        json!({"field": "defaultValue", "from": 1, "to": 4})
    );
    assert_eq!(shown["diff"]["changed"], 1);
    bed.upstream.come_back().unwrap();
    assert_eq!(unpin(&app).await["revision"], revision + 3);
    assert_eq!(
        default_of(&app, "counter").await,
        4,
        "what came meanwhile is served"
    );
    assert_eq!(pinned(&app).await, false);
    app.stop().await;
}

#[tokio::test]
async fn overrides_go_on_top_of_a_pin_and_those_of_its_time_do_not_come_back() {
    let (bed, app) = loaded().await;
    counter(&bed, &app, 1).await;
    let first = bytes(&app).await;
    let old = force(&app, &feature("checkout", "then")).await;
    let with_override = old["revision"].as_u64().unwrap();
    remove(&app, &old["id"]).await;
    counter(&bed, &app, 2).await;
    pin(&app, with_override).await;
    assert_eq!(
        bytes(&app).await,
        first,
        "its content, without the override of then"
    );
    let now = force(&app, &feature("checkout", "now")).await;
    let shown = snapshot(&app).await;
    assert_eq!(shown["features"]["checkout"]["defaultValue"], "now");
    assert_eq!(shown["features"]["counter"]["defaultValue"], 1);
    app.stop().await;
    let app = start(&bed).await;
    assert_eq!(default_of(&app, "checkout").await, "now");
    remove(&app, &now["id"]).await;
    assert_eq!(bytes(&app).await, first);
    unpin(&app).await;
    assert_eq!(default_of(&app, "counter").await, 2);
    app.stop().await;
}

#[tokio::test]
async fn a_pin_can_be_moved_and_the_current_content_can_be_pinned() {
    let (bed, app) = loaded().await;
    let mut revisions = Vec::new();
    for value in 1..4 {
        counter(&bed, &app, value).await;
        revisions.push(app.revision());
    }
    pin(&app, revisions[0]).await;
    assert_eq!(default_of(&app, "counter").await, 1);
    pin(&app, revisions[1]).await;
    assert_eq!(default_of(&app, "counter").await, 2);
    let current = app.revision();
    assert_eq!(
        pin(&app, current).await["revision"],
        current,
        "nothing changes"
    );
    counter(&bed, &app, 9).await;
    assert_eq!(default_of(&app, "counter").await, 2);
    unpin(&app).await;
    assert_eq!(default_of(&app, "counter").await, 9);
    app.stop().await;
}

/// A connection that is new, one that is evaluated remotely by now, and one that no longer is.
#[tokio::test]
async fn connections_that_are_newer_than_a_pin_go_on_being_answered() {
    let mut bed = Bed::new();
    furnish(&mut bed);
    bed.upstream.add_connection(Connection::new("sdk-turned"));
    let app = start_discovering(&bed).await;
    counter(&bed, &app, 1).await;
    force(&app, &feature("checkout", "first")).await;
    let first = app.revision();
    bed.upstream.add_connection(Connection::new("sdk-new"));
    bed.upstream.add_connection(Connection {
        remote_eval: true,
        ..Connection::new("sdk-turned")
    });
    bed.upstream.add_connection(Connection::new(REMOTE));
    counter(&bed, &app, 2).await;
    pin(&app, first).await;
    let counters = async |app: &TestApp| {
        let of = |document: Value| document["features"]["counter"]["defaultValue"].clone();
        json!([
            of(features(app, "sdk-new").await),
            of(evaluated(app, "sdk-turned").await),
            of(features(app, REMOTE).await),
            of(features(app, CLIENT_KEY).await),
        ])
    };
    // The new one was never there; the others have what is pinned, in their new form.
    assert_eq!(counters(&app).await, json!([2, 1, 1, 1]));
    let issues = ask(&app, Method::GET, "issues", &Value::Null).await.json();
    let codes = issues.to_string().matches("pin_without_document").count();
    assert_eq!(codes, 1, "{issues}");
    let turned = app.get("/api/features/sdk-turned").await;
    assert_eq!(turned.status, 400, "{turned:?}");
    counter(&bed, &app, 3).await;
    assert_eq!(counters(&app).await, json!([3, 1, 1, 1]));
    // The poll is the cause, and not what once made the pinned revision.
    let newest = format!("revisions/{}", app.revision());
    let newest = ask(&app, Method::GET, &newest, &Value::Null).await.json();
    assert_eq!(
        (&newest["cause"], &newest["author"], &newest["pinned_from"]),
        (&json!("poll gb"), &Value::Null, &json!(first))
    );
    force(&app, &feature("checkout", "fixed")).await;
    let new = features(&app, "sdk-new").await;
    assert_eq!(
        new["features"]["checkout"],
        json!({"defaultValue": "fixed"})
    );

    let revision = app.revision();
    app.stop().await;
    bed.upstream.go_down().await.unwrap();
    let app = start_discovering(&bed).await;
    assert_eq!(counters(&app).await, json!([3, 1, 1, 1]));
    assert_eq!(features(&app, "sdk-new").await, new);
    assert_eq!(app.revision(), revision);
    unpin(&app).await;
    assert_eq!(counters(&app).await, json!([3, 3, 3, 3]));
    app.stop().await;
}

#[tokio::test]
async fn an_input_that_is_held_holds_neither_an_override_nor_a_pin() {
    let (bed, app) = loaded().await;
    counter(&bed, &app, 1).await;
    let first = app.revision();
    counter(&bed, &app, 2).await;
    bed.upstream.set_features(json!({}));
    assert_eq!(app.poll().await["outcome"], "held");
    let set = force(&app, &feature("checkout", "fixed")).await;
    assert_eq!(set["revision"], first + 2);
    assert_eq!(default_of(&app, "checkout").await, "fixed");
    assert_eq!(pin(&app, first).await["revision"], first + 3);
    assert_eq!(default_of(&app, "counter").await, 1);
    assert_eq!(default_of(&app, "checkout").await, "fixed");
    unpin(&app).await;
    assert_eq!(default_of(&app, "counter").await, 2);
    let held = ask(&app, Method::GET, "held", &Value::Null).await.json();
    assert_eq!(held["held"].as_array().unwrap().len(), 1);
    app.stop().await;
}

async fn revisions(app: &TestApp) -> Vec<u64> {
    let page = ask(app, Method::GET, "revisions", &Value::Null)
        .await
        .json();
    let all = page["revisions"].as_array().unwrap().iter();
    all.map(|one| one["revision"].as_u64().unwrap()).collect()
}

/// However old it becomes, another replica may have to look for it.
#[tokio::test]
async fn a_pinned_revision_stays_in_the_history() {
    let mut bed = Bed::new();
    furnish(&mut bed);
    let few = "keep_revisions = 2\n[backup]";
    let app = start_with(&text(&bed).replacen("[backup]", few, 1)).await;
    counter(&bed, &app, 1).await;
    let wanted = app.revision();
    pin(&app, wanted).await;
    for value in 0..6 {
        force(&app, &feature("search", value)).await;
    }
    let newest = app.revision();
    let left = [newest, newest - 1, wanted];
    eventually("older ones are deleted", async || {
        (revisions(&app).await == left).then_some(())
    })
    .await;
    let database = store(&bed.database_url, bed.dir.path());
    let found = database.database().revision(ENVIRONMENT, wanted).await;
    assert!(found.unwrap().is_some(), "the database has it");
    unpin(&app).await;
    counter(&bed, &app, 2).await;
    eventually("it is not kept any more", async || {
        (!revisions(&app).await.contains(&wanted)).then_some(())
    })
    .await;
    app.stop().await;
}

/// Another replica pins a revision that is not to be had here: what is served stays, and is never taken for it.
#[tokio::test]
async fn while_pinned_content_is_lost_nothing_else_is_taken_for_it() {
    let (bed, app) = loaded().await;
    let beside = store(&bed.database_url, bed.dir.path());
    let database = beside.database();
    let say = async |value: Option<Value>| {
        let mut known = database.load_registers(ENVIRONMENT).await.unwrap();
        known.registers.set("pin", value, i64::MAX / 2);
        let saved = database.save_registers(ENVIRONMENT, known.version, &known.registers, 0);
        assert!(saved.await.unwrap());
    };
    let lost = json!({"revision": 90, "reason": "as on Tuesday", "by": "ann", "at_ms": 1});
    say(Some(lost)).await;
    eventually("it is not found", async || {
        let error = pinned(&app).await["error"].clone();
        error.is_string().then_some(())
    })
    .await;
    force(&app, &feature("search", 77)).await;
    assert_eq!(default_of(&app, "search").await, 77);
    let now = format!("revisions/{}", app.revision());
    let shown = ask(&app, Method::GET, &now, &Value::Null).await.json();
    assert_eq!(shown["pinned_from"], Value::Null, "{shown}");
    // It is looked for again by itself.
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    assert!(pinned(&app).await["error"].is_string());
    say(None).await;
    counter(&bed, &app, 5).await;
    eventually("what is new is served", async || {
        (default_of(&app, "counter").await == 5).then_some(())
    })
    .await;
    app.stop().await;
}
