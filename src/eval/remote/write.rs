//! The quick way to an answer: rendered parts, copied one after the other.

use std::{fmt, ops::Range};

use serde_json::Value;

use super::{
    super::{
        js,
        result::{ExperimentResult, ExperimentView, Exposure, FeatureResult, Source},
    },
    Circumstances, Remote,
    drive::{Sink, Track, Tracks, drive},
    plain,
    template::{
        Answer, ArmTemplate, ExperimentTemplate, FeatureTemplate, Part, RuleTemplate, Template,
    },
};

/// What evaluation found, as text.
struct Writer<'r, 'c> {
    template: &'r Template,
    out: Vec<u8>,
    /// The elements of `experiments`.
    experiments: Vec<u8>,
    /// The unit told last, and where in `out` it is spelled: most experiments of a user have the same.
    unit: Option<(&'c Value, Range<usize>)>,
}

/// Appends the answer to `out`.
pub(super) fn answer<'c>(
    remote: &'c Remote,
    circumstances: &'c Circumstances<'c>,
    out: &mut Vec<u8>,
) {
    let template = &remote.template;
    let mut parts = template.parts.iter();
    // Features are nearly always the first gap: they are then written in place.
    let mut writer = Writer {
        template,
        out: std::mem::take(out),
        experiments: Vec::new(),
        unit: None,
    };
    let features_first = template
        .parts
        .iter()
        .find(|part| !matches!(part, Part::Bytes(_)))
        .is_some_and(|part| matches!(part, Part::Features));
    if features_first {
        for part in parts.by_ref() {
            match part {
                Part::Bytes(bytes) => writer.out.extend_from_slice(bytes),
                Part::Features | Part::Experiments => break,
            }
        }
    }
    drive(
        &remote.compiled,
        &remote.features,
        circumstances,
        &mut writer,
    );
    let Writer {
        out: written,
        experiments,
        ..
    } = writer;
    let features = if features_first {
        *out = written;
        Vec::new()
    } else {
        written
    };
    for part in parts {
        out.extend_from_slice(match part {
            Part::Bytes(bytes) => bytes,
            Part::Features => &features,
            Part::Experiments => &experiments,
        });
    }
}

impl<'c> Sink<'c> for Writer<'_, 'c> {
    fn feature(&mut self, place: usize, result: &FeatureResult<'c>, tracks: &Tracks<'c>) {
        let feature = &self.template.features[place];
        let answer = rendered(feature, result);
        let forced = result.experiment.as_ref().filter(|_| tracks.is_empty());
        if tracks.is_empty() && forced.is_none() {
            if let Some(answer) = answer {
                self.out.extend_from_slice(&answer.bytes);
            } else {
                self.out.extend_from_slice(&feature.opening);
                json(&mut self.out, result.value);
                self.out.push(b'}');
            }
            return;
        }
        let value_from = self.value(feature, answer, result.value);
        self.out.extend_from_slice(b",\"rules\":[{\"force\":");
        match answer {
            Some(answer) => self.out.extend_from_slice(answer.value()),
            None => self.out.extend_from_within(value_from),
        }
        self.out.extend_from_slice(b",\"tracks\":[");
        if let Some((view, result)) = forced {
            json(&mut self.out, &plain::told(view, result));
        }
        for (index, track) in tracks.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.track(track);
        }
        self.out.extend_from_slice(b"]}]}");
    }

    fn experiment(&mut self, view: ExperimentView<'c>, result: &ExperimentResult<'c>) {
        if !self.experiments.is_empty() {
            self.experiments.push(b',');
        }
        if let Some((_, arm)) = self.arm(&view, result) {
            self.experiments.extend_from_slice(arm.shown());
        } else {
            let shown = plain::scrubbed(view.to_value(), Some(result.variation_id));
            json(&mut self.experiments, &shown);
        }
    }
}

impl<'r, 'c> Writer<'r, 'c> {
    /// Writes a feature up to and including its value; gives the value's place.
    fn value(
        &mut self,
        feature: &FeatureTemplate,
        answer: Option<&Answer>,
        value: &Value,
    ) -> Range<usize> {
        let start = self.out.len() + feature.opening.len();
        if let Some(answer) = answer {
            self.out.extend_from_slice(answer.unclosed());
        } else {
            self.out.extend_from_slice(&feature.opening);
            json(&mut self.out, value);
        }
        start..self.out.len()
    }

    fn track(&mut self, track: &Track<'c>) {
        match track {
            Track::Met(exposure) => match self.arm(&exposure.experiment, &exposure.result) {
                Some((experiment, arm)) => self.exposure(exposure, experiment, arm),
                None => json(&mut self.out, &plain::track(track)),
            },
            Track::Given(_) => json(&mut self.out, &plain::track(track)),
        }
    }

    /// What is rendered of an experiment and variation; `None` where something in it depends on the user.
    fn arm(
        &self,
        view: &ExperimentView<'_>,
        result: &ExperimentResult<'_>,
    ) -> Option<(&'r ExperimentTemplate, &'r ArmTemplate)> {
        if view.bandit.is_some() || !result.in_experiment {
            return None;
        }
        let number = usize::try_from(view.experiment.number).ok()?;
        let experiment = self.template.experiments.get(number)?;
        Some((experiment, experiment.arms.get(result.variation_id)?))
    }

    /// Writes the exposure of a unit by hashing.
    fn exposure(
        &mut self,
        exposure: &Exposure<'c>,
        experiment: &ExperimentTemplate,
        arm: &ArmTemplate,
    ) {
        let result = &exposure.result;
        let own = &*exposure.experiment.experiment.hash_attribute;
        if result.hash_attribute == own {
            self.out.extend_from_slice(&arm.before_unit);
        } else {
            let before = &arm.before_unit[..arm.attribute_from];
            self.out.extend_from_slice(before);
            self.out.extend_from_slice(&experiment.fallback);
        }
        match &self.unit {
            Some((unit, place)) if std::ptr::eq(*unit, result.hash_value) => {
                self.out.extend_from_within(place.clone());
            }
            _ => {
                let start = self.out.len();
                json(&mut self.out, result.hash_value);
                self.unit = Some((result.hash_value, start..self.out.len()));
            }
        }
        self.out.extend_from_slice(if result.sticky_bucket_used {
            &arm.before_bucket_sticky
        } else {
            &arm.before_bucket
        });
        bucket(&mut self.out, result.bucket.unwrap_or_default());
        self.out.extend_from_slice(&arm.after_bucket);
    }
}

/// The answer that was rendered for a result; `None` for what a caller forced, and for blocked features.
fn rendered<'t>(feature: &'t FeatureTemplate, result: &FeatureResult<'_>) -> Option<&'t Answer> {
    let rule = || feature.rules.get(result.rule?);
    match result.source {
        Source::DefaultValue => Some(&feature.default),
        Source::Force => match rule()? {
            RuleTemplate::Force(answer) => Some(answer),
            RuleTemplate::None | RuleTemplate::Variations(_) => None,
        },
        Source::Experiment => match rule()? {
            RuleTemplate::Variations(answers) => {
                let (_, result) = result.experiment.as_ref()?;
                answers.get(result.variation_id)
            }
            RuleTemplate::None | RuleTemplate::Force(_) => None,
        },
        Source::UnknownFeature
        | Source::Override
        | Source::Prerequisite
        | Source::CyclicPrerequisite => None,
    }
}

/// Appends `JSON.stringify(value)`.
fn json(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        // Both spell texts alike; this way needs no memory.
        Value::String(text) => {
            serde_json::to_writer(&mut *out, text).expect("memory takes every byte");
        }
        other => out.extend_from_slice(js::json_text(other).as_bytes()),
    }
}

/// Appends where a unit fell: four digits at most, for hashing makes no more.
fn bucket(out: &mut Vec<u8>, bucket: f64) {
    let scaled = (bucket * 10_000.0).round();
    let digits = js::whole_number(scaled).and_then(|digits| u16::try_from(digits).ok());
    match digits {
        Some(0) if bucket == 0.0 => out.push(b'0'),
        Some(mut digits @ 1..10_000) if is_same(f64::from(digits) / 10_000.0, bucket) => {
            let mut text = *b"0.0000";
            for place in text[2..].iter_mut().rev() {
                *place = b'0' + u8::try_from(digits % 10).unwrap_or_default();
                digits /= 10;
            }
            let end = text.iter().rposition(|digit| *digit != b'0');
            out.extend_from_slice(&text[..=end.unwrap_or_default()]);
        }
        _ => js::write_number(&mut Text(out), bucket).expect("memory takes every byte"),
    }
}

/// Whether two numbers are the same to the last bit.
fn is_same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

/// Bytes that take text.
struct Text<'o>(&'o mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_spelled_as_javascript_spells_them() {
        for thousandths in 0..1_000_u32 {
            check(f64::from(thousandths) / 1_000.0);
        }
        for myriadths in 0..10_000_u32 {
            check(f64::from(myriadths) / 10_000.0);
        }
        check(0.123_456);
    }

    fn check(number: f64) {
        let mut out = Vec::new();
        bucket(&mut out, number);
        assert_eq!(String::from_utf8(out).unwrap(), js::number_text(number));
    }
}
