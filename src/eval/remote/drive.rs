//! The order in which a payload is evaluated, whatever is then made of the results.
//!
//! GrowthBook Proxy starts an SDK for each request, and what that does in passing shows in the answer: auto experiments
//! run when it starts, and whom they exposed hangs on the first feature; then come the features, and auto experiments
//! once more for what is shown of them. The order matters for sticky buckets too.

use std::sync::Arc;

use serde_json::Value;

use super::{
    super::{
        Compiled,
        feature::{Run, STEPS_MAX},
        js::{self, Actual},
        result::{ExperimentResult, ExperimentView, Exposure, FeatureResult, Observer, Source},
    },
    Circumstances,
};

/// Steps that one request may take. Real payloads of 10,000 features stay a hundred times below.
const REQUEST_STEPS_MAX: u32 = 8_000_000;

/// A feature of the payload.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Arc<str>,
    /// `None`: its definition is falsy, which JavaScript takes for none.
    pub(super) position: Option<u32>,
}

impl Entry {
    pub(super) fn new(compiled: &Compiled, key: &str) -> Self {
        match compiled.index.get_key_value(key) {
            Some((key, position)) => Self {
                key: Arc::clone(key),
                position: Some(*position),
            },
            None => Self {
                key: key.into(),
                position: None,
            },
        }
    }
}

/// One exposure that an SDK has to report.
pub(super) enum Track<'c> {
    /// Of an experiment that was run.
    Met(Exposure<'c>),
    /// Of one that was evaluated remotely before: `{"experiment", "result"}`.
    Given(&'c Value),
}

impl Track<'_> {
    /// What exposures of one user are told apart by.
    fn dedupe_key(&self) -> String {
        match self {
            Self::Met(exposure) => exposure.dedupe_key(),
            Self::Given(track) => {
                let result = |name| text(track.get("result").and_then(|result| result.get(name)));
                let experiment = track.get("experiment");
                let key = text(experiment.and_then(|experiment| experiment.get("key")));
                let unit = result("hashAttribute") + &result("hashValue");
                unit + &key + &result("variationId")
            }
        }
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(value) => js::string(Actual::from(value)).into_owned(),
        None => "undefined".to_owned(),
    }
}

/// Exposures since the last feature, each once, in the order in which they were first met.
#[derive(Default)]
pub(super) struct Tracks<'c> {
    met: Vec<Track<'c>>,
}

impl<'c> Tracks<'c> {
    fn add(&mut self, track: Track<'c>) {
        if self.met.is_empty() {
            self.met.push(track);
            return;
        }
        let key = track.dedupe_key();
        // Of several with one key the last is told, in the place of the first.
        match self.met.iter_mut().find(|known| known.dedupe_key() == key) {
            Some(known) => *known = track,
            None => self.met.push(track),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.met.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Track<'c>> {
        self.met.iter()
    }
}

impl<'c> Observer<'c> for Tracks<'c> {
    fn exposure(&mut self, exposure: Exposure<'c>) {
        self.add(Track::Met(exposure));
    }

    fn track(&mut self, track: &'c Value) {
        let has = |name| {
            track
                .get(name)
                .is_some_and(|value| js::truthy(value.into()))
        };
        if has("experiment") && has("result") {
            self.add(Track::Given(track));
        }
    }
}

/// Takes what evaluation finds, in the order of the answer's parts.
pub(super) trait Sink<'c> {
    /// The feature at this place among the entries.
    fn feature(&mut self, place: usize, result: &FeatureResult<'c>, tracks: &Tracks<'c>);

    /// An auto experiment that the user is in.
    fn experiment(&mut self, view: ExperimentView<'c>, result: &ExperimentResult<'c>);
}

/// Evaluates everything for one user.
pub(super) fn drive<'c>(
    compiled: &'c Compiled,
    entries: &[Entry],
    circumstances: &'c Circumstances<'c>,
    sink: &mut impl Sink<'c>,
) {
    let mut left = REQUEST_STEPS_MAX;
    let mut tracks = Tracks::default();
    if !compiled.auto_experiments.is_empty() {
        let mut run = Run::new(compiled, &circumstances.early, tracks);
        run.auto_experiments(&compiled.auto_experiments, &[]);
        left = left.saturating_sub(STEPS_MAX - run.steps_left());
        tracks = run.observer;
    }
    let is_unforced = circumstances.context.forced_features.is_none();
    let mut run = Run::new(compiled, &circumstances.context, tracks);
    for (place, entry) in entries.iter().enumerate() {
        let feature = entry
            .position
            .map(|position| &compiled.features[position as usize]);
        let result = match (feature, entry.position) {
            (Some(feature), _) if is_unforced && feature.rules.is_empty() => {
                FeatureResult::new(&feature.default, Source::DefaultValue)
            }
            (_, Some(position)) => {
                let steps = left.min(STEPS_MAX);
                run.allow(steps);
                let result = run.known(position, None);
                left -= steps - run.steps_left();
                result
            }
            (_, None) => run.feature(&entry.key),
        };
        sink.feature(place, &result, &run.observer);
        run.observer.met.clear();
    }
    for auto in &compiled.auto_experiments {
        let steps = left.min(STEPS_MAX);
        run.allow(steps);
        let (view, result) = run.experiment(&auto.experiment, None, None);
        left -= steps - run.steps_left();
        if result.in_experiment {
            sink.experiment(view, &result);
        }
    }
}
