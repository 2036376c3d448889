//! Conditions: whom a rule is for.
//!
//! A condition is compiled into a tree of [`Node`]s (what is asked of a subject) and [`Test`]s (what is asked of one
//! value). In the strict dialect results are true, false or unknown, and unknown stays unknown under negation; the
//! legacy dialect has no unknown, because its compiler never makes one. Where JavaScript would throw, and where a
//! limit is passed, evaluation stops and the whole condition is false.

mod compare;
mod compile;
mod operator;

use std::cell::Cell;

use serde_json::Value;

pub(super) use compile::Compiler;
use operator::Operator;

use super::{
    Dialect,
    groups::{Group, Groups},
    js::Actual,
    subject::{Path, Subject},
};

/// How many groups may be entered one inside another.
const GROUP_DEPTH_MAX: u32 = 128;

/// How many references to groups one condition may follow.
const REFERENCES_MAX: u32 = 4096;

/// How deep evaluation may nest, groups included; keeps it within a thread's stack.
const NESTING_MAX: u32 = 900;

/// What a condition says of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    False,
    True,
    Unknown,
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::True } else { Self::False }
    }
}

impl Truth {
    fn negated(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::True => Self::False,
            Self::Unknown => Self::Unknown,
        }
    }
}

/// The whole condition is false: JavaScript would throw, or a limit was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopped;

/// The truth of a part of a condition.
pub(super) type Verdict = Result<Truth, Stopped>;

/// Something asked of a subject.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Every one must pass.
    All(Box<[Node]>),
    /// One must pass; never empty.
    Any(Box<[Node]>),
    Not(Box<Node>),
    /// A test of the value at a path.
    Attribute {
        path: Path,
        test: Test,
    },
    /// `$savedGroup`.
    SavedGroup {
        group: Option<u32>,
        attribute: Option<Path>,
    },
    Fixed(Truth),
    /// Where JavaScript throws.
    Broken,
}

/// Something asked of one value.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// Every operator must pass.
    Operators(Box<[Operator]>),
    Literal(Literal),
}

/// A value to be equal to.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Number(f64),
    String {
        text: Box<str>,
        lower: Box<str>,
    },
    /// An array or an object.
    Json(Value),
}

/// What evaluations may still spend; shared by all conditions of one call.
#[derive(Debug)]
pub(super) struct Budget {
    steps: Cell<u32>,
    references: Cell<u32>,
}

impl Budget {
    pub(super) fn new(steps: u32) -> Self {
        Self {
            steps: Cell::new(steps),
            references: Cell::new(REFERENCES_MAX),
        }
    }

    /// Starts over.
    pub(super) fn refill(&self, steps: u32) {
        self.steps.set(steps);
    }

    /// Steps that are not spent yet.
    pub(super) fn left(&self) -> u32 {
        self.steps.get()
    }

    /// Pays for work, if there is enough left.
    pub(super) fn spend(&self, steps: u32) -> Result<(), Stopped> {
        let left = self.steps.get().checked_sub(steps);
        self.steps.set(left.unwrap_or_default());
        left.map(|_| ()).ok_or(Stopped)
    }

    /// Allows a condition its references to groups.
    pub(super) fn begin(&self) {
        self.references.set(REFERENCES_MAX);
    }

    /// Pays for following one reference to a group.
    pub(super) fn follow(&self) -> Result<(), Stopped> {
        let left = self.references.get().checked_sub(1).ok_or(Stopped)?;
        self.references.set(left);
        Ok(())
    }
}

/// Where in the nesting evaluation is.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'p> {
    nesting: u32,
    groups: u32,
    innermost: Option<&'p Visit<'p>>,
}

/// A group that is being evaluated.
pub(super) struct Visit<'p> {
    group: u32,
    outer: Option<&'p Visit<'p>>,
}

impl<'p> Place<'p> {
    /// Notes that a group is entered; `None` where it must not be.
    pub(super) fn visit(self, group: u32) -> Option<Visit<'p>> {
        let allowed = self.groups < GROUP_DEPTH_MAX && !self.is_inside(group);
        allowed.then_some(Visit {
            group,
            outer: self.innermost,
        })
    }

    /// The place inside a group.
    pub(super) fn inside<'q>(self, visit: &'q Visit<'p>) -> Result<Place<'q>, Stopped> {
        Ok(Place {
            nesting: self.deeper()?.nesting,
            groups: self.groups + 1,
            innermost: Some(visit),
        })
    }

    pub(super) fn deeper(self) -> Result<Self, Stopped> {
        if self.nesting >= NESTING_MAX {
            return Err(Stopped);
        }
        Ok(Self {
            nesting: self.nesting + 1,
            ..self
        })
    }

    fn is_inside(&self, group: u32) -> bool {
        std::iter::successors(self.innermost, |visit| visit.outer).any(|visit| visit.group == group)
    }
}

/// Evaluates conditions.
#[derive(Clone, Copy)]
pub(super) struct Evaluator<'a> {
    pub(super) dialect: Dialect,
    pub(super) groups: &'a Groups,
    pub(super) budget: &'a Budget,
}

impl Evaluator<'_> {
    pub(super) fn is_strict(&self) -> bool {
        self.dialect == Dialect::Strict
    }

    /// Whether the subject passes: only what is surely true does.
    pub(super) fn passes(&self, node: &Node, subject: Subject<'_>) -> bool {
        self.verdict(node, subject) == Ok(Truth::True)
    }

    /// What a whole condition says of the subject.
    pub(super) fn verdict(&self, node: &Node, subject: Subject<'_>) -> Verdict {
        self.budget.begin();
        self.node(node, subject, Place::default())
    }

    /// What a part of a condition says of the subject.
    pub(super) fn node(&self, node: &Node, subject: Subject<'_>, place: Place<'_>) -> Verdict {
        match node {
            Node::Attribute { path, test } => self.test(test, subject.at(path), false, place),
            Node::All(nodes) => {
                let place = place.deeper()?;
                all(nodes, |node| self.node(node, subject, place))
            }
            Node::Any(nodes) => {
                let place = place.deeper()?;
                any(nodes, |node| self.node(node, subject, place))
            }
            Node::Not(node) => Ok(self.node(node, subject, place.deeper()?)?.negated()),
            Node::SavedGroup { group, attribute } => {
                self.saved_group(*group, attribute.as_ref(), subject, place)
            }
            Node::Fixed(truth) => Ok(*truth),
            Node::Broken => Err(Stopped),
        }
    }

    /// Asks something of one value; `folded` compares texts without regard to case.
    fn test(&self, test: &Test, actual: Actual<'_>, folded: bool, place: Place<'_>) -> Verdict {
        self.budget.spend(1)?;
        match test {
            Test::Literal(literal) => {
                Ok(compare::equals(self.dialect, literal, actual, folded).into())
            }
            Test::Operators(operators) => {
                let place = place.deeper()?;
                all(operators, |operator| self.operator(operator, actual, place))
            }
        }
    }

    fn saved_group(
        &self,
        group: Option<u32>,
        attribute: Option<&Path>,
        subject: Subject<'_>,
        place: Place<'_>,
    ) -> Verdict {
        self.budget.follow()?;
        let Some((group, visit)) = group.and_then(|group| Some((group, place.visit(group)?)))
        else {
            return Ok(Truth::False);
        };
        let is_member = match &self.groups.entries[group as usize] {
            Group::List {
                attribute: own,
                values: Some(values),
            } => attribute
                .or(own.as_ref())
                .is_some_and(|path| values.matches(subject.at(path))),
            Group::Condition(Some(condition)) => {
                return self.node(condition, subject, place.inside(&visit)?);
            }
            Group::Remote { attribute: own } => {
                attribute.is_none_or(|attribute| Some(attribute) == own.as_ref())
                    && self.is_in_remote(group, subject)
            }
            Group::Unknown if self.is_strict() => return Ok(Truth::Unknown),
            _ => false,
        };
        Ok(is_member.into())
    }

    /// Membership that someone else found out and wrote into the attributes.
    fn is_in_remote(&self, group: u32, subject: Subject<'_>) -> bool {
        let Actual::Array(listed) = subject.at(&self.groups.remote) else {
            return false;
        };
        let is_it = |id: &str| self.groups.index.get(id) == Some(&group);
        listed.iter().any(|id| id.as_str().is_some_and(is_it))
    }
}

/// One failure decides, wherever an unknown one is.
fn all<T>(items: &[T], mut ask: impl FnMut(&T) -> Verdict) -> Verdict {
    let mut result = Truth::True;
    for item in items {
        match ask(item)? {
            Truth::False => return Ok(Truth::False),
            Truth::Unknown => result = Truth::Unknown,
            Truth::True => {}
        }
    }
    Ok(result)
}

/// One success decides, wherever an unknown one is.
fn any<T>(items: &[T], mut ask: impl FnMut(&T) -> Verdict) -> Verdict {
    let mut result = Truth::False;
    for item in items {
        match ask(item)? {
            Truth::True => return Ok(Truth::True),
            Truth::Unknown => result = Truth::Unknown,
            Truth::False => {}
        }
    }
    Ok(result)
}
