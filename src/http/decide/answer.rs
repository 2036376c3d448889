//! Writes the answers: evaluation and copying, into memory that was asked for once.

use serde_json::{Map, Value};

use super::Subject;
use crate::eval::{Context, Environment, environment::Forced};

/// Bytes of an answer around its assignments, the unit's own key not counted.
const FRAME_BYTES: usize = 160;

/// A unit, ready to be evaluated.
pub(super) struct Asked {
    pub(super) user_key: String,
    pub(super) attributes: Map<String, Value>,
    pub(super) forced: Forced,
}

/// Everything that a request wants; owns all it needs, so that any thread may do it.
pub(super) struct Work {
    /// Whose snapshot is compiled for its dialect.
    pub(super) subject: Subject,
    /// Names that the request has, sorted.
    pub(super) experiments: Vec<String>,
    /// The decisions meant by them, rising; `None`: all.
    pub(super) only: Option<Vec<usize>>,
    pub(super) explains: bool,
    pub(super) units: Vec<Asked>,
}

impl Work {
    /// How many decisions it comes to.
    pub(super) fn decisions(&self) -> usize {
        let each = match &self.only {
            Some(only) => only.len(),
            None => self.environment().decisions().len(),
        };
        self.units.len().saturating_mul(each)
    }

    /// Whether somebody wants to know why.
    pub(super) fn explains(&self) -> bool {
        self.explains
    }

    /// What it is about.
    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    fn environment(&self) -> &Environment {
        let subject = &self.subject;
        let environment = subject.snapshot.evaluator(subject.dialect);
        environment.expect("it was compiled before the work was made")
    }

    /// The answer for the one unit of a single request.
    pub(super) fn single(&self) -> Vec<u8> {
        let environment = self.environment();
        let bytes = match &self.only {
            None => environment.answer_bytes(),
            Some(only) => {
                environment.answer_bytes() / environment.decisions().len().max(1) * only.len()
            }
        };
        let mut out = Vec::with_capacity(FRAME_BYTES + bytes);
        for unit in &self.units {
            self.unit(environment, unit, &mut out);
        }
        out
    }

    /// The answers for all units of a batch, in their order.
    pub(super) fn batch(&self) -> Vec<u8> {
        let environment = self.environment();
        let mut out = Vec::with_capacity(environment.answer_bytes());
        out.push(b'{');
        out.extend_from_slice(self.subject.snapshot.identity().as_bytes());
        out.extend_from_slice(b",\"results\":[");
        for (at, unit) in self.units.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.unit(environment, unit, &mut out);
        }
        out.extend_from_slice(b"]}");
        out
    }

    fn unit(&self, environment: &Environment, unit: &Asked, out: &mut Vec<u8>) {
        let context = Context::new(&unit.attributes);
        out.extend_from_slice(b"{\"user_key\":");
        write_text(&unit.user_key, out);
        out.push(b',');
        out.extend_from_slice(self.subject.snapshot.identity().as_bytes());
        out.extend_from_slice(b",\"assignments\":[");
        environment.assign(&context, self.only.as_deref(), &unit.forced, out);
        out.push(b']');
        if self.explains {
            out.extend_from_slice(b",\"explanations\":");
            let explanations = self.explanations(environment, &context, &unit.forced);
            out.extend_from_slice(explanations.to_string().as_bytes());
        }
        out.push(b'}');
    }

    /// One explanation per experiment that was asked for, in or not.
    fn explanations(
        &self,
        environment: &Environment,
        context: &Context<'_>,
        forced: &Forced,
    ) -> Value {
        let explain = |at: usize| environment.explain(context, at, forced);
        let mut explanations: Vec<Value> = match self.experiments.as_slice() {
            [] => (0..environment.decisions().len()).map(explain).collect(),
            names => names
                .iter()
                .map(|name| match environment.find(name) {
                    Some(at) => explain(at),
                    None => environment.explain_absent(name),
                })
                .collect(),
        };
        for explanation in &mut explanations {
            explanation["revision"] = self.subject.snapshot.revision.into();
        }
        Value::Array(explanations)
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}
