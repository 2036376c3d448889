//! Unleash's own frontend SDK for JavaScript, with GET and with POST.

use serde_json::{Value, json};

use crate::{
    stand::{FLAG, Stand},
    support::{
        eventually,
        programs::{Program, node},
    },
};

/// Starts the SDK; `None` where it is not installed.
fn start(stand: &Stand, secret: &str, method: &str) -> Option<Program> {
    let mut command = node("clients", "clients/unleash.js")?;
    let properties = json!({"plan": "free"}).to_string();
    command.args([&stand.unleash_url(), secret, method, FLAG, "user-1"]);
    command.arg(properties);
    Some(Program::start(command))
}

fn has_value(line: &Value, value: &str) -> bool {
    line["event"] == "state" && line["variant"]["payload"]["value"] == value
}

fn is_fetch(line: &Value, status: u16) -> bool {
    line["event"] == "fetch" && line["status"] == status && line["path"] == "/api/frontend"
}

#[tokio::test]
async fn flags_load_revalidate_and_follow_a_change_by_get_and_post() {
    for method in ["GET", "POST"] {
        let stand = Stand::start("frontend").await;
        let Some(mut client) = start(&stand, &stand.secret, method) else {
            return stand.app.stop().await;
        };
        let fetch = client.event("fetch").await;
        assert_eq!(
            (&fetch["method"], &fetch["status"]),
            (&json!(method), &json!(200))
        );
        assert_eq!(fetch["ifNoneMatch"], false);
        client.event("ready").await;
        let state = client.event("state").await;
        assert_eq!(state["enabled"], true);
        assert_eq!(
            state["variant"],
            json!({"name": "default", "enabled": true, "feature_enabled": true,
                "payload": {"type": "string", "value": "first"}})
        );
        // Null and `false` are toggles that are not enabled.
        assert_eq!(
            state["all"],
            json!(["button", "object", "ratio", "switch", "text", "whole"])
        );
        let known = client
            .line("it is told that nothing changed", |line| {
                is_fetch(line, 304)
            })
            .await;
        assert_eq!(
            (&known["ifNoneMatch"], &known["etag"]),
            (&json!(true), &fetch["etag"])
        );
        stand.change("second").await;
        client
            .line("it sees the change", |line| has_value(line, "second"))
            .await;
        let told = client.count(|line| is_fetch(line, 200));
        assert_eq!(told, 2, "nothing but the change is sent twice");
        drop(client);
        stand.app.stop().await;
    }
}

#[tokio::test]
async fn another_context_gets_other_flags_by_get_and_post() {
    for method in ["GET", "POST"] {
        let stand = Stand::start("frontend").await;
        let Some(mut client) = start(&stand, &stand.secret, method) else {
            return stand.app.stop().await;
        };
        client.event("state").await;
        let lists_plan = |line: &Value| {
            let all = line["all"].as_array().into_iter().flatten();
            all.filter(|name| *name == "plan").count() == 1
        };
        assert_eq!(client.count(lists_plan), 0);
        client.tell(&json!({"context": {"userId": "user-1", "properties": {"plan": "pro"}}}));
        client
            .line("it has the flags of the plan", lists_plan)
            .await;
        drop(client);
        stand.app.stop().await;
    }
}

#[tokio::test]
async fn its_metrics_are_taken_and_counted() {
    let stand = Stand::start("frontend").await;
    let Some(mut client) = start(&stand, &stand.secret, "GET") else {
        return stand.app.stop().await;
    };
    client.event("state").await;
    client
        .line("they are accepted", |line| {
            line["path"] == "/api/frontend/client/metrics" && line["status"] == 202
        })
        .await;
    let sent = client.event("sent").await;
    let counts = &sent["data"]["bucket"]["toggles"][FLAG];
    assert!(counts["yes"].as_u64().unwrap() > 0, "{sent}");
    eventually("they are counted", async || {
        (stand.usage().await >= counts["yes"].as_u64().unwrap()).then_some(())
    })
    .await;
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn an_unknown_token_leaves_it_with_its_defaults() {
    let stand = Stand::start("frontend").await;
    let Some(mut client) = start(&stand, "*:production.nobody", "GET") else {
        return stand.app.stop().await;
    };
    let error = client.event("error").await;
    assert_eq!(error["code"], 401, "{error}");
    client.tell(&json!({}));
    let state = client.event("state").await;
    assert_eq!(
        (&state["enabled"], &state["all"]),
        (&json!(false), &json!([]))
    );
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn it_keeps_its_flags_while_the_service_is_away_and_recovers() {
    let stand = Stand::start("frontend").await;
    let Some(mut client) = start(&stand, &stand.secret, "GET") else {
        return stand.app.stop().await;
    };
    client
        .line("it has its flags", |line| has_value(line, "first"))
        .await;
    let stopped = stand.stop().await;
    client.pass();
    // Its metrics fail too, and are no reason to recover.
    client
        .line("it asks in vain", |line| is_fetch(line, 0))
        .await;
    client.event("error").await;
    client.tell(&json!({}));
    client
        .line("it still has its flags", |line| has_value(line, "first"))
        .await;
    let stand = stopped.start().await;
    client.event("recovered").await;
    // Entity tags outlive a restart.
    client
        .line("nothing has changed", |line| is_fetch(line, 304))
        .await;
    stand.change("second").await;
    client
        .line("it sees a change", |line| has_value(line, "second"))
        .await;
    drop(client);
    stand.app.stop().await;
}
