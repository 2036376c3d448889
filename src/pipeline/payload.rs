//! The upstream's shapes: an SDK payload and a list of experiments, read no deeper than needed to tell items apart.
//!
//! Items stay raw here, so that one bad item cannot spoil its neighbours; [`super::validate`] looks inside them.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::model::{CanonicalJson, Experiment, Feature, Issue};

/// What one SDK connection delivered, validated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payload {
    /// Features by key, last good versions included.
    pub features: BTreeMap<Arc<str>, Arc<Feature>>,
    /// Auto experiments in evaluation order.
    pub auto_experiments: Vec<CanonicalJson>,
    /// Saved groups by id.
    pub saved_groups: BTreeMap<Arc<str>, CanonicalJson>,
    /// Contextual bandits by id.
    pub contextual_bandits: BTreeMap<Arc<str>, CanonicalJson>,
    /// Keys served from their last good version because the delivered one is bad.
    pub from_last_good: Vec<Arc<str>>,
    /// What is wrong with single items.
    pub issues: Vec<Issue>,
}

/// The experiments of one source, validated and adapted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExperimentList {
    /// One per tracking key, sorted by it.
    pub experiments: Vec<Arc<Experiment>>,
    /// Saved groups that they refer to, typed, by id; only where the upstream gives them.
    pub saved_groups: BTreeMap<Arc<str>, CanonicalJson>,
    /// Ids served from their last good version because the delivered one is bad.
    pub from_last_good: Vec<String>,
    /// What is wrong with single items.
    pub issues: Vec<Issue>,
}

/// An SDK payload before its items were looked at.
#[derive(Deserialize)]
pub(super) struct RawPayload<'a> {
    #[serde(borrow)]
    pub(super) features: RawMembers<'a>,
    #[serde(borrow, default)]
    pub(super) experiments: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default, rename = "savedGroups")]
    pub(super) saved_groups: Option<RawMembers<'a>>,
    #[serde(borrow, default, rename = "contextualBandits")]
    pub(super) contextual_bandits: Option<RawMembers<'a>>,
}

/// A list of experiments before its items were looked at.
#[derive(Deserialize)]
pub(super) struct RawExperiments<'a> {
    #[serde(borrow)]
    pub(super) experiments: Vec<&'a RawValue>,
    #[serde(borrow, default, rename = "savedGroups")]
    pub(super) saved_groups: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) namespaces: Vec<&'a RawValue>,
}

/// Members of an object in the order sent, duplicates included.
pub(super) struct RawMembers<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

/// A key that is borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for RawMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    members.push((key, value));
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
