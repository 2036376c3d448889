//! OpenFeature's SDK for Rust with its OFREP provider: the program of `tests/clients/rust`.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    stand::{FLAG, Stand, check, flags, pro_user, user},
    support::programs::{Program, place_of},
};

/// Starts the program; `None` where it is not built.
fn start(stand: &Stand, secret: &str, context: &Value) -> Option<Program> {
    let mut command = Command::new(place_of("clients", "STITCHD_TEST_OFREP_RUST")?);
    let flags = flags("integer", "float");
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
    // It says `STATIC` whatever the answer says.
    check(&details, false, false);
    assert_eq!(details["flags"]["absent"]["error"], "FLAG_NOT_FOUND");
    // It wants a value where the protocol needs none.
    assert_eq!(details["flags"]["nothing"]["error"], "PARSE_ERROR");
    client.tell(&json!({ "context": pro_user() }));
    check(&client.event("details").await, true, false);
    stand.change("second").await;
    client.tell(&json!({}));
    let details = client.event("details").await;
    assert_eq!(details["flags"][FLAG]["value"], "second");
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn without_a_targeting_key_only_flags_that_split_by_it_fail() {
    let stand = Stand::start("server").await;
    let Some(mut client) = start(&stand, &stand.secret, &json!({})) else {
        return stand.app.stop().await;
    };
    let details = client.event("details").await;
    // Its word for every 400.
    assert_eq!(details["flags"]["button"]["error"], "INVALID_CONTEXT");
    assert_eq!(details["flags"]["whole"]["value"], 3);
    drop(client);
    stand.app.stop().await;
}

#[tokio::test]
async fn an_unknown_token_and_an_absent_service_fail_until_they_are_over() {
    let stand = Stand::start("server").await;
    let Some(mut client) = start(&stand, "srv-nobody", &user()) else {
        return stand.app.stop().await;
    };
    let details = client.event("details").await;
    let error = details["flags"][FLAG]["error"].as_str().unwrap();
    assert!(error.contains("authentication"), "{error}");
    drop(client);
    let mut client = start(&stand, &stand.secret, &user()).unwrap();
    check(&client.event("details").await, false, false);
    let stopped = stand.stop().await;
    client.tell(&json!({}));
    let details = client.event("details").await;
    assert!(details["flags"][FLAG]["error"].is_string(), "{details}");
    let stand = stopped.start().await;
    client.tell(&json!({}));
    check(&client.event("details").await, false, false);
    drop(client);
    stand.app.stop().await;
}
