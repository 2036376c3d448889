//! Why a feature or an experiment came out as it did.
//!
//! [`Explanation`] is an observer that keeps everything it is told. What exactly failed in a condition is found out
//! afterwards, by asking its parts one by one ([`Compiled::why_not`]): too slow for every request, and exact.

use serde_json::{Map, Value};

use super::{
    Compiled, Context, Range,
    condition::{Budget, Compiler, Evaluator, Truth},
    js::{self, Actual},
    result::{ExperimentResult, ExperimentView, FeatureResult, Observer, Reason, Skip, Source},
    subject::{Path, Subject},
};

/// Steps that finding a failure may take.
const STEPS_MAX: u32 = 2_000_000;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'c> {
    /// A rule did not decide.
    RuleSkipped {
        /// Key of the feature.
        feature: &'c str,
        /// Position of the rule.
        rule: usize,
        /// Why.
        why: Skip<'c>,
    },
    /// An experiment was run.
    Experiment {
        /// Tracking key.
        key: &'c str,
        /// How it ended.
        reason: Reason,
        /// Where the unit fell, if that was computed.
        bucket: Option<f64>,
        /// What each variation takes.
        ranges: Vec<Range>,
    },
    /// A feature was decided, possibly as a prerequisite of another.
    Feature {
        /// Its key.
        key: String,
        /// Where the value came from.
        source: Source,
        /// Position of the rule that gave it.
        rule: Option<usize>,
    },
}

/// Everything that happened, in order.
#[derive(Clone, Debug, Default)]
pub struct Explanation<'c> {
    /// The steps; those of a prerequisite come before those of the rule that needs it.
    pub steps: Vec<Step<'c>>,
}

impl<'c> Observer<'c> for Explanation<'c> {
    fn feature(&mut self, key: &str, result: &FeatureResult<'c>) {
        self.steps.push(Step::Feature {
            key: key.to_owned(),
            source: result.source,
            rule: result.rule,
        });
    }

    fn skipped(&mut self, feature: &'c str, rule: usize, why: Skip<'c>) {
        self.steps.push(Step::RuleSkipped { feature, rule, why });
    }

    fn experiment(&mut self, experiment: ExperimentView<'c>, result: &ExperimentResult<'c>) {
        self.steps.push(Step::Experiment {
            key: &experiment.experiment.key,
            reason: result.reason,
            bucket: result.bucket,
            ranges: experiment.ranges().to_vec(),
        });
    }
}

/// The part of a condition that failed, and on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Where in the condition: `country.$in`, `$and[1].plan`.
    pub at: String,
    /// What the condition wants there.
    pub expected: Value,
    /// What the user has there; null for nothing, and for parts that ask more than one thing.
    pub found: Value,
}

impl Compiled {
    /// The first part of a condition that a user fails; `None` for a user who passes.
    pub fn why_not(&self, context: &Context<'_>, condition: &Value) -> Option<Failure> {
        let attributes = context.effective_attributes();
        let search = Search {
            compiled: self,
            subject: Subject::User(&attributes),
            budget: Budget::new(STEPS_MAX),
        };
        search.failure(condition, "")
    }
}

struct Search<'a> {
    compiled: &'a Compiled,
    subject: Subject<'a>,
    budget: Budget,
}

impl Search<'_> {
    fn passes(&self, condition: &Value) -> bool {
        let compiled = self.compiled;
        let node = Compiler::new(compiled.dialect, &compiled.groups.index).condition(condition);
        let evaluator = Evaluator {
            dialect: compiled.dialect,
            groups: &compiled.groups,
            budget: &self.budget,
        };
        evaluator.verdict(&node, self.subject) == Ok(Truth::True)
    }

    fn failure(&self, condition: &Value, at: &str) -> Option<Failure> {
        if self.passes(condition) {
            return None;
        }
        let whole = || Failure {
            at: at.to_owned(),
            expected: condition.clone(),
            found: Value::Null,
        };
        let Value::Object(members) = condition else {
            return Some(whole());
        };
        let part = |(key, value): (&String, &Value)| {
            let part = single(key, value);
            (!self.passes(&part)).then(|| self.part(key, value, at))
        };
        // A part may pass only because it is alone: then it is the whole that failed.
        Some(members.iter().find_map(part).unwrap_or_else(whole))
    }

    /// The failure within one member of a condition, which is known to fail.
    fn part(&self, key: &str, value: &Value, at: &str) -> Failure {
        let at = if at.is_empty() {
            key.to_owned()
        } else {
            format!("{at}.{key}")
        };
        let here = |found: Value| Failure {
            at: at.clone(),
            expected: value.clone(),
            found,
        };
        match (key, value) {
            ("$and", Value::Array(items)) => {
                let mut items = items.iter().enumerate();
                items
                    .find_map(|(index, item)| self.failure(item, &format!("{at}[{index}]")))
                    .unwrap_or_else(|| here(Value::Null))
            }
            ("$or", Value::Array(items)) if items.len() == 1 => self
                .failure(&items[0], &format!("{at}[0]"))
                .unwrap_or_else(|| here(Value::Null)),
            ("$and" | "$or" | "$nor" | "$not" | "$savedGroup", _) => here(Value::Null),
            _ => self.operator(key, value, &at),
        }
    }

    /// The operator that fails on an attribute, which is known to fail.
    fn operator(&self, key: &str, value: &Value, at: &str) -> Failure {
        let found = to_value(self.subject.at(&Path::new(key)));
        let operators = value.as_object().into_iter().flatten();
        let failing = operators
            .filter(|(name, _)| name.starts_with('$'))
            .find(|(name, operand)| !self.passes(&single(key, &single(name, operand))));
        match failing {
            Some((name, operand)) => Failure {
                at: format!("{at}.{name}"),
                expected: operand.clone(),
                found,
            },
            None => Failure {
                at: at.to_owned(),
                expected: value.clone(),
                found,
            },
        }
    }
}

fn single(key: &str, value: &Value) -> Value {
    let mut members = Map::new();
    members.insert(key.to_owned(), value.clone());
    Value::Object(members)
}

fn to_value(actual: Actual<'_>) -> Value {
    match actual {
        Actual::Null => Value::Null,
        Actual::Bool(flag) => flag.into(),
        Actual::Number(number) => js::whole_number(number).map_or(number.into(), Value::from),
        Actual::String(text) => text.into(),
        Actual::Array(items) => items.to_vec().into(),
        Actual::Object(members) => members.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::eval::{Definitions, Dialect};

    #[test]
    fn the_failing_part_of_a_condition_is_found() {
        let compiled = Compiled::new(Definitions::default(), Dialect::Strict);
        let attributes = json!({"country": "FR", "age": 20, "tags": ["a"]});
        let attributes = attributes.as_object().expect("an object");
        let context = Context::new(attributes);
        for (condition, at, expected, found) in [
            (
                json!({"country": {"$in": ["US"]}}),
                "country.$in",
                json!(["US"]),
                json!("FR"),
            ),
            (
                json!({"age": {"$gt": 18, "$lt": 20}}),
                "age.$lt",
                json!(20),
                json!(20),
            ),
            (
                json!({"$and": [{"age": 20}, {"country": "US"}]}),
                "$and[1].country",
                json!("US"),
                json!("FR"),
            ),
            (json!({"plan": "pro"}), "plan", json!("pro"), json!(null)),
            (
                json!({"$not": {"age": 20}}),
                "$not",
                json!({"age": 20}),
                json!(null),
            ),
            (
                json!({"$or": [{"tags.length": 2}]}),
                "$or[0].tags.length",
                json!(2),
                json!(1),
            ),
        ] {
            let failure = compiled.why_not(&context, &condition);
            let at = at.to_owned();
            assert_eq!(
                failure,
                Some(Failure {
                    at,
                    expected,
                    found
                }),
                "{condition}"
            );
        }
        assert_eq!(compiled.why_not(&context, &json!({"age": 20})), None);
    }

    #[test]
    fn steps_tell_which_rules_were_passed_over() {
        let payload = json!({"features": {"flag": {"defaultValue": 0, "rules": [
            {"condition": {"country": "US"}, "force": 1},
            {"coverage": 0.1, "force": 2},
            {"key": "exp", "variations": [3, 4], "coverage": 0}
        ]}}});
        let compiled = Compiled::new(Definitions::from_payload(&payload), Dialect::Strict);
        let attributes = json!({"id": "1", "country": "FR"});
        let attributes = attributes.as_object().expect("an object");
        let context = Context::new(attributes);
        let mut explanation = Explanation::default();
        compiled.feature(&context, "flag", &mut explanation);
        let skipped: Vec<_> = explanation
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::RuleSkipped { rule, why, .. } => Some((*rule, *why)),
                _ => None,
            })
            .collect();
        let condition = json!({"country": "US"});
        assert_eq!(skipped[0], (0, Skip::Condition(&condition)));
        assert!(matches!(
            skipped[1],
            (
                1,
                Skip::Rollout {
                    bucket: Some(_),
                    range: (0.0, 0.1)
                }
            )
        ));
        assert_eq!(skipped[2], (2, Skip::Experiment(Reason::Coverage)));
    }
}
