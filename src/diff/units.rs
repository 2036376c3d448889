//! How many units get another answer.

use serde_json::{Map, Value};

use super::Configuration;
use crate::eval::{
    Context, Dialect, Environment,
    environment::{Decision, Forced},
};

/// What sample units noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// How many there were.
    pub units: usize,
    /// Those with another value of any feature, or another variation of any experiment, that both documents have.
    pub changed: usize,
    /// The features, sorted, with the number of units that got another value; those that nobody noticed are left out.
    pub features: Vec<(String, usize)>,
    /// The experiments, sorted, with the number of units that got another variation, or got in or out.
    pub experiments: Vec<(String, usize)>,
}

/// Evaluates both configurations for so many sample units.
///
/// A unit has nothing but its name, `unit-0`, `unit-1` and so on, in every attribute that something is hashed by: what is
/// targeted at other attributes changes unnoticed. Items that only one document has are not looked at.
pub fn noticed(
    before: &Configuration,
    after: &Configuration,
    units: usize,
    dialect: Dialect,
) -> Noticed {
    let environments = [before, after].map(|configuration| {
        let document = configuration.to_snapshot().to_string();
        Environment::new(document.as_bytes(), dialect).expect("it was written as a snapshot")
    });
    let mut attributes = vec!["id".to_owned()];
    for configuration in [before, after] {
        hash_attributes(&configuration.to_snapshot(), &mut attributes);
    }
    let mut features: Vec<(String, usize)> = before
        .features
        .keys()
        .filter(|key| after.features.contains_key(*key))
        .map(|key| (key.clone(), 0))
        .collect();
    features.sort_unstable();
    let [first, second] = &environments;
    let mut experiments: Vec<(String, usize)> = first
        .decisions()
        .iter()
        .map(Decision::key)
        .filter(|key| second.find(key).is_some())
        .map(|key| (key.to_owned(), 0))
        .collect();
    let mut changed = 0;
    for unit in 0..units {
        let name = format!("unit-{unit}");
        let user: Map<String, Value> = attributes
            .iter()
            .map(|attribute| (attribute.clone(), name.as_str().into()))
            .collect();
        let context = Context::new(&user);
        let mut is_changed = false;
        let mut count = |is_other: bool, counted: &mut usize| {
            *counted += usize::from(is_other);
            is_changed |= is_other;
        };
        for (key, counted) in &mut features {
            let [a, b] = [first, second].map(|side| side.feature(&context, key).value);
            count(a != b, counted);
        }
        for (key, counted) in &mut experiments {
            let [a, b] = [first, second].map(|side| variation(side, &context, key));
            count(a != b, counted);
        }
        changed += usize::from(is_changed);
    }
    features.retain(|(_, units)| *units > 0);
    experiments.retain(|(_, units)| *units > 0);
    Noticed {
        units,
        changed,
        features,
        experiments,
    }
}

/// The key of a unit's variation.
fn variation(environment: &Environment, context: &Context<'_>, key: &str) -> Option<String> {
    let at = environment.find(key)?;
    let variation = environment.variation(context, at, &Forced::default())?;
    environment.decisions()[at]
        .variation_keys()
        .nth(variation)
        .map(str::to_owned)
}

/// Every attribute that something is hashed by.
fn hash_attributes(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| hash_attributes(item, found)),
        Value::Object(members) => {
            for (name, member) in members {
                let names_one = matches!(name.as_str(), "hashAttribute" | "attribute");
                if let (true, Value::String(attribute)) = (names_one, member)
                    && !found.contains(attribute)
                {
                    found.push(attribute.clone());
                }
                hash_attributes(member, found);
            }
        }
        _ => {}
    }
}
