//! How a phase divides its traffic, checked, in the order of the variations.

use std::collections::HashMap;

use serde_json::{Number, Value};

use super::Withheld;
use crate::model::{Experiment, Phase};

/// Coverage and weights of the phase in force.
pub(super) struct Split {
    /// Share of units that take part, 0..=1.
    pub(super) coverage: f64,
    /// A weight for each variation, each 0..=1.
    pub(super) weights: Vec<f64>,
}

/// The split in force; fails unless it has exactly one weight for each variation.
pub(super) fn current(experiment: &Experiment) -> Result<Split, Withheld> {
    let phase = experiment
        .current_phase()
        .ok_or_else(|| Withheld::new("no_phase", "it has no phase"))?;
    let weights: Option<Vec<f64>> = known_weights(experiment, phase)?.into_iter().collect();
    let weights = weights
        .filter(|weights| weights.len() == phase.split.len())
        .ok_or_else(|| {
            let message = "its traffic split does not name exactly its variations";
            Withheld::new("split_mismatch", message)
        })?;
    Ok(Split {
        coverage: coverage(phase)?,
        weights,
    })
}

/// A weight for each variation that the phase knows.
///
/// An older phase may have had other variations than the experiment has now.
pub(super) fn known_weights(
    experiment: &Experiment,
    phase: &Phase,
) -> Result<Vec<Option<f64>>, Withheld> {
    let mut by_id = HashMap::with_capacity(phase.split.len());
    for (id, weight) in &phase.split {
        if !(0.0..=1.0).contains(weight) {
            let message = format!("weight {weight} of variation `{id}` is not within 0 to 1");
            return Err(Withheld::new("bad_split", message));
        }
        by_id.insert(id.as_str(), *weight);
    }
    let variations = experiment.variations.iter();
    Ok(variations
        .map(|variation| by_id.get(variation.id.as_str()).copied())
        .collect())
}

/// The phase's coverage, 0..=1.
pub(super) fn coverage(phase: &Phase) -> Result<f64, Withheld> {
    let coverage = phase.coverage;
    if !(0.0..=1.0).contains(&coverage) {
        let message = format!("coverage {coverage} is not within 0 to 1");
        return Err(Withheld::new("bad_coverage", message));
    }
    Ok(coverage)
}

/// The shortest decimal that reads back as this share, without exponent: `0.01`, `1`.
///
/// For finite numbers.
pub(super) fn share_text(share: f64) -> String {
    // Adding zero turns -0 into 0.
    (share + 0.0).to_string()
}

/// A share as a JSON number, `1` rather than `1.0`; for finite numbers.
pub(super) fn share_number(share: f64) -> Value {
    let number: Number = share_text(share)
        .parse()
        .expect("a finite number's decimal text is a JSON number");
    Value::Number(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::test_support::experiment;

    #[track_caller]
    fn check(split: &[(&str, f64)], expected: Result<&[f64], &str>) {
        let mut experiment = experiment("sticky-header-2026");
        experiment.phases[0].split = split
            .iter()
            .map(|(id, weight)| ((*id).to_owned(), *weight))
            .collect();
        let actual = current(&experiment)
            .map(|split| split.weights)
            .map_err(|withheld| withheld.code);
        assert_eq!(actual, expected.map(<[_]>::to_vec));
    }

    #[test]
    fn weights_are_found_by_id() {
        check(&[("var_1", 0.3), ("var_0", 0.7)], Ok(&[0.7, 0.3]));
    }

    #[test]
    fn a_split_that_does_not_match_the_variations_is_refused() {
        check(&[("var_0", 1.0)], Err("split_mismatch"));
        check(&[], Err("split_mismatch"));
        let extra = [("var_0", 0.5), ("var_1", 0.5), ("var_2", 0.0)];
        check(&extra, Err("split_mismatch"));
        let twice = [("var_0", 0.5), ("var_1", 0.5), ("var_1", 0.5)];
        check(&twice, Err("split_mismatch"));
    }

    #[test]
    fn weights_that_are_no_shares_are_refused() {
        for weight in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            check(&[("var_0", weight), ("var_1", 0.5)], Err("bad_split"));
        }
    }

    #[test]
    fn shares_are_spelt_shortest() {
        for (share, text) in [
            (0.01, "0.01"),
            (1.0, "1"),
            (0.0, "0"),
            (-0.0, "0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e-7, "0.0000001"),
        ] {
            assert_eq!(share_text(share), text);
            assert_eq!(share_number(share).as_f64(), Some(share));
        }
        assert_eq!(share_number(1.0).to_string(), "1");
    }
}
