use proptest::prelude::*;

use super::*;
use crate::{
    model::{CanonicalJson, Evaluators, SnapshotMeta, snapshot::connection_document},
    pipeline::{
        relay::{self, Form},
        validate,
    },
};

const KEY: EncryptionKey = *b"0123456789abcdef";

const PAYLOAD: &str = r#"{ "status":200, "features":{"big":{"defaultValue":1.0,"rules":[{"force":2}],"later":[1e2]},
 "colour":{"rules":[{"variations":["a","b"],"key":"colours"},{"variations":["c"]},{"force":"d","key":"colours"}],"defaultValue":"x"},
 "colours":{"rules":[{"variations":[1.0,2]}]}},
 "experiments":[{"key":"banner","variations":[{},{"css":"x"}]},{"key":"colours"}], "unknown":{"n":1.50},
 "dateUpdated":"2026-11-01T10:00:00.450Z"}"#;

const TAIL: &str = r#""features":{"big":{"defaultValue":1,"rules":[{"force":2}],"source":"s"},"colour":{"defaultValue":"x","rules":[{"key":"colours","variations":["a","b"]},{"variations":["c"]}],"source":"s"},"plain":{"source":"s"}},"experiments":[{"trackingKey":"colours","source":"s"},{"trackingKey":"other","source":"s"}],"auto_experiments":[{"key":"banner","source":"s"}],"saved_groups":{},"contextual_bandits":{},"overrides":[]}"#;

fn forced(key: &str, value: Option<&str>) -> Override {
    let value = value.map(|text| CanonicalJson::from_value(&serde_json::from_str(text).unwrap()));
    Override {
        id: format!("id-of-{key}"),
        key: key.into(),
        forced: value.map_or(Forced::Off, Forced::Value),
        reason: "it broke".to_owned(),
        author: "ada".to_owned(),
        created_at_ms: 1_790_000_000_000,
        expires_at_ms: None,
    }
}

fn document(name: &str, body: &str, members: &[&str]) -> Arc<Document> {
    let members = members.iter().map(|name| (*name).to_owned()).collect();
    let body = Bytes::copy_from_slice(body.as_bytes());
    Arc::new(Document::new(
        name,
        body,
        OffsetDateTime::UNIX_EPOCH,
        members,
    ))
}

fn sealed(text: &str) -> Arc<Document> {
    // As `sources` hands it on: plain members, and `true` for each that came encrypted.
    let opened = text.replacen("\"features\"", "\"encryptedFeatures\":true,\"features\"", 1);
    let opened = opened.replacen(
        "\"experiments\"",
        "\"encryptedExperiments\":true,\"experiments\"",
        1,
    );
    let payload = validate::payload("s", opened.as_bytes(), None).unwrap();
    let form = Form::Features(Some(&KEY));
    let body = relay::render(&opened.clone().into(), &payload, form);
    let name = connection_document("sdk-sealed", false);
    let made = Document::new(name, body, OffsetDateTime::UNIX_EPOCH, Vec::new());
    Arc::new(made.with_content(Some(relay::content(&payload, form))))
}

fn base() -> Candidate {
    let payload = document("features/sdk-a", PAYLOAD, &[]);
    let documents = vec![
        document(
            "varnish",
            r#"{"colours":{"a":1},"other":{}}"#,
            &["colours", "other"],
        ),
        document(
            "mediawiki",
            r#"[{"name":"colours"},{"name":"other"}]"#,
            &["colours", "other"],
        ),
        payload,
        document("eval/sdk-b", PAYLOAD, &[]),
        sealed(PAYLOAD),
    ];
    let snapshot_tail = Bytes::from_static(TAIL.as_bytes());
    Candidate {
        environment: "production".into(),
        hash: Candidate::content_hash(&snapshot_tail, &documents),
        snapshot_tail,
        documents,
        meta: SnapshotMeta::default(),
        created_at: OffsetDateTime::UNIX_EPOCH,
        evaluators: Evaluators::default(),
        base: None,
    }
}

fn apply_with(
    overrides: &[Override],
    key: Option<EncryptionKey>,
    served: Option<&Snapshot>,
) -> Overlaid {
    let overlay = Overlay {
        overrides,
        key_of: &|_| key,
        served,
        is_successor: true,
        now: OffsetDateTime::UNIX_EPOCH + time::Duration::HOUR,
    };
    overlay.apply(&base())
}

fn apply(overrides: &[Override]) -> Overlaid {
    apply_with(overrides, Some(KEY), None)
}

fn text<'a>(overlaid: &'a Overlaid, name: &str) -> &'a str {
    let mut named = overlaid.documents.iter().filter(|d| &*d.name == name);
    str::from_utf8(&named.next().unwrap().body).unwrap()
}

/// The text with its date put back, after a check that it moved within its millisecond.
#[track_caller]
fn without_move(document: &str) -> String {
    let (before, rest) = document.split_once("2026-11-01T10:00:00.450").unwrap();
    let (moved, after) = rest.split_once("Z\"").unwrap();
    assert!((1..=6).contains(&moved.len()), "{document}");
    format!("{before}2026-11-01T10:00:00.450Z\"{after}")
}

/// Members of an encrypted document, opened.
fn opened(document: &str, member_name: &str) -> String {
    let sealed = member(&members(document), member_name).unwrap();
    relay::decrypt(&KEY, &text::string(sealed).unwrap()).unwrap()
}

#[test]
fn a_forced_feature_loses_its_rules_and_nothing_else_in_any_document() {
    let overlaid = apply(&[forced("big", Some("2.5"))]);
    let expected = PAYLOAD.replace(
        r#"{"defaultValue":1.0,"rules":[{"force":2}],"later":[1e2]}"#,
        r#"{"defaultValue":2.5,"later":[1e2]}"#,
    );
    for name in ["features/sdk-a", "eval/sdk-b"] {
        assert_eq!(without_move(text(&overlaid, name)), expected, "{name}");
    }
    let closed = text(&overlaid, "features/sdk-sealed");
    let features = opened(closed, "encryptedFeatures");
    assert!(
        features.starts_with(r#"{"big":{"defaultValue":2.5,"later":[1e2]},"#),
        "{features}"
    );
    assert_eq!(member(&members(closed), "features"), Some("{}"));
    let untouched = base();
    let before = str::from_utf8(&untouched.documents[4].body).unwrap();
    assert_eq!(
        member(&members(closed), "encryptedExperiments"),
        member(&members(before), "encryptedExperiments"),
        "a member without overrides keeps its ciphertext"
    );
    let tail = str::from_utf8(&overlaid.snapshot_tail).unwrap();
    let listed = r#"[{"id":"id-of-big","kind":"feature","key":"big","value":2.5,"reason":"it broke","author":"ada","created_at":"2026-09-21T14:13:20Z","expires_at":null}]"#;
    let expected = TAIL
        .replace(
            r#"{"defaultValue":1,"rules":[{"force":2}],"source":"s"}"#,
            r#"{"defaultValue":2.5,"source":"s"}"#,
        )
        .replace(r#""overrides":[]"#, &format!("\"overrides\":{listed}"));
    assert_eq!(tail, expected);
    for name in ["varnish", "mediawiki"] {
        let of = |documents: &[Arc<Document>]| {
            documents
                .iter()
                .find(|d| &*d.name == name)
                .map(|d| d.body.clone())
        };
        assert_eq!(of(&overlaid.documents), of(&untouched.documents));
    }
    let found = Found {
        is_there: true,
        default_type: Some("number"),
    };
    assert_eq!(
        (overlaid.found, overlaid.issues, overlaid.experiments_off),
        (vec![found], vec![], 0)
    );
}

#[test]
fn an_experiment_that_is_off_is_in_no_rule_no_list_and_no_consumer_s_document() {
    let overlaid = apply(&[forced("colours", None), forced("banner", None)]);
    let expected = PAYLOAD
        .replace(
            r#"{"variations":["a","b"],"key":"colours"},{"variations":["c"]},"#,
            r#"{"variations":["c"]},"#,
        )
        .replace(r#"[{"variations":[1.0,2]}]"#, "[]")
        .replace(
            r#"[{"key":"banner","variations":[{},{"css":"x"}]},{"key":"colours"}]"#,
            "[]",
        );
    assert_eq!(without_move(text(&overlaid, "features/sdk-a")), expected);
    let closed = text(&overlaid, "features/sdk-sealed");
    assert_eq!(opened(closed, "encryptedExperiments"), "[]");
    assert!(!opened(closed, "encryptedFeatures").contains(r#"["a","b"]"#));
    assert_eq!(text(&overlaid, "varnish"), r#"{"other":{}}"#);
    assert_eq!(text(&overlaid, "mediawiki"), r#"[{"name":"other"}]"#);
    assert_eq!(overlaid.documents[0].members, ["other"]);
    let tail = str::from_utf8(&overlaid.snapshot_tail).unwrap();
    assert!(
        tail.contains(
            r#""colour":{"defaultValue":"x","rules":[{"variations":["c"]}],"source":"s"}"#
        ),
        "{tail}"
    );
    assert!(
        tail.contains(
            r#""experiments":[{"trackingKey":"other","source":"s"}],"auto_experiments":[],"#
        ),
        "{tail}"
    );
    assert_eq!(overlaid.experiments_off, 1);
    assert!(overlaid.found.iter().all(|found| found.is_there));
}

#[test]
fn a_rule_without_a_key_is_known_by_its_feature_s() {
    let overlaid = apply(&[forced("colour", None)]);
    let tail = str::from_utf8(&overlaid.snapshot_tail).unwrap();
    assert!(
        tail.contains(r#""rules":[{"key":"colours","variations":["a","b"]}],"#),
        "{tail}"
    );
}

#[test]
fn a_feature_without_a_default_gets_one_and_its_type_is_unknown() {
    let overlaid = apply(&[forced("plain", Some("[1]"))]);
    let tail = str::from_utf8(&overlaid.snapshot_tail).unwrap();
    assert!(
        tail.contains(r#""plain":{"defaultValue":[1],"source":"s"}"#),
        "{tail}"
    );
    assert_eq!(
        overlaid.found[0],
        Found {
            is_there: true,
            default_type: None
        }
    );
}

#[test]
fn an_override_without_a_target_changes_nothing_but_the_list_and_is_an_issue() {
    let overlaid = apply(&[forced("gone", Some("1"))]);
    for (document, old) in overlaid.documents.iter().zip(base().documents) {
        assert_eq!(document.body, old.body);
    }
    let codes: Vec<_> = overlaid
        .issues
        .iter()
        .map(|issue| (issue.code, &*issue.path))
        .collect();
    assert_eq!(
        codes,
        [("override_without_target", "overrides.feature.gone")]
    );
}

#[test]
fn without_its_key_an_encrypted_document_stays_what_it_was() {
    let overrides = [forced("big", Some("2.5"))];
    let candidate = Candidate {
        documents: vec![document("features/sdk-sealed", "{\"earlier\":1}", &[])],
        ..base()
    };
    let served = candidate.at_revision(3);
    let overlaid = apply_with(&overrides, None, Some(&served));
    assert_eq!(text(&overlaid, "features/sdk-sealed"), "{\"earlier\":1}");
    assert_eq!(overlaid.issues[0].code, "connection_key_unknown");
    assert_eq!(overlaid.locked, ["sdk-sealed"]);
    let elsewhere = Overlay {
        overrides: &overrides,
        key_of: &|_| None,
        served: Some(&served),
        is_successor: false,
        now: OffsetDateTime::UNIX_EPOCH,
    };
    let overlaid = elsewhere.apply(&base());
    assert_eq!(overlaid.documents[4].body, base().documents[4].body);
    let overlaid = apply_with(&overrides, Some([7; 16]), None);
    assert_eq!(overlaid.documents[4].body, base().documents[4].body);
    assert_eq!(overlaid.issues[0].code, "connection_key_unknown");
    assert!(text(&overlaid, "features/sdk-a").contains("2.5"));
}

#[test]
fn what_comes_out_the_same_is_the_served_document_itself() {
    let overrides = [forced("big", Some("2.5")), forced("colours", None)];
    let first = apply(&overrides);
    let candidate = Candidate {
        snapshot_tail: first.snapshot_tail.clone(),
        documents: first.documents.clone(),
        ..base()
    };
    let again = apply_with(&overrides, Some(KEY), Some(&candidate.at_revision(1)));
    for (one, other) in first.documents.iter().zip(&again.documents) {
        assert!(Arc::ptr_eq(one, other), "{one:?}");
    }
    // The order in which they were set does not matter.
    let [a, b] = overrides.clone();
    let turned = apply(&[b, a]);
    assert_eq!(turned.snapshot_tail, first.snapshot_tail);
    for (one, other) in first.documents.iter().zip(&turned.documents) {
        assert_eq!((&one.body, &one.content), (&other.body, &other.content));
    }
}

#[test]
fn each_set_of_overrides_means_something_else_and_the_key_stays_told() {
    let meaning = |overrides: &[Override]| apply(overrides).documents[4].content.clone().unwrap();
    let base = base().documents[4].content.clone().unwrap();
    let two = meaning(&[forced("big", Some("2"))]);
    let three = meaning(&[forced("big", Some("3"))]);
    assert!(base != two && two != three);
    assert_eq!(
        two.split_once('.').unwrap().1,
        base.split_once('.').unwrap().1
    );
}

#[test]
fn every_name_of_a_content_is_known() {
    let names = names(TAIL.as_bytes());
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let expected = Names {
        features: set(&["big", "colour", "plain"]),
        experiments: set(&["banner", "colour", "colours", "other"]),
    };
    assert_eq!(names, expected);
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("1.0".to_owned()),
        Just("-0".to_owned()),
        Just("1e2".to_owned()),
        Just(r#""\u00e9\" ""#.to_owned()),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![
            "[a-c]",
            Just("rules".to_owned()),
            Just("key".to_owned()),
            Just("variations".to_owned())
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((key, inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(k, v)| format!("\"{k}\" : {v}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_override_changes_nothing_and_removing_one_gives_the_bytes_back(
        features in json_text(), list in json_text(), value in json_text(),
    ) {
        let body = format!("{{\"x\":{value},\"features\":{{\"a\":{features} ,\"b\": {value}}}, \"experiments\":{list}}}");
        let tail = format!("\"features\":{{\"a\":{features}}},\"experiments\":{list},\"auto_experiments\":{list},\"overrides\":[]}}");
        let documents = vec![document("features/sdk-a", &body, &[]), document("mediawiki", &list, &[])];
        let content = Candidate { snapshot_tail: tail.clone().into(), documents, ..base() };
        let lay = |overrides: &[Override], served: Option<&Snapshot>| {
            let now = OffsetDateTime::UNIX_EPOCH;
            Overlay { overrides, key_of: &|_| None, served, is_successor: true, now }.apply(&content)
        };
        let with = lay(&[forced("a", Some(&value)), forced("c", None), forced("a", None)], None);
        for changed in &with.documents {
            serde_json::from_slice::<Value>(&changed.body).unwrap();
        }
        serde_json::from_str::<Value>(&format!("{{{}", str::from_utf8(&with.snapshot_tail).unwrap())).unwrap();
        let served = Candidate { snapshot_tail: with.snapshot_tail, documents: with.documents, ..base() };
        let without = lay(&[], Some(&served.at_revision(1)));
        prop_assert_eq!(&without.snapshot_tail, &tail);
        for (same, old) in without.documents.iter().zip(&content.documents) {
            prop_assert!(Arc::ptr_eq(same, old));
        }
    }
}
