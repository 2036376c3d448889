//! The edge's schema: that of its fetcher (`wmfuniq_experiment_fetcher.py`), which takes all or nothing.

use serde_json::Value;

use super::{Checked, check_period, ensure, filled_object, object};
use crate::views::naming;

/// Highest bin.
const LAST_BIN: u64 = 99_999;

/// The edge's schema for the experiment of this name.
pub(in crate::views) fn check_varnish(name: &str, entry: &Value) -> Checked {
    ensure(naming::is_edge_name(name), || format!("bad name {name:?}"))?;
    let entry = object(entry, "entry", &["start", "end", "domains"], &[])?;
    check_period(entry)?;
    let domains = filled_object(&entry["domains"], "domains")?;
    for (domain, rules) in domains {
        ensure(naming::is_domain(domain), || {
            format!("bad domain {domain:?}")
        })?;
        let rules = object(rules, domain, &["groups"], &[])?;
        let groups = filled_object(&rules["groups"], "groups")?;
        let mut ranges = Vec::with_capacity(groups.len());
        for (group, range) in groups {
            ensure(naming::is_group_name(group), || {
                format!("bad group {group:?}")
            })?;
            ranges.push(bins(range).ok_or_else(|| format!("bad range {range}"))?);
        }
        ranges.sort_unstable();
        ensure(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), || {
            format!("ranges of `{domain}` overlap")
        })?;
    }
    Ok(())
}

/// `[first, last]`.
fn bins(range: &Value) -> Option<(u64, u64)> {
    let [first, last] = range.as_array()?.as_slice() else {
        return None;
    };
    let (first, last) = (first.as_u64()?, last.as_u64()?);
    (first <= last && last <= LAST_BIN).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::views::{
        schema::test_support::{NAME, check},
        test_support::{experiment, sourced},
        varnish,
    };

    #[test]
    fn what_the_edge_would_refuse_is_refused() {
        let good = varnish::entry(&sourced(experiment(NAME))).unwrap();
        let domain = "/domains/fr.wikipedia.org";
        let groups = format!("{domain}/groups");
        let control = format!("{domain}/groups/control");
        let (bad_domain, bad_group) = ("/domains/A.org".to_owned(), format!("{groups}/a b"));
        let cases = vec![
            ("/start", None, "entry has no member `start`"),
            ("/start", Some(json!(1)), "bad start"),
            ("/start", Some(json!("2026-09-01T14:30:00.0Z")), "bad start"),
            ("/end", Some(json!("2026-09-01 14:30:00Z")), "bad end"),
            (
                "/end",
                Some(json!("2026-09-01T14:30:00Z")),
                "2026-09-01T14:30:00Z is not before 2026-09-01T14:30:00Z",
            ),
            ("/extra", Some(json!(1)), "entry has a member `extra`"),
            ("/domains", Some(json!({})), "domains is no object or empty"),
            (
                "/domains",
                Some(json!([1])),
                "domains is no object or empty",
            ),
            (&bad_domain, Some(json!({})), "bad domain \"A.org\""),
            (domain, Some(json!([])), "fr.wikipedia.org is no object"),
            (&groups, Some(json!({})), "groups is no object or empty"),
            (&bad_group, Some(json!([0, 1])), "bad group \"a b\""),
            (&control, Some(json!([0])), "bad range [0]"),
            (&control, Some(json!([0, 1.5])), "bad range [0,1.5]"),
            (&control, Some(json!([-1, 1])), "bad range [-1,1]"),
            (&control, Some(json!([1, 0])), "bad range [1,0]"),
            (&control, Some(json!([0, 100_000])), "bad range [0,100000]"),
            (
                &control,
                Some(json!([0, 50_000])),
                "ranges of `fr.wikipedia.org` overlap",
            ),
        ];
        check(check_varnish, &good, cases);
        assert_eq!(
            check_varnish("short", &good),
            Err("bad name \"short\"".to_owned())
        );
        assert_eq!(
            check_varnish(NAME, &json!([])),
            Err("entry is no object".to_owned())
        );
    }
}
