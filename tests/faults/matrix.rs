//! Every fault on every route of the upstream by itself: what is served stays byte for byte, and recovers.
//!
//! Each case changes the upstream first, so that there is something to get wrong: with nothing new a conditional request
//! would be answered 304 and most faults never shown.

use std::time::Duration;

use serde_json::json;
use stitchd::cli::demo::upstream::{
    CLIENT_KEY, Connection, Fault, Route, Shift, Upstream, experiment, many_experiments,
};

use crate::{
    stand::{
        self, Change, DISCOVER, ENCRYPTION_KEY, SMALL_BODIES, TIMEOUT, assert_served,
        assert_unmoved, has_feature, json_body, reason, validators,
    },
    support::{Bed, TestApp, eventually},
};

/// One thing that goes wrong, and what a poll says of it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) fault: Fault,
    /// `unchanged`: the other parts arrived.
    outcome: &'static str,
    code: &'static str,
}

fn case(name: &'static str, fault: Fault, code: &'static str) -> Case {
    let outcome = "unchanged";
    Case {
        name,
        fault,
        outcome,
        code,
    }
}

pub(crate) fn held(name: &'static str, fault: Fault, code: &'static str) -> Case {
    let outcome = "held";
    Case {
        name,
        fault,
        outcome,
        code,
    }
}

fn refusal(status: u16, value: &str) -> Fault {
    let value = value.to_owned();
    Fault::RetryAfter { status, value }
}

/// What means the same on every route.
pub(crate) fn everywhere(elsewhere: &Upstream) -> Vec<Case> {
    let slow = Fault::SlowBody {
        bytes_per_tick: 1,
        tick: Duration::from_millis(50),
    };
    let redirect = Fault::Redirect(format!(
        "{}/api/features/{CLIENT_KEY}",
        elsewhere.base_url()
    ));
    vec![
        case("never answered", Fault::Hang, "timeout"),
        case("late", Fault::Delay(Duration::from_millis(800)), "timeout"),
        case("slow body", slow, "timeout"),
        case("reset", Fault::Reset, "reset"),
        case("half sent", Fault::HalfSent, "reset"),
        case("400", Fault::Status(400), "http_status"),
        case("revoked", Fault::Unrecoverable, "unrecoverable"),
        case("401", Fault::Status(401), "unauthorized"),
        case("403", Fault::Status(403), "unauthorized"),
        case("404", Fault::Status(404), "http_status"),
        case("429", refusal(429, "1"), "rate_limited"),
        case("500", Fault::Status(500), "http_status"),
        case("502", Fault::Status(502), "http_status"),
        case("503", refusal(503, "1"), "http_status"),
        case("truncated", Fault::TruncatedJson, "not_json"),
        case("no body", json_body(""), "not_json"),
        case("{}", Fault::EmptyObject, "bad_shape"),
        case("[]", Fault::EmptyArray, "bad_shape"),
        case("a web page", Fault::Html, "not_json"),
        case("gzip bomb", Fault::GzipBomb, "too_large"),
        case("over the limit", Fault::Oversized(2_100_000), "too_large"),
        case("elsewhere", redirect, "redirect"),
    ]
}

pub(crate) fn of_payloads() -> Vec<Case> {
    vec![
        held("empty features", Fault::EmptyFeatures, "empty_features"),
        case("a list", Fault::EmptyList, "bad_shape"),
        // Its outer shape is right, so that only the funnel refuses it.
        case(
            "features in a list",
            json_body("{\"features\":[]}"),
            "malformed",
        ),
    ]
}

pub(crate) fn of_lists(empty: Case) -> Vec<Case> {
    vec![
        empty,
        case("304 to nothing", Fault::Always304, "http_status"),
        case("a payload", Fault::EmptyFeatures, "bad_shape"),
        case(
            "items vanish",
            Fault::ShiftingList(Shift::Delete),
            "shifting_list",
        ),
        case(
            "items appear",
            Fault::ShiftingList(Shift::Insert),
            "shifting_list",
        ),
    ]
}

/// One route of the upstream, and what news look like that come by it.
struct Subject {
    route: Route,
    /// Its name among `failed_parts`.
    part: &'static str,
    /// Makes news of this name.
    change: fn(&Upstream, &str),
}

const FEATURES: Subject = Subject {
    route: Route::Features,
    part: "payload",
    change: |upstream, name| upstream.set_feature(name, json!({"defaultValue": 1})),
};

const SDK_PAYLOAD: Subject = Subject {
    route: Route::SdkPayload,
    ..FEATURES
};

const EXPERIMENTS: Subject = Subject {
    route: Route::Experiments,
    part: "experiments",
    change: |upstream, name| upstream.upsert_experiment(experiment(name)),
};

const CONNECTIONS: Subject = Subject {
    route: Route::Connections,
    part: "connections",
    change: |upstream, name| {
        let key = format!("sdk-{name}");
        upstream.set_connection_features(&key, json!({name: {"defaultValue": 1}}));
        upstream.add_connection(Connection::new(&key));
    },
};

/// The check: fault on, poll, nothing has moved; fault off, poll, the news are there.
async fn check(bed: &Bed, app: &TestApp, subject: &Subject, case: &Case) {
    let (upstream, route, name) = (&bed.upstream, subject.route, case.name);
    upstream.clear_requests();
    let idle = app.poll().await;
    stand::assert_report(&idle, "unchanged", &[], "");
    let accepted = validators(upstream, route).pop().unwrap();
    let before = app.served().await;
    let news = format!("news-{}", app.revision());
    (subject.change)(upstream, &news);
    upstream.set_fault(route, case.fault.clone());
    upstream.clear_requests();

    let report = app.poll().await;
    assert_failed(subject, case, &report);
    let source = stand::source_status(app).await;
    assert_eq!(source["last_error"], report["reason"], "{name}");
    assert_unmoved(name, &before, &app.served().await);

    upstream.clear_fault(route);
    let report = if case.asks_for_quiet() {
        eventually("the time asked for is over", async || {
            let report = app.poll().await;
            (report["outcome"] == "published").then_some(report)
        })
        .await
    } else {
        app.poll().await
    };
    assert_eq!(report["outcome"], "published", "{name}: {report}");
    assert_eq!(report["failed_parts"], json!([]), "{name}: {report}");
    let served = String::from_utf8(app.served().await.pop_last().unwrap().1.body.to_vec());
    assert!(
        served.unwrap().contains(&news),
        "{name}: `{news}` has not arrived"
    );
    for sent in validators(upstream, route) {
        assert_eq!(sent, accepted, "{name}: the validator of a refused body");
    }
}

fn assert_failed(subject: &Subject, case: &Case, report: &serde_json::Value) {
    let (name, part) = (case.name, subject.part);
    if case.asks_for_quiet() {
        // The class of routes is closed, so that parts which share it fail too, if they come later.
        let parts = report["failed_parts"].as_array().unwrap();
        assert!(parts.contains(&json!(part)), "{name}: {report}");
        let says = |word| reason(report).contains(word);
        assert!(says("rate_limited") || says(case.code), "{name}: {report}");
        return;
    }
    assert_eq!(report["outcome"], case.outcome, "{name}: {report}");
    assert_eq!(report["failed_parts"], json!([part]), "{name}: {report}");
    let said = format!("{part}: {}: ", case.code);
    assert!(
        reason(report).starts_with(&said),
        "{name}: no `{said}` in {report}"
    );
}

impl Case {
    fn asks_for_quiet(&self) -> bool {
        matches!(self.fault, Fault::RetryAfter { .. })
    }
}

async fn check_all(bed: &Bed, changes: &[Change<'_>], subject: &Subject, cases: &[Case]) {
    let changes = [changes, &[TIMEOUT, SMALL_BODIES]].concat();
    let app = stand::start(bed, &changes).await;
    assert_served(&app.served().await);
    for case in cases {
        check(bed, &app, subject, case).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn faults_of_the_payload_route() {
    let (bed, elsewhere) = (Bed::new(), Upstream::start(0).unwrap());
    let cases = [everywhere(&elsewhere), of_payloads()].concat();
    check_all(&bed, &[], &FEATURES, &cases).await;
    assert!(elsewhere.requests().is_empty(), "another host was asked");
}

#[tokio::test]
async fn faults_of_the_experiments_route() {
    let (bed, elsewhere) = (Bed::new(), Upstream::start(0).unwrap());
    bed.upstream.set_experiments(many_experiments(120));
    let empty = held("empty list", Fault::EmptyList, "empty_experiments");
    let cases = [everywhere(&elsewhere), of_lists(empty)].concat();
    check_all(&bed, &[], &EXPERIMENTS, &cases).await;
    assert!(elsewhere.requests().is_empty(), "another host was asked");
}

#[tokio::test]
async fn faults_of_the_remote_evaluation_route() {
    let (bed, elsewhere) = (Bed::new(), Upstream::start(0).unwrap());
    let connections = stand::remote_eval(&bed);
    let wrong = case("wrong key", Fault::WrongEncryption, "decryption");
    let cases = [everywhere(&elsewhere), of_payloads(), vec![wrong]].concat();
    let changes = [("client_key = \"sdk-demo\"", connections.as_str())];
    check_all(&bed, &changes, &SDK_PAYLOAD, &cases).await;
    assert!(elsewhere.requests().is_empty(), "another host was asked");
}

#[tokio::test]
async fn faults_of_the_connections_route() {
    let (bed, elsewhere) = (Bed::new(), Upstream::start(0).unwrap());
    // Two pages, the first of them of another environment: what shifts must not be what is read.
    bed.upstream.remove_connection(CLIENT_KEY);
    for number in 0..105 {
        bed.upstream.add_connection(Connection {
            environment: "dev".to_owned(),
            ..Connection::new(&format!("sdk-dev-{number}"))
        });
    }
    bed.upstream.add_connection(Connection::new(CLIENT_KEY));
    let empty = case("empty list", Fault::EmptyList, "no_connections");
    let cases = [everywhere(&elsewhere), of_lists(empty)].concat();
    check_all(&bed, &[DISCOVER], &CONNECTIONS, &cases).await;
    assert!(elsewhere.requests().is_empty(), "another host was asked");
}

#[tokio::test]
async fn faults_of_an_encrypted_connection() {
    let bed = Bed::new();
    bed.upstream.add_connection(Connection {
        encryption_key: Some(ENCRYPTION_KEY.to_owned()),
        ..Connection::new(CLIENT_KEY)
    });
    let key = format!("decryption_key = \"{ENCRYPTION_KEY}\"\nclient_key =");
    let cases = [
        case("wrong key", Fault::WrongEncryption, "decryption"),
        case("truncated", Fault::TruncatedJson, "not_json"),
        held("empty features", Fault::EmptyFeatures, "empty_features"),
    ];
    check_all(&bed, &[("client_key =", &key)], &FEATURES, &cases).await;
}

/// A wrong key in the list of connections is noticed with the first body that it cannot open.
#[tokio::test]
async fn a_wrong_key_among_the_connections() {
    let bed = Bed::new();
    let encrypted = |key: &str| Connection {
        encryption_key: Some(key.to_owned()),
        ..Connection::new(CLIENT_KEY)
    };
    bed.upstream.add_connection(encrypted(ENCRYPTION_KEY));
    let app = stand::start(&bed, &[DISCOVER]).await;
    let before = app.served().await;
    let list = json!({
        "connections": [{
            "key": CLIENT_KEY, "environment": "production", "project": "", "projects": [],
            "encryptionKey": "AAAAAAAAAAAAAAAAAAAAAA==", "remoteEvalEnabled": false,
        }],
        "total": 1, "hasMore": false,
    });
    let lie = json_body(&list.to_string());
    bed.upstream.set_fault(Route::Connections, lie);
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    let report = app.poll().await;
    stand::assert_report(&report, "unchanged", &["payload"], "payload: decryption: ");
    assert_unmoved("wrong key", &before, &app.served().await);
    bed.upstream.clear_fault(Route::Connections);
    stand::assert_report(&app.poll().await, "published", &[], "");
    assert!(has_feature(&app, "news").await);
    app.stop().await;
}

#[tokio::test]
async fn nobody_listens() {
    let parts = &["experiments", "payload"][..];
    let all = &["connections", "experiments", "payload"];
    for (line, parts) in [("", parts), (DISCOVER.1, all), ("remote", parts)] {
        let bed = Bed::new();
        let line = match line {
            "" => DISCOVER.0.to_owned(),
            "remote" => stand::remote_eval(&bed),
            other => other.to_owned(),
        };
        let app = stand::start(&bed, &[(DISCOVER.0, &line)]).await;
        let before = app.served().await;
        bed.upstream.set_feature("news", json!({"defaultValue": 1}));
        bed.upstream.go_down().await.unwrap();
        for _ in 0..2 {
            let report = app.poll().await;
            stand::assert_report(&report, "failed", parts, "payload: refused: ");
            assert_eq!(report["revision"], 1);
            assert_unmoved("down", &before, &app.served().await);
        }
        bed.upstream.come_back().unwrap();
        stand::assert_report(&app.poll().await, "published", &[], "");
        assert!(has_feature(&app, "news").await);
        app.stop().await;
    }
}
