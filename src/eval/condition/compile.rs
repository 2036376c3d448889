//! From a condition's JSON to its tree.

use std::{cell::RefCell, collections::HashMap};

use serde_json::{Map, Value};

use super::{
    super::{
        Dialect,
        groups::GroupIndex,
        js::{self, Actual},
        regex::Pattern,
        set::Set,
        subject::Path,
        version,
    },
    Literal, Node, Test, Truth,
    operator::{Comparable, Operator, Type, Version, Wanted},
};

/// How deep a condition may nest; JSON from outside never does.
const DEPTH_MAX: u32 = 200;

/// What patterns became, by text and whether case is ignored.
type Patterns = HashMap<(Box<str>, bool), Option<Pattern>>;

/// Compiles conditions of one dialect against one set of saved groups.
pub(in super::super) struct Compiler<'a> {
    dialect: Dialect,
    groups: &'a GroupIndex,
    /// Patterns that occurred before: real payloads repeat them in many rules.
    patterns: RefCell<Patterns>,
}

impl<'a> Compiler<'a> {
    pub(in super::super) fn new(dialect: Dialect, groups: &'a GroupIndex) -> Self {
        Self {
            dialect,
            groups,
            patterns: RefCell::default(),
        }
    }

    pub(in super::super) fn is_strict(&self) -> bool {
        self.dialect == Dialect::Strict
    }

    /// Compiles a whole condition.
    pub(in super::super) fn condition(&self, condition: &Value) -> Node {
        self.entries(condition, 0)
    }

    /// Compiles the condition of a saved group; `None` where it is not one.
    pub(in super::super) fn group_condition(&self, condition: &Value) -> Option<Node> {
        let accepted = condition.is_object() || (condition.is_array() && !self.is_strict());
        accepted.then(|| self.condition(condition))
    }

    /// A JavaScript pattern; `None` where it matches nothing.
    pub(in super::super) fn pattern(&self, pattern: &str, insensitive: bool) -> Option<Pattern> {
        self.patterns
            .borrow_mut()
            .entry((pattern.into(), insensitive))
            .or_insert_with(|| Pattern::new(pattern, insensitive))
            .clone()
    }

    /// Everything in a condition object. JavaScript takes the entries of whatever is there.
    fn entries(&self, condition: &Value, depth: u32) -> Node {
        if depth > DEPTH_MAX {
            return Node::Broken;
        }
        match condition {
            Value::Object(members) => {
                let nodes = members
                    .iter()
                    .map(|(key, value)| self.entry(key, value, depth + 1));
                all(nodes.collect())
            }
            Value::Null => Node::Broken,
            _ if self.is_strict() => Node::Fixed(Truth::False),
            Value::Array(items) => {
                let nodes = items
                    .iter()
                    .enumerate()
                    .map(|(index, value)| self.attribute(&index.to_string(), value, depth + 1));
                all(nodes.collect())
            }
            Value::String(text) => Node::Fixed(text.is_empty().into()),
            _ => Node::Fixed(Truth::True),
        }
    }

    fn entry(&self, key: &str, value: &Value, depth: u32) -> Node {
        match key {
            "$or" => self.list(value, depth, true),
            "$and" => self.list(value, depth, false),
            "$nor" => match self.list(value, depth, true) {
                // A list that is not one fails either way.
                Node::Fixed(Truth::False) if self.is_strict() && !value.is_array() => {
                    Node::Fixed(Truth::False)
                }
                node => not(node),
            },
            "$not" if self.is_strict() && !value.is_object() && !value.is_null() => {
                Node::Fixed(Truth::False)
            }
            "$not" => not(self.entries(value, depth)),
            "$savedGroup" => self.saved_group(value),
            "$savedGroups" if self.is_strict() => Node::Fixed(Truth::False),
            _ => self.attribute(key, value, depth),
        }
    }

    fn attribute(&self, path: &str, value: &Value, depth: u32) -> Node {
        Node::Attribute {
            path: Path::new(path),
            test: self.test(value, depth),
        }
    }

    /// `$or` or `$and`.
    fn list(&self, value: &Value, depth: u32, is_or: bool) -> Node {
        match value {
            Value::Array(items) => {
                let nodes: Vec<_> = items
                    .iter()
                    .map(|item| self.entries(item, depth + 1))
                    .collect();
                if is_or && !nodes.is_empty() {
                    Node::Any(nodes.into())
                } else {
                    all(nodes)
                }
            }
            Value::Null => Node::Broken,
            _ if self.is_strict() => Node::Fixed(Truth::False),
            // A text has a length and characters that no condition passes; the rest has neither.
            Value::String(text) => Node::Fixed(text.is_empty().into()),
            _ => Node::Fixed(Truth::True),
        }
    }

    fn saved_group(&self, reference: &Value) -> Node {
        let id = reference.get("id").and_then(Value::as_str);
        let attribute = reference.get("attributeKey");
        match (reference, id, attribute) {
            (Value::Object(_), Some(id), None | Some(Value::String(_))) => Node::SavedGroup {
                group: self.groups.get(id).copied(),
                attribute: attribute.and_then(Value::as_str).map(Path::new),
            },
            _ => Node::Fixed(Truth::False),
        }
    }

    fn test(&self, value: &Value, depth: u32) -> Test {
        if depth > DEPTH_MAX {
            return Test::Operators([Operator::Broken].into());
        }
        match value {
            Value::Object(members)
                if is_operators(members) && (self.is_strict() || !members.is_empty()) =>
            {
                let operators = members
                    .iter()
                    .map(|(name, operand)| self.operator(name, operand, depth + 1));
                Test::Operators(operators.collect())
            }
            _ => Test::Literal(literal(value)),
        }
    }

    fn operator(&self, name: &str, operand: &Value, depth: u32) -> Operator {
        let order = |wanted| Operator::Order {
            operand: operand.clone(),
            wanted,
        };
        match name {
            "$eq" | "$ne" => Operator::Equal {
                operand: literal(operand),
                negated: name == "$ne",
            },
            "$lt" => order(Wanted::Less),
            "$lte" => order(Wanted::AtMost),
            "$gt" => order(Wanted::Greater),
            "$gte" => order(Wanted::AtLeast),
            "$exists" => Operator::Exists(js::truthy(operand.into())),
            "$in" | "$nin" | "$ini" | "$nini" => match operand {
                Value::Array(items) => Operator::In {
                    set: Set::new(items, name.ends_with("ini")),
                    negated: name.starts_with("$n"),
                },
                _ => Operator::Fixed(Truth::False),
            },
            "$all" | "$alli" => match operand {
                Value::Array(items) => Operator::All {
                    tests: items.iter().map(|item| self.test(item, depth)).collect(),
                    folded: name == "$alli",
                },
                _ => Operator::Fixed(Truth::False),
            },
            "$size" => Operator::Size(self.test(operand, depth)),
            "$elemMatch" => self.element_match(operand, depth),
            "$not" => Operator::Not(self.test(operand, depth)),
            "$type" => match operand.as_str().and_then(Type::parse) {
                Some(expected) => Operator::Type(expected),
                None => Operator::Fixed(Truth::False),
            },
            "$inGroup" | "$notInGroup" => self.in_group(operand, name == "$notInGroup"),
            _ => self
                .regex(name, operand)
                .or_else(|| self.version(name, operand))
                .unwrap_or_else(|| self.unknown(name)),
        }
    }

    fn element_match(&self, operand: &Value, depth: u32) -> Operator {
        let is_test = match operand {
            Value::Object(members) if self.is_strict() => {
                is_operators(members) && !members.keys().any(|name| is_keyword(name))
            }
            Value::Object(members) => is_operators(members) && !members.is_empty(),
            Value::Null if !self.is_strict() => return Operator::Broken,
            _ if self.is_strict() => return Operator::Fixed(Truth::False),
            _ => false,
        };
        if is_test {
            Operator::ElementTest(self.test(operand, depth))
        } else {
            Operator::ElementFields(self.entries(operand, depth))
        }
    }

    fn in_group(&self, id: &Value, negated: bool) -> Operator {
        let id = match id {
            Value::String(id) => id.as_str().into(),
            _ if self.is_strict() => return Operator::Fixed(Truth::False),
            other => js::string(other.into()),
        };
        Operator::InGroup {
            group: self.groups.get(&*id).copied(),
            negated,
        }
    }

    fn regex(&self, name: &str, operand: &Value) -> Option<Operator> {
        let negated = match name {
            "$regex" | "$regexi" => false,
            "$notRegex" | "$notRegexi" if self.is_strict() => true,
            _ => return None,
        };
        let pattern = operand.as_str();
        Some(Operator::Regex {
            pattern: pattern.and_then(|pattern| self.pattern(pattern, name.ends_with('i'))),
            negated,
        })
    }

    fn version(&self, name: &str, operand: &Value) -> Option<Operator> {
        let wanted = match name {
            "$veq" => Wanted::Equal,
            "$vne" => Wanted::Other,
            "$vgt" => Wanted::Greater,
            "$vgte" => Wanted::AtLeast,
            "$vlt" => Wanted::Less,
            "$vlte" => Wanted::AtMost,
            _ => return None,
        };
        let comparable = match Actual::from(operand) {
            _ if !self.is_strict() => Comparable::Everything,
            Actual::String(_) => Comparable::Strings,
            Actual::Number(_) => Comparable::Numbers,
            _ => Comparable::Nothing,
        };
        Some(Operator::Version {
            operand: Version {
                padded: version::padded(operand.into()).into(),
                comparable,
            },
            wanted,
        })
    }

    fn unknown(&self, name: &str) -> Operator {
        Operator::Fixed(
            if self.is_strict() && !is_keyword(name) && name != "$savedGroups" {
                Truth::Unknown
            } else {
                Truth::False
            },
        )
    }
}

fn all(mut nodes: Vec<Node>) -> Node {
    match nodes.len() {
        0 => Node::Fixed(Truth::True),
        1 => nodes.remove(0),
        _ => Node::All(nodes.into()),
    }
}

fn not(node: Node) -> Node {
    Node::Not(Box::new(node))
}

/// Names that mean something to conditions and nothing to values; `$not` means something to both.
fn is_keyword(name: &str) -> bool {
    matches!(name, "$or" | "$nor" | "$and" | "$savedGroup")
}

fn is_operators(members: &Map<String, Value>) -> bool {
    members.keys().all(|name| name.starts_with('$'))
}

fn literal(value: &Value) -> Literal {
    match Actual::from(value) {
        Actual::Null => Literal::Null,
        Actual::Bool(flag) => Literal::Bool(flag),
        Actual::Number(number) => Literal::Number(number),
        Actual::String(text) => Literal::String {
            text: text.into(),
            lower: text.to_lowercase().into(),
        },
        Actual::Array(_) | Actual::Object(_) => Literal::Json(value.clone()),
    }
}
