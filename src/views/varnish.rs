//! What the edge caches read: which of 100 000 bins of a domain's visitors belong to which group.
//!
//! A group's bins begin where the weights before it end and grow from there with coverage. So a visitor who has a
//! group keeps it while coverage is raised, and the ranges of two groups cannot meet.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Withheld, dates, mediawiki, naming, split};
use crate::model::{Experiment, Sourced};

/// Bins that the edge hashes visitors into.
const BINS: u32 = 100_000;

/// A product this close below a whole number of bins counts as that number.
///
/// 0.57 × 100 000 is 56 999.99999999999 in floating point.
const SNAP: f64 = 1e-6;

/// Has domains, and is not for logged-in users, whom the edge does not know.
pub(super) fn is_addressed(experiment: &Experiment) -> bool {
    let delivery = &experiment.delivery;
    !delivery.domains.is_empty() && delivery.user_identifier_type != mediawiki::LOGGED_IN
}

/// The experiment's entry in the map.
pub(super) fn entry(experiment: &Sourced<Arc<Experiment>>) -> Result<Value, Withheld> {
    let experiment = &*experiment.item;
    let delivery = &experiment.delivery;
    let name = &experiment.tracking_key;
    if !naming::is_edge_name(name) {
        let message = format!("tracking key {name:?} is not 8 to 63 letters, digits, `-_.`");
        return Err(Withheld::new("bad_name", message));
    }
    mediawiki::check_identifier_type(delivery)?;
    if let Some(domain) = delivery
        .domains
        .iter()
        .find(|domain| !naming::is_domain(domain))
    {
        let message = format!("{domain:?} is not a host name");
        return Err(Withheld::new("bad_domain", message));
    }
    let period = dates::period(delivery)?;
    let split = split::current(experiment)?;
    let groups = naming::groups(experiment)?;
    let ranges = ranges(split.coverage, &split.weights, &groups)?;
    let groups: Map<String, Value> = groups
        .into_iter()
        .zip(ranges)
        .map(|(group, range)| (group.to_owned(), json!(range)))
        .collect();
    let mut domains: Vec<&String> = delivery.domains.iter().collect();
    domains.sort_unstable();
    let domains: Map<String, Value> = domains
        .into_iter()
        .map(|domain| (domain.clone(), json!({ "groups": groups })))
        .collect();
    Ok(json!({"start": period.start, "end": period.end, "domains": domains}))
}

/// First and last bin of each group, for a coverage and weights that are each within 0..=1.
///
/// Fails when the weights add up to more than all bins, whatever the coverage is now: raising it would push the last
/// group off the end. Fails when a group has no bin.
fn ranges(coverage: f64, weights: &[f64], groups: &[&str]) -> Result<Vec<[u32; 2]>, Withheld> {
    let mut before = 0.0;
    let mut ranges = Vec::with_capacity(weights.len());
    for (weight, group) in weights.iter().zip(groups) {
        let first = whole_bins(before);
        before += weight;
        let next = whole_bins(before);
        if next > BINS {
            let total: f64 = weights.iter().sum();
            let message = format!("its weights add up to {total}, more than 1");
            return Err(Withheld::new("bad_split", message));
        }
        // Rounding may give the parts a bin more than their sum has; the next group's first bin is not to be taken.
        let count = whole_bins(coverage * weight).min(next - first);
        if count == 0 {
            let message = format!(
                "group `{group}` has no bin: {coverage} × {weight} is less than 1 in {BINS}"
            );
            return Err(Withheld::new("no_bins", message));
        }
        ranges.push([first, first + count - 1]);
    }
    Ok(ranges)
}

/// The whole bins within a share of the traffic; rises with the share.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares are not negative, and a cast of too large a number saturates"
)]
fn whole_bins(share: f64) -> u32 {
    (share * f64::from(BINS) + SNAP).floor() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::test_support::{experiment, sourced};

    #[track_caller]
    fn check(coverage: f64, weights: &[f64], expected: Result<&[[u32; 2]], &str>) {
        let groups = vec!["g"; weights.len()];
        let actual = ranges(coverage, weights, &groups).map_err(|withheld| withheld.code);
        assert_eq!(actual, expected.map(<[_]>::to_vec));
    }

    #[test]
    fn groups_begin_where_the_weights_before_them_end() {
        check(0.01, &[0.5, 0.5], Ok(&[[0, 499], [50_000, 50_499]]));
        check(1.0, &[0.5, 0.5], Ok(&[[0, 49_999], [50_000, 99_999]]));
        let thirds = [1.0 / 3.0; 3];
        check(
            0.1,
            &thirds,
            Ok(&[[0, 3332], [33_333, 36_665], [66_666, 69_998]]),
        );
        let expected = [[0, 33_332], [33_333, 66_665], [66_666, 99_998]];
        check(1.0, &thirds, Ok(&expected));
    }

    #[test]
    fn floating_point_costs_no_bin() {
        check(1.0, &[0.57, 0.43], Ok(&[[0, 56_999], [57_000, 99_999]]));
        check(0.57, &[1.0], Ok(&[[0, 56_999]]));
        let tenths = ranges(1.0, &[0.1; 10], &["g"; 10]).unwrap();
        assert_eq!(tenths[7], [70_000, 79_999]);
        assert_eq!(tenths[9], [90_000, 99_999]);
    }

    #[test]
    fn rounding_up_never_takes_a_bin_of_the_next_group() {
        // Each part counts as 11 bins, both together are just short of 22.
        let almost = 10.999_999_4e-5;
        check(1.0, &[almost, almost], Ok(&[[0, 10], [11, 20]]));
    }

    #[test]
    fn a_group_without_a_bin_is_refused() {
        check(1.0, &[1.0, 0.0], Err("no_bins"));
        check(0.0, &[0.5, 0.5], Err("no_bins"));
        check(0.000_01, &[0.5, 0.5], Err("no_bins"));
    }

    #[test]
    fn weights_beyond_the_last_bin_are_refused_at_any_coverage() {
        check(0.01, &[0.6, 0.6], Err("bad_split"));
        check(1.0, &[0.3334, 0.3333, 0.3334], Err("bad_split"));
    }

    #[test]
    fn an_entry_is_what_the_edge_reads() {
        let text = entry(&sourced(experiment("sticky-header-2026")))
            .unwrap()
            .to_string();
        assert_eq!(
            text,
            r#"{"start":"2026-09-01T14:30:00Z","end":"2026-09-29T14:30:00Z","domains":{"de.wikipedia.org":{"groups":{"control":[0,499],"treatment":[50000,50499]}},"fr.wikipedia.org":{"groups":{"control":[0,499],"treatment":[50000,50499]}}}}"#
        );
    }

    #[test]
    fn logged_in_experiments_and_those_without_domains_are_not_addressed() {
        let mut experiment = experiment("sticky-header-2026");
        assert!(is_addressed(&experiment));
        "mw-user".clone_into(&mut experiment.delivery.user_identifier_type);
        assert!(!is_addressed(&experiment));
        "edge-unique".clone_into(&mut experiment.delivery.user_identifier_type);
        experiment.delivery.domains.clear();
        assert!(!is_addressed(&experiment));
    }
}
