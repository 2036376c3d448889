//! All that one snapshot decides, compiled once per revision and dialect.
//!
//! [`Environment::new`] takes the snapshot document as it is served, so that a restored revision evaluates as it did when
//! it was published. A **decision** is an experiment by its tracking key, wherever it is defined:
//!
//! - In experiment rules of features: that is what SDKs run, so it goes before the management API's word. A unit is in
//!   when an SDK that evaluates the feature would say so: no earlier rule took it, prerequisites and targeting let it
//!   through, its bucket is in a range. Of several features with the same key, the first by key that takes the unit
//!   decides.
//! - Otherwise as the management API lists it: running, not archived, its last phase. It has no payload.
//!
//! Ids are the management API's where it lists the key. Else the key stands for the experiment's id and the variation's
//! key for its own, which is what SDKs report. Auto experiments are no decisions: they need a page.
//!
//! What depends on the definitions alone is done here: also the JSON text of every assignment.

mod explain;
mod inline;
mod rendered;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use self::{inline::Groups, rendered::Rendered};
use super::{
    Assigner, Compiled, Context, Definitions, Dialect, Experiment, FeatureProjects, FeatureResult,
    Flags, RulePlace,
};

/// Most bytes that memory for an answer is asked for beforehand.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The members of a snapshot document that evaluation needs.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    features: Map<String, Value>,
    experiments: Vec<Map<String, Value>>,
    auto_experiments: Vec<Value>,
    saved_groups: Map<String, Value>,
    contextual_bandits: Map<String, Value>,
}

/// One snapshot, ready to evaluate.
pub struct Environment {
    compiled: Compiled,
    /// By the feature's position.
    sources: Box<[Arc<str>]>,
    /// By the feature's position.
    projects: Box<[FeatureProjects]>,
    /// Made when somebody asks for flags or toggles.
    flags: OnceLock<Flags>,
    /// Sorted by key.
    decisions: Box<[Decision]>,
    /// Experiments of the management API that nobody is in, sorted by key.
    idle: Box<[Idle]>,
    answer_bytes: usize,
}

/// One experiment, wherever it is defined.
pub struct Decision {
    key: Box<str>,
    /// Never empty; the first that takes a unit decides.
    candidates: Box<[Candidate]>,
}

/// One definition of an experiment.
struct Candidate {
    definition: Definition,
    source: Arc<str>,
    projects: FeatureProjects,
    /// By variation.
    rendered: Rendered,
    /// What was wrong with the definition.
    notes: Box<[String]>,
}

enum Definition {
    Rule(RulePlace),
    Inline(Box<Experiment>),
}

/// An experiment of the management API that does not run.
struct Idle {
    key: Box<str>,
    /// `draft`, `stopped`, `archived`, `no_phase`.
    why: String,
    source: Arc<str>,
}

/// Variations that a caller asks for, by position of the decision.
#[derive(Clone, Debug, Default)]
pub struct Forced(Vec<(usize, usize)>);

impl FromIterator<(usize, usize)> for Forced {
    /// Takes positions of decision and variation.
    fn from_iter<I: IntoIterator<Item = (usize, usize)>>(forced: I) -> Self {
        let mut forced: Vec<_> = forced.into_iter().collect();
        forced.sort_unstable();
        Self(forced)
    }
}

impl Forced {
    fn get(&self, decision: usize) -> Option<usize> {
        let at = self
            .0
            .binary_search_by_key(&decision, |(decision, _)| *decision);
        at.ok().map(|at| self.0[at].1)
    }
}

impl Environment {
    /// Compiles a snapshot document, `{"features":{…},"experiments":[…],…}`.
    ///
    /// Takes some 0.2 s for 10,000 features: not for a request's path, not for an actor's thread. Fails when the text is
    /// not JSON of that shape, which no published snapshot is.
    pub fn new(document: &[u8], dialect: Dialect) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(document)?;
        let features = document.features.iter();
        let definitions = Definitions {
            features: features
                .map(|(key, feature)| (key.as_str(), feature))
                .collect(),
            saved_groups: document.saved_groups.clone(),
            contextual_bandits: document.contextual_bandits.clone(),
            auto_experiments: document.auto_experiments.iter().collect(),
            overrides: Map::new(),
        };
        let compiled = Compiled::new(definitions, dialect);
        let mut names = Names::default();
        let sources = compiled
            .feature_keys()
            .map(|key| names.source(document.features.get(&**key)))
            .collect();
        let projects = compiled.feature_keys().map(|key| {
            let definition = document.features.get(&**key);
            definition.map_or(FeatureProjects::Unknown, FeatureProjects::of)
        });
        let projects = projects.collect();
        let mut environment = Self {
            compiled,
            sources,
            projects,
            flags: OnceLock::new(),
            decisions: Box::default(),
            idle: Box::default(),
            answer_bytes: 0,
        };
        environment.decide_on(&document, &mut names);
        Ok(environment)
    }

    /// Collects the decisions.
    fn decide_on(&mut self, document: &Document, names: &mut Names) {
        let listed: BTreeMap<&str, &Map<String, Value>> = document
            .experiments
            .iter()
            .filter_map(|experiment| Some((experiment.get("trackingKey")?.as_str()?, experiment)))
            .collect();
        let mut found: BTreeMap<Box<str>, Vec<Candidate>> = BTreeMap::new();
        for (place, experiment) in self.compiled.rule_places() {
            let key = &**experiment.key();
            let candidate = Candidate {
                definition: Definition::Rule(place),
                source: Arc::clone(&self.sources[place.feature as usize]),
                projects: self.projects[place.feature as usize].clone(),
                rendered: Rendered::of_rule(experiment, listed.get(key).copied()),
                notes: Box::default(),
            };
            found.entry(key.into()).or_default().push(candidate);
        }
        let groups = Groups::new(&document.saved_groups, &document.features);
        let mut idle = Vec::new();
        for (key, experiment) in listed {
            if found.contains_key(key) {
                continue;
            }
            let source = names.source_of(experiment);
            match inline::definition(key, experiment, &groups) {
                Ok(inline) => {
                    let compiled = self.compiled.experiment(inline.definition);
                    let candidate = Candidate {
                        source,
                        projects: project_of(experiment),
                        rendered: Rendered::of_listed(&compiled, experiment),
                        definition: Definition::Inline(Box::new(compiled)),
                        notes: inline.notes.into(),
                    };
                    found.insert(key.into(), vec![candidate]);
                }
                Err(why) => idle.push(Idle {
                    key: key.into(),
                    why,
                    source,
                }),
            }
        }
        let decision = |(key, candidates): (Box<str>, Vec<Candidate>)| Decision {
            key,
            candidates: candidates.into(),
        };
        self.decisions = found.into_iter().map(decision).collect();
        self.idle = idle.into();
        let bytes: usize = self.decisions.iter().map(Decision::bytes_max).sum();
        self.answer_bytes = bytes.min(ANSWER_BYTES_MAX);
    }

    /// The dialect that it was compiled for.
    pub fn dialect(&self) -> Dialect {
        self.compiled.dialect()
    }

    /// The features.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Evaluates a feature.
    pub fn feature<'c>(&'c self, context: &'c Context<'c>, key: &str) -> FeatureResult<'c> {
        self.compiled.feature(context, key, ())
    }

    /// Its features as flags and toggles. The first call renders all their answers, some 10 µs a feature: not for a worker's
    /// thread. See [`Self::has_flags`].
    pub fn flags(&self) -> &Flags {
        self.flags
            .get_or_init(|| Flags::new(&self.compiled, &self.projects))
    }

    /// Whether that was done.
    pub fn has_flags(&self) -> bool {
        self.flags.get().is_some()
    }

    /// Writes OFREP's answers for flags at these positions as JSON objects, separated by commas.
    pub fn write_ofrep(&self, context: &Context<'_>, at: &[u32], out: &mut Vec<u8>) {
        self.flags().write_ofrep(&self.compiled, context, at, out);
    }

    /// Writes OFREP's answer for one flag, with further members of its metadata (`,"name":value…`); `false`: it is an
    /// error.
    pub fn write_ofrep_one(
        &self,
        context: &Context<'_>,
        at: u32,
        metadata: &str,
        out: &mut Vec<u8>,
    ) -> bool {
        let flags = self.flags();
        flags.write_ofrep_one(&self.compiled, context, at, metadata, out)
    }

    /// Writes the enabled toggles among the flags at these positions as JSON objects, separated by commas.
    pub fn write_toggles(&self, context: &Context<'_>, at: &[u32], out: &mut Vec<u8>) {
        self.flags().write_toggles(&self.compiled, context, at, out);
    }

    /// Projects of a feature; `None`: there is no such feature.
    pub fn projects(&self, key: &str) -> Option<&FeatureProjects> {
        let position = *self.compiled.index.get(key)?;
        self.projects.get(position as usize)
    }

    /// Positions of the decisions that may be seen: those with nothing in them that may not.
    pub fn visible(&self, sees: impl Fn(&FeatureProjects) -> bool) -> Box<[usize]> {
        let is_seen = |decision: &Decision| {
            let mut candidates = decision.candidates.iter();
            candidates.all(|candidate| sees(&candidate.projects))
        };
        let numbered = self.decisions.iter().enumerate();
        let visible = numbered.filter(|(_, decision)| is_seen(decision));
        visible.map(|(at, _)| at).collect()
    }

    /// All decisions, sorted by key.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Position of the decision about an experiment.
    pub fn find(&self, key: &str) -> Option<usize> {
        self.decisions
            .binary_search_by(|decision| (*decision.key).cmp(key))
            .ok()
    }

    /// The variation that a unit gets of one decision; `None`: it is not in.
    pub fn variation(&self, context: &Context<'_>, at: usize, forced: &Forced) -> Option<usize> {
        let mut assigner = self.compiled.assigner(context);
        let (_, variation) = self.decisions[at].choose(at, &mut assigner, forced)?;
        Some(variation)
    }

    /// About the most bytes that [`Self::assign`] writes for one unit and all experiments.
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// Writes the assignments of a unit as JSON objects, separated by commas, sorted by key; returns their number.
    ///
    /// `only` holds positions of decisions, rising, each once; without it all are made. A unit that is not in an
    /// experiment has no assignment. `forced` goes before everything else.
    pub fn assign(
        &self,
        context: &Context<'_>,
        only: Option<&[usize]>,
        forced: &Forced,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut assigner = self.compiled.assigner(context);
        let mut number = 0;
        let mut write = |at: usize| {
            let decision = &self.decisions[at];
            if let Some((candidate, variation)) = decision.choose(at, &mut assigner, forced) {
                if number > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(candidate.rendered.get(variation));
                number += 1;
            }
        };
        match only {
            Some(only) => only.iter().for_each(|at| write(*at)),
            None => (0..self.decisions.len()).for_each(write),
        }
        number
    }
}

impl Decision {
    /// Tracking key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The variation meant by its key, or by its position from 0.
    pub fn variation(&self, named: &Value) -> Option<usize> {
        let rendered = &self.candidates[0].rendered;
        match named {
            Value::String(key) => rendered.position(key),
            Value::Number(index) => {
                let index = usize::try_from(index.as_u64()?).ok()?;
                (index < rendered.variations()).then_some(index)
            }
            _ => None,
        }
    }

    /// Keys of its variations, in order.
    pub fn variation_keys(&self) -> impl Iterator<Item = &str> {
        self.candidates[0].rendered.keys()
    }

    fn bytes_max(&self) -> usize {
        let candidates = self.candidates.iter();
        let longest = candidates.map(|candidate| candidate.rendered.longest());
        longest.max().unwrap_or_default() + 1
    }

    /// Whose variation a unit gets, and which; `at` is the decision's own position.
    fn choose<'e>(
        &'e self,
        at: usize,
        assigner: &mut Assigner<'e>,
        forced: &Forced,
    ) -> Option<(&'e Candidate, usize)> {
        if let Some(variation) = forced.get(at) {
            return Some((&self.candidates[0], variation));
        }
        self.candidates.iter().find_map(|candidate| {
            let variation = match &candidate.definition {
                Definition::Rule(place) => assigner.rule(*place),
                Definition::Inline(experiment) => assigner.inline(experiment),
            };
            Some((candidate, variation?))
        })
    }
}

/// The project that the management API lists an experiment under.
fn project_of(experiment: &Map<String, Value>) -> FeatureProjects {
    let project = experiment.get("project").and_then(Value::as_str);
    match project.filter(|project| !project.is_empty()) {
        Some(project) => FeatureProjects::Some([project.into()].into()),
        None => FeatureProjects::Unknown,
    }
}

/// Names of sources, each kept once.
#[derive(Default)]
struct Names(Vec<Arc<str>>);

impl Names {
    fn source(&mut self, item: Option<&Value>) -> Arc<str> {
        match item.and_then(Value::as_object) {
            Some(members) => self.source_of(members),
            None => self.kept(""),
        }
    }

    fn source_of(&mut self, item: &Map<String, Value>) -> Arc<str> {
        self.kept(
            item.get("source")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        )
    }

    fn kept(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.push(Arc::clone(&name));
        name
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Environment({:?}, {} features, {} decisions)",
            self.dialect(),
            self.sources.len(),
            self.decisions.len()
        )
    }
}
