//! Decisions are kept: on every database, at other replicas, through SIGKILL.

use reqwest::Method;
use serde_json::{Value, json};
use stitchd::settings::{Profile, from_toml};

use crate::{
    stand::{ask, default_of, feature, force, furnish, pin, start, text, unpin},
    support::{
        Bed, ENVIRONMENT, TestApp, answer, client, databases::on_each, eventually, process::Process,
    },
};

/// A second replica: the same database and upstream, a backup of its own.
async fn start_second(bed: &Bed) -> (TestApp, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("{}/backup", dir.path().display());
    let own = format!("{}/backup", bed.dir.path().display());
    let settings = from_toml(&text(bed).replacen(&own, &path, 1), Profile::Test).unwrap();
    (TestApp::spawn(settings).await, dir)
}

/// Both serve the same bytes under the same number, with this default.
async fn until_both(one: &TestApp, other: &TestApp, key: &str, value: &Value) {
    eventually(&format!("{key} is {value} on both"), async || {
        let (first, second) = (default_of(one, key).await, default_of(other, key).await);
        (first == *value && second == *value && one.revision() == other.revision()).then_some(())
    })
    .await;
    let path = format!("/v1/snapshot/{ENVIRONMENT}");
    assert_eq!(one.get(&path).await.etag, other.get(&path).await.etag);
}

#[tokio::test]
async fn replicas_share_decisions_whoever_was_asked() {
    on_each(async |backend| {
        let mut bed = Bed::on(&backend);
        furnish(&mut bed);
        let first = start(&bed).await;
        let (second, _dir) = start_second(&bed).await;
        second.until_revision(1).await;
        let set = force(&first, &feature("checkout", "one")).await;
        until_both(&first, &second, "checkout", &json!("one")).await;
        force(&second, &feature("search", 7)).await;
        until_both(&first, &second, "search", &json!(7)).await;
        assert_eq!(
            default_of(&first, "checkout").await,
            "one",
            "both are in force"
        );
        let path = format!("overrides/{}", set["id"].as_str().unwrap());
        let gone = ask(&second, Method::DELETE, &path, &Value::Null).await;
        assert_eq!(gone.status, 200, "{gone:?}");
        until_both(&first, &second, "checkout", &json!("old")).await;
        pin(&second, 1).await;
        bed.upstream
            .set_feature("search", json!({"defaultValue": 3}));
        bed.upstream.set_feature("late", json!({"defaultValue": 1}));
        eventually("the first is pinned too", async || {
            let status = first.status().await;
            status["environments"][ENVIRONMENT]["pinned"]
                .is_object()
                .then_some(())
        })
        .await;
        tokio::join!(first.poll(), second.poll());
        until_both(&first, &second, "late", &Value::Null).await;
        unpin(&first).await;
        until_both(&first, &second, "late", &json!(1)).await;
        first.stop().await;
        second.stop().await;
        let again = start(&bed).await;
        assert_eq!(default_of(&again, "search").await, 7, "{}", backend.name);
        again.stop().await;
    })
    .await;
}

#[tokio::test]
async fn sigkill_right_after_the_answer_keeps_an_override() {
    let mut bed = Bed::new();
    furnish(&mut bed);
    let folder = bed.dir.path().join("settings");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("default.toml"), text(&bed)).unwrap();
    for round in 0..5 {
        let mut process = Process::serve(&folder);
        let (data, admin) = (process.data().await, process.admin().await);
        let http = client();
        let wanted = format!("round-{round}");
        let mut body = feature("checkout", wanted.as_str());
        body["reason"] = json!("it broke");
        let path = format!("{admin}/admin/environments/{ENVIRONMENT}/overrides");
        eventually("the override is set", async || {
            let set = http
                .post(&path)
                .body(body.to_string())
                .send()
                .await
                .unwrap();
            (set.status() == 201).then_some(())
        })
        .await;
        process.kill();
        let mut process = Process::serve(&folder);
        let path = format!("{}/v1/snapshot/{ENVIRONMENT}", process.data().await);
        assert_ne!(path, data);
        eventually("the override is served", async || {
            let served = answer(http.get(&path).send().await.unwrap()).await;
            let value = served.json()["features"]["checkout"]["defaultValue"].clone();
            (value == wanted.as_str()).then_some(())
        })
        .await;
        process.kill();
    }
}
