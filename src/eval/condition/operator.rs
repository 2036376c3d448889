//! Operators: what one `$…` asks of a value.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    super::{
        groups::Group,
        js::{self, Actual},
        regex::Pattern,
        set::Set,
        subject::Subject,
        version,
    },
    Evaluator, Literal, Node, Place, Stopped, Test, Truth, Verdict, all, any, compare,
};

/// A compiled operator.
#[derive(Clone, Debug)]
pub(in super::super) enum Operator {
    Equal {
        operand: Literal,
        negated: bool,
    },
    Order {
        operand: Value,
        wanted: Wanted,
    },
    Exists(bool),
    In {
        set: Set,
        negated: bool,
    },
    All {
        tests: Box<[Test]>,
        folded: bool,
    },
    Size(Test),
    /// Some element passes a test of itself.
    ElementTest(Test),
    /// Some element has fields that pass.
    ElementFields(Node),
    Not(Test),
    /// `None`: a pattern that matches nothing.
    Regex {
        pattern: Option<Pattern>,
        negated: bool,
    },
    Type(Type),
    Version {
        operand: Version,
        wanted: Wanted,
    },
    /// `None`: there is no such group.
    InGroup {
        group: Option<u32>,
        negated: bool,
    },
    Fixed(Truth),
    Broken,
}

/// Which results of a comparison pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Wanted {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    Other,
}

impl Wanted {
    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
            Self::Equal => order.is_eq(),
            Self::Other => order.is_ne(),
        }
    }
}

/// A type name that `$type` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Type {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl Type {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "number" => Self::Number,
            "string" => Self::String,
            "array" => Self::Array,
            "object" => Self::Object,
            _ => return None,
        })
    }

    fn of(actual: Actual<'_>) -> Self {
        match actual {
            Actual::Null => Self::Null,
            Actual::Bool(_) => Self::Boolean,
            Actual::Number(_) => Self::Number,
            Actual::String(_) => Self::String,
            Actual::Array(_) => Self::Array,
            Actual::Object(_) => Self::Object,
        }
    }
}

/// A padded version and which values it can be compared with.
#[derive(Clone, Debug)]
pub(in super::super) struct Version {
    pub(super) padded: Box<str>,
    pub(super) comparable: Comparable,
}

/// Which values a version operand can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Comparable {
    Everything,
    Strings,
    Numbers,
    Nothing,
}

impl Version {
    fn order(&self, actual: Actual<'_>) -> Option<Ordering> {
        let comparable = match self.comparable {
            Comparable::Everything => true,
            Comparable::Strings => matches!(actual, Actual::String(_)),
            Comparable::Numbers => matches!(actual, Actual::Number(_)),
            Comparable::Nothing => false,
        };
        comparable.then(|| js::compare_text(&version::padded(actual), &self.padded))
    }
}

impl Evaluator<'_> {
    pub(super) fn operator(
        &self,
        operator: &Operator,
        actual: Actual<'_>,
        place: Place<'_>,
    ) -> Verdict {
        let passes = match operator {
            Operator::Equal { operand, negated } => compare::identical(operand, actual) != *negated,
            Operator::Order { operand, wanted } => {
                compare::order(self.dialect, actual, operand.into())
                    .is_some_and(|order| wanted.accepts(order))
            }
            Operator::Exists(expected) => matches!(actual, Actual::Null) != *expected,
            Operator::In { set, negated } => self.is_in(set, actual)? != *negated,
            Operator::Type(expected) => Type::of(actual) == *expected,
            Operator::Regex { pattern, negated } => {
                self.is_match(pattern.as_ref(), actual)? != *negated
            }
            Operator::Version { operand, wanted } => operand
                .order(actual)
                .map_or(*wanted == Wanted::Other, |order| wanted.accepts(order)),
            Operator::InGroup { group, negated } => {
                return self.in_group(*group, *negated, actual);
            }
            Operator::Not(test) => return Ok(self.test(test, actual, false, place)?.negated()),
            Operator::All { .. }
            | Operator::Size(_)
            | Operator::ElementTest(_)
            | Operator::ElementFields(_) => return self.elements(operator, actual, place),
            Operator::Fixed(truth) => return Ok(*truth),
            Operator::Broken => return Err(Stopped),
        };
        Ok(passes.into())
    }

    /// Operators that only lists can pass.
    fn elements(&self, operator: &Operator, actual: Actual<'_>, place: Place<'_>) -> Verdict {
        let Actual::Array(items) = actual else {
            return Ok(Truth::False);
        };
        let some = |ask: &dyn Fn(&Value) -> Verdict| {
            any(items, |item| {
                if item.is_null() {
                    Ok(Truth::False)
                } else {
                    ask(item)
                }
            })
        };
        match operator {
            Operator::All { tests, folded } => all(tests, |test| {
                any(items, |item| self.test(test, item.into(), *folded, place))
            }),
            #[expect(clippy::cast_precision_loss, reason = "no list is that long")]
            Operator::Size(test) => {
                self.test(test, Actual::Number(items.len() as f64), false, place)
            }
            Operator::ElementTest(test) => some(&|item| self.test(test, item.into(), false, place)),
            Operator::ElementFields(node) => some(&|item| {
                self.budget.spend(1)?;
                self.node(node, Subject::Element(item.into()), place.deeper()?)
            }),
            _ => Ok(Truth::False),
        }
    }

    fn is_in(&self, set: &Set, actual: Actual<'_>) -> Result<bool, Stopped> {
        if let Actual::Array(items) = actual {
            self.budget
                .spend(u32::try_from(items.len()).unwrap_or(u32::MAX))?;
        }
        Ok(set.matches(actual))
    }

    fn is_match(&self, pattern: Option<&Pattern>, actual: Actual<'_>) -> Result<bool, Stopped> {
        let Some(pattern) = pattern else {
            return Ok(false);
        };
        let text = match actual {
            Actual::String(text) => text.into(),
            _ if self.is_strict() => return Ok(false),
            other => js::string(other),
        };
        self.budget.spend(pattern.cost(&text))?;
        Ok(pattern.is_match(&text))
    }

    fn in_group(&self, group: Option<u32>, negated: bool, actual: Actual<'_>) -> Verdict {
        let Some(group) = group else {
            return Ok(negated.into());
        };
        match &self.groups.entries[group as usize] {
            Group::Bare(values)
            | Group::List {
                values: Some(values),
                ..
            } => Ok((self.is_in(values, actual)? != negated).into()),
            Group::Unknown if self.is_strict() => Ok(Truth::Unknown),
            _ => Ok(Truth::False),
        }
    }
}
