//! Conditions for users who are partly known: what is decided goes, the rest stays.

use serde_json::{Map, Value, json};

use super::{
    Dialect,
    condition::{Budget, Compiler, Evaluator, Place, Stopped, Truth},
    groups::Groups,
    js,
    subject::{Attributes, Subject},
};

/// Steps that pruning one condition may take.
const STEPS_MAX: u32 = 2_000_000;

/// Reduces a condition for a user of whom only `known` is known.
///
/// Gives true or false once that cannot depend on anything else, otherwise the condition without the branches that
/// are decided. Dotted paths are never known. A malformed condition stays as written.
pub fn prune_condition(
    condition: &Value,
    known: &Map<String, Value>,
    saved_groups: &Map<String, Value>,
) -> Value {
    Pruner::new(known, saved_groups).root(condition)
}

/// What is left of a part of a condition.
enum Left {
    Decided(bool),
    /// Undecided, and nothing in it is either.
    AsWritten,
    Open(Value),
}

pub(super) struct Pruner<'a> {
    known: Attributes<'a>,
    pub(super) saved_groups: &'a Map<String, Value>,
    groups: Groups,
    budget: Budget,
}

impl<'a> Pruner<'a> {
    pub(super) fn new(known: &'a Map<String, Value>, saved_groups: &'a Map<String, Value>) -> Self {
        Self {
            known: Attributes {
                base: known,
                overrides: None,
                remote_groups: None,
            },
            saved_groups,
            groups: Groups::new(Dialect::Strict, saved_groups),
            budget: Budget::new(STEPS_MAX),
        }
    }

    /// Prunes a whole condition.
    pub(super) fn root(&self, condition: &Value) -> Value {
        self.begin();
        self.pruned(condition, Place::default())
            .unwrap_or_else(|_| condition.clone())
    }

    /// Prunes the condition of a saved group; `None` where it stays as written or is no condition.
    pub(super) fn group(&self, id: &str) -> Option<Value> {
        self.begin();
        match self.saved_group(&json!({"id": id}), Place::default(), true) {
            Ok(Left::Open(condition)) => Some(condition),
            _ => None,
        }
    }

    fn begin(&self) {
        self.budget.begin();
        self.budget.refill(STEPS_MAX);
    }

    fn pruned(&self, condition: &Value, place: Place<'_>) -> Result<Value, Stopped> {
        Ok(match self.entries(condition, place)? {
            Left::Decided(decided) => decided.into(),
            Left::AsWritten => condition.clone(),
            Left::Open(open) => open,
        })
    }

    fn entries(&self, condition: &Value, place: Place<'_>) -> Result<Left, Stopped> {
        let place = place.deeper()?;
        let mut open = Map::new();
        for (key, value) in condition.as_object().ok_or(Stopped)? {
            let left = self.entry(key, value, place)?;
            let left = match (key.as_str(), left) {
                ("$not" | "$nor", Left::Decided(decided)) => Left::Decided(!decided),
                (_, left) => left,
            };
            match left {
                Left::Decided(false) => return Ok(Left::Decided(false)),
                Left::Decided(true) => {}
                Left::AsWritten => {
                    open.insert(key.clone(), value.clone());
                }
                Left::Open(pruned) => {
                    open.insert(key.clone(), pruned);
                }
            }
        }
        Ok(if open.is_empty() {
            Left::Decided(true)
        } else {
            Left::Open(open.into())
        })
    }

    fn entry(&self, key: &str, value: &Value, place: Place<'_>) -> Result<Left, Stopped> {
        match key {
            "$or" | "$nor" => self.list(value, true, place),
            "$and" => self.list(value, false, place),
            "$not" => self.entries(value, place),
            "$savedGroup" => match self.saved_group(value, place, false)? {
                decided @ Left::Decided(_) => Ok(decided),
                // A reference stays one.
                _ => Ok(Left::AsWritten),
            },
            _ if !key.contains('.') && self.known.base.contains_key(key) => {
                self.known_attribute(key, value, place)
            }
            _ => Ok(Left::AsWritten),
        }
    }

    fn list(&self, value: &Value, is_or: bool, place: Place<'_>) -> Result<Left, Stopped> {
        let items = value.as_array().ok_or(Stopped)?;
        let mut open = Vec::new();
        for item in items {
            match self.entries(item, place)? {
                // One success decides an `$or`, one failure an `$and`.
                Left::Decided(decided) if decided == is_or => return Ok(Left::Decided(decided)),
                Left::Decided(_) => {}
                Left::AsWritten => open.push(item.clone()),
                Left::Open(pruned) => open.push(pruned),
            }
        }
        Ok(if open.is_empty() {
            Left::Decided(!is_or || items.is_empty())
        } else {
            Left::Open(open.into())
        })
    }

    fn known_attribute(&self, key: &str, value: &Value, place: Place<'_>) -> Result<Left, Stopped> {
        let compiler = Compiler::new(Dialect::Strict, &self.groups.index);
        let node = compiler.condition(&json!({key: value}));
        let evaluator = Evaluator {
            dialect: Dialect::Strict,
            groups: &self.groups,
            budget: &self.budget,
        };
        Ok(
            match evaluator.node(&node, Subject::User(&self.known), place)? {
                Truth::True => Left::Decided(true),
                Truth::False => Left::Decided(false),
                // The reader's SDK may know more operators.
                Truth::Unknown => Left::AsWritten,
            },
        )
    }

    /// Resolves a reference. `keeps_broken`: a malformed group is open as written rather than breaking its user.
    fn saved_group(
        &self,
        reference: &Value,
        place: Place<'_>,
        keeps_broken: bool,
    ) -> Result<Left, Stopped> {
        const FAILED: Result<Left, Stopped> = Ok(Left::Decided(false));
        let Some(id) = reference.get("id").and_then(Value::as_str) else {
            return FAILED;
        };
        let attribute = reference.get("attributeKey");
        if !reference.is_object() || attribute.is_some_and(|attribute| !attribute.is_string()) {
            return FAILED;
        }
        let Some((group, entry)) = self.groups.index.get(id).zip(self.saved_groups.get(id)) else {
            return FAILED;
        };
        self.budget.follow()?;
        let Some(visit) = place.visit(*group) else {
            return FAILED;
        };
        let Value::Object(members) = entry else {
            return FAILED;
        };
        match members.get("type").and_then(Value::as_str) {
            Some("list") => {
                let key = attribute.or_else(|| members.get("attributeKey"));
                let Some(key) = key.and_then(Value::as_str) else {
                    return FAILED;
                };
                match members.get("values") {
                    Some(values @ Value::Array(_)) => {
                        let membership = json!({"$in": values});
                        self.entry(key, &membership, place)
                    }
                    _ => FAILED,
                }
            }
            Some("condition") => {
                let Some(condition) = js::truthy_member(members, "condition") else {
                    return FAILED;
                };
                if !condition.is_object() {
                    return FAILED;
                }
                match self.entries(condition, place.inside(&visit)?) {
                    Err(Stopped) if keeps_broken => Ok(Left::Open(condition.clone())),
                    left => left,
                }
            }
            _ => Ok(Left::AsWritten),
        }
    }
}
