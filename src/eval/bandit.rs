//! Contextual bandits: weights that depend on who is asking.

use serde_json::{Map, Value};

use super::{
    Range,
    bucketing::{self, bucket_ranges, equal_weights},
    condition::{Compiler, Evaluator, Node, Truth},
    js,
    subject::Subject,
};

/// A bandit as one experiment uses it.
#[derive(Clone, Debug)]
pub(super) struct Bandit {
    version: Option<Value>,
    leaves: Box<[Leaf]>,
    /// For those whom no context matches.
    fallback: Leaf,
}

/// A context and its weights.
#[derive(Clone, Debug)]
struct Leaf {
    id: Value,
    condition: Option<Node>,
    weights: Option<Value>,
    ranges: Box<[Range]>,
}

/// What a bandit chose for a user.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'c> {
    leaf: &'c Leaf,
    version: Option<&'c Value>,
    is_fallback: bool,
}

impl Bandit {
    /// Compiles a definition for an experiment of so many variations with these weights and ranges of its own.
    pub(super) fn new(
        definition: &Value,
        experiment: &Map<String, Value>,
        variations: usize,
        coverage: f64,
        compiler: &Compiler<'_>,
    ) -> Self {
        let own_ranges = js::truthy_member(experiment, "ranges").map(bucketing::ranges);
        let ranges = |weights: Option<&Value>| {
            own_ranges.clone().unwrap_or_else(|| {
                let weights = weights.and_then(bucketing::weights);
                bucket_ranges(variations, coverage, weights.as_deref()).into()
            })
        };
        let leaf = |context: &Value| Leaf {
            id: context.get("leafId").cloned().unwrap_or_default(),
            condition: match context {
                Value::Object(members) => js::truthy_member(members, "condition")
                    .map(|condition| compiler.condition(condition)),
                _ => Some(Node::Broken),
            },
            weights: context.get("weights").cloned(),
            ranges: ranges(context.get("weights")),
        };
        let weights = js::truthy_member(experiment, "weights");
        let equal = || equal_weights(i64::try_from(variations).unwrap_or_default()).into();
        let contexts = definition.get("contexts").and_then(Value::as_array);
        Self {
            version: definition.get("banditVersion").cloned(),
            leaves: contexts.into_iter().flatten().map(leaf).collect(),
            fallback: Leaf {
                id: (-1).into(),
                condition: None,
                weights: Some(weights.cloned().unwrap_or_else(equal)),
                ranges: ranges(weights),
            },
        }
    }

    /// The first context that the user passes.
    pub(super) fn choose(&self, evaluator: Evaluator<'_>, subject: Subject<'_>) -> Choice<'_> {
        let mut chosen = None;
        for leaf in &self.leaves {
            match leaf
                .condition
                .as_ref()
                .map(|node| evaluator.verdict(node, subject))
            {
                None | Some(Ok(Truth::True)) => {
                    chosen = Some(leaf);
                    break;
                }
                // JavaScript throws, and gives up the search.
                Some(Err(_)) if !evaluator.is_strict() => break,
                Some(_) => {}
            }
        }
        Choice {
            leaf: chosen.unwrap_or(&self.fallback),
            version: self.version.as_ref(),
            is_fallback: chosen.is_none(),
        }
    }
}

impl<'c> Choice<'c> {
    /// Id of the context; −1 where none matched.
    pub fn leaf_id(&self) -> &'c Value {
        &self.leaf.id
    }

    /// Weights of the variations.
    pub fn weights(&self) -> Option<&'c Value> {
        self.leaf.weights.as_ref()
    }

    /// Version of the bandit.
    pub fn version(&self) -> Option<&'c Value> {
        self.version
    }

    pub(super) fn ranges(&self) -> &'c [Range] {
        &self.leaf.ranges
    }

    /// The weights, where they are not the experiment's own.
    pub(super) fn leaf_weights(&self) -> Option<&'c Value> {
        self.weights().filter(|_| !self.is_fallback)
    }

    pub(super) fn write(&self, members: &mut Map<String, Value>) {
        members.insert("leafId".into(), self.leaf.id.clone());
        if let Some(weights) = self.weights() {
            members.insert("variationWeights".into(), weights.clone());
        }
        if let Some(version) = self.version {
            members.insert("banditVersion".into(), version.clone());
        }
    }
}
