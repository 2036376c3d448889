//! Saved groups: bare lists, typed lists, conditions, and those that only a remote service knows.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use serde_json::{Map, Value};

use super::{
    Dialect,
    condition::{Compiler, Node},
    js,
    set::Set,
    subject::{Path, REMOTE_GROUPS},
};

/// One saved group.
#[derive(Clone, Debug)]
pub(super) enum Group {
    /// A list of values without a type: known to `$inGroup` alone.
    Bare(Set),
    /// `{"type": "list"}`.
    List {
        attribute: Option<Path>,
        values: Option<Set>,
    },
    /// `{"type": "condition"}`; `None` where the condition is not one.
    Condition(Option<Node>),
    /// `{"type": "remote"}`.
    Remote { attribute: Option<Path> },
    /// An object of a type that this version does not know.
    Unknown,
    /// Null, a number, a text.
    Malformed,
}

/// Positions of groups by id.
pub(super) type GroupIndex = HashMap<Box<str>, u32, FixedState>;

/// All saved groups; conditions refer to them by position.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    pub(super) index: GroupIndex,
    pub(super) entries: Box<[Group]>,
    /// Where a user's remote groups are listed.
    pub(super) remote: Path,
}

impl Groups {
    pub(super) fn new(dialect: Dialect, groups: &Map<String, Value>) -> Self {
        let index = Self::index(groups);
        let compiler = Compiler::new(dialect, &index);
        let entries = groups
            .values()
            .map(|group| compile(group, &compiler))
            .collect();
        Self {
            index,
            entries,
            remote: Path::new(REMOTE_GROUPS),
        }
    }

    fn index(groups: &Map<String, Value>) -> GroupIndex {
        (0..)
            .zip(groups.keys())
            .map(|(position, id)| (id.as_str().into(), position))
            .collect()
    }
}

fn compile(group: &Value, compiler: &Compiler<'_>) -> Group {
    let members = match group {
        Value::Array(items) => return Group::Bare(Set::new(items, false)),
        Value::Object(members) => members,
        _ => return Group::Malformed,
    };
    let attribute = members.get("attributeKey").and_then(Value::as_str);
    match members.get("type").and_then(Value::as_str) {
        Some("list") => Group::List {
            attribute: attribute.map(Path::new),
            values: members
                .get("values")
                .and_then(Value::as_array)
                .map(|items| Set::new(items, false)),
        },
        Some("condition") => {
            let condition = js::truthy_member(members, "condition");
            Group::Condition(condition.and_then(|condition| compiler.group_condition(condition)))
        }
        Some("remote") if compiler.is_strict() => Group::Remote {
            attribute: attribute.map(Path::new),
        },
        _ => Group::Unknown,
    }
}
