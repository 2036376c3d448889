//! What differs between two configurations, as it is answered.

use serde_json::{Value, json};

use crate::diff::{self, Change, Configuration, FieldChange, Kind};

/// Changed items in one answer, and changed fields of each.
const ITEMS_MAX: usize = 1000;
const FIELDS_MAX: usize = 100;

/// How many items differ how, and the first of them.
pub(super) struct Changes {
    pub(super) added: usize,
    pub(super) removed: usize,
    pub(super) changed: usize,
    pub(super) items: Vec<Value>,
}

/// Compares two configurations.
pub(super) fn shown(before: &Configuration, after: &Configuration) -> Changes {
    let changes = diff::changes(before, after);
    let count = |is_kind: fn(&Kind) -> bool| {
        let of_kind = changes.iter().filter(|change| is_kind(&change.kind));
        of_kind.count()
    };
    Changes {
        added: count(|kind| matches!(kind, Kind::Added)),
        removed: count(|kind| matches!(kind, Kind::Removed)),
        changed: count(|kind| matches!(kind, Kind::Changed(_))),
        items: changes.iter().take(ITEMS_MAX).map(item).collect(),
    }
}

fn item(change: &Change) -> Value {
    let mut shown = json!({ "kind": change.collection, "key": change.key });
    match &change.kind {
        Kind::Added => shown["change"] = "added".into(),
        Kind::Removed => shown["change"] = "removed".into(),
        Kind::Changed(fields) => {
            shown["change"] = "changed".into();
            shown["fields"] = fields.iter().take(FIELDS_MAX).map(field).collect();
            if fields.len() > FIELDS_MAX {
                shown["fields_changed"] = fields.len().into();
            }
        }
    }
    shown
}

/// A side that does not have the field is left out.
fn field(change: &FieldChange) -> Value {
    let mut shown = json!({ "field": change.path });
    for (side, value) in [("from", &change.before), ("to", &change.after)] {
        if let Some(value) = value {
            shown[side] = value.clone();
        }
    }
    shown
}
