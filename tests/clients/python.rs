//! OpenFeature's SDK for Python with its OFREP provider, which tells `1` from `1.0` and shows its token as `X-API-Key`.

use serde_json::{Value, json};

use crate::{
    stand::{FLAG, Stand, check, check_absence, flags, pro_user, user},
    support::programs::{Program, python},
};

/// Starts the SDK; `None` where it is not installed.
fn start(stand: &Stand, secret: &str, context: &Value) -> Option<Program> {
    let mut command = python("clients", "clients/ofrep_client.py")?;
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
    check(&details, false, true);
    let absent = &details["flags"]["absent"];
    assert_eq!(
        (&absent["error_code"], &absent["value"]),
        (&json!("FLAG_NOT_FOUND"), &json!(false))
    );
    // Null: the code's default counts, and nothing is wrong.
    let nothing = &details["flags"]["nothing"];
    assert_eq!(
        (&nothing["error_code"], &nothing["value"]),
        (&Value::Null, &json!("default"))
    );
    client.tell(&json!({ "context": pro_user() }));
    let details = client.event("details").await;
    check(&details, true, true);
    let spelled = |key: &str| details["flags"][key]["value"].to_string();
    assert_eq!(
        (spelled("whole"), spelled("ratio")),
        ("4".into(), "2.0".into())
    );
    stand.change("second").await;
    client.tell(&json!({}));
    let details = client.event("details").await;
    assert_eq!(details["flags"][FLAG]["value"], "second");
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
        (&button["error_code"], &button["value"]),
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
        (&text["value"], &text["error_code"]),
        (&json!("default"), &json!("GENERAL"))
    );
    assert!(client.count(|line| line["status"] == 401) > 0);
    drop(client);
    let client = start(&stand, &stand.secret, &user()).unwrap();
    check_absence(stand, client).await;
}
