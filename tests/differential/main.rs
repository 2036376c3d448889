//! The evaluator beside GrowthBook's own implementations, on random payloads and users.
//!
//! Three oracles: the SDK for JavaScript and GrowthBook Proxy's evaluation for the legacy dialect (the latter byte for
//! byte), the SDK for Python for the strict one. Each case is checked in full; known disagreements are in
//! `exceptions.rs`, by name, with when they apply. `STITCHD_TEST_SEED` gives other cases than the usual ones.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test reads its own environment, fails by panicking, and says which seed it had"
)]

mod exceptions;
mod generator;
mod oracle;

use std::{collections::BTreeMap, thread};

use serde_json::{Map, Value, json};
use stitchd::eval::{
    Compiled, Context, Definitions, Dialect, Remote, RemoteRequest, StickyBuckets, StickyDocument,
};

use exceptions::{Exception, Place};
use generator::{Audience, Generator, seed};
use oracle::Oracle;

/// Payloads per oracle.
const PAYLOADS: usize = 2_500;
/// Users per payload.
const USERS: usize = 8;
/// Processes that work beside each other.
const PROCESSES: u64 = 2;

/// How often each exception was met, and what matched none.
#[derive(Default)]
struct Tally {
    compared: usize,
    excepted: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.compared += other.compared;
        for (name, count) in other.excepted {
            *self.excepted.entry(name).or_default() += count;
        }
        self.failures.extend(other.failures);
    }

    /// Counts a comparison; what differs must be an exception.
    fn compare(&mut self, known: &[Exception], place: &Place<'_>, ours: &Value, theirs: &Value) {
        self.compared += 1;
        if same(ours, theirs) {
            return;
        }
        match known.iter().find(|exception| (exception.applies)(place)) {
            Some(exception) => *self.excepted.entry(exception.name).or_default() += 1,
            None => self.failures.push(format!(
                "{}\nuser {}\nours   {ours}\ntheirs {theirs}\nof {}",
                place.what, place.user, place.definition
            )),
        }
    }
}

/// Compares as JSON, with numbers as doubles.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn cases(audience: Audience, share: u64) -> Vec<Value> {
    let mut generator =
        Generator::new(seed().wrapping_mul(PROCESSES).wrapping_add(share), audience);
    let case = |_| {
        let payload = generator.payload();
        let inline: Vec<Value> = match audience {
            Audience::Proxy => Vec::new(),
            _ => (0..2).map(|_| generator.inline_experiment()).collect(),
        };
        let users: Vec<Value> = (0..USERS).map(|_| generator.user()).collect();
        let features: Vec<String> = payload["features"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        json!({"payload": payload, "features": features, "inline": inline, "users": users})
    };
    (0..PAYLOADS / usize::try_from(PROCESSES).unwrap())
        .map(case)
        .collect()
}

/// Runs all cases of an oracle and fails where anything is unexplained.
fn run(audience: Audience, oracle: &Oracle, check: impl Fn(&mut Tally, &Value, &[String]) + Sync) {
    let check = &check;
    let mut total = Tally::default();
    thread::scope(|scope| {
        let shares: Vec<_> = (0..PROCESSES)
            .map(|share| {
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    let mut answers = Vec::new();
                    oracle.ask(&cases(audience, share), |case, _, line| {
                        answers.push(line.to_owned());
                        if answers.len() == USERS {
                            check(&mut tally, case, &answers);
                            answers.clear();
                        }
                    });
                    tally
                })
            })
            .collect();
        for share in shares {
            total.add(share.join().unwrap());
        }
    });
    println!(
        "seed {}: {} pairs, {} comparisons, exceptions {:?}",
        seed(),
        PAYLOADS * USERS,
        total.compared,
        total.excepted
    );
    assert!(
        total.compared >= 20_000,
        "only {} comparisons",
        total.compared
    );
    let shown: Vec<&str> = total
        .failures
        .iter()
        .step_by(1 + total.failures.len() / 40)
        .take(40)
        .map(String::as_str)
        .collect();
    assert!(
        total.failures.is_empty(),
        "seed {}: {} disagreements, among them\n{}",
        seed(),
        total.failures.len(),
        shown.join("\n\n")
    );
}

fn members<'v>(value: &'v Value, name: &str) -> Option<&'v Map<String, Value>> {
    value.get(name).and_then(Value::as_object)
}

fn sticky(user: &Value) -> Option<StickyBuckets> {
    let documents = user.get("sticky")?.as_array().unwrap();
    Some(StickyBuckets::new(
        documents.iter().filter_map(StickyDocument::from_value),
    ))
}

fn forced_features(user: &Value) -> Option<Map<String, Value>> {
    let pairs = user.get("forcedFeatures")?.as_array().unwrap();
    let pair = |pair: &Value| (pair[0].as_str().unwrap().to_owned(), pair[1].clone());
    Some(pairs.iter().map(pair).collect())
}

/// Evaluates what the SDKs' drivers evaluate, and gives each outcome to `outcome` with where it belongs.
fn evaluate(
    case: &Value,
    user: &Value,
    dialect: Dialect,
    compiled: &Compiled,
    mut outcome: impl FnMut(&Place<'_>, Value),
) -> Option<StickyBuckets> {
    assert_eq!(compiled.dialect(), dialect);
    let nobody = Map::new();
    let (buckets, forced) = (sticky(user), forced_features(user));
    let context = Context {
        url: user.get("url").and_then(Value::as_str),
        forced_variations: members(user, "forcedVariations"),
        forced_features: forced.as_ref(),
        sticky_buckets: buckets.as_ref(),
        ..Context::new(members(user, "attributes").unwrap_or(&nobody))
    };
    let place = |what: String, definition| Place {
        what,
        case,
        user,
        definition,
    };
    // What one evaluation remembers is there for the next; the SDK for Python starts each with what was stored.
    let begin = |fresh: &mut Option<StickyBuckets>| {
        if dialect == Dialect::Strict {
            *fresh = sticky(user);
        }
    };
    let mut fresh = None;
    for key in case["features"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key.as_str().unwrap())
    {
        begin(&mut fresh);
        let context = with_buckets(context, fresh.as_ref());
        let result = compiled.feature(&context, key, ()).to_value();
        let definition = &case["payload"]["features"][key];
        outcome(&place(format!("feature {key}"), definition), result);
    }
    for definition in case["inline"].as_array().unwrap() {
        begin(&mut fresh);
        let context = with_buckets(context, fresh.as_ref());
        let experiment = compiled.experiment(definition.as_object().unwrap().clone());
        let result = compiled.run(&context, &experiment, ()).to_value();
        outcome(
            &place(format!("experiment {}", definition["key"]), definition),
            result,
        );
    }
    buckets
}

fn with_buckets<'c>(context: Context<'c>, fresh: Option<&'c StickyBuckets>) -> Context<'c> {
    Context {
        sticky_buckets: fresh.or(context.sticky_buckets),
        ..context
    }
}

/// The oracle's outcomes in the order of [`evaluate`].
fn outcomes(answer: &Value) -> impl Iterator<Item = &Value> {
    let list = |name: &str| answer[name].as_array().into_iter().flatten();
    list("features").chain(list("inline"))
}

fn each_user(case: &Value, answers: &[String], mut check: impl FnMut(&Value, Value)) {
    for (user, answer) in case["users"].as_array().unwrap().iter().zip(answers) {
        check(user, serde_json::from_str(answer).unwrap());
    }
}

#[test]
fn the_legacy_dialect_agrees_with_the_javascript_sdk() {
    let Some(oracle) = Oracle::node("sdk.mjs") else {
        return;
    };
    run(Audience::JavaScript, &oracle, |tally, case, answers| {
        let definitions = Definitions::from_payload(&case["payload"]);
        let compiled = Compiled::new(definitions, Dialect::Legacy);
        each_user(case, answers, |user, answer| {
            assert_eq!(answer.get("throws"), None, "{answer} for {user} in {case}");
            let mut theirs = outcomes(&answer);
            let buckets = evaluate(case, user, Dialect::Legacy, &compiled, |place, ours| {
                let theirs = theirs.next().expect("an outcome for each of ours");
                tally.compare(exceptions::JAVASCRIPT, place, &ours, theirs);
            });
            if let Some(buckets) = buckets {
                let documents = buckets.into_documents();
                let ours: Map<String, Value> = documents
                    .iter()
                    .map(|document| (document.key(), document.to_value()))
                    .collect();
                let place = Place {
                    what: "sticky buckets".into(),
                    case,
                    user,
                    definition: &Value::Null,
                };
                tally.compare(
                    exceptions::JAVASCRIPT,
                    &place,
                    &ours.into(),
                    &answer["sticky"],
                );
            }
        });
    });
}

#[test]
fn remote_evaluation_agrees_with_the_proxy_byte_for_byte() {
    let Some(oracle) = Oracle::node("proxy.mjs") else {
        return;
    };
    run(Audience::Proxy, &oracle, |tally, case, answers| {
        let payload = &case["payload"];
        let remote = Remote::new(payload, Dialect::Legacy);
        for (user, theirs) in case["users"].as_array().unwrap().iter().zip(answers) {
            let body = user.to_string();
            let request = RemoteRequest::parse(body.as_bytes()).unwrap();
            let buckets = || {
                let stored = sticky(user)?.into_documents();
                let units = remote.sticky_units(&request);
                let is_asked = |document: &StickyDocument| {
                    units.iter().any(|(name, value)| {
                        *name == document.attribute_name && *value == document.attribute_value
                    })
                };
                Some(StickyBuckets::new(stored.into_iter().filter(is_asked)))
            };
            let ours = String::from_utf8(remote.answer(&request, buckets().as_ref())).unwrap();
            let plain = remote.answer_plainly(payload, &request, buckets().as_ref());
            assert_eq!(
                ours, plain,
                "both ways say the same for {user} in {payload}"
            );
            let place = Place {
                what: "answer".into(),
                case,
                user,
                definition: payload,
            };
            tally.compare(
                exceptions::PROXY,
                &place,
                &ours.into(),
                &theirs.as_str().into(),
            );
        }
    });
}

#[test]
fn the_strict_dialect_agrees_with_the_python_sdk() {
    let Some(oracle) = Oracle::python("sdk.py") else {
        return;
    };
    run(Audience::Python, &oracle, |tally, case, answers| {
        let definitions = Definitions::from_payload(&case["payload"]);
        let compiled = Compiled::new(definitions, Dialect::Strict);
        each_user(case, answers, |user, answer| {
            assert_eq!(answer.get("throws"), None, "{answer} for {user} in {case}");
            let mut theirs = outcomes(&answer);
            evaluate(case, user, Dialect::Strict, &compiled, |place, mut ours| {
                let mut theirs = theirs.next().expect("an outcome for each of ours").clone();
                // The SDK writes experiments with defaults that nobody set.
                for outcome in [&mut ours, &mut theirs] {
                    outcome.as_object_mut().unwrap().shift_remove("experiment");
                }
                tally.compare(exceptions::PYTHON, place, &ours, &theirs);
            });
        });
    });
}
