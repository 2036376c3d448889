//! Whatever an upstream answers, nothing is emptied, nothing shrinks by more than the guards allow, nothing panics.

use std::{collections::BTreeSet, io::Write as _, path::Path, sync::Arc};

use proptest::test_runner::{RngAlgorithm, TestRng};

use serde_json::{Value, json};
use stitchd::{
    actors::config_service::field_names,
    cli::demo::upstream::{CLIENT_KEY, many_experiments, many_features},
    clock,
    eval::Dialect,
    model::Status,
    pipeline::{
        FieldNames,
        admission::{Offer, Verdict, admit},
        guard::{Reaction, Rules, Shown, Side},
        input::SourceInput,
        stitch::{self, StitchInput},
    },
    settings, views,
};

use crate::{
    mutations::{below, bend},
    stand,
    support::{Bed, ENVIRONMENT, TestApp},
};

/// Where random numbers begin: the same in each run, so that a failing case can be looked at.
const SEEDS: [u8; 4] = [21, 34, 55, 89];
/// Cases of each seed for the funnel's functions, of three answers each, and for the whole service.
const CASES: usize = 120;
const ANSWERS: usize = 3;
const SERVICE_CASES: usize = 20;
const SOURCE: &str = "s";

fn rng(seed: u8) -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])
}

/// A case that is under way; it says which one it is if the test fails, be it by a panic within the funnel.
struct Case(String);

impl Case {
    fn new(seed: u8, case: usize) -> Self {
        Self(format!("seed {seed}, case {case}"))
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let line = format!("failed in {}\n", self.0);
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }
}

/// Real payloads where the corpus is, and always one of the demo's.
fn payloads() -> Vec<Value> {
    let mut payloads = vec![json!({
        "status": 200,
        "features": many_features(8, 3),
        "savedGroups": {"grp_staff": ["ada", "grace"]},
        "dateUpdated": "2026-11-01T00:00:00.000Z",
    })];
    if let Some(folder) = std::env::var_os("STITCHD_CONFORMANCE_DIR") {
        let file = Path::new(&folder).join("growthbook-server-payloads.json");
        let corpus: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let cases = corpus["payloads"].as_array().unwrap();
        payloads.extend(cases.iter().map(|case| case["payload"].clone()));
    }
    payloads
}

fn list() -> Value {
    json!({ "experiments": many_experiments(5) })
}

fn rules() -> Rules {
    let guards = settings::Guards::default();
    Rules {
        max_removed_share: guards.max_removed_share,
        max_removed_min: guards.max_removed_min,
        max_growth: guards.max_growth,
        growth_floor_bytes: guards.growth_floor_bytes,
        max_changed_units_share: guards.max_changed_units_share,
        weights_changed: Reaction::Warn,
        hash_changed: Reaction::Warn,
        namespace_overlap: Reaction::Warn,
        allow_empty: false,
        lists_connections: true,
        dialect: Dialect::Strict,
    }
}

fn fields() -> FieldNames {
    field_names(&settings::Fields::default())
}

fn side(input: &SourceInput) -> Side {
    let payloads = input.payloads.values();
    let inputs = [StitchInput {
        source: SOURCE.into(),
        precedence: 0,
        payloads: payloads.map(|part| Arc::clone(&part.payload)).collect(),
        experiments: input.experiments.as_ref().map(|p| Arc::clone(&p.list)),
        checked_at: clock::now(),
    }];
    let stitched = stitch::stitch("test", &inputs);
    let shown = stitch::shown(&stitched, &inputs);
    let views = views::render_consumers(&shown).into_iter();
    Side {
        views: views
            .map(|view| Shown {
                name: view.name.into(),
                bytes: view.body.len(),
                members: view.members,
            })
            .collect(),
        shown: shown.iter().map(|e| e.item.tracking_key.clone()).collect(),
        stitched,
    }
}

/// Runs one upstream answer through the funnel's functions, as an ingest does; refused parts keep what was accepted.
fn ingest(old: &SourceInput, payload: &[u8], list: &[u8], is_first: bool) -> Verdict {
    let mut old = old.clone();
    let payload = payload.to_vec().into();
    let mut news = Vec::new();
    news.extend(old.read_payload(SOURCE, "k", &payload).ok().flatten());
    let list = list.to_vec().into();
    let read = old.read_experiments(SOURCE, &list, &fields());
    news.extend(read.ok().flatten());
    admit(&Offer {
        source: &SOURCE.into(),
        rules: &rules(),
        old: &old,
        news: &news,
        is_first,
        live: None,
        takes_part: &|_| true,
        side: &side,
    })
}

/// What is served.
struct Served {
    /// Features, running experiments, and members of each view or the SDKs' features.
    sets: Vec<BTreeSet<String>>,
    /// Features that say nothing.
    blank: BTreeSet<String>,
}

fn is_blank(feature: &Value) -> bool {
    let rules = feature["rules"].as_array();
    feature["defaultValue"].is_null() && rules.is_none_or(Vec::is_empty)
}

/// What is served of an input.
fn served(input: &SourceInput) -> Served {
    let side = side(input);
    let features = side.stitched.features.keys().map(ToString::to_string);
    let running = side
        .stitched
        .experiments
        .iter()
        .filter(|e| e.item.status == Status::Running && !e.item.archived);
    let mut sets = vec![
        features.collect(),
        running.map(|e| e.item.tracking_key.clone()).collect(),
    ];
    let views = side.views.into_iter();
    sets.extend(views.map(|view| view.members.into_iter().collect()));
    let blank = side.stitched.features.iter();
    let blank = blank.filter(|(_, feature)| is_blank(&feature.item.definition.to_value()));
    Served {
        sets,
        blank: blank.map(|(key, _)| key.to_string()).collect(),
    }
}

/// Whether what is left is no less than a guard allows.
fn is_within(before: &BTreeSet<String>, after: &BTreeSet<String>) -> bool {
    let removed = before.difference(after).count();
    removed < 3 || 10 * removed <= 3 * before.len()
}

#[track_caller]
fn assert_safe(before: &Served, after: &Served, case: &str) {
    // A feature that has become blank is as good as gone.
    let blanked: BTreeSet<String> = after.blank.difference(&before.blank).cloned().collect();
    let left = &after.sets[0] - &blanked;
    assert!(
        is_within(&before.sets[0], &left),
        "{case}: {blanked:?} are blank of {:?}",
        before.sets[0]
    );
    let says_something = |side: &Served| !side.sets[0].is_subset(&side.blank);
    assert!(
        says_something(after) || !says_something(before),
        "{case}: all features are blank"
    );
    for (number, (before, after)) in before.sets.iter().zip(&after.sets).enumerate() {
        assert!(
            is_within(before, after),
            "{case}: {before:?} became {after:?}"
        );
        // A view alone may be emptied by the end of its last experiments, the rest never.
        let is_view = number > 1;
        assert!(
            is_view || before.is_empty() || !after.is_empty(),
            "{case}: emptied"
        );
    }
}

/// The text of a document, cut short now and then.
fn text(document: &Value, rng: &mut TestRng) -> Vec<u8> {
    let mut text = document.to_string().into_bytes();
    if below(rng, 50) == 0 {
        text.truncate(below(rng, text.len()));
    }
    text
}

#[test]
fn no_answer_empties_or_shrinks_what_is_served_beyond_the_guards() {
    let (payloads, list) = (payloads(), list());
    let good: Vec<(&Value, SourceInput)> = payloads
        .iter()
        .map(|payload| {
            let texts = [payload, &list].map(|document| document.to_string().into_bytes());
            let first = ingest(&SourceInput::default(), &texts[0], &texts[1], true);
            assert_eq!(first.parked, [], "the good one is good");
            (payload, first.input)
        })
        .collect();
    for seed in SEEDS {
        bend_for_the_funnel(seed, &good, &list);
    }
}

fn bend_for_the_funnel(seed: u8, good: &[(&Value, SourceInput)], list: &Value) {
    let rng = &mut rng(seed);
    let (mut parked, mut taken) = (0, 0);
    for case in 0..CASES {
        let running = Case::new(seed, case);
        let (payload, input) = &good[case % good.len()];
        let (mut payload, mut experiments) = ((*payload).clone(), list.clone());
        let mut input = input.clone();
        let mut before = served(&input);
        // Mutations pile up: each answer is compared with what was accepted of the ones before.
        for answer in 0..ANSWERS {
            let times = [below(rng, 6), below(rng, 6)];
            bend(&mut payload, times[0], rng);
            bend(&mut experiments, times[1], rng);
            let texts = [text(&payload, rng), text(&experiments, rng)];
            let verdict = ingest(&input, &texts[0], &texts[1], false);
            let after = served(&verdict.input);
            let name = format!("{}, answer {answer}", running.0);
            assert_safe(&before, &after, &name);
            assert_eq!(
                verdict.parked.is_empty(),
                verdict.trips.is_empty(),
                "{name}"
            );
            parked += usize::from(!verdict.parked.is_empty());
            taken += usize::from(verdict.is_news);
            (input, before) = (verdict.input, after);
        }
    }
    assert!(parked > CASES / 20, "{parked}: the mutations are too tame");
    assert!(taken > CASES / 20, "{taken}: the mutations are too wild");
}

/// The same over HTTP.
async fn served_by(app: &TestApp) -> Served {
    let snapshot = app.get(&format!("/v1/snapshot/{ENVIRONMENT}")).await;
    assert_eq!(snapshot.status, 200);
    let snapshot = snapshot.json();
    let features = snapshot["features"].as_object().unwrap();
    let running = snapshot["experiments"].as_array().unwrap().iter();
    let running = running.filter(|e| e["status"] == "running" && e["archived"] != true);
    let sdk = app.get(&format!("/api/features/{CLIENT_KEY}")).await;
    assert_eq!(sdk.status, 200);
    let sdk = sdk.json();
    let sdk = sdk["features"].as_object().unwrap();
    let blank = features.iter().filter(|(_, feature)| is_blank(feature));
    Served {
        sets: vec![
            features.keys().cloned().collect(),
            running
                .map(|e| e["trackingKey"].as_str().unwrap().to_owned())
                .collect(),
            sdk.keys().cloned().collect(),
        ],
        blank: blank.map(|(key, _)| key.clone()).collect(),
    }
}

#[tokio::test]
async fn the_whole_service_keeps_what_it_serves() {
    for seed in SEEDS {
        bend_for_the_service(seed).await;
    }
}

async fn bend_for_the_service(seed: u8) {
    let rng = &mut rng(seed);
    let bed = Bed::new();
    bed.upstream.set_features(many_features(8, 3));
    bed.upstream.set_experiments(many_experiments(5));
    let app = stand::start(&bed).await;
    let good = payloads().remove(0);
    let mut held = 0;
    for case in 0..SERVICE_CASES {
        let running = Case::new(seed, case);
        let mut payload = good.clone();
        let mut list = json!(many_experiments(5));
        let times = [1 + below(rng, 6), below(rng, 6)];
        bend(&mut payload, times[0], rng);
        bend(&mut list, times[1], rng);
        bed.upstream.set_payload(CLIENT_KEY, text(&payload, rng));
        let list = list.as_array().cloned().unwrap_or_default();
        let is_object = |experiment: &Value| experiment["id"].is_string();
        bed.upstream
            .set_experiments(list.into_iter().filter(is_object).collect());
        let before = served_by(&app).await;
        let report = app.poll().await;
        let after = served_by(&app).await;
        assert_safe(&before, &after, &format!("{}: {report}", running.0));
        // Something else of the same poll may have been published.
        held += usize::from(app.status().await["environments"][ENVIRONMENT]["held"] != 0);
    }
    assert!(held > 0, "the mutations are too tame");
    let status = app.status().await;
    for (name, actor) in status["actors"].as_object().unwrap() {
        assert_eq!(actor["restarts"], 0, "{name} has panicked");
    }
    app.stop().await;
}
