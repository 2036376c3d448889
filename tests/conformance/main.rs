//! GrowthBook's own cases against [`stitchd::eval`], section by section.
//!
//! The case files are not part of this repository: `STITCHD_CONFORMANCE_DIR` says where they are. The strict corpus
//! also comes with a crate that is a dev-dependency, so that it runs everywhere.

mod corpus;
mod decrypt;
mod sections;
mod server_payloads;

use serde_json::{Value, json};
use stitchd::eval::{Dialect, bucket_ranges};

use corpus::Tally;

fn run_corpus(name: &str, dialect: Dialect, cases: &Value, expected: usize) {
    let mut tally = Tally::default();
    let mut section = |path: &str, judge: &dyn Fn(&Value) -> (Value, Value)| {
        let found = path
            .split('/')
            .try_fold(cases, |cases, part| cases.get(part));
        if let Some(found) = found {
            tally.section(name, path, found, judge);
        }
    };
    let condition = |case: &Value| sections::eval_condition(dialect, case);
    let feature = |case: &Value| sections::feature(dialect, case);
    let run = |case: &Value| sections::run(dialect, case);
    section("evalCondition", &condition);
    section("pruneCondition", &sections::prune);
    section("reducePayload", &sections::reduce);
    section("hash", &sections::hashed);
    section("getBucketRange", &sections::bucket_range);
    section("feature", &feature);
    section("run", &run);
    section("chooseVariation", &sections::chosen);
    section("getQueryStringOverride", &sections::query_string);
    section("inNamespace", &sections::namespace);
    section("getEqualWeights", &sections::weights);
    section("decrypt", &sections::decrypted);
    section("stickyBucket", &|case| {
        sections::sticky_bucket(dialect, case)
    });
    section("urlRedirect", &|case| sections::url_redirect(dialect, case));
    section("contextualBandit", &feature);
    section("savedGroupReferencesV2/evalCondition", &condition);
    section("savedGroupReferencesV2/feature", &feature);
    section("savedGroupReferencesV2/run", &run);
    section("savedGroupReferencesRemote/evalCondition", &condition);
    section("savedGroupReferencesRemote/feature", &feature);
    tally.finish(name, expected);
}

#[test]
fn the_strict_corpus_passes() {
    if let Some(cases) = corpus::read("growthbook-cases-0.12.0-strict.json") {
        run_corpus("strict", Dialect::Strict, &cases, 1035);
    }
}

#[test]
fn the_strict_corpus_of_the_package_passes() {
    run_corpus(
        "packaged-strict",
        Dialect::Strict,
        &corpus::read_packaged(),
        1035,
    );
}

#[test]
fn the_legacy_corpus_passes() {
    if let Some(cases) = corpus::read("growthbook-cases-0.8.0-legacy.json") {
        run_corpus("legacy", Dialect::Legacy, &cases, 517);
    }
}

#[test]
fn bucket_ranges_are_those_of_javascript_to_the_last_bit() {
    let Some(cases) = corpus::read("growthbook-js-bucket-ranges.json") else {
        return;
    };
    let mut tally = Tally::default();
    tally.section("javascript", "bucketRanges", &cases, |case| {
        let weights: Vec<f64> = case["weights"]
            .as_array()
            .expect("weights")
            .iter()
            .filter_map(Value::as_f64)
            .collect();
        let variations = usize::try_from(case["numVariations"].as_u64().expect("a count"));
        let coverage = case["coverage"].as_f64().expect("a number");
        let found = bucket_ranges(variations.expect("a small one"), coverage, Some(&weights));
        // Rust spells doubles like JavaScript here: shortest, without an exponent.
        let spelled = found
            .iter()
            .map(|(start, end)| json!([start.to_string(), end.to_string()]));
        (spelled.collect(), case["ranges"].clone())
    });
    tally.finish("javascript", 7);
}
