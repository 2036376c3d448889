//! What a condition is asked of, and how its paths lead into it.

use serde_json::{Map, Value};

use super::js::{self, Actual};

/// The attribute that names a user's remote groups.
pub(super) const REMOTE_GROUPS: &str = "__gb_remoteGroupIds";

/// A user's attributes, with what is laid over them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a> {
    pub(super) base: &'a Map<String, Value>,
    pub(super) overrides: Option<&'a Map<String, Value>>,
    pub(super) remote_groups: Option<&'a Value>,
}

impl<'a> Attributes<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        if let Some(groups) = self.remote_groups
            && name == REMOTE_GROUPS
        {
            return Some(groups);
        }
        if let Some(overrides) = self.overrides
            && let Some(value) = overrides.get(name)
        {
            return Some(value);
        }
        find(self.base, name)
    }
}

/// So many members are found sooner by looking at each than by hashing the name.
const SCANNED_MAX: usize = 8;

/// The member of this name.
fn find<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if members.len() > SCANNED_MAX {
        return members.get(name);
    }
    let mut members = members.iter();
    members
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

/// What a condition is asked of.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// A user.
    User(&'a Attributes<'a>),
    /// An element of a list, under `$elemMatch`.
    Element(Actual<'a>),
    /// The value of a prerequisite, as the field `value`.
    Parent(&'a Value),
}

impl<'a> Subject<'a> {
    /// The value at a path; null where there is none.
    pub(super) fn at(self, path: &Path) -> Actual<'a> {
        let first = match self {
            Self::User(attributes) => attributes.get(&path.first.name).map(Actual::from),
            Self::Element(actual) => step(actual, &path.first),
            Self::Parent(value) => (&*path.first.name == "value").then(|| value.into()),
        };
        path.rest
            .iter()
            .try_fold(first.unwrap_or(Actual::Null), step)
            .unwrap_or(Actual::Null)
    }
}

fn step<'a>(from: Actual<'a>, step: &Step) -> Option<Actual<'a>> {
    match from {
        Actual::Object(members) => members.get(&*step.name).map(Actual::from),
        Actual::Array(items) => match step.index {
            Some(index) => items.get(index).map(Actual::from),
            #[expect(clippy::cast_precision_loss, reason = "no list is that long")]
            None => (&*step.name == "length").then_some(Actual::Number(items.len() as f64)),
        },
        _ => None,
    }
}

/// A dotted path, split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    first: Step,
    rest: Box<[Step]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    name: Box<str>,
    /// The element that the name stands for in a list.
    index: Option<usize>,
}

impl Path {
    pub(super) fn new(path: &str) -> Self {
        let mut steps = path.split('.').map(|name| Step {
            name: name.into(),
            index: js::index(name),
        });
        Self {
            first: steps.next().expect("splitting gives at least one part"),
            rest: steps.collect(),
        }
    }
}
