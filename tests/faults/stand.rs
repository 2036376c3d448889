//! The service with short time limits, the upstream it polls, and the checks that the tests share.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use stitchd::{
    cli::demo::upstream::{CLIENT_KEY, Connection, Fault, Route, Upstream},
    http::ROUTES,
    settings::{self, Profile, Settings},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{Answer, Bed, ENVIRONMENT, SOURCE, TestApp, eventually};

/// Every data route with its whole answer.
pub(crate) type Served = BTreeMap<String, Answer>;

/// 16 bytes in base64: the key of the encrypted connections here.
pub(crate) const ENCRYPTION_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

/// One line of the bed's settings and what stands there instead.
pub(crate) type Change<'a> = (&'a str, &'a str);

/// As short as a busy machine allows: every fault that is a silence takes it twice.
pub(crate) const TIMEOUT: Change<'_> = ("poll.timeout = \"1s\"", "poll.timeout = \"500ms\"");
/// Small, so that a body above it is made quickly.
pub(crate) const SMALL_BODIES: Change<'_> =
    ("max_body_bytes = 8000000", "max_body_bytes = 2000000");
/// Polls by schedule, as fast as settings allow.
pub(crate) const OFTEN: Change<'_> = ("poll.interval = \"1h\"", "poll.interval = \"100ms\"");
/// Follows event streams.
pub(crate) const STREAMING: Change<'_> = ("poll.streaming = false", "poll.streaming = true");
/// No management API: the payload is all there is.
pub(crate) const PAYLOAD_ONLY: Change<'_> = ("rest_host =", "# rest_host =");
/// Connections come from the upstream's own list.
pub(crate) const DISCOVER: Change<'_> = ("client_key = \"sdk-demo\"", "connections = \"discover\"");

/// The bed's settings with some lines changed.
pub(crate) fn settings(bed: &Bed, changes: &[Change<'_>]) -> Settings {
    let mut text = bed.toml();
    for (from, to) in changes {
        assert!(text.contains(from), "the bed has no line `{from}`");
        text = text.replacen(from, to, 1);
    }
    settings::from_toml(&text, Profile::Test).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Starts the service with some settings changed and waits for its first revision.
pub(crate) async fn start(bed: &Bed, changes: &[Change<'_>]) -> TestApp {
    let app = TestApp::spawn(settings(bed, changes)).await;
    app.until_revision(1).await;
    settled(&app).await;
    app
}

/// Waits until the poll that brought the first revision has been accounted for.
pub(crate) async fn settled(app: &TestApp) {
    eventually("the first poll has ended", async || {
        let source = source_status(app).await;
        (!source["last_outcome"].is_null()).then_some(())
    })
    .await;
}

/// The bed's source in `/admin/status`.
pub(crate) async fn source_status(app: &TestApp) -> Value {
    app.status().await["sources"][SOURCE].clone()
}

/// Seconds from the last attempt to the next poll.
pub(crate) fn wait_seconds(source: &Value) -> f64 {
    let at = |name: &str| {
        let text = source[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {source}"));
        OffsetDateTime::parse(text, &Rfc3339).unwrap()
    };
    (at("next_poll") - at("last_attempt")).as_seconds_f64()
}

/// Forces a poll of any source and gives its report.
pub(crate) async fn poll_source(app: &TestApp, id: &str) -> Value {
    let answer = app
        .admin_post(&format!("/admin/sources/{id}/poll"), "")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The served snapshot.
pub(crate) async fn snapshot(app: &TestApp) -> Value {
    let answer = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Whether a feature is served.
pub(crate) async fn has_feature(app: &TestApp, key: &str) -> bool {
    snapshot(app).await["features"].get(key).is_some()
}

/// Tracking keys of the served experiments.
pub(crate) async fn experiments(app: &TestApp) -> Vec<String> {
    let snapshot = snapshot(app).await;
    let list = snapshot["experiments"].as_array().unwrap();
    let keys = list.iter().map(|e| e["trackingKey"].as_str().unwrap());
    keys.map(str::to_owned).collect()
}

/// The issues of the bed's environment.
pub(crate) async fn issues(app: &TestApp) -> Vec<Value> {
    let path = format!("/admin/environments/{ENVIRONMENT}/issues");
    let answer = app.admin_get(&path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["issues"].as_array().unwrap().clone()
}

/// Whether an issue with this code names a path that begins so.
pub(crate) fn has_issue(issues: &[Value], code: &str, path: &str) -> bool {
    let named = |issue: &&Value| issue["path"].as_str().is_some_and(|p| p.starts_with(path));
    issues
        .iter()
        .filter(named)
        .any(|issue| issue["code"] == code)
}

/// Fails unless every data route answers 200 with a validator.
///
/// The payload of a remote-evaluation connection is nobody's; that it is refused must not move either.
pub(crate) fn assert_served(served: &Served) {
    for (path, answer) in served {
        let refused =
            b"{\"status\":400,\"error\":\"Failed to get features (remote eval not supported)\"}";
        if path.starts_with("/api/features/") && answer.body == refused[..] {
            continue;
        }
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(answer.etag.is_some(), "{path} has no ETag");
    }
}

/// Fails when any data route answers otherwise than before.
#[track_caller]
pub(crate) fn assert_unmoved(case: &str, before: &Served, after: &Served) {
    let mut moved = String::new();
    for (path, was) in before {
        let is = after.get(path);
        if is != Some(was) {
            let short = |answer: &Answer| format!("{} {:?}", answer.status, answer.etag);
            let is = is.map(short);
            write!(moved, "\n{path}: {} became {is:?}", short(was)).unwrap();
        }
    }
    assert!(moved.is_empty(), "{case}: served answers moved:{moved}");
    assert_eq!(before.len(), after.len(), "{case}");
}

/// Fails unless every data route says that nothing was ever loaded.
pub(crate) async fn assert_never_loaded(app: &TestApp) {
    let paths = ROUTES
        .iter()
        .flat_map(|route| (route.probes)(ENVIRONMENT, CLIENT_KEY));
    for path in paths {
        let response = app
            .http
            .get(format!("{}{path}", app.data))
            .send()
            .await
            .unwrap();
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(response.status(), 503, "{path}");
        assert_eq!(header("retry-after").as_deref(), Some("5"), "{path}");
        assert_eq!(
            header("cache-control").as_deref(),
            Some("no-store"),
            "{path}"
        );
        assert_eq!(header("etag"), None, "{path}");
        let kind = header("content-type").unwrap();
        assert!(
            kind.starts_with("application/problem+json"),
            "{path}: {kind}"
        );
    }
}

/// What a report says went wrong.
pub(crate) fn reason(report: &Value) -> &str {
    report["reason"].as_str().unwrap_or("")
}

/// Fails unless a report has this outcome and these failed parts, and its reason has this text.
#[track_caller]
pub(crate) fn assert_report(report: &Value, outcome: &str, failed_parts: &[&str], why: &str) {
    assert_eq!(report["outcome"], outcome, "{report}");
    assert_eq!(report["failed_parts"], json!(failed_parts), "{report}");
    assert!(reason(report).contains(why), "`{why}` is not in {report}");
    assert_eq!(report["reason"].is_null(), why.is_empty(), "{report}");
}

/// Validators that requests of a class came with, in order.
pub(crate) fn validators(upstream: &Upstream, route: Route) -> Vec<Option<String>> {
    let requests = upstream.requests().into_iter();
    requests
        .filter(|request| request.route == Some(route))
        .map(|request| request.header("if-none-match").map(str::to_owned))
        .collect()
}

/// Makes the bed's connection one for remote evaluation, encrypted, in upstream and settings.
pub(crate) fn remote_eval(bed: &Bed) -> String {
    bed.upstream.add_connection(Connection {
        remote_eval: true,
        encryption_key: Some(ENCRYPTION_KEY.to_owned()),
        ..Connection::new(CLIENT_KEY)
    });
    format!(
        "connections = [{{ key = \"{CLIENT_KEY}\", remote_eval = true, decryption_key = \"{ENCRYPTION_KEY}\" }}]"
    )
}

/// 200 with this text as JSON.
pub(crate) fn json_body(text: &str) -> Fault {
    Fault::Body {
        status: 200,
        content_type: "application/json".to_owned(),
        bytes: text.to_owned().into(),
    }
}

/// A moment without anything: for what must *not* happen, which nothing announces.
pub(crate) async fn quiet_moment() {
    tokio::time::sleep(Duration::from_millis(350)).await;
}
