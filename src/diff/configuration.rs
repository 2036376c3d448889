//! Reads a configuration, whichever document it comes in.

use serde_json::{Map, Value, json};

use crate::eval::Definitions;

/// Why a document is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The document is a list, a text, a number.
    #[error("is not a JSON object")]
    NotAnObject,
    /// The features cannot be read without a key.
    #[error("is encrypted; use the payload of a connection without encryption")]
    Encrypted,
    /// There is nothing to read.
    #[error("has no object `features`; use an SDK payload or a snapshot")]
    NoFeatures,
    /// A member is of another type than both documents have it.
    #[error("has a member `{0}` of the wrong type")]
    WrongType(&'static str),
}

/// A configuration: of an SDK payload, or of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// Features by key.
    pub features: Map<String, Value>,
    /// Experiments of the management API by tracking key; a payload has none.
    pub experiments: Map<String, Value>,
    /// Auto experiments by key, in their order.
    pub auto_experiments: Map<String, Value>,
    /// Saved groups by id.
    pub saved_groups: Map<String, Value>,
    /// Contextual bandits by id.
    pub contextual_bandits: Map<String, Value>,
}

impl Configuration {
    /// Reads a document. Fails when it is neither a payload nor a snapshot.
    pub fn new(document: Value) -> Result<Self, Unreadable> {
        let Value::Object(mut members) = document else {
            return Err(Unreadable::NotAnObject);
        };
        if members.contains_key("encryptedFeatures") {
            return Err(Unreadable::Encrypted);
        }
        let features = match members.remove("features") {
            Some(Value::Object(features)) => features,
            Some(_) => return Err(Unreadable::WrongType("features")),
            None => return Err(Unreadable::NoFeatures),
        };
        let is_snapshot = members.contains_key("saved_groups") || members.contains_key("revision");
        let names = if is_snapshot {
            ["auto_experiments", "saved_groups", "contextual_bandits"]
        } else {
            ["experiments", "savedGroups", "contextualBandits"]
        };
        let auto_experiments = by_key(list(&mut members, names[0])?, "key");
        Ok(Self {
            features,
            experiments: by_key(list(&mut members, "experiments")?, "trackingKey"),
            auto_experiments,
            saved_groups: object(&mut members, names[1])?,
            contextual_bandits: object(&mut members, names[2])?,
        })
    }

    /// What there is, with a word for it.
    pub(super) fn collections(&self) -> [(&'static str, &Map<String, Value>); 5] {
        [
            ("feature", &self.features),
            ("experiment", &self.experiments),
            ("auto experiment", &self.auto_experiments),
            ("saved group", &self.saved_groups),
            ("contextual bandit", &self.contextual_bandits),
        ]
    }

    /// What is to be compiled to evaluate features.
    pub fn definitions(&self) -> Definitions<'_> {
        let features = self.features.iter();
        Definitions {
            features: features
                .map(|(key, feature)| (key.as_str(), feature))
                .collect(),
            saved_groups: self.saved_groups.clone(),
            contextual_bandits: self.contextual_bandits.clone(),
            auto_experiments: self.auto_experiments.values().collect(),
            overrides: Map::new(),
        }
    }

    /// The same as a snapshot document.
    pub(super) fn to_snapshot(&self) -> Value {
        json!({
            "features": self.features,
            "experiments": self.experiments.values().collect::<Vec<_>>(),
            "saved_groups": self.saved_groups,
            "contextual_bandits": self.contextual_bandits,
        })
    }
}

fn object(
    members: &mut Map<String, Value>,
    name: &'static str,
) -> Result<Map<String, Value>, Unreadable> {
    match members.remove(name) {
        Some(Value::Object(object)) => Ok(object),
        Some(Value::Null) | None => Ok(Map::new()),
        Some(_) => Err(Unreadable::WrongType(name)),
    }
}

fn list(members: &mut Map<String, Value>, name: &'static str) -> Result<Vec<Value>, Unreadable> {
    match members.remove(name) {
        Some(Value::Array(items)) => Ok(items),
        Some(Value::Null) | None => Ok(Vec::new()),
        Some(_) => Err(Unreadable::WrongType(name)),
    }
}

/// The items by a member of theirs; one without it goes by its position, and of two with the same the second does too.
fn by_key(items: Vec<Value>, name: &str) -> Map<String, Value> {
    let mut found = Map::new();
    for (at, item) in items.into_iter().enumerate() {
        let key = item.get(name).and_then(Value::as_str).map(str::to_owned);
        let key = key.filter(|key| !found.contains_key(key));
        found.insert(key.unwrap_or_else(|| format!("[{at}]")), item);
    }
    found
}
