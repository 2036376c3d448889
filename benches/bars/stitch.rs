//! From raw bytes to a snapshot with all canonical bytes and hashes: how long, and how it grows.

use std::{hint::black_box, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use stitchd::{
    actors::config_service::field_names,
    cli::demo::upstream::{many_experiments, many_features},
    clock,
    eval::Dialect,
    model::{Candidate, Document, Evaluators, Snapshot, SnapshotMeta},
    pipeline::{
        FieldNames,
        admission::{Offer, admit},
        guard::{Content, Reaction, Rules, Side},
        input::SourceInput,
        stitch::{StitchInput, shown, stitch},
    },
    settings, views,
};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::report::{Report, median};

/// The environment and the source of all measurements.
pub(crate) const NAME: &str = "bench";
/// Milliseconds that 10,000 features may take.
pub(crate) const BUDGET_MS: f64 = 250.0;
/// Rounds of the large measurement; the small one runs this many times per round.
const ROUNDS: usize = 15;
const SMALL_PER_ROUND: usize = 5;
/// Linear, with room for what is not ours: 8 MB do not fit into the caches that 800 kB fit into.
const GROWTH_BAR: f64 = 1.15;

/// What an upstream delivers.
pub(crate) struct Delivered {
    pub(crate) payload: Bytes,
    pub(crate) experiments: Bytes,
}

/// So many three-rule features and a fortieth of that in experiments.
pub(crate) fn delivered(features: usize) -> Delivered {
    let payload = json!({
        "status": 200,
        "features": many_features(features, 3),
        "dateUpdated": "2026-11-01T00:00:00.000Z",
    });
    let experiments = many_experiments(features / 40);
    let list = json!({"total": experiments.len(), "experiments": experiments});
    Delivered {
        payload: payload.to_string().into(),
        experiments: list.to_string().into(),
    }
}

fn fields() -> FieldNames {
    field_names(&settings::Fields::default())
}

/// Validates and adapts.
pub(crate) fn input(delivered: &Delivered) -> anyhow::Result<SourceInput> {
    let mut input = SourceInput::default();
    input.take_payload(NAME, NAME, &delivered.payload)?;
    input.take_experiments(NAME, &delivered.experiments, &fields())?;
    Ok(input)
}

fn stitch_inputs(input: &SourceInput, now: OffsetDateTime) -> [StitchInput; 1] {
    let payloads = input.payloads.values();
    let list = input.experiments.as_ref();
    [StitchInput {
        source: NAME.into(),
        precedence: 0,
        payloads: payloads.map(|part| Arc::clone(&part.payload)).collect(),
        experiments: list.map(|part| Arc::clone(&part.list)),
        checked_at: now,
    }]
}

/// Stitches and renders every route.
pub(crate) fn candidate(input: &SourceInput) -> Candidate {
    let now = clock::now();
    let inputs = stitch_inputs(input, now);
    let stitched = stitch(NAME, &inputs);
    let views = views::render_consumers(&shown(&stitched, &inputs));
    let documents: Vec<_> = views
        .into_iter()
        .map(|view| Arc::new(Document::new(view.name, view.body, now, view.members)))
        .collect();
    let snapshot_tail = views::snapshot::snapshot_tail(&stitched);
    Candidate {
        environment: NAME.into(),
        hash: Candidate::content_hash(&snapshot_tail, &documents),
        snapshot_tail,
        documents,
        meta: SnapshotMeta {
            features: stitched.features.len(),
            experiments: stitched.experiments.len(),
            ..SnapshotMeta::default()
        },
        created_at: now,
        evaluators: Evaluators::default(),
        base: None,
    }
}

/// Everything between the bytes of an upstream and the bytes of every route.
fn whole(delivered: &Delivered) -> anyhow::Result<Snapshot> {
    Ok(candidate(&input(delivered)?).at_revision(1))
}

/// How long something takes, in milliseconds, and what it gave.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let started = Instant::now();
    let result = work();
    (ms(started.elapsed()), result)
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let (large, small) = (delivered(10_000), delivered(1_000));
    let (mut large_ms, mut small_ms, mut growth) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let (time, snapshot) = timed(|| whole(&large));
        large_ms.push(time);
        bytes = snapshot?.documents.values().map(|d| d.body.len()).sum();
        let mut small_of_round = Vec::new();
        for _ in 0..SMALL_PER_ROUND {
            let (time, snapshot) = timed(|| whole(&small));
            small_of_round.push(time);
            black_box(snapshot?);
        }
        let small_time = median(small_of_round);
        growth.push(time / (10.0 * small_time));
        small_ms.push(small_time);
    }
    let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    let notes = format!(
        "least {:.0} ms, {:.1} ms",
        least(&large_ms),
        least(&small_ms)
    );
    let (large_ms, small_ms) = (median(large_ms), median(small_ms));
    report.at_most("stitch_10000", large_ms / BUDGET_MS, 1.0);
    report.at_most("stitch_growth", median(growth), GROWTH_BAR);
    report.note(&format!(
        "median of {ROUNDS} rounds: 10,000 features {large_ms:.0} ms, 1,000 features {small_ms:.1} ms; {notes}; {} kB in, {} kB out",
        (large.payload.len() + large.experiments.len()) / 1000,
        bytes / 1000
    ));
    stages(report, &large)?;
    guards(report, &large)
}

/// Where the time goes; not judged.
fn stages(report: &mut Report, delivered: &Delivered) -> anyhow::Result<()> {
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..5 {
        let (validate, input) = timed(|| input(delivered));
        let input = input?;
        let (stitch, candidate) = timed(|| candidate(&input));
        let (number, snapshot) = timed(|| candidate.at_revision(1));
        black_box(snapshot);
        for (all, one) in times.iter_mut().zip([validate, stitch, number]) {
            all.push(one);
        }
    }
    let names = [
        "stitch_validate_adapt",
        "stitch_merge_render_hash",
        "stitch_number",
    ];
    for (name, times) in names.into_iter().zip(times) {
        report.unjudged(name, median(times) / BUDGET_MS);
    }
    Ok(())
}

/// What guards cost where a change touches nothing: each part, and two stitches of the environment.
fn guards(report: &mut Report, delivered: &Delivered) -> anyhow::Result<()> {
    let input = input(delivered)?;
    let settings = settings::Guards::default();
    let rules = Rules {
        max_removed_share: settings.max_removed_share,
        max_removed_min: settings.max_removed_min,
        max_growth: settings.max_growth,
        growth_floor_bytes: settings.growth_floor_bytes,
        max_changed_units_share: settings.max_changed_units_share,
        weights_changed: Reaction::Warn,
        hash_changed: Reaction::Warn,
        namespace_overlap: Reaction::Warn,
        allow_empty: false,
        lists_connections: false,
        dialect: Dialect::Strict,
    };
    let part = input.payloads.get(NAME).context("the payload was taken")?;
    let now = clock::now();
    let news = [Content::Payload(NAME.to_owned(), part.clone())];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let (time, verdict) = timed(|| {
            admit(&Offer {
                source: &NAME.into(),
                rules: &rules,
                old: &input,
                news: &news,
                is_first: false,
                live: None,
                takes_part: &|_| true,
                side: &|input| Side {
                    stitched: stitch(NAME, &stitch_inputs(input, now)),
                    ..Side::default()
                },
            })
        });
        anyhow::ensure!(verdict.parked.is_empty(), "{:?}", verdict.trips);
        times.push(time);
    }
    report.unjudged("guards", median(times) / BUDGET_MS);
    Ok(())
}
