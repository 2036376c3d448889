//! A page in headless Chromium that uses both browser SDKs, on another origin than the service's.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    stand::{FLAG, Stand},
    support::{
        eventually,
        programs::{Program, node},
        skipped,
    },
};

const BULK: &str = "/ofrep/v1/evaluate/flags";

/// Opens the page; `None` where there is no browser or no SDK.
fn open(stand: &Stand, mode: &str) -> Option<Program> {
    let named = std::env::var("STITCHD_TEST_CHROMIUM").ok();
    let browser = named.unwrap_or_else(|| "/usr/bin/chromium".to_owned());
    if !Path::new(&browser).exists() {
        skipped("clients", &format!("no browser at {browser}"));
        return None;
    }
    let mut command = node("clients", "clients/browser.js")?;
    command.env("STITCHD_TEST_CHROMIUM", browser);
    let (unleash, ofrep) = (stand.unleash_url(), stand.url());
    command.args([&unleash, &stand.secret, &ofrep, &stand.secret, FLAG, mode]);
    Some(Program::start(command))
}

fn has_unleash(line: &Value, value: &str) -> bool {
    line["event"] == "unleash"
        && line["enabled"] == true
        && line["variant"]["payload"]["value"] == value
}

fn has_ofrep(line: &Value, value: &str) -> bool {
    line["event"] == "ofrep" && line["value"] == value
}

/// Waits until both SDKs have told this value, whichever is first.
async fn both_have(page: &Program, value: &str) {
    eventually(&format!("both see `{value}`"), async || {
        let unleash = page.count(|line| has_unleash(line, value));
        let ofrep = page.count(|line| has_ofrep(line, value));
        (unleash > 0 && ofrep > 0).then_some(())
    })
    .await;
}

/// Waits until a 304 for this path was on the wire.
async fn is_revalidated(page: &Program, path: &str) {
    eventually(&format!("{path} is answered 304"), async || {
        let known = page
            .count(|line| line["event"] == "wire" && line["path"] == path && line["status"] == 304);
        (known > 0).then_some(())
    })
    .await;
}

fn no_complaints(page: &Program) {
    let complaints = ["console", "error", "failed", "stale"];
    let lines = page.lines();
    let mut found = lines
        .iter()
        .filter(|line| complaints.contains(&line["event"].as_str().unwrap_or_default()));
    assert_eq!(found.next(), None);
}

#[tokio::test]
async fn both_sdks_get_their_flags_and_304_and_see_a_change_by_polling() {
    let stand = Stand::start("frontend").await;
    let Some(page) = open(&stand, "poll") else {
        return stand.app.stop().await;
    };
    both_have(&page, "first").await;
    for path in ["/api/frontend", BULK] {
        is_revalidated(&page, path).await;
        let preflights = page.count(|line| {
            line["event"] == "wire" && line["method"] == "OPTIONS" && line["path"] == path
        });
        assert!(preflights > 0, "{path} is of another origin");
        // A script reads the tag only where it is exposed.
        let tags = page.count(|line| {
            line["event"] == "response" && line["path"] == path && line["etag"].is_string()
        });
        assert!(tags > 0, "{path}");
    }
    stand.change("second").await;
    both_have(&page, "second").await;
    eventually("what it uses is counted", async || {
        (stand.usage().await > 0).then_some(())
    })
    .await;
    assert!(page.count(|line| line["event"] == "sent") > 0);
    no_complaints(&page);
    drop(page);
    stand.app.stop().await;
}

#[tokio::test]
async fn the_browsers_own_event_source_has_it_refetch() {
    let stand = Stand::start("frontend").await;
    let Some(page) = open(&stand, "stream") else {
        return stand.app.stop().await;
    };
    both_have(&page, "first").await;
    is_revalidated(&page, BULK).await;
    let streams = page.count(|line| line["event"] == "wire" && line["path"] == "/ofrep/v1/events");
    assert_eq!(streams, 1);
    stand.change("second").await;
    both_have(&page, "second").await;
    let events = page.count(|line| line["event"] == "wire" && line["kind"] == "message");
    assert!(events >= 2, "one on connecting, one for the change");
    no_complaints(&page);
    drop(page);
    stand.app.stop().await;
}

#[tokio::test]
async fn another_context_and_a_page_that_is_loaded_again_get_their_flags() {
    let stand = Stand::start("frontend").await;
    let Some(mut page) = open(&stand, "poll") else {
        return stand.app.stop().await;
    };
    both_have(&page, "first").await;
    page.tell(&json!({"context": {"targetingKey": "user-2", "plan": "pro"}}));
    page.line("it is asked as another user", |line| {
        line["event"] == "wire" && line["path"] == BULK && line["status"] == 200
    })
    .await;
    stand.change("second").await;
    page.pass();
    page.tell(&json!({"reload": true}));
    page.line("the new page has the flag", |line| {
        has_ofrep(line, "second")
    })
    .await;
    no_complaints(&page);
    drop(page);
    stand.app.stop().await;
}
