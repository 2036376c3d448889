//! `/v1/decide` of the real service against fixed bytes of the same size behind the same middleware, in alternating rounds.
//!
//! Fifty experiments, each targeted at two attributes; every request is another unit's, and every second unit is in about
//! half of them.

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::web;
use serde_json::{Map, Value, json};
use stitchd::{cli::demo::upstream::Upstream, http::Route};

use super::{
    fixed::{self, DECISION, Fixed, headers_of, of_median_size},
    load::Requests,
    memory::plain_client,
    reads::{alternate, baseline, judge, settings, started},
    report::Report,
    stitch::NAME,
};

/// Experiments decided by each request.
const EXPERIMENTS: usize = 50;
/// What a decision may lose against fixed bytes.
const BAR: f64 = 0.6;
/// Units looked at to find an answer of the usual size.
const SAMPLE: u64 = 101;

static BASELINE: [Route; 1] = [Route::baseline("/v1/decide", || {
    web::route().to(fixed::answer::<DECISION>)
})];

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
    let bytes = remember(&format!("http://{address}")).await?;
    let (baseline, fixed_address) =
        baseline(&settings, service.handles(), service.metrics(), &BASELINE)?;

    let what = format!("{EXPERIMENTS} experiments, answers of about {bytes} bytes");
    let found = alternate([address, fixed_address], Requests::Each(request), 200).await?;
    judge(report, ("decide_50", BAR), &found, &what);
    baseline.stop(false).await;
    service.stop().await;
    upstream.stop().await;
    Ok(())
}

/// One feature per experiment, targeted at a country and a plan.
fn features() -> Map<String, Value> {
    let feature = |number: usize| {
        let key = format!("experiment-{number:02}");
        let countries = if number.is_multiple_of(2) {
            json!(["DE", "FR", "US"])
        } else {
            json!(["US", "GB", "NL"])
        };
        let rule = json!({
            "id": format!("fr_{number}"), "key": key, "seed": key, "hashAttribute": "id", "hashVersion": 2, "coverage": 0.9,
            "condition": {"country": {"$in": countries}, "plan": {"$ne": "trial"}},
            "variations": ["control", "treatment"], "weights": [0.5, 0.5],
            "meta": [{"key": "control", "name": "Control"}, {"key": "treatment", "name": "Treatment"}],
            "phase": "0", "name": format!("Experiment {number}"),
        });
        (
            format!("feature-{number:02}"),
            json!({"defaultValue": "control", "rules": [rule]}),
        )
    };
    (0..EXPERIMENTS).map(feature).collect()
}

/// The address that one unit is asked for.
fn path(unit: u64) -> String {
    let country = ["DE", "US", "NL", "FR"][usize::try_from(unit % 4).unwrap_or_default()];
    format!(
        "/v1/decide?user_key=unit-{unit}&env={NAME}&context=%7B%22country%22:%22{country}%22,%22plan%22:%22pro%22%7D"
    )
}

/// A request for a unit that nobody asked for before.
fn request() -> Vec<u8> {
    static UNIT: AtomicU64 = AtomicU64::new(0);
    let path = path(UNIT.fetch_add(1, Ordering::Relaxed));
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n").into_bytes()
}

/// Has the fixed handler answer as the service does, with an answer of median size; gives its bytes.
async fn remember(service: &str) -> anyhow::Result<usize> {
    let client = plain_client()?;
    let mut answers = Vec::new();
    for unit in 0..SAMPLE {
        let answer = client
            .get(format!("{service}{}", path(unit)))
            .send()
            .await?;
        answers.push(Fixed {
            found: headers_of(answer.error_for_status_ref()?)?,
            body: answer.bytes().await?,
            ..Fixed::default()
        });
    }
    let answer = of_median_size(answers);
    let whole: Value = serde_json::from_slice(&answer.body)?;
    let assignments = whole["assignments"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(
        assignments > EXPERIMENTS / 4,
        "too few assignments: {assignments}"
    );
    Ok(fixed::set(DECISION, answer))
}
