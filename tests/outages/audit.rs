//! What operators did while the database was away.

use std::{fs, io::Write as _};

use serde_json::{Value, json};

use crate::{
    SOURCE, Scene,
    storage::assert_told,
    support::{
        databases::{Backend, on_server, sqlite},
        eventually,
        storage::DatabaseTrouble,
    },
};

impl Scene {
    /// The audit's entries, when the database has them all.
    async fn written_audit(&self) -> Vec<Value> {
        eventually("the database has every entry", async || {
            let page = self.admin_get("/admin/audit").await.json();
            let entries = page["entries"].as_array()?.clone();
            let is_written = page["error"].is_null() && entries.iter().all(|e| e["id"].is_i64());
            (is_written && !entries.is_empty()).then_some(entries)
        })
        .await
    }
}

/// The process is killed as soon as the action is answered, in the middle of the next entry.
async fn outlives_a_kill(backend: Backend, trouble: DatabaseTrouble) {
    let mut scene = Scene::new(backend, &[]).await;
    scene.start_loaded().await;
    scene.storage.break_database(trouble).await;
    scene.publish().await;
    assert_told(&scene, "database").await;
    let url = format!("{}/admin/sources/{SOURCE}/pause", scene.admin);
    let why = r#"{"reason":"release freeze"}"#;
    let paused = scene.http.post(url).body(why).send().await.unwrap();
    assert_eq!(paused.status(), 200);
    scene.kill();

    let file = scene.storage.backup().join("audit.jsonl");
    let mut torn = fs::File::options().append(true).open(&file).unwrap();
    torn.write_all(br#"{"uid":"0d5e"#).unwrap();
    scene.storage.mend_database(trouble).await;
    for _ in 0..2 {
        scene.start().await;
        let entries = scene.written_audit().await;
        let found: Vec<_> = entries
            .iter()
            .filter(|entry| entry["action"] == "source.pause")
            .map(|entry| (&entry["target"], &entry["reason"], &entry["result"]))
            .collect();
        let expected = (&json!(SOURCE), &json!("release freeze"), &json!("ok"));
        assert_eq!(found, [expected]);
        eventually("the file goes", async || (!file.exists()).then_some(())).await;
        scene.stop().await;
    }
}

#[tokio::test]
async fn an_entry_outlives_a_kill_beside_a_locked_database_file() {
    outlives_a_kill(sqlite(), DatabaseTrouble::Locked).await;
}

#[tokio::test]
async fn an_entry_outlives_a_kill_beside_a_server_that_is_gone() {
    if let Some(backend) = on_server("postgres", "STITCHD_TEST_POSTGRES") {
        outlives_a_kill(backend, DatabaseTrouble::Gone).await;
    }
}

#[tokio::test]
async fn an_entry_outlives_a_kill_beside_a_server_that_hangs() {
    if let Some(backend) = on_server("mariadb", "STITCHD_TEST_MARIADB") {
        outlives_a_kill(backend, DatabaseTrouble::Hanging).await;
    }
}
