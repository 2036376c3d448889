//! Encrypted connections that are discovered: an override reaches them while nobody can be asked for their keys.

use reqwest::Method;
use serde_json::{Value, json};
use stitchd::cli::demo::upstream::{CLIENT_KEY, Connection};

use crate::{
    stand::{
        EXPERIMENT, SEALED, ask, bytes, feature, features, force, furnish, off, opened, pin,
        remove, start_discovering, unpin,
    },
    support::Bed,
};

#[tokio::test]
async fn a_kill_switch_reaches_them_with_upstream_and_database_gone() {
    let mut bed = Bed::new();
    furnish(&mut bed);
    let app = start_discovering(&bed).await;
    let (before, revision) = (bytes(&app).await, app.revision());
    app.stop().await;
    bed.upstream.go_down().await.unwrap();
    for is_database_gone in [false, true] {
        if is_database_gone {
            for file in ["test.db", "test.db-wal", "test.db-shm"] {
                std::fs::remove_file(bed.dir.path().join(file)).ok();
            }
        }
        let app = start_discovering(&bed).await;
        assert_eq!(
            bytes(&app).await,
            before,
            "database gone: {is_database_gone}"
        );
        assert!(is_database_gone || app.revision() == revision);
        let set = force(&app, &feature("checkout", "fixed")).await;
        assert_eq!(
            (&set["durable"], &set["not_applied"]),
            (&json!(true), &json!([]))
        );
        let forced = force(&app, &off(EXPERIMENT)).await;
        let sealed = opened(&features(&app, SEALED).await, "encryptedFeatures");
        assert_eq!(sealed["checkout"], json!({"defaultValue": "fixed"}));
        assert_eq!(sealed["search"]["rules"], json!([]));
        let issues = ask(&app, Method::GET, "issues", &Value::Null).await.json();
        assert_eq!(issues["issues"], json!([]), "{issues}");
        remove(&app, &set["id"]).await;
        remove(&app, &forced["id"]).await;
        assert_eq!(
            bytes(&app).await,
            before,
            "database gone: {is_database_gone}"
        );
        app.stop().await;
    }
}

/// What was pinned is encrypted with a key that nobody has any more.
#[tokio::test]
async fn a_pinned_document_that_cannot_be_opened_stays_as_pinned_and_the_answer_says_so() {
    let mut bed = Bed::new();
    furnish(&mut bed);
    let app = start_discovering(&bed).await;
    let (then, revision) = (features(&app, SEALED).await, app.revision());
    bed.upstream.add_connection(Connection {
        encryption_key: Some("ZmVkY2JhOTg3NjU0MzIxMA==".to_owned()),
        ..Connection::new(SEALED)
    });
    assert_eq!(app.poll().await["outcome"], "published");
    let set = force(&app, &feature("checkout", "fixed")).await;
    assert_eq!(set["not_applied"], json!([]));
    assert_ne!(features(&app, SEALED).await, then);
    pin(&app, revision).await;
    assert_eq!(features(&app, SEALED).await, then);
    let set = force(&app, &feature("checkout", "again")).await;
    assert_eq!(set["not_applied"], json!([SEALED]));
    assert_eq!(features(&app, SEALED).await, then);
    let plain = features(&app, CLIENT_KEY).await;
    assert_eq!(
        plain["features"]["checkout"],
        json!({"defaultValue": "again"})
    );
    let issues = ask(&app, Method::GET, "issues", &Value::Null).await.json();
    assert!(
        issues.to_string().contains("connection_key_unknown"),
        "{issues}"
    );
    unpin(&app).await;
    let issues = ask(&app, Method::GET, "issues", &Value::Null).await.json();
    assert!(
        !issues.to_string().contains("connection_key_unknown"),
        "{issues}"
    );
    app.stop().await;
}
