//! What was said of tokens is kept: through restarts, SIGKILL, without the database, and at other replicas.

use std::time::Duration;

use serde_json::json;
use stitchd::settings::{Profile, from_toml};
use tokio::time::Instant;

use crate::{
    ask, of_kind, status,
    support::{
        Bed, ENVIRONMENT, TestApp,
        databases::on_each,
        eventually,
        process::Process,
        proxy::{Proxy, Wire},
    },
};

/// A second replica: the same database and upstream, a backup of its own.
async fn start_second(bed: &Bed) -> (TestApp, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let own = format!("{}/backup", bed.dir.path().display());
    let path = format!("{}/backup", dir.path().display());
    let settings = from_toml(&bed.toml().replacen(&own, &path, 1), Profile::Test).unwrap();
    (TestApp::spawn(settings).await, dir)
}

fn delete_database(bed: &Bed) {
    for file in std::fs::read_dir(bed.dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test]
async fn replicas_know_a_token_when_it_is_shown_and_its_end_within_seconds() {
    on_each(async |backend| {
        let bed = Bed::on(&backend);
        let first = bed.start_loaded().await;
        let (second, _dir) = start_second(&bed).await;
        second.until_revision(1).await;
        let (id, secret) = first.token(&of_kind("frontend")).await;
        eventually("the other replica knows it", async || {
            (status(&second, &secret).await == 200).then_some(())
        })
        .await;
        let since = Instant::now();
        let revoked = second.admin_delete(&format!("/admin/tokens/{id}")).await;
        assert_eq!(revoked.status, 200);
        assert_eq!(status(&second, &secret).await, 401, "{}", backend.name);
        eventually("the first replica knows its end", async || {
            (status(&first, &secret).await == 401).then_some(())
        })
        .await;
        let took = since.elapsed();
        // The poll of the database is once a second; the rest is for a busy machine.
        assert!(took < Duration::from_secs(20), "{}: {took:?}", backend.name);
        first.stop().await;
        second.stop().await;
        let again = bed.start().await;
        assert_eq!(status(&again, &secret).await, 401, "{}", backend.name);
        again.stop().await;
    })
    .await;
}

#[tokio::test]
async fn without_the_database_tokens_are_made_and_revoked_and_it_learns_of_them_later() {
    on_each(async |backend| {
        // SQLite has no wire that could be cut.
        if backend.name == "sqlite" {
            return;
        }
        let (proxy, url) = Proxy::in_front_of(&backend).await;
        let mut bed = Bed::on(&backend);
        bed.database_url = url;
        let app = bed.start_loaded().await;
        let (id, kept) = app.token(&of_kind("client")).await;
        let (_, other) = app.token(&of_kind("client")).await;
        proxy.set(Wire::Cut);
        let revoked = app.admin_delete(&format!("/admin/tokens/{id}")).await;
        assert_eq!(revoked.json()["durable"], true, "{revoked:?}");
        let (_, made) = app.token(&of_kind("client")).await;
        app.stop().await;

        // The backup alone knows all of it.
        let app = bed.start().await;
        assert_eq!(status(&app, &kept).await, 401);
        assert_eq!(status(&app, &other).await, 200);
        assert_eq!(status(&app, &made).await, 200);
        proxy.set(Wire::Pass);
        eventually("the database has it", async || {
            let metrics = app.admin_get("/metrics").await;
            let text = String::from_utf8(metrics.body.to_vec()).unwrap();
            text.contains("stitchd_tokens_unwritten 0\n").then_some(())
        })
        .await;
        app.stop().await;
        let (second, _dir) = start_second(&bed).await;
        eventually("a replica without that backup knows it", async || {
            (status(&second, &made).await == 200).then_some(())
        })
        .await;
        assert_eq!(status(&second, &kept).await, 401, "{}", backend.name);
        second.stop().await;
    })
    .await;
}

#[tokio::test]
async fn sigkill_right_after_the_answer_keeps_a_revocation() {
    let bed = Bed::new();
    let folder = bed.dir.path().join("settings");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("default.toml"), bed.toml()).unwrap();
    let http = crate::support::client();
    let mut process = Process::serve(&folder);
    process.logged("published revision 1 ").await;
    let admin = process.admin().await;
    let make = async |admin: &str| {
        let request = http
            .post(format!("{admin}/admin/tokens"))
            .body(of_kind("server").to_string());
        let made = request.send().await.unwrap().bytes().await.unwrap();
        let made: serde_json::Value = serde_json::from_slice(&made).unwrap();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("id"), text("secret"))
    };
    let (id, revoked) = make(&admin).await;
    let (_, kept) = make(&admin).await;
    let answer = http
        .delete(format!("{admin}/admin/tokens/{id}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    process.kill();

    let mut process = Process::serve(&folder);
    let data = process.data().await;
    let status = async |secret: &str| {
        let request = http
            .get(format!("{data}/api/frontend"))
            .header("authorization", secret);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(&kept).await, 200);
    assert_eq!(status(&revoked).await, 401);
}

/// Clients go quiet for minutes at a 401: before anybody knows which tokens there are it is "not now".
#[tokio::test]
async fn before_the_database_was_asked_an_unknown_token_is_not_refused_for_good() {
    on_each(async |backend| {
        if backend.name == "sqlite" {
            return;
        }
        let (proxy, url) = Proxy::in_front_of(&backend).await;
        let mut bed = Bed::on(&backend);
        let app = bed.start_loaded().await;
        let (_, secret) = app.token(&of_kind("frontend")).await;
        app.stop().await;
        // A machine of its own, with nothing on its disk.
        bed.database_url = url;
        proxy.set(Wire::Cut);
        let (app, _dir) = start_second(&bed).await;
        app.until_revision(1).await;
        let answer = ask(&app, &secret).await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "5");
        proxy.set(Wire::Pass);
        eventually("it is known", async || {
            (status(&app, &secret).await == 200).then_some(())
        })
        .await;
        let unknown = secret.replace("*:", "shop:");
        assert_eq!(status(&app, &unknown).await, 401, "{}", backend.name);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_token_is_the_end_of_its_streams() {
    let mut bed = Bed::new();
    bed.extra = "[http]\nstream_keepalive = \"500ms\"".to_owned();
    let app = bed.start_loaded().await;
    let (client, secret) = app.token(&of_kind("client")).await;
    let (server, server_secret) = app.token(&of_kind("server")).await;
    let open = async |path: String, secret: &str| {
        let request = app.http.get(format!("{}{path}", app.data));
        let stream = request
            .header("authorization", secret)
            .send()
            .await
            .unwrap();
        assert_eq!(stream.status(), 200, "{path}");
        stream
    };
    let stream = format!("/v1/stream/{ENVIRONMENT}");
    let mut streams = vec![
        open("/ofrep/v1/events".to_owned(), &secret).await,
        open(format!("/sub/{secret}"), "").await,
        open(stream.clone(), &server_secret).await,
    ];
    let mut public = open(stream, "").await;
    for id in [&client, &server] {
        app.admin_delete(&format!("/admin/tokens/{id}")).await;
    }
    let since = Instant::now();
    for stream in &mut streams {
        let end = async { while stream.chunk().await.unwrap().is_some() {} };
        tokio::time::timeout(Duration::from_secs(10), end)
            .await
            .unwrap();
    }
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    // Nobody's stream goes on.
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    app.poll().await;
    let mut seen = String::new();
    while !seen.contains("\"revision\":2") {
        let chunk = public.chunk().await.unwrap().expect("it goes on");
        seen += &String::from_utf8_lossy(&chunk);
    }
    drop(public);
    app.stop().await;
}

/// A database that was lost is filled again from what the backup, or the process, knows.
#[tokio::test]
async fn a_lost_database_takes_no_token_along() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    let (id, revoked) = app.token(&of_kind("client")).await;
    let (_, kept) = app.token(&of_kind("client")).await;
    app.admin_delete(&format!("/admin/tokens/{id}")).await;
    let all_written = async |app: &TestApp| {
        eventually("all is written", async || {
            let metrics = app.admin_get("/metrics").await;
            let text = String::from_utf8(metrics.body.to_vec()).unwrap();
            let is_written = text.contains("stitchd_tokens_unwritten 0\n");
            (is_written && text.contains("stitchd_tokens 2\n")).then_some(())
        })
        .await;
    };
    all_written(&app).await;
    // Under the process, and while it is not there.
    delete_database(&bed);
    eventually("it is written again", async || {
        let store = crate::support::store(&bed.database_url, bed.dir.path());
        let page = store.database().tokens_after(0).await.ok()?;
        (page.tokens.len() == 2).then_some(())
    })
    .await;
    app.stop().await;
    delete_database(&bed);
    let app = bed.start().await;
    assert_eq!(status(&app, &kept).await, 200);
    assert_eq!(status(&app, &revoked).await, 401);
    all_written(&app).await;
    app.stop().await;
}

/// A version that was seen in the lost file says nothing of the new one, where versions begin anew.
#[tokio::test]
async fn a_token_that_is_made_right_after_the_loss_does_not_hide_the_one_before() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    app.token(&of_kind("client")).await;
    let store = || crate::support::store(&bed.database_url, bed.dir.path());
    let in_database = async |number: usize| {
        eventually("the database has the tokens", async || {
            let page = store().database().tokens_after(0).await.ok()?;
            (page.tokens.len() == number).then_some(())
        })
        .await;
    };
    in_database(1).await;
    delete_database(&bed);
    eventually("the file is made anew", async || {
        bed.dir.path().join("test.db").exists().then_some(())
    })
    .await;
    app.token(&of_kind("client")).await;
    in_database(2).await;
    app.stop().await;
}
