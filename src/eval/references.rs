//! Which saved groups a document refers to, and which refer to themselves.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A group's position, and whether it is asked of the user (rather than of an element or a prerequisite's value).
pub(super) type Reference = (usize, bool);

/// The references between saved groups.
pub(super) struct References<'a> {
    groups: Vec<(&'a String, &'a Value)>,
    positions: HashMap<&'a str, usize>,
    of: Vec<Vec<Reference>>,
    cyclic: Vec<bool>,
}

impl<'a> References<'a> {
    pub(super) fn new(groups: &'a Map<String, Value>) -> Self {
        let positions = groups.keys().enumerate();
        let mut references = Self {
            groups: groups.iter().collect(),
            positions: positions
                .map(|(position, id)| (id.as_str(), position))
                .collect(),
            of: Vec::new(),
            cyclic: Vec::new(),
        };
        references.of = groups
            .values()
            .map(|group| references.of_group(group))
            .collect();
        references.cyclic = cyclic(&references.of);
        references
    }

    /// A group and its id.
    pub(super) fn group(&self, position: usize) -> (&'a String, &'a Value) {
        self.groups[position]
    }

    /// Whether a group refers to itself, directly or through others.
    pub(super) fn is_cyclic(&self, position: usize) -> bool {
        self.cyclic[position]
    }

    /// Every text anywhere that is a group's id: no list of operators is needed for that.
    pub(super) fn within(&self, value: &Value) -> Vec<Reference> {
        let mut found = Vec::new();
        self.collect(value, true, &mut found);
        found
    }

    /// The references of a group. Values of a list are attribute values, never ids.
    pub(super) fn of_group(&self, group: &Value) -> Vec<Reference> {
        match group {
            Value::Object(members)
                if members.get("type").and_then(Value::as_str) != Some("list") =>
            {
                self.within(group)
            }
            _ => Vec::new(),
        }
    }

    fn collect(&self, value: &Value, of_user: bool, found: &mut Vec<Reference>) {
        match value {
            Value::String(text) => {
                if let Some(position) = self.positions.get(text.as_str()) {
                    found.push((*position, of_user));
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.collect(item, of_user, found);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let of_user = of_user && name != "$elemMatch" && name != "parentConditions";
                    self.collect(member, of_user, found);
                }
            }
            _ => {}
        }
    }

    /// By position: the groups that are asked of something other than the user, at least once.
    pub(super) fn as_written(&self, roots: &Value) -> Vec<bool> {
        let mut as_written = vec![false; self.of.len()];
        let mut seen = vec![false; self.of.len()];
        let mut pending = self.within(roots);
        while let Some((position, of_user)) = pending.pop() {
            if as_written[position] || (of_user && seen[position]) {
                continue;
            }
            if of_user {
                seen[position] = true;
            } else {
                as_written[position] = true;
            }
            let inner = self.of[position].iter();
            pending.extend(inner.map(|(inner, inner_user)| (*inner, of_user && *inner_user)));
        }
        as_written
    }
}

/// By position: the nodes on a cycle. Kosaraju's algorithm, without recursion: chains may be long.
fn cyclic(of: &[Vec<Reference>]) -> Vec<bool> {
    let mut into = vec![Vec::new(); of.len()];
    for (from, references) in of.iter().enumerate() {
        for (to, _) in references {
            into[*to].push(from);
        }
    }
    let mut cyclic = vec![false; of.len()];
    let mut assigned = vec![false; of.len()];
    for root in finish_order(of).into_iter().rev() {
        if std::mem::replace(&mut assigned[root], true) {
            continue;
        }
        let mut component = vec![root];
        let mut next = 0;
        while let Some(node) = component.get(next).copied() {
            next += 1;
            for from in &into[node] {
                if !std::mem::replace(&mut assigned[*from], true) {
                    component.push(*from);
                }
            }
        }
        if component.len() > 1 || into[root].contains(&root) {
            for node in component {
                cyclic[node] = true;
            }
        }
    }
    cyclic
}

/// The nodes in the order in which a depth-first search leaves them.
fn finish_order(of: &[Vec<Reference>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(of.len());
    let mut seen = vec![false; of.len()];
    for root in 0..of.len() {
        let mut stack = Vec::new();
        if !std::mem::replace(&mut seen[root], true) {
            stack.push((root, 0));
        }
        while let Some((node, next)) = stack.last_mut() {
            if let Some((to, _)) = of[*node].get(*next) {
                *next += 1;
                if !std::mem::replace(&mut seen[*to], true) {
                    stack.push((*to, 0));
                }
            } else {
                order.push(*node);
                stack.pop();
            }
        }
    }
    order
}
