//! What does not fit, and what is too old to keep.

use serde_json::{Map, Value, json};
use stitchd::store::packed;

use crate::{
    bed_on, counter, face, numbers, publish, rows, settings_with, store,
    support::{
        ENVIRONMENT, SOURCE, TestApp,
        databases::{on_each, on_server},
        eventually,
    },
};

#[tokio::test]
async fn the_history_is_as_long_as_the_settings_say() {
    on_each(async |backend| {
        let bed = bed_on(&backend);
        let settings = settings_with(&bed, "[backup]", "keep_revisions = 5\n[backup]");
        let app = TestApp::spawn(settings).await;
        app.until_revision(1).await;
        for revision in 2..=12 {
            publish(&bed, &app, revision, revision).await;
        }
        let kept = store(&backend.url, bed.dir.path());
        eventually("older revisions are deleted", async || {
            (numbers(&kept).await == [8, 9, 10, 11, 12]).then_some(())
        })
        .await;
        app.stop().await;
    })
    .await;
}

/// Features that no compression makes smaller than 16 MiB together.
fn incompressible() -> Value {
    // Printable ASCII carries 6.5 bits a byte; each default stays under the limit for one item.
    let alphabet: Vec<char> = (' '..='~').filter(|c| !"\"\\".contains(*c)).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut text = || -> String {
        (0..1_950_000)
            .map(|_| alphabet[usize::try_from(next() >> 33).unwrap() % alphabet.len()])
            .collect()
    };
    let features: Map<String, Value> = (0..12)
        .map(|number| (format!("noise-{number}"), json!({"defaultValue": text()})))
        .collect();
    Value::Object(features)
}

#[tokio::test]
async fn a_snapshot_over_max_allowed_packet_is_served_and_kept_in_the_backup_alone() {
    let Some(backend) = on_server("mariadb", "STITCHD_TEST_MARIADB") else {
        return;
    };
    let mut bed = bed_on(&backend);
    bed.source_extra = "stale_after = \"1h\"".to_owned();
    // Growing like this is meant here.
    bed.extra = "[guards]\nmax_removed_share = 1.0\nmax_growth = 1000000.0".to_owned();
    bed.upstream.set_encodings(&[]);
    let text = bed.toml().replacen("8000000", "60000000", 1).replacen(
        "poll.timeout = \"1s\"",
        "poll.timeout = \"30s\"",
        1,
    );
    let settings =
        || stitchd::settings::from_toml(&text, stitchd::settings::Profile::Test).unwrap();
    let app = TestApp::spawn(settings()).await;
    app.until_revision(1).await;
    bed.upstream.set_features(incompressible());
    let report = app.poll().await;
    assert_eq!(
        (&report["outcome"], &report["revision"]),
        (&json!("published"), &json!(2))
    );
    eventually(
        "the backup has it, and the database's error is named",
        async || {
            let status = app.status().await;
            let error = status["database"]["error"].as_str().unwrap_or_default();
            let is_durable = status["environments"][ENVIRONMENT]["durable"] == true;
            (is_durable && error.contains("max_allowed_packet")).then_some(())
        },
    )
    .await;
    let kept = store(&backend.url, &bed.dir.path().join("backup"));
    let found = kept.backup().load_snapshot(ENVIRONMENT).await.unwrap();
    let found = found.value.revision.unwrap();
    assert_eq!(found.revision, 2);
    assert!(packed::pack_candidate(&found.candidate).len() > 16_777_216);

    // Everything else still goes into the database.
    let pause = format!("/admin/sources/{SOURCE}/pause");
    app.admin_post(&pause, r#"{"reason":"large"}"#).await;
    eventually("audit and state are written", async || {
        let audit = kept
            .database()
            .list_audit(10, None, stitchd::store::AuditFilter::default())
            .await
            .unwrap();
        let states = kept.database().load_states().await.unwrap();
        let is_paused = states.iter().any(|state| state.body.contains("large"));
        (is_paused && audit.iter().any(|(_, line)| line.action == "source.pause")).then_some(())
    })
    .await;
    assert_eq!(numbers(&kept).await, [1]);

    let before = face(&app).await;
    app.stop().await;
    bed.upstream.go_down().await.unwrap();
    let app = TestApp::spawn(settings()).await;
    assert_eq!(face(&app).await, before);
    bed.upstream.come_back().unwrap();

    // What fits again is written; what never will does not stand in its way.
    bed.upstream
        .set_features(json!({"counter": {"defaultValue": 0}}));
    let report = app.poll().await;
    assert_eq!(report["outcome"], "published", "{report}");
    eventually("the database takes what fits", async || {
        let status = app.status().await;
        let is_done = status["database"]["up"] == true && status["queues"]["store_pending"] == 0;
        is_done.then_some(())
    })
    .await;
    publish(&bed, &app, 4, 4).await;
    assert_eq!(counter(&app).await, 4);
    assert_eq!(rows(&kept).await[0].revision, 4);
    app.stop().await;
}
