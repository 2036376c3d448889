//! OpenFeature's server SDK for JavaScript with its OFREP provider.

use serde_json::{Value, json};

use crate::{
    stand::{FLAG, Stand, check, check_absence, flags, pro_user, user},
    support::programs::{Program, node},
};

/// Starts the SDK; `None` where it is not installed.
fn start(stand: &Stand, secret: &str, context: &Value) -> Option<Program> {
    let mut command = node("clients", "clients/ofrep_server.js")?;
    let flags = flags("number", "number");
    command.args([&stand.url(), secret, &flags, &context.to_string()]);
    Some(Program::start(command))
}

#[tokio::test]
async fn flags_of_all_types_are_read_for_each_context_and_after_a_change() {
    let stand = Stand::start("server").await;
    let Some(mut client) = start(&stand, &stand.secret, &user()) else {
        return stand.app.stop().await;
    };
    let details = client.event("details").await;
    check(&details, false, true);
    for (key, code, default) in [
        ("absent", "FLAG_NOT_FOUND", json!(false)),
        // It wants a value where the protocol needs none, and takes its default.
        ("nothing", "GENERAL", json!("default")),
    ] {
        let found = &details["flags"][key];
        assert_eq!(
            (&found["errorCode"], &found["value"]),
            (&json!(code), &default)
        );
    }
    client.tell(&json!({ "context": pro_user() }));
    check(&client.event("details").await, true, true);
    stand.change("second").await;
    client.tell(&json!({}));
    let details = client.event("details").await;
    assert_eq!(details["flags"][FLAG]["value"], "second");
    let paths = client.count(|line| line["path"] == "/ofrep/v1/evaluate/flags/button");
    assert_eq!(paths, 3);
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn without_a_targeting_key_only_flags_that_split_by_it_are_defaults() {
    let stand = Stand::start("server").await;
    let Some(mut client) = start(&stand, &stand.secret, &json!({})) else {
        return stand.app.stop().await;
    };
    let details = client.event("details").await;
    let button = &details["flags"]["button"];
    assert_eq!(
        (&button["errorCode"], &button["value"]),
        (&json!("TARGETING_KEY_MISSING"), &json!("default"))
    );
    assert_eq!(details["flags"]["whole"]["value"], 3);
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn an_unknown_token_and_an_absent_service_leave_it_with_its_defaults_until_they_are_over() {
    let stand = Stand::start("server").await;
    let Some(mut client) = start(&stand, "srv-nobody", &user()) else {
        return stand.app.stop().await;
    };
    let details = client.event("details").await;
    let text = &details["flags"][FLAG];
    assert_eq!(
        (&text["value"], &text["reason"]),
        (&json!("default"), &json!("ERROR"))
    );
    assert!(client.count(|line| line["status"] == 401) > 0);
    drop(client);
    let client = start(&stand, &stand.secret, &user()).unwrap();
    check_absence(stand, client).await;
}
