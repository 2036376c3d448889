//! Remote evaluation by the real service against fixed bytes of the same size behind the same middleware, in alternating
//! rounds.
//!
//! A hundred features, a quarter of them each without rules, targeted, rolled out, and split by an experiment; every
//! request is another unit's.

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::web;
use serde_json::{Map, Value, json};
use stitchd::{
    cli::demo::upstream::{Connection, REMOTE_EVAL_KEY, Upstream},
    http::Route,
    settings::{self, Connections},
};

use super::{
    fixed::{self, EVALUATION, Fixed, headers_of, of_median_size},
    load::Requests,
    memory::plain_client,
    reads::{alternate, baseline, judge, settings, started},
    report::Report,
};

/// Features evaluated by each request.
const FEATURES: usize = 100;
/// What an evaluation may lose against fixed bytes.
const BAR: f64 = 0.35;
/// Units looked at to find an answer of the usual size.
const SAMPLE: u64 = 101;

static BASELINE: [Route; 1] = [Route::baseline("/api/eval/{client_key}", || {
    web::route().to(fixed::answer_to_body::<EVALUATION>)
})];

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    actix_web::rt::System::new().block_on(measure(report))
}

async fn measure(report: &mut Report) -> anyhow::Result<()> {
    stitchd::sources::install_tls_provider();
    let upstream = Upstream::start(0)?;
    upstream.set_features(Value::Object(features()));
    upstream.add_connection(Connection {
        remote_eval: true,
        ..Connection::new(REMOTE_EVAL_KEY)
    });
    let folder = tempfile::tempdir()?;
    let mut settings = settings(&upstream, folder.path())?;
    for source in &mut settings.sources {
        source.client_key.clear();
        source.connections = Connections::List(vec![settings::Connection {
            key: REMOTE_EVAL_KEY.to_owned(),
            remote_eval: true,
            ..settings::Connection::default()
        }]);
    }
    let (service, address) = started(&settings).await?;
    let bytes = remember(&format!("http://{address}{}", path())).await?;
    let (baseline, fixed_address) =
        baseline(&settings, service.handles(), service.metrics(), &BASELINE)?;

    let what = format!("{FEATURES} features, answers of about {bytes} bytes");
    let found = alternate([address, fixed_address], Requests::Each(request), 200).await?;
    judge(report, ("eval_100", BAR), &found, &what);
    baseline.stop(false).await;
    service.stop().await;
    upstream.stop().await;
    Ok(())
}

fn features() -> Map<String, Value> {
    let feature = |number: usize| {
        let key = format!("experiment-{number:02}");
        let targeted = json!({"country": {"$in": ["US", "NL"]}, "plan": {"$ne": "trial"}});
        let rules = match number % 4 {
            0 => json!([]),
            1 => json!([{"id": "fr_1", "condition": targeted, "force": "targeted"}]),
            2 => {
                json!([{"id": "fr_2", "coverage": 0.5, "hashAttribute": "id", "seed": key, "force": "rolled-out"}])
            }
            _ => json!([{
                "id": "fr_3", "key": key, "seed": key, "hashAttribute": "id", "hashVersion": 2, "coverage": 1,
                "condition": targeted, "variations": ["control", "treatment"], "weights": [0.5, 0.5],
                "meta": [{"key": "control", "name": "Control"}, {"key": "treatment", "name": "Treatment"}],
                "phase": "0", "name": format!("Experiment {number}")
            }]),
        };
        let feature = json!({"defaultValue": "control", "rules": rules});
        (format!("feature-{number:02}"), feature)
    };
    (0..FEATURES).map(feature).collect()
}

fn path() -> String {
    format!("/api/eval/{REMOTE_EVAL_KEY}")
}

/// What is said of one unit.
fn body(unit: u64) -> String {
    let country = ["DE", "US", "NL", "US"][usize::try_from(unit % 4).unwrap_or_default()];
    format!(
        r#"{{"attributes":{{"id":"unit-{unit}","country":"{country}","plan":"pro"}},"url":"https://example.com/"}}"#
    )
}

/// A request for a unit that nobody asked for before.
fn request() -> Vec<u8> {
    static UNIT: AtomicU64 = AtomicU64::new(0);
    let (path, body) = (path(), body(UNIT.fetch_add(1, Ordering::Relaxed)));
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Has the fixed handler answer as the service does, with an answer of median size; gives its bytes.
async fn remember(url: &str) -> anyhow::Result<usize> {
    let client = plain_client()?;
    let mut answers = Vec::new();
    for unit in 0..SAMPLE {
        let answer = client.post(url).body(body(unit)).send().await?;
        answers.push(Fixed {
            found: headers_of(answer.error_for_status_ref()?)?,
            body: answer.bytes().await?,
            ..Fixed::default()
        });
    }
    let answer = of_median_size(answers);
    let whole: Value = serde_json::from_slice(&answer.body)?;
    let features = whole["features"].as_object().map_or(0, Map::len);
    anyhow::ensure!(features == FEATURES, "{features} features");
    Ok(fixed::set(EVALUATION, answer))
}
