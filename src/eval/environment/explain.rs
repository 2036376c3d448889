//! Why a unit is, or is not, in an experiment: the long way, for people.

use serde_json::{Map, Value, json};

use super::{Candidate, Decision, Definition, Environment, Forced};
use crate::eval::{
    Context, Experiment, ExperimentResult, ExperimentView, Failure, Reason, RulePlace, Source,
    definition::{Action, Feature, Parent},
    feature::{Above, Gate, Run},
    hash::HashVersion,
};

/// How far a unit came.
enum Story<'c> {
    /// An earlier rule of the feature decided.
    Earlier { rule: usize, source: Source },
    /// A prerequisite of the rule failed; it has a name unless it led back to the feature or blocked it.
    Prerequisite(Option<&'c str>),
    /// A filter of the rule left the unit out.
    Filters,
    /// The experiment was run.
    Run(ExperimentView<'c>, ExperimentResult<'c>),
    /// The rule has no experiment.
    Nothing,
}

impl Environment {
    /// Why a unit got what [`Environment::assign`] gives it of one decision.
    ///
    /// An object with `experiment_key`, `variant_key` (null: not in), `reason`, `source`, `item` and, as far as the unit
    /// came, `hash`, `failed`, `prerequisite`, `earlier_rule`, `notes`. Where several features have the experiment it is
    /// about the one that decided, else about the first.
    pub fn explain(&self, context: &Context<'_>, at: usize, forced: &Forced) -> Value {
        let decision = &self.decisions[at];
        let mut assigner = self.compiled.assigner(context);
        let chosen = decision.choose(at, &mut assigner, forced);
        let candidate = chosen.map_or(&decision.candidates[0], |(candidate, _)| candidate);
        let mut members = self.head(decision, candidate);
        if let Some((candidate, variation)) = chosen {
            let key = candidate.rendered.keys().nth(variation);
            members.insert("variant_key".into(), key.into());
        }
        if forced.get(at).is_some() {
            members.insert("reason".into(), "forced".into());
        } else {
            self.tell(context, candidate, &mut members);
        }
        if !candidate.notes.is_empty() {
            members.insert("notes".into(), json!(candidate.notes));
        }
        Value::Object(members)
    }

    /// Why nobody gets anything of an experiment that is no decision: it does not run, or nobody knows it.
    pub fn explain_absent(&self, key: &str) -> Value {
        let found = self.idle.binary_search_by(|idle| (*idle.key).cmp(key));
        match found.ok().map(|at| &self.idle[at]) {
            Some(idle) => json!({
                "experiment_key": key,
                "variant_key": null,
                "reason": "not_running",
                "status": idle.why,
                "source": &*idle.source,
                "item": format!("experiments.{key}"),
            }),
            None => json!({
                "experiment_key": key,
                "variant_key": null,
                "reason": "unknown_experiment",
            }),
        }
    }

    /// What is known before anything is evaluated.
    fn head(&self, decision: &Decision, candidate: &Candidate) -> Map<String, Value> {
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
        put("experiment_key", (*decision.key).into());
        put("variant_key", Value::Null);
        put("reason", Value::Null);
        put("source", (*candidate.source).into());
        match &candidate.definition {
            Definition::Inline(_) => put("item", format!("experiments.{}", decision.key).into()),
            Definition::Rule(place) => {
                let feature = self.feature_at(*place);
                let rule = &feature.rules[place.rule as usize];
                if !rule.id.is_empty() {
                    put("rule_id", (*rule.id).into());
                }
                put(
                    "item",
                    format!("features.{}.rules[{}]", feature.key, place.rule).into(),
                )
            }
        };
        members
    }

    fn feature_at(&self, place: RulePlace) -> &Feature {
        &self.compiled.features[place.feature as usize]
    }

    /// Evaluates once more, step by step, and writes down what came of it.
    fn tell(&self, context: &Context<'_>, candidate: &Candidate, out: &mut Map<String, Value>) {
        let mut run = Run::new(&self.compiled, context, ());
        let story = match &candidate.definition {
            Definition::Inline(experiment) => {
                let (view, result) = run.experiment(experiment, None, None);
                Story::Run(view, result)
            }
            Definition::Rule(place) => self.story(&mut run, *place),
        };
        match story {
            Story::Earlier { rule, source } => {
                out.insert("reason".into(), "earlier_rule".into());
                let earlier = json!({ "rule": rule, "decided": source.as_str() });
                out.insert("earlier_rule".into(), earlier);
            }
            Story::Prerequisite(name) => {
                out.insert("reason".into(), Reason::Prerequisite.as_str().into());
                out.insert("prerequisite".into(), name.into());
            }
            Story::Filters => {
                out.insert("reason".into(), Reason::Filtered.as_str().into());
            }
            Story::Nothing => {}
            Story::Run(view, result) => {
                out.insert("reason".into(), result.reason.as_str().into());
                out.insert("hash".into(), hash(view, &result));
                self.failed(&mut run, view.experiment, &result, out);
            }
        }
    }

    fn story<'c>(&'c self, run: &mut Run<'c, ()>, place: RulePlace) -> Story<'c> {
        let feature = self.feature_at(place);
        let here = Above::first(place.feature);
        let (earlier, rest) = feature.rules.split_at(place.rule as usize);
        for (rule, definition) in earlier.iter().enumerate() {
            if let Ok(result) = run.rule(feature, definition, &here) {
                let source = result.source;
                return Story::Earlier { rule, source };
            }
        }
        let rule = &rest[0];
        match run.prerequisites(&rule.parents, Some(&here)) {
            Gate::Open => {}
            Gate::Skip(name) => return Story::Prerequisite(Some(name)),
            Gate::Block | Gate::Cycle => return Story::Prerequisite(None),
        }
        if let Some(filters) = &rule.filters
            && run.is_filtered_out(filters)
        {
            return Story::Filters;
        }
        match &rule.action {
            Action::Experiment(experiment) => {
                let (view, result) = run.experiment(experiment, Some(&feature.key), Some(&here));
                Story::Run(view, result)
            }
            _ => Story::Nothing,
        }
    }

    /// Which part of the definition the unit failed, where one is to be named.
    fn failed<'c>(
        &'c self,
        run: &mut Run<'c, ()>,
        experiment: &'c Experiment,
        result: &ExperimentResult<'_>,
        out: &mut Map<String, Value>,
    ) {
        let member = |name: &str| experiment.source().get(name).cloned().unwrap_or_default();
        let failed = match result.reason {
            Reason::Condition => {
                let condition = experiment.condition.as_ref();
                let failure = condition.and_then(|c| self.compiled.why_not(run.context, &c.source));
                failure.as_ref().map(Failure::to_value)
            }
            Reason::Namespace => Some(json!({ "namespace": member("namespace") })),
            Reason::Filtered => Some(json!({ "filters": member("filters") })),
            Reason::Prerequisite => {
                let name = failing_parent(run, &experiment.parents);
                out.insert("prerequisite".into(), name.into());
                None
            }
            _ => None,
        };
        if let Some(failed) = failed {
            out.insert("failed".into(), failed);
        }
    }
}

fn failing_parent<'c>(run: &mut Run<'c, ()>, parents: &'c [Parent]) -> Option<&'c str> {
    let is_open = |run: &mut Run<'c, ()>, parent: &'c Parent| {
        let parent = std::slice::from_ref(parent);
        matches!(run.prerequisites(parent, None), Gate::Open)
    };
    let failing = parents.iter().find(|parent| !is_open(run, parent))?;
    Some(run.key_of(&failing.feature))
}

/// How the unit was hashed, and what each variation takes of the buckets.
fn hash(view: ExperimentView<'_>, result: &ExperimentResult<'_>) -> Value {
    let version = match view.experiment.version {
        HashVersion::V1 => Some(1),
        HashVersion::V2 => Some(2),
        HashVersion::Unknown => None,
    };
    json!({
        "attribute": result.hash_attribute,
        "value": result.hash_value,
        "version": version,
        "bucket": result.bucket,
        "ranges": view.ranges().iter().map(|range| [range.0, range.1]).collect::<Vec<_>>(),
    })
}
