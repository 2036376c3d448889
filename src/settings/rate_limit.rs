//! The section `[rate_limit]`: how often those may ask whose token names a class.

use std::{collections::BTreeSet, num::NonZeroU32};

use serde::Deserialize;

use super::{Settings, validate::is_name};

/// Limits by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Classes that a token may name.
    pub classes: Vec<RateClass>,
}

/// How often one token may ask.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateClass {
    /// What tokens call it.
    pub name: String,
    /// Requests in a second, on average.
    pub requests_per_second: NonZeroU32,
    /// Requests at once after a pause; as many as in a second where it is not given.
    #[serde(default)]
    pub burst: Option<NonZeroU32>,
}

impl Settings {
    pub(super) fn check_rate_limit(&self, problems: &mut Vec<String>) {
        let mut names = BTreeSet::new();
        for (i, class) in self.rate_limit.classes.iter().enumerate() {
            let key = format!("rate_limit.classes[{i}].name");
            if !is_name(&class.name) {
                problems.push(super::validate::name_problem(&key, &class.name));
            } else if !names.insert(&class.name) {
                problems.push(format!(
                    "`{key}`: `{}` is used twice; rename one",
                    class.name
                ));
            }
        }
    }
}
