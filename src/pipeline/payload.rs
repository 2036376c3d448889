//! The upstream's shapes: an SDK payload and a list of experiments, read no deeper than needed to tell items apart.
//!
//! Items stay raw here, so that one bad item cannot spoil its neighbours; [`super::validate`] looks inside them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
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
    /// Items that are not served as delivered.
    pub quarantined: Quarantined,
    /// Whether members came encrypted, and go out encrypted again.
    pub is_sealed: bool,
    /// Hash of what the document means: of all of it, members unknown here included, but not of its date, its status, or
    /// the order and spelling of what is in it.
    pub digest: [u8; 32],
    /// What is wrong with single items.
    pub issues: Vec<Issue>,
}

/// Bad items of a payload; those that have a stand-in are among its items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// Keys of features.
    pub features: BTreeSet<Arc<str>>,
    /// Places in the list of auto experiments; none has a stand-in.
    pub auto_experiments: BTreeSet<usize>,
    /// Ids of saved groups.
    pub saved_groups: BTreeSet<Arc<str>>,
    /// Ids of contextual bandits.
    pub contextual_bandits: BTreeSet<Arc<str>>,
}

impl Quarantined {
    /// Whether every item is served as delivered.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Members that a payload may have encrypted, each with the plain one that it replaces.
///
/// Where a member came encrypted, the plain one stands in the document as fetched, and `true` in its own place.
pub const SEALED: [(&str, &str); 4] = [
    ("encryptedFeatures", "features"),
    ("encryptedExperiments", "experiments"),
    ("encryptedSavedGroups", "savedGroups"),
    ("encryptedContextualBandits", "contextualBandits"),
];

/// The experiments of one source, validated and adapted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExperimentList {
    /// One per tracking key, sorted by it.
    pub experiments: Vec<Arc<Experiment>>,
    /// Projects of features, by the feature's key; only where the upstream gives them.
    pub feature_projects: BTreeMap<Arc<str>, Arc<str>>,
    /// Saved groups that they refer to, typed, by id; only where the upstream gives them.
    pub saved_groups: BTreeMap<Arc<str>, CanonicalJson>,
    /// Ids served from their last good version because the delivered one is bad.
    pub from_last_good: Vec<String>,
    /// What is wrong with single items.
    pub issues: Vec<Issue>,
}

/// An SDK payload before its items were looked at.
pub(super) struct RawPayload<'a> {
    pub(super) features: RawMembers<'a>,
    pub(super) experiments: Option<Vec<&'a RawValue>>,
    pub(super) saved_groups: Option<RawMembers<'a>>,
    pub(super) contextual_bandits: Option<RawMembers<'a>>,
    /// All other members but date and status, which mean nothing.
    pub(super) others: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for RawPayload<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PayloadVisitor)
    }
}

struct PayloadVisitor;

impl<'de> Visitor<'de> for PayloadVisitor {
    type Value = RawPayload<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut features, mut others) = (None, Vec::new());
        let (mut experiments, mut groups, mut bandits) = (None, None, None);
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            match key.as_ref() {
                "features" => once("features", &mut features, map.next_value()?)?,
                "experiments" => once("experiments", &mut experiments, map.next_value()?)?,
                "savedGroups" => once("savedGroups", &mut groups, map.next_value()?)?,
                "contextualBandits" => once("contextualBandits", &mut bandits, map.next_value()?)?,
                "dateUpdated" | "status" => drop(map.next_value::<IgnoredAny>()?),
                _ => others.push((key, map.next_value()?)),
            }
        }
        Ok(RawPayload {
            features: features.ok_or_else(|| A::Error::missing_field("features"))?,
            experiments: experiments.flatten(),
            saved_groups: groups.flatten(),
            contextual_bandits: bandits.flatten(),
            others,
        })
    }
}

/// Two members of one name: parsers differ in which of them counts.
fn once<T, E: Error>(name: &'static str, slot: &mut Option<T>, value: T) -> Result<(), E> {
    if slot.replace(value).is_some() {
        return Err(E::duplicate_field(name));
    }
    Ok(())
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
    /// `None`: the list was not read.
    #[serde(default)]
    pub(super) features: Option<Vec<ListedFeature>>,
}

/// A feature as the management API lists it, as far as that is kept.
#[derive(Deserialize)]
pub(super) struct ListedFeature {
    pub(super) id: Arc<str>,
    pub(super) project: Arc<str>,
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
