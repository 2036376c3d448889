//! The simple way to an answer: JSON values, put together as GrowthBook Proxy does and spelled as JavaScript does.

use serde_json::{Map, Value, json};

use super::{
    super::{
        js,
        result::{ExperimentResult, ExperimentView, FeatureResult},
    },
    Circumstances, Remote,
    drive::{Sink, Track, Tracks, drive},
};

/// Evaluated features and experiments.
struct Values<'r> {
    remote: &'r Remote,
    features: Map<String, Value>,
    experiments: Vec<Value>,
}

pub(super) fn answer<'c>(
    remote: &'c Remote,
    payload: &Value,
    circumstances: &'c Circumstances<'c>,
) -> String {
    let mut values = Values {
        remote,
        features: Map::new(),
        experiments: Vec::new(),
    };
    drive(
        &remote.compiled,
        &remote.features,
        circumstances,
        &mut values,
    );
    let mut members = payload.as_object().cloned().unwrap_or_default();
    members.insert("features".into(), values.features.into());
    members.insert("experiments".into(), values.experiments.into());
    js::json_text(&members.into())
}

impl<'c> Sink<'c> for Values<'_> {
    fn feature(&mut self, place: usize, result: &FeatureResult<'c>, tracks: &Tracks<'c>) {
        let mut tracks: Vec<Value> = tracks.iter().map(track).collect();
        if let Some((view, result)) = &result.experiment
            && tracks.is_empty()
        {
            tracks.push(told(view, result));
        }
        let mut feature = Map::new();
        feature.insert("defaultValue".into(), result.value.clone());
        if !tracks.is_empty() {
            let rule = json!({"force": result.value, "tracks": tracks});
            feature.insert("rules".into(), json!([rule]));
        }
        let key = self.remote.features[place].key.as_ref();
        self.features.insert(key.to_owned(), feature.into());
    }

    fn experiment(&mut self, view: ExperimentView<'c>, result: &ExperimentResult<'c>) {
        self.experiments
            .push(scrubbed(view.to_value(), Some(result.variation_id)));
    }
}

/// An exposure as it is told to an SDK.
pub(super) fn track(track: &Track<'_>) -> Value {
    match track {
        Track::Met(exposure) => told(&exposure.experiment, &exposure.result),
        Track::Given(track) => {
            let variation = track["result"].get("variationId").and_then(Value::as_f64);
            let variation = variation.and_then(js::whole_number);
            let variation = variation.and_then(|index| usize::try_from(index).ok());
            json!({
                "experiment": scrubbed(track["experiment"].clone(), variation),
                "result": track["result"],
            })
        }
    }
}

/// An experiment and what came of it, without what others see.
pub(super) fn told(view: &ExperimentView<'_>, result: &ExperimentResult<'_>) -> Value {
    let experiment = scrubbed(view.to_value(), Some(result.variation_id));
    json!({"experiment": experiment, "result": result.to_value()})
}

/// An experiment without its condition, and without the variations but one.
pub(super) fn scrubbed(mut experiment: Value, variation: Option<usize>) -> Value {
    if let Some(members) = experiment.as_object_mut() {
        members.shift_remove("condition");
        if let Some(variations) = members.get_mut("variations").and_then(Value::as_array_mut) {
            for (index, value) in variations.iter_mut().enumerate() {
                if Some(index) != variation {
                    *value = json!({});
                }
            }
        }
    }
    experiment
}
