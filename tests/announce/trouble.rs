//! Targets that are of no use, and a revision that is nowhere stored: publishing goes on, and nothing secret is said.

use std::{fs, time::Duration};

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database};
use tokio::time::Instant;

use crate::{
    OF_A_FEATURE, SECRET, Stand, assert_purged, folder, publish, publish_value,
    support::{
        Bed, client, eventually,
        process::Process,
        receiver::{Manner, Receiver},
    },
};

/// How long a publish may take on a busy machine; a target may take as long, and is not waited for.
const PROMPT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn publishing_does_not_wait_for_any_target() {
    let mut receivers = Vec::new();
    for manner in [
        Manner::Hang,
        Manner::Close,
        Manner::Status(500),
        Manner::Slow(Duration::from_millis(900)),
        Manner::With(503, "retry-after: 3600".to_owned()),
    ] {
        let receiver = Receiver::start().await;
        receiver.set(manner);
        receivers.push(receiver);
    }
    let mut gone = Receiver::start().await;
    gone.go_away();
    receivers.push(gone);
    let urls: Vec<String> = receivers.iter().map(Receiver::url).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let mut bed = Bed::new();
    bed.extra = publish(&urls, &urls);
    let app = bed.start_loaded().await;
    let mut times = Vec::new();
    for value in 1..=30 {
        let since = Instant::now();
        let report = publish_value(&bed, &app, value).await;
        times.push(since.elapsed());
        assert_eq!(report["revision"], app.revision());
        let snapshot = app.get("/v1/snapshot/production").await.json();
        assert_eq!(snapshot["features"]["counter"]["defaultValue"], value);
    }
    times.sort_unstable();
    assert!(times[15] < PROMPT / 4, "{times:?}");
    assert!(times[29] < PROMPT, "{times:?}");
    let status = app.status().await;
    assert_eq!(status["actors"]["announcer"]["restarts"], 0, "{status}");
    let since = Instant::now();
    app.stop().await;
    assert!(since.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn nobody_is_told_of_a_revision_that_a_restart_could_take_back() {
    let stand = Stand::new().await;
    let mut options = ConnectOptions::new(&stand.bed.database_url);
    options.max_connections(1);
    let lock = Database::connect(options).await.unwrap();
    lock.execute_unprepared("BEGIN EXCLUSIVE").await.unwrap();
    let backup = stand.bed.dir.path().join("backup");
    let aside = stand.bed.dir.path().join("aside");
    fs::rename(&backup, &aside).unwrap();
    fs::write(&backup, "no folder").unwrap();

    let report = stand.publish(1).await;
    let status = stand.app.status().await;
    let environment = &status["environments"]["production"];
    assert_eq!(environment["durable"], false, "{status}");
    assert_eq!(environment["revision"], report["revision"]);
    // Nothing announces that nothing happens; the actor looks four times a second.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(stand.cache.requests().is_empty() && stand.hook.requests().is_empty());

    fs::remove_file(&backup).unwrap();
    fs::rename(&aside, &backup).unwrap();
    stand.until_told(&OF_A_FEATURE, 1).await;
    lock.execute_unprepared("ROLLBACK").await.unwrap();
    lock.close().await.unwrap();
    stand.app.stop().await;
}

/// One line when a target fails, one when it is back; and no password, token or secret in anything that is said.
#[tokio::test]
async fn a_target_that_fails_is_logged_once_without_its_secrets() {
    let (mut cache, hook) = (Receiver::start().await, Receiver::start().await);
    let mut bed = Bed::new();
    let with_password = |receiver: &Receiver| format!("http://me:hunter2@{}", receiver.address);
    let url = format!("{}/hook?token=hunter2", with_password(&hook));
    bed.extra = publish(&[&with_password(&cache)], &[&url]);
    let folder = folder(&bed);
    let mut process = Process::serve(&folder);
    let (admin, http) = (process.admin().await, client());
    let poll = async |value: u64| {
        let feature = serde_json::json!({"defaultValue": value});
        bed.upstream.set_feature("counter", feature);
        let url = format!("{admin}/admin/poll");
        assert_eq!(http.post(url).send().await.unwrap().status(), 200);
    };
    process.logged("published revision 1 ").await;
    let first = cache.until(10).await;
    let basic = first[0].header("authorization");
    assert_eq!(basic, "Basic bWU6aHVudGVyMg==");
    hook.until(1).await;
    cache.go_away();
    hook.set(Manner::Status(403));
    for value in 1..=3 {
        poll(value).await;
        process.logged(" cannot be told of a new revision").await;
        // Given up this time too.
        let count = hook.requests().len();
        eventually("the webhook was refused", async || {
            (hook.requests().len() >= count).then_some(())
        })
        .await;
    }
    process
        .logged(&format!("cache http://{}/ cannot be told", cache.address))
        .await;
    process
        .logged(&format!(
            "webhook http://{}/hook cannot be told",
            hook.address
        ))
        .await;
    let read = async |path: &str| {
        let answer = http.get(format!("{admin}{path}")).send().await.unwrap();
        answer.text().await.unwrap()
    };
    let mut said = read("/admin/status").await + &read("/metrics").await + &read("/readyz").await;
    cache.come_back().await;
    hook.set(Manner::Status(200));
    poll(4).await;
    process
        .logged(&format!("cache http://{}/ is told again", cache.address))
        .await;
    process
        .logged(&format!(
            "webhook http://{}/hook is told again",
            hook.address
        ))
        .await;
    said += &read("/admin/status").await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    let log = process.log();
    for line in ["cannot be told", "is told again"] {
        let lines = log.iter().filter(|said| said.contains(line)).count();
        assert_eq!(lines, 2, "{line}: {log:#?}");
    }
    said += &log.join("\n");
    for secret in ["hunter2", SECRET, &SECRET[6..], "bWU6aHVudGVyMg"] {
        assert!(!said.contains(secret), "{secret} is in {said}");
    }
    assert!(said.contains(&format!("\"url\":\"http://{}/hook\"", hook.address)));
}

#[tokio::test]
async fn each_replica_purges_and_names_a_revision_alike() {
    let stand = Stand::new().await;
    let mut other = Bed::new();
    other.extra.clone_from(&stand.bed.extra);
    other.database_url.clone_from(&stand.bed.database_url);
    let text = other
        .toml()
        .replace(&other.upstream.base_url(), &stand.bed.upstream.base_url());
    let settings = stitchd::settings::from_toml(&text, stitchd::settings::Profile::Test);
    let replica = crate::support::TestApp::spawn(settings.unwrap()).await;
    assert_eq!(replica.poll().await["outcome"], "unchanged");
    stand.publish(1).await;
    replica.poll().await;
    assert_eq!(replica.revision(), stand.app.revision());
    let requests = stand.hook.until(2).await;
    let ids: Vec<&str> = requests.iter().map(|r| r.header("webhook-id")).collect();
    assert_eq!(ids[0], ids[1]);
    // One knows what has changed, the other has just been started.
    stand
        .cache
        .until(OF_A_FEATURE.len() + crate::ALL.len())
        .await;
    stand.until_idle().await;
    replica.stop().await;
    stand.cache.take();
    stand.publish(2).await;
    stand.cache.until(2).await;
    assert_purged(&stand.cache, &OF_A_FEATURE);
    stand.app.stop().await;
}
