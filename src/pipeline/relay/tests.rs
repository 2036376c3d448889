use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::pipeline::validate;

const KEY: EncryptionKey = *b"0123456789abcdef";
const OTHER_KEY: EncryptionKey = *b"fedcba9876543210";

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn read(text: &str) -> Payload {
    validate::payload("s", text.as_bytes(), None).unwrap()
}

/// The document that SDKs get.
fn features(text: &str, key: Option<&EncryptionKey>) -> String {
    let document = render(&bytes(text), &read(text), Form::Features(key));
    String::from_utf8(document.to_vec()).unwrap()
}

fn decrypt(text: &str, key: &EncryptionKey) -> String {
    super::decrypt(key, text).unwrap()
}

#[test]
fn a_document_without_bad_items_is_the_fetched_bytes_themselves() {
    let text = "{ \"later\":{\"z\":1.0,\"a\":[1e2]},\n \"status\":200,\"features\":{\"b\":{\"defaultValue\":1.0},\"a\":{}} }\n";
    let raw = bytes(text);
    let document = render(&raw, &read(text), Form::Features(None));
    assert_eq!(document, raw);
    assert_eq!(document.as_ptr(), raw.as_ptr(), "it is shared, not copied");
}

#[test]
fn bad_items_alone_are_replaced_or_left_out_and_the_date_moves() {
    let good = r#"{"features":{"a":{"defaultValue":1,"x":[2.0]},"b":{}},"savedGroups":{"g":["1"],"h":[]}}"#;
    let old = read(good);
    let text = r#"{"z":1.0,"dateUpdated":"2026-11-01T10:00:00.450Z","features":{"c":{"defaultValue":1.0},"a":{"rules":7},"d":9},"experiments":[{"key":"e","variations":[1.0]},5],"savedGroups":{"h":["2"]}}"#;
    let payload = validate::payload("s", text.as_bytes(), Some(&old)).unwrap();
    let document = render(&bytes(text), &payload, Form::Features(None));
    let document = std::str::from_utf8(&document).unwrap();
    let (before, rest) = document.split_once("2026-11-01T10:00:00.450").unwrap();
    let (moved, after) = rest.split_once('Z').unwrap();
    assert_eq!(before, r#"{"z":1.0,"dateUpdated":""#);
    assert!((1..=6).contains(&moved.len()) && moved.bytes().all(|b| b.is_ascii_digit()));
    assert_eq!(
        after,
        r#"","features":{"c":{"defaultValue":1.0},"a":{"defaultValue":1,"x":[2.0]}},"experiments":[{"key":"e","variations":[1.0]}],"savedGroups":{"h":["2"]}}"#
    );
    let again = render(&bytes(text), &payload, Form::Features(None));
    assert_eq!(again, document, "the same for every replica");
}

#[test]
fn a_bad_group_is_served_from_its_last_good_version_and_a_date_that_is_none_stays() {
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    let old = read(r#"{"features":{"a":{}},"savedGroups":{"g":["1"]}}"#);
    let text = format!(
        r#"{{"dateUpdated":null,"features":{{"a":{{}}}},"savedGroups":{{"g":{deep},"n":{deep},"h":[]}}}}"#
    );
    let payload = validate::payload("s", text.as_bytes(), Some(&old)).unwrap();
    assert_eq!(
        render(&bytes(&text), &payload, Form::Eval),
        r#"{"dateUpdated":null,"features":{"a":{}},"savedGroups":{"g":["1"],"h":[]}}"#
    );
}

#[test]
fn a_key_that_is_there_twice_is_written_once_where_it_is_bad() {
    let old = read(r#"{"features":{"a":{"defaultValue":1}}}"#);
    let text = r#"{"features":{"a":{"rules":1},"b":{},"a":{"rules":2}}}"#;
    let payload = validate::payload("s", text.as_bytes(), Some(&old)).unwrap();
    assert_eq!(
        render(&bytes(text), &payload, Form::Features(None)),
        r#"{"features":{"a":{"defaultValue":1},"b":{}}}"#
    );
    let text = r#"{"features":{"a":{"rules":1},"a":{"defaultValue":2}}}"#;
    let payload = validate::payload("s", text.as_bytes(), Some(&old)).unwrap();
    assert_eq!(render(&bytes(text), &payload, Form::Eval), text);
}

#[test]
fn what_came_encrypted_goes_out_encrypted_where_it_was_and_evaluation_reads_it_plain() {
    let text = r#"{"status":200,"features":{"a":{"defaultValue": 1.0}},"encryptedFeatures":true,"x":[1.0],"experiments":[],"encryptedExperiments":true,"savedGroups":{"g":[1]},"encryptedSavedGroups":true}"#;
    let document: Value = serde_json::from_str(&features(text, Some(&KEY))).unwrap();
    let keys: Vec<&str> = document.as_object().unwrap().keys().map(|k| &**k).collect();
    assert_eq!(
        keys,
        [
            "status",
            "features",
            "encryptedFeatures",
            "x",
            "experiments",
            "encryptedExperiments",
            "encryptedSavedGroups"
        ]
    );
    assert_eq!(
        (&document["features"], &document["experiments"]),
        (&json!({}), &json!([]))
    );
    let open = |name: &str| decrypt(document[name].as_str().unwrap(), &KEY);
    assert_eq!(open("encryptedFeatures"), r#"{"a":{"defaultValue": 1.0}}"#);
    assert_eq!(open("encryptedExperiments"), "[]");
    assert_eq!(open("encryptedSavedGroups"), r#"{"g":[1]}"#);
    assert_eq!(features(text, Some(&KEY)), features(text, Some(&KEY)));
    assert_ne!(features(text, Some(&KEY)), features(text, Some(&OTHER_KEY)));

    let plain = render(&bytes(text), &read(text), Form::Eval);
    assert_eq!(
        plain,
        r#"{"status":200,"features":{"a":{"defaultValue": 1.0}},"x":[1.0],"experiments":[],"savedGroups":{"g":[1]}}"#
    );
    assert!(Form::Features(None).lacks_key(&read(text)) && !Form::Eval.lacks_key(&read(text)));
}

#[test]
fn two_members_of_the_same_text_have_different_ciphertexts() {
    let text =
        r#"{"features":{},"encryptedFeatures":true,"savedGroups":{},"encryptedSavedGroups":true}"#;
    let document: Value = serde_json::from_str(&features(text, Some(&KEY))).unwrap();
    assert_ne!(
        document["encryptedFeatures"],
        document["encryptedSavedGroups"]
    );
}

#[test]
fn content_leaves_out_date_status_order_and_spelling_and_nothing_else() {
    let of = |text: &str| content(&read(text), Form::Eval);
    let text = r#"{"status":200,"features":{"a":{"x":1,"y":2.0},"b":{}},"new":{"p":1,"q":2},"dateUpdated":"2026-01-01T00:00:00Z"}"#;
    let same =
        r#"{"new":{"q":2, "p":1},"features":{"b":{},"a":{"y":2.00,"x":1}},"dateUpdated":null}"#;
    assert_eq!(of(text), of(same));
    for other in [
        text.replace("\"x\":1", "\"x\":2"),
        text.replace("\"b\":{}", "\"c\":{}"),
        text.replace("\"p\":1", "\"p\":3"),
        text.replace("\"new\"", "\"newer\""),
        text.replace("\"new\":{", "\"savedGroups\":{"),
        text.replace("\"new\":{", "\"contextualBandits\":{"),
        text.replace("\"status\":200", "\"experiments\":[{\"key\":\"e\"}]"),
        text.replace("\"status\":200", "\"encryptedFeatures\":true"),
    ] {
        assert_ne!(of(text), of(&other), "{other}");
    }
}

#[test]
fn another_encryption_key_is_other_content_of_the_same_meaning() {
    let payload = read(r#"{"features":{},"encryptedFeatures":true}"#);
    let of = |form| content(&payload, form);
    let (one, other) = (
        of(Form::Features(Some(&KEY))),
        of(Form::Features(Some(&OTHER_KEY))),
    );
    assert_ne!(one, other);
    for content in [one, other] {
        assert_eq!(content.split('.').next(), Some(&*of(Form::Eval)));
    }
    let plain = read(r#"{"features":{}}"#);
    let of = |form| content(&plain, form);
    assert_eq!(of(Form::Features(Some(&KEY))), of(Form::Features(None)));
}

/// JSON of any shape, three levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(n)),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A payload whose members are anything, with good and bad features.
fn any_payload() -> impl Strategy<Value = Value> {
    let items = || prop::collection::btree_map("[a-c\"é]{0,3}", any_json(), 0..6);
    let rest = prop::collection::btree_map("[m-z]{1,3}", any_json(), 0..3);
    let autos = prop::collection::vec(any_json(), 0..4);
    (items(), items(), items(), autos, rest).prop_map(|(features, groups, bandits, autos, rest)| {
        let mut payload = json!({
            "features": features,
            "savedGroups": groups,
            "contextualBandits": bandits,
            "experiments": autos,
            "dateUpdated": "2026-11-01T00:00:00.000Z",
        });
        payload.as_object_mut().unwrap().extend(rest);
        payload
    })
}

/// What a payload means: its digest says it in full.
fn meaning(text: &[u8]) -> String {
    content(&validate::payload("s", text, None).unwrap(), Form::Eval)
}

proptest! {
    #[test]
    fn any_document_parses_to_what_is_served_of_its_payload(payload in any_payload(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&payload).unwrap() } else { payload.to_string() };
        let read = read(&text);
        let document = render(&bytes(&text), &read, Form::Features(None));
        prop_assert_eq!(meaning(&document), content(&read, Form::Eval));
        let again: Value = serde_json::from_slice(&document).unwrap();
        if read.quarantined.is_empty() {
            prop_assert_eq!(again, payload);
        } else {
            prop_assert!(validate::payload("s", &document, None).unwrap().quarantined.is_empty());
        }
    }

    #[test]
    fn encryption_round_trips(payload in any_payload(), key: [u8; 16]) {
        let mut sealed = payload.clone();
        for (encrypted, _) in SEALED {
            sealed[encrypted] = Value::Bool(true);
        }
        let text = sealed.to_string();
        let read = read(&text);
        let document = render(&bytes(&text), &read, Form::Features(Some(&key)));
        let mut document: Value = serde_json::from_slice(&document).unwrap();
        for (encrypted, name) in SEALED {
            let member = document.as_object_mut().unwrap().shift_remove(encrypted).unwrap();
            let plain = decrypt(member.as_str().unwrap(), &key);
            document[name] = serde_json::from_str(&plain).unwrap();
        }
        let plain: Value = serde_json::from_slice(&render(&bytes(&text), &read, Form::Eval)).unwrap();
        prop_assert_eq!(document, plain);
    }
}
