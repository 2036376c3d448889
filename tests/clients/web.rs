//! OpenFeature's web SDK with its OFREP provider: by polling, and by the event stream.

use serde_json::{Value, json};

use crate::{
    stand::{FLAG, Stand, check, flags, pro_user},
    support::programs::{Program, node},
};

const BULK: &str = "/ofrep/v1/evaluate/flags";

/// Starts the SDK; `None` where it is not installed.
fn start(stand: &Stand, secret: &str, mode: &str) -> Option<Program> {
    let mut command = node("clients", "clients/ofrep_web.js")?;
    let flags = flags("number", "number");
    command.args([&stand.url(), secret, &flags, "user-1", mode]);
    Some(Program::start(command))
}

fn has_value(line: &Value, value: &str) -> bool {
    line["event"] == "details" && line["flags"][FLAG]["value"] == value
}

fn is_fetch(line: &Value, status: u16) -> bool {
    line["event"] == "fetch" && line["status"] == status
}

#[tokio::test]
async fn flags_of_all_types_load_and_follow_a_change_by_polling() {
    let stand = Stand::start("frontend").await;
    let Some(mut client) = start(&stand, &stand.secret, "poll") else {
        return stand.app.stop().await;
    };
    let first = client.event("fetch").await;
    assert_eq!(
        (&first["method"], &first["path"]),
        (&json!("POST"), &json!(BULK))
    );
    assert_eq!(
        (&first["status"], &first["ifNoneMatch"]),
        (&json!(200), &json!(false))
    );
    client.event("ready").await;
    let details = client.event("details").await;
    check(&details, false, true);
    let absent = &details["flags"]["absent"];
    assert_eq!(
        (&absent["errorCode"], &absent["value"]),
        (&json!("FLAG_NOT_FOUND"), &json!(false))
    );
    let known = client
        .line("it is told that nothing changed", |line| {
            is_fetch(line, 304)
        })
        .await;
    assert_eq!(
        (&known["ifNoneMatch"], &known["etag"]),
        (&json!(true), &first["etag"])
    );
    stand.change("second").await;
    let changed = client.event("changed").await;
    assert_eq!(changed["flags"], json!([FLAG]));
    client
        .line("it sees the change", |line| has_value(line, "second"))
        .await;
    assert_eq!(client.count(|line| is_fetch(line, 200)), 2);
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn an_event_alone_has_it_refetch() {
    for mode in ["stream", "both"] {
        let stand = Stand::start("frontend").await;
        let Some(mut client) = start(&stand, &stand.secret, mode) else {
            return stand.app.stop().await;
        };
        client.event("ready").await;
        check(&client.event("details").await, false, true);
        client
            .line("the stream is open", |line| line["what"] == "open")
            .await;
        // What was published between the answer and the stream is not missed; here nothing was.
        let told = client
            .line("an event on connecting", |line| line["what"] == "message")
            .await;
        assert_eq!(told["id"], stand.app.revision().to_string());
        client
            .line("nothing has changed", |line| is_fetch(line, 304))
            .await;
        stand.change("second").await;
        client
            .line("an event", |line| line["what"] == "message")
            .await;
        let refetch = client.event("fetch").await;
        assert_eq!(refetch["status"], 200);
        let changed = client.event("changed").await;
        assert_eq!(changed["flags"], json!([FLAG]));
        client
            .line("it sees the change", |line| has_value(line, "second"))
            .await;
        let lines = client.lines();
        let fetches = lines.iter().filter(|line| line["event"] == "fetch").skip(1);
        for fetch in fetches {
            let query = fetch["query"].as_str().unwrap();
            assert!(query.contains("flagConfigEtag="), "it has polled: {fetch}");
        }
        drop(client);
        stand.app.stop().await;
    }
}

#[tokio::test]
async fn another_attribute_gets_other_values_although_it_sends_the_old_tag() {
    let stand = Stand::start("frontend").await;
    let Some(mut client) = start(&stand, &stand.secret, "poll") else {
        return stand.app.stop().await;
    };
    check(&client.event("details").await, false, true);
    client.tell(&json!({ "context": pro_user() }));
    let details = client
        .line("it has the flags of the plan", |line| {
            line["event"] == "details" && line["flags"]["plan"]["value"] == true
        })
        .await;
    check(&details, true, true);
    let lines = client.lines();
    let mut asked = lines.iter().filter(|line| is_fetch(line, 200)).skip(1);
    assert_eq!(asked.next().unwrap()["ifNoneMatch"], true);
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn a_flag_of_null_leaves_it_with_its_default_and_no_error() {
    let stand = Stand::start("frontend").await;
    let Some(mut client) = start(&stand, &stand.secret, "poll") else {
        return stand.app.stop().await;
    };
    let details = client.event("details").await;
    let nothing = &details["flags"]["nothing"];
    assert_eq!(
        (
            &nothing["reason"],
            &nothing["variant"],
            &nothing["errorCode"]
        ),
        (&json!("STATIC"), &json!("default"), &Value::Null)
    );
    assert_eq!(nothing["value"], "default");
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn an_unknown_token_is_fatal_and_leaves_it_with_its_defaults() {
    let stand = Stand::start("frontend").await;
    let Some(mut client) = start(&stand, "*:production.nobody", "both") else {
        return stand.app.stop().await;
    };
    let fetch = client.event("fetch").await;
    assert_eq!(fetch["status"], 401);
    let failed = client.event("failed").await;
    assert_eq!(failed["cause"], "OFREPApiUnauthorizedError", "{failed}");
    let details = client.event("details").await;
    assert_eq!(details["flags"][FLAG]["value"], "default");
    assert_eq!(details["flags"]["whole"]["value"], -1);
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn a_revocation_ends_its_stream() {
    let stand = Stand::start("frontend").await;
    let Some(mut client) = start(&stand, &stand.secret, "stream") else {
        return stand.app.stop().await;
    };
    client
        .line("an event on connecting", |line| line["what"] == "message")
        .await;
    let path = format!("/admin/tokens/{}", stand.token_id);
    assert_eq!(stand.app.admin_delete(&path).await.status, 200);
    client
        .line("the stream has ended", |line| line["what"] == "error")
        .await;
    client
        .line("it is not let in again", |line| {
            line["what"] == "answer" && line["status"] == 401
        })
        .await;
    client
        .line("it gives up", |line| line["closed"] == true)
        .await;
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn its_stream_goes_on_after_a_restart() {
    let stand = Stand::start("frontend").await;
    let Some(mut client) = start(&stand, &stand.secret, "stream") else {
        return stand.app.stop().await;
    };
    client
        .line("nothing has changed", |line| is_fetch(line, 304))
        .await;
    let known = stand.app.revision().to_string();
    let stopped = stand.stop().await;
    client.event("stale").await;
    let stand = stopped.start().await;
    let answer = client
        .line("it is back", |line| {
            line["what"] == "answer" && line["status"] == 200
        })
        .await;
    assert_eq!(answer["lastEventId"], known);
    stand.change("second").await;
    client
        .line("it sees a change", |line| has_value(line, "second"))
        .await;
    drop(client);
    stand.app.stop().await;
}
