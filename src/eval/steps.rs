//! The steps of an evaluation as JSON, for people.

use serde_json::{Value, json};

use super::{Compiled, Context, Explanation, Failure, Skip, Step};

impl Explanation<'_> {
    /// `{"steps": […]}`, each step an object with `step` and what belongs to it. What failed in a condition is found out
    /// here, by asking its parts: not for a request's path.
    pub fn to_value(&self, compiled: &Compiled, context: &Context<'_>) -> Value {
        let steps = self.steps.iter();
        let steps: Vec<Value> = steps.map(|step| value(step, compiled, context)).collect();
        json!({ "steps": steps })
    }
}

impl Failure {
    /// `{"at", "expected", "found"}`.
    pub fn to_value(&self) -> Value {
        json!({ "at": self.at, "expected": self.expected, "found": self.found })
    }
}

fn value(step: &Step<'_>, compiled: &Compiled, context: &Context<'_>) -> Value {
    match step {
        Step::RuleSkipped { feature, rule, why } => {
            let mut value = skipped(why, compiled, context);
            value["step"] = "rule_skipped".into();
            value["feature"] = (*feature).into();
            value["rule"] = (*rule).into();
            value
        }
        Step::Experiment {
            key,
            reason,
            bucket,
            ranges,
        } => json!({
            "step": "experiment",
            "key": key,
            "reason": reason.as_str(),
            "bucket": bucket,
            "ranges": ranges,
        }),
        Step::Feature { key, source, rule } => json!({
            "step": "feature",
            "key": key,
            "source": source.as_str(),
            "rule": rule,
        }),
    }
}

fn skipped(why: &Skip<'_>, compiled: &Compiled, context: &Context<'_>) -> Value {
    match why {
        Skip::Prerequisite(key) => json!({ "why": "prerequisite", "prerequisite": key }),
        Skip::Filters => json!({ "why": "filtered" }),
        Skip::Condition(condition) => {
            let failure = compiled.why_not(context, condition);
            let failed = failure.as_ref().map(Failure::to_value);
            json!({ "why": "condition", "failed": failed })
        }
        Skip::Rollout { bucket, range } => {
            json!({ "why": "rollout", "bucket": bucket, "range": range })
        }
        Skip::Experiment(reason) => json!({ "why": reason.as_str() }),
        Skip::Empty => json!({ "why": "empty" }),
    }
}
