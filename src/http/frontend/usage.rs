//! What clients report of the features that they checked.

use serde_json::Value;

/// Features of one report that are looked at.
const FEATURES_MAX: usize = 10_000;
/// Most checks of one feature that a report is believed.
const CHECKS_MAX: u64 = 1_000_000_000;

/// Checks of one feature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) feature: String,
    /// How often it was found enabled.
    pub(super) yes: u64,
    /// How often not.
    pub(super) no: u64,
}

/// Reads `{"bucket":{"toggles":{"<feature>":{"yes":1,"no":2}}}}`; whatever is not like that is nothing.
pub(super) fn read(body: &[u8]) -> Vec<Usage> {
    let report: Value = serde_json::from_slice(body).unwrap_or_default();
    let toggles = report
        .get("bucket")
        .and_then(|bucket| bucket.get("toggles"));
    let toggles = toggles.and_then(Value::as_object).into_iter().flatten();
    let checks = |counts: &Value, name: &str| {
        let checks = counts.get(name).and_then(Value::as_u64);
        checks.unwrap_or(0).min(CHECKS_MAX)
    };
    let usage = toggles.take(FEATURES_MAX).map(|(feature, counts)| Usage {
        feature: feature.clone(),
        yes: checks(counts, "yes"),
        no: checks(counts, "no"),
    });
    usage.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn odd_reports_are_nothing_and_odd_counts_are_zero() {
        let read = |report: Value| read(report.to_string().as_bytes());
        let report = json!({"appName": "web", "bucket": {"toggles": {
            "a": {"yes": 3, "no": 1, "variants": {"blue": 3}}, "b": {"yes": -1}, "c": null}}});
        let usage = |feature: &str, yes, no| Usage {
            feature: feature.to_owned(),
            yes,
            no,
        };
        assert_eq!(
            read(report),
            [usage("a", 3, 1), usage("b", 0, 0), usage("c", 0, 0)]
        );
        for odd in [
            json!({}),
            json!([]),
            json!({"bucket": null}),
            json!({"bucket": {"toggles": []}}),
        ] {
            assert!(read(odd).is_empty());
        }
        assert!(super::read(b"{").is_empty());
    }
}
