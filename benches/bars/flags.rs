//! Toggles and flags of the real service against fixed bytes of the same size behind the same middleware, in alternating
//! rounds.
//!
//! Unleash's frontend API with 350 features, a quarter of them each without rules, targeted, rolled out, and split by an
//! experiment, every request another user's; and both protocols' 304, to one request each.

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::web;
use anyhow::Context as _;
use reqwest::RequestBuilder;
use serde_json::{Map, Value, json};
use stitchd::{
    cli::demo::upstream::{CLIENT_KEY, Upstream},
    http::Route,
};

use super::{
    fixed::{self, FLAGS, Fixed, TOGGLES, headers_of, of_median_size},
    load::Requests,
    memory::plain_client,
    reads::{alternate, baseline, judge, settings, started},
    report::{Report, median},
};

/// Features evaluated by each request.
const FEATURES: usize = 350;
/// What an evaluation may lose against fixed bytes.
const BAR: f64 = 0.25;
/// What a 304 may lose.
const UNCHANGED_BAR: f64 = 0.8;
/// Users looked at to find an answer of the usual size.
const SAMPLE: u64 = 101;
/// Requests per second of Unleash Edge 19 on two cores: answers with 350 toggles, and its 304.
const EDGE: [f64; 2] = [2_770.0, 2_930.0];
/// How many times as many are expected of us.
const EDGE_BARS: [f64; 2] = [5.0, 20.0];

static BASELINE: [Route; 2] = [
    Route::baseline("/api/frontend", || {
        web::route().to(fixed::document::<TOGGLES>)
    }),
    Route::baseline("/ofrep/v1/evaluate/flags", || {
        web::route().to(fixed::document_to_body::<FLAGS>)
    }),
];

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    actix_web::rt::System::new().block_on(measure(report))
}

async fn measure(report: &mut Report) -> anyhow::Result<()> {
    stitchd::sources::install_tls_provider();
    let upstream = Upstream::start(0)?;
    upstream.set_features(Value::Object(features()));
    let folder = tempfile::tempdir()?;
    let settings = settings(&upstream, folder.path())?;
    let (service, address) = started(&settings).await?;
    let client = plain_client()?;
    let of_user = |user: u64| {
        let url = format!("http://{address}{}", path(user));
        client.get(url).header("authorization", CLIENT_KEY)
    };
    let (bytes, toggles_tag) = remember(TOGGLES, SAMPLE, of_user).await?;
    let of_flags = |_| {
        let url = format!("http://{address}/ofrep/v1/evaluate/flags");
        client.post(url).bearer_auth(CLIENT_KEY).body(BODY)
    };
    let (_, flags_tag) = remember(FLAGS, 1, of_flags).await?;
    let (baseline, fixed_address) =
        baseline(&settings, service.handles(), service.metrics(), &BASELINE)?;
    let addresses = [address, fixed_address];

    let what = format!("{FEATURES} features, answers of about {bytes} bytes");
    let found = alternate(addresses, Requests::Each(request), 200).await?;
    judge(report, ("frontend_350", BAR), &found, &what);
    let rate = median(found[0].clone());
    report.at_least("frontend_350_edge", rate / EDGE[0], EDGE_BARS[0]);
    let same = Requests::Same(conditional(&toggles_tag));
    let found = alternate(addresses, same, 304).await?;
    judge(report, ("frontend_304", UNCHANGED_BAR), &found, "one user");
    let rate = median(found[0].clone());
    report.at_least("frontend_304_edge", rate / EDGE[1], EDGE_BARS[1]);
    let same = Requests::Same(conditional_post(&flags_tag));
    let found = alternate(addresses, same, 304).await?;
    judge(report, ("ofrep_304", UNCHANGED_BAR), &found, "one user");
    baseline.stop(false).await;
    service.stop().await;
    upstream.stop().await;
    Ok(())
}

fn features() -> Map<String, Value> {
    let feature = |number: usize| {
        let key = format!("experiment-{number:03}");
        let targeted = json!({"country": {"$in": ["US", "NL"]}, "plan": {"$ne": "trial"}});
        let (default, rules) = match number % 4 {
            0 => (json!(true), json!([])),
            1 => (
                json!(false),
                json!([{"id": "fr_1", "condition": targeted, "force": true}]),
            ),
            2 => (
                json!(true),
                json!([{"id": "fr_2", "coverage": 0.5, "hashAttribute": "id", "seed": key, "force": false}]),
            ),
            _ => (
                json!("control"),
                json!([{
                    "id": "fr_3", "key": key, "seed": key, "hashAttribute": "id", "hashVersion": 2, "coverage": 1,
                    "condition": targeted, "variations": ["control", "treatment"], "weights": [0.5, 0.5],
                    "meta": [{"key": "control", "name": "Control"}, {"key": "treatment", "name": "Treatment"}],
                    "phase": "0", "name": format!("Experiment {number}")
                }]),
            ),
        };
        let feature = json!({"defaultValue": default, "rules": rules});
        (format!("some-feature-{number:03}"), feature)
    };
    (0..FEATURES).map(feature).collect()
}

/// The address that one user's toggles have.
fn path(user: u64) -> String {
    let country = ["DE", "US", "NL", "US"][usize::try_from(user % 4).unwrap_or_default()];
    format!(
        "/api/frontend?sessionId={user}&appName=web&environment=default&userId=user-{user}&properties%5Bcountry%5D={country}&properties%5Bplan%5D=pro"
    )
}

fn head(method: &str, path: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAuthorization: {CLIENT_KEY}\r\n"
    )
}

/// A request for a user that nobody asked for before.
fn request() -> Vec<u8> {
    static USER: AtomicU64 = AtomicU64::new(0);
    let path = path(USER.fetch_add(1, Ordering::Relaxed));
    format!("{}\r\n", head("GET", &path)).into_bytes()
}

/// A request for the first user's toggles by somebody who has them.
fn conditional(tag: &str) -> Vec<u8> {
    format!("{}If-None-Match: {tag}\r\n\r\n", head("GET", &path(0))).into_bytes()
}

/// What OpenFeature's clients say of a user.
const BODY: &str = r#"{"context":{"targetingKey":"user-0","country":"DE","plan":"pro"}}"#;

/// The same for flags.
fn conditional_post(tag: &str) -> Vec<u8> {
    format!(
        "{}If-None-Match: {tag}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
        head("POST", "/ofrep/v1/evaluate/flags"),
        BODY.len()
    )
    .into_bytes()
}

/// Has the fixed handler answer as the service does, with an answer of median size; gives its bytes, and the first user's
/// tag.
async fn remember(
    which: usize,
    sample: u64,
    asked: impl Fn(u64) -> RequestBuilder,
) -> anyhow::Result<(usize, String)> {
    let mut answers = Vec::new();
    let mut first = None;
    for user in 0..sample {
        let answer = asked(user).send().await?;
        let tag = answer.headers().get("etag").context("it has a tag")?;
        let tag = tag.to_str()?.to_owned();
        let known = asked(user).header("if-none-match", &tag).send().await?;
        anyhow::ensure!(known.status() == 304, "the tag is not taken");
        first.get_or_insert(tag);
        answers.push(Fixed {
            found: headers_of(answer.error_for_status_ref()?)?,
            not_modified: headers_of(&known)?,
            body: answer.bytes().await?,
        });
    }
    let tag = first.context("somebody was asked for")?;
    Ok((fixed::set(which, of_median_size(answers)), tag))
}
