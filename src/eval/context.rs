//! Who is asking, and under which circumstances.

use serde_json::{Map, Value};

use super::{
    Dialect, StickyBuckets,
    js::{self, Actual},
    subject::Attributes,
};

/// A user and the circumstances of one evaluation.
///
/// Fields are those of GrowthBook's SDKs; where they know a global and a user's level, so does this, and the user's
/// wins.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The user's attributes.
    pub attributes: &'a Map<String, Value>,
    /// Laid over the attributes.
    pub attribute_overrides: Option<&'a Map<String, Value>>,
    /// Ids of the remote groups that the user is in; a list. Goes before the attribute `__gb_remoteGroupIds`.
    pub remote_group_ids: Option<&'a Value>,
    /// Page that the user is on.
    pub url: Option<&'a str>,
    /// Off: nobody is in an experiment.
    pub is_enabled: bool,
    /// Only forced variations are given out.
    pub qa_mode: bool,
    /// The user's forced variations: index by experiment key.
    pub forced_variations: Option<&'a Map<String, Value>>,
    /// Everybody's forced variations.
    pub global_forced_variations: Option<&'a Map<String, Value>>,
    /// The user's forced feature values.
    pub forced_features: Option<&'a Map<String, Value>>,
    /// Everybody's forced feature values.
    pub global_forced_features: Option<&'a Map<String, Value>>,
    /// Groups that the user is in; only experiments with the deprecated `groups` ask.
    pub groups: Option<&'a Map<String, Value>>,
    /// The user's sticky buckets; `None` where nothing stores them.
    pub sticky_buckets: Option<&'a StickyBuckets>,
}

impl<'a> Context<'a> {
    /// A user with these attributes and nothing special.
    pub fn new(attributes: &'a Map<String, Value>) -> Self {
        Self {
            attributes,
            attribute_overrides: None,
            remote_group_ids: None,
            url: None,
            is_enabled: true,
            qa_mode: false,
            forced_variations: None,
            global_forced_variations: None,
            forced_features: None,
            global_forced_features: None,
            groups: None,
            sticky_buckets: None,
        }
    }

    pub(super) fn effective_attributes(&self) -> Attributes<'a> {
        Attributes {
            base: self.attributes,
            overrides: self.attribute_overrides,
            remote_groups: self.remote_group_ids,
        }
    }

    pub(super) fn forced_feature(&self, key: &str) -> Option<&'a Value> {
        let forced = |values: Option<&'a Map<String, Value>>| values.and_then(|map| map.get(key));
        forced(self.forced_features).or_else(|| forced(self.global_forced_features))
    }

    pub(super) fn forced_variation(&self, key: &str) -> Option<&'a Value> {
        let forced = |values: Option<&'a Map<String, Value>>| values.and_then(|map| map.get(key));
        forced(self.forced_variations).or_else(|| forced(self.global_forced_variations))
    }
}

/// The attribute that a unit is hashed by, with its value if that is usable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit<'a> {
    pub(super) attribute: &'a str,
    pub(super) value: Option<&'a Value>,
}

impl<'a> Unit<'a> {
    /// The unit named by an attribute or, where that has no usable value, by the fallback.
    pub(super) fn find(
        dialect: Dialect,
        attributes: &Attributes<'a>,
        attribute: &'a str,
        fallback: Option<&'a str>,
    ) -> Self {
        let usable = |name: &str| {
            attributes
                .get(name)
                .filter(|value| is_usable(dialect, value))
        };
        if let Some(value) = usable(attribute) {
            return Self {
                attribute,
                value: Some(value),
            };
        }
        match fallback.and_then(|name| Some((name, usable(name)?))) {
            Some((attribute, value)) => Self {
                attribute,
                value: Some(value),
            },
            None => Self {
                attribute,
                value: None,
            },
        }
    }
}

fn is_usable(dialect: Dialect, value: &Value) -> bool {
    let value = Actual::from(value);
    match dialect {
        Dialect::Legacy => js::truthy(value),
        Dialect::Strict => match value {
            Actual::String(_) => js::truthy(value),
            Actual::Number(number) => number.is_finite() && number != 0.0,
            _ => false,
        },
    }
}
