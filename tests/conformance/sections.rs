//! One function per section of the corpora: from a case to what was found and what was expected.

use serde_json::{Map, Value, json};
use stitchd::eval::{
    Compiled, Context, Definitions, Dialect, ReduceOptions, StickyBuckets, StickyDocument,
    bucket_ranges, choose_variation, equal_weights, hash, in_namespace, prune_condition,
    query_string_override, reduce_payload,
};

use crate::decrypt::decrypt;

type Judged = (Value, Value);

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().expect("a count")).expect("a small one")
}

fn pair(value: &Value) -> (f64, f64) {
    (number(&value[0]), number(&value[1]))
}

fn members(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Rounded down to 8 decimals, as the corpus compares.
fn rounded(number: f64) -> f64 {
    (number * 1e8).floor() / 1e8
}

/// What a case's context defines, and who asks.
struct Setting {
    compiled: Compiled,
    context: Value,
    attributes: Map<String, Value>,
}

impl Setting {
    fn new(dialect: Dialect, context: &Value) -> Self {
        Self {
            compiled: Compiled::new(Definitions::from_payload(context), dialect),
            context: context.clone(),
            attributes: members(&context["attributes"]),
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            url: self.context["url"].as_str(),
            is_enabled: self.context["enabled"] != json!(false),
            qa_mode: self.context["qaMode"] == json!(true),
            forced_variations: self.context["forcedVariations"].as_object(),
            remote_group_ids: self.context.get("remoteGroupIds"),
            ..Context::new(&self.attributes)
        }
    }
}

pub(crate) fn eval_condition(dialect: Dialect, case: &Value) -> Judged {
    let attributes = members(&case[2]);
    let definitions = Definitions {
        saved_groups: members(&case[4]),
        ..Definitions::default()
    };
    let compiled = Compiled::new(definitions, dialect);
    let found = compiled.passes(&Context::new(&attributes), &case[1]);
    (found.into(), case[3].clone())
}

pub(crate) fn hashed(case: &Value) -> Judged {
    let version = case[2].as_i64().expect("a version");
    let found = hash(text(&case[0]), text(&case[1]), version);
    (json!(found), case[3].clone())
}

pub(crate) fn bucket_range(case: &Value) -> Judged {
    let weights = case[1][2].as_array();
    let weights: Option<Vec<f64>> = weights.map(|weights| weights.iter().map(number).collect());
    let found = bucket_ranges(count(&case[1][0]), number(&case[1][1]), weights.as_deref());
    let round = |(start, end)| [rounded(start), rounded(end)];
    let found: Vec<_> = found.into_iter().map(round).collect();
    let expected = case[2]
        .as_array()
        .expect("ranges")
        .iter()
        .map(pair)
        .map(round);
    (json!(found), json!(expected.collect::<Vec<_>>()))
}

pub(crate) fn feature(dialect: Dialect, case: &Value) -> Judged {
    let setting = Setting::new(dialect, &case[1]);
    let context = setting.context();
    let result = setting.compiled.feature(&context, text(&case[2]), ());
    (result.to_value(), case[3].clone())
}

pub(crate) fn run(dialect: Dialect, case: &Value) -> Judged {
    let setting = Setting::new(dialect, &case[1]);
    let context = setting.context();
    let experiment = setting.compiled.experiment(members(&case[2]));
    let result = setting.compiled.run(&context, &experiment, ());
    (
        json!([result.value, result.in_experiment, result.hash_used]),
        json!([case[3], case[4], case[5]]),
    )
}

pub(crate) fn chosen(case: &Value) -> Judged {
    let ranges: Vec<_> = case[2]
        .as_array()
        .expect("ranges")
        .iter()
        .map(pair)
        .collect();
    let found = choose_variation(number(&case[1]), &ranges);
    let found = found.map_or(json!(-1), |index| json!(index));
    (found, case[3].clone())
}

pub(crate) fn query_string(case: &Value) -> Judged {
    let found = query_string_override(text(&case[1]), text(&case[2]), count(&case[3]));
    (json!(found), case[4].clone())
}

pub(crate) fn namespace(case: &Value) -> Judged {
    let range = (number(&case[2][1]), number(&case[2][2]));
    let found = in_namespace(text(&case[1]), text(&case[2][0]), range);
    (found.into(), case[3].clone())
}

pub(crate) fn weights(case: &Value) -> Judged {
    let found = equal_weights(case[0].as_i64().expect("a count"));
    let found: Vec<f64> = found.into_iter().map(rounded).collect();
    (json!(found), case[1].clone())
}

pub(crate) fn decrypted(case: &Value) -> Judged {
    let found = decrypt(text(&case[1]), text(&case[2]));
    (json!(found), case[3].clone())
}

pub(crate) fn sticky_bucket(dialect: Dialect, case: &Value) -> Judged {
    let setting = Setting::new(dialect, &case[1]);
    let context = setting.context();
    let units = setting.compiled.sticky_units(&context);
    let stored = case[2].as_array().expect("documents").iter();
    let stored = stored
        .filter_map(StickyDocument::from_value)
        .filter(|document| {
            let unit = (
                document.attribute_name.as_str(),
                document.attribute_value.clone(),
            );
            units.contains(&unit)
        });
    let buckets = StickyBuckets::new(stored);
    let found = {
        let context = Context {
            sticky_buckets: Some(&buckets),
            ..context
        };
        let result = setting.compiled.feature(&context, text(&case[3]), ());
        result.experiment.map(|(_, result)| result.to_value())
    };
    let documents = buckets.into_documents();
    let documents: Map<String, Value> = documents
        .iter()
        .map(|document| (document.key(), document.to_value()))
        .collect();
    (json!([found, documents]), json!([case[4], case[5]]))
}

pub(crate) fn url_redirect(dialect: Dialect, case: &Value) -> Judged {
    let setting = Setting::new(dialect, &case[1]);
    let context = setting.context();
    let outcome = setting.compiled.auto_experiments(&context, &[], ());
    let redirects = outcome.redirect.map(|redirect| {
        let (_, result) = outcome.results.last().expect("the one that redirects");
        json!({
            "inExperiment": result.in_experiment,
            "urlRedirect": redirect.url,
            "urlWithParams": redirect.url_with_params,
        })
    });
    let found: Vec<Value> = redirects.into_iter().collect();
    (json!(found), case[2].clone())
}

pub(crate) fn prune(case: &Value) -> Judged {
    let found = prune_condition(&case[1], &members(&case[2]), &members(&case[4]));
    (found, case[3].clone())
}

pub(crate) fn reduce(case: &Value) -> Judged {
    let found = reduce_payload(&case[1]["payload"], &ReduceOptions::from_value(&case[1]));
    (found, case[2].clone())
}
