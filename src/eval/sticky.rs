//! Sticky buckets: what a unit was given before, it keeps.

use std::cell::RefCell;

use serde_json::{Map, Value};

use super::js;

/// What one unit was given: variation keys by experiment key and bucket version.
#[derive(Clone, Debug, PartialEq)]
pub struct StickyDocument {
    /// Attribute that names the unit.
    pub attribute_name: String,
    /// The unit: a text as it is, anything else as JSON.
    pub attribute_value: String,
    /// `<experiment>__<bucket version>` → variation key.
    pub assignments: Map<String, Value>,
    /// Whether evaluation wrote to it.
    pub is_changed: bool,
}

impl StickyDocument {
    /// Reads GrowthBook's form; `None` for anything else.
    pub fn from_value(value: &Value) -> Option<Self> {
        Some(Self {
            attribute_name: value.get("attributeName")?.as_str()?.to_owned(),
            attribute_value: unit_text(value.get("attributeValue")?),
            assignments: value.get("assignments")?.as_object()?.clone(),
            is_changed: false,
        })
    }

    /// GrowthBook's form.
    pub fn to_value(&self) -> Value {
        let mut members = Map::new();
        members.insert("attributeName".into(), self.attribute_name.as_str().into());
        members.insert(
            "attributeValue".into(),
            self.attribute_value.as_str().into(),
        );
        members.insert("assignments".into(), self.assignments.clone().into());
        Value::Object(members)
    }

    /// The key that it is stored under.
    pub fn key(&self) -> String {
        sticky_key(&self.attribute_name, &self.attribute_value)
    }
}

/// The key that the document of a unit is stored under.
pub fn sticky_key(attribute_name: &str, attribute_value: &str) -> String {
    format!("{attribute_name}||{attribute_value}")
}

/// A user's sticky buckets, read and written while that user is evaluated.
#[derive(Clone, Debug, Default)]
pub struct StickyBuckets {
    documents: RefCell<Vec<(String, StickyDocument)>>,
}

impl StickyBuckets {
    /// Takes what was stored for a user.
    pub fn new(documents: impl IntoIterator<Item = StickyDocument>) -> Self {
        let keyed = documents
            .into_iter()
            .map(|document| (document.key(), document));
        Self {
            documents: RefCell::new(keyed.collect()),
        }
    }

    /// Everything known now; what has [`StickyDocument::is_changed`] is to be stored.
    pub fn into_documents(self) -> Vec<StickyDocument> {
        let documents = self.documents.into_inner();
        documents
            .into_iter()
            .map(|(_, document)| document)
            .collect()
    }

    /// What the unit `key` was given under `assignment`.
    pub(super) fn get(&self, key: &str, assignment: &str) -> Option<Value> {
        let documents = self.documents.borrow();
        let (_, document) = documents.iter().find(|(known, _)| known == key)?;
        document.assignments.get(assignment).cloned()
    }

    /// Whether the unit `key` was given anything in a bucket version below `min`.
    pub(super) fn has_below(&self, key: &str, prefix: &str, min: f64) -> bool {
        let documents = self.documents.borrow();
        let is_below = |assignment: &String| {
            assignment
                .strip_prefix(prefix)
                .and_then(js::index)
                .and_then(|version| u32::try_from(version).ok())
                .is_some_and(|version| f64::from(version) < min)
        };
        documents
            .iter()
            .filter(|(known, _)| known == key)
            .any(|(_, document)| document.assignments.keys().any(is_below))
    }

    /// Remembers what a unit is given.
    pub(super) fn set(&self, name: &str, value: String, assignment: &str, variation: &str) {
        let mut documents = self.documents.borrow_mut();
        let key = sticky_key(name, &value);
        let position = documents.iter().position(|(known, _)| *known == key);
        let position = position.unwrap_or_else(|| {
            let document = StickyDocument {
                attribute_name: name.to_owned(),
                attribute_value: value,
                assignments: Map::new(),
                is_changed: false,
            };
            documents.push((key, document));
            documents.len() - 1
        });
        let document = &mut documents[position].1;
        if document.assignments.get(assignment).and_then(Value::as_str) != Some(variation) {
            document
                .assignments
                .insert(assignment.to_owned(), variation.into());
            document.is_changed = true;
        }
    }
}

/// The text of a unit's value: as it is, or as JSON.
pub(super) fn unit_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => js::json_text(other),
    }
}
