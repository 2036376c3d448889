//! What the log says of an outage: one line when it begins, one when it ends.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    bed_on, folder, status_at, store,
    support::{
        ENVIRONMENT, SOURCE, client,
        databases::{Backend, on_server},
        eventually,
        process::Process,
        proxy::{Proxy, Wire},
    },
};

async fn outage(backend: Backend, wire: Wire) {
    let (proxy, url) = Proxy::in_front_of(&backend).await;
    let mut bed = bed_on(&backend);
    bed.database_url = url;
    let mut process = Process::serve(&folder(&bed));
    process.logged("published revision").await;
    let (admin, http) = (process.admin().await, client());
    proxy.set(wire);
    for value in 0..3 {
        bed.upstream
            .set_feature("counter", json!({"defaultValue": value}));
        let poll = format!("{admin}/admin/sources/{SOURCE}/poll");
        assert_eq!(http.post(poll).send().await.unwrap().status(), 200);
    }
    process.logged("the database failed").await;
    // Long enough for a flush or two to fail again.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    proxy.set(Wire::Pass);
    process.logged("the database is back").await;
    let kept = store(&backend.url, bed.dir.path());
    eventually("what was missing is written", async || {
        let highest = kept.database().highest_revision(ENVIRONMENT).await;
        let status = status_at(&http, &admin).await;
        let served = status["environments"][ENVIRONMENT]["revision"].as_u64();
        (served.is_some() && highest.unwrap() == served).then_some(())
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    // A slow disk may cost the first moments of a revision their durability; that is another story.
    let mut log = process.log();
    log.retain(|line| !line.contains("without a durable copy"));
    let count = |level: &str, text: &str| {
        log.iter()
            .filter(|line| line.contains(level) && line.contains(text))
            .count()
    };
    let shown = log.join("\n");
    assert_eq!(count("WARN", "the database"), 1, "{shown}");
    assert_eq!(count("INFO", "the database is back"), 1, "{shown}");
    assert_eq!(count("ERROR", ""), 0, "{shown}");
    assert_eq!(count("WARN", ""), 1, "{shown}");
}

#[tokio::test]
async fn an_outage_is_one_warning_and_one_line_when_it_is_over() {
    let servers = || {
        let postgres = on_server("postgres", "STITCHD_TEST_POSTGRES");
        let mariadb = on_server("mariadb", "STITCHD_TEST_MARIADB");
        [postgres, mariadb].into_iter().flatten()
    };
    let cut = servers().map(|backend| outage(backend, Wire::Cut));
    let silent = servers().map(|backend| outage(backend, Wire::Blackhole));
    join_all(cut.chain(silent).collect::<Vec<_>>()).await;
}
