//! What goes together, and what is then expected of the two parts.

use crate::{
    faults::{Effect, Kind, Of, Signal, Trouble},
    support::storage::{BackupTrouble, DatabaseTrouble},
};

/// What becomes of the news of each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) payload: Effect,
    pub(crate) list: Effect,
}

impl Expected {
    /// Of some troubles at once.
    pub(crate) fn of(troubles: &[Trouble]) -> Self {
        let of_part = |part: Of| {
            let effects = troubles.iter().filter_map(|trouble| match &trouble.kind {
                Kind::Lie(lie) if lie.of == part || lie.of == Of::Everything => Some(lie.effect),
                Kind::UpstreamDown => Some(Effect::Frozen),
                _ => None,
            });
            effects.fold(Effect::Live, stronger)
        };
        Self {
            payload: of_part(Of::Payload),
            list: of_part(Of::List),
        }
    }

    /// Whether nothing at all may change.
    pub(crate) fn is_frozen(self) -> bool {
        self.payload == Effect::Frozen && self.list == Effect::Frozen
    }
}

fn stronger(one: Effect, other: Effect) -> Effect {
    match (one, other) {
        (Effect::Frozen, _) | (_, Effect::Frozen) => Effect::Frozen,
        (Effect::Either, _) | (_, Effect::Either) => Effect::Either,
        (Effect::Live, Effect::Live) => Effect::Live,
    }
}

/// Whether two troubles can be had at once, and something can then be promised.
pub(crate) fn go_together(one: &Trouble, other: &Trouble) -> bool {
    match (&one.kind, &other.kind) {
        // The upstream has one answer for each part.
        (Kind::Lie(one), Kind::Lie(other)) => {
            one.of != other.of && one.of != Of::Everything && other.of != Of::Everything
        }
        // One wire, one file, one folder; and no answer from nobody.
        (Kind::Database(_), Kind::Database(_))
        | (Kind::Backup(_), Kind::Backup(_))
        | (Kind::Lie(_), Kind::UpstreamDown)
        | (Kind::UpstreamDown, Kind::Lie(_)) => false,
        (Kind::Database(database), Kind::Backup(backup))
        | (Kind::Backup(backup), Kind::Database(database)) => {
            // Both copies destroyed by hand.
            (*database, *backup) != (DatabaseTrouble::Deleted, BackupTrouble::Removed)
        }
        (one, other) => !is_same(one, other),
    }
}

fn is_same(one: &Kind, other: &Kind) -> bool {
    match (one, other) {
        (Kind::Panic(one), Kind::Panic(other)) => one == other,
        (Kind::Signal(one), Kind::Signal(other)) => one == other,
        (Kind::BadItems, Kind::BadItems) | (Kind::UpstreamDown, Kind::UpstreamDown) => true,
        _ => false,
    }
}

/// The signals among some troubles.
pub(crate) fn signals(troubles: &[Trouble]) -> impl Iterator<Item = Signal> + '_ {
    troubles.iter().filter_map(|trouble| match trouble.kind {
        Kind::Signal(signal) => Some(signal),
        _ => None,
    })
}

/// The points of the panics among some troubles.
pub(crate) fn points(troubles: &[Trouble]) -> impl Iterator<Item = &str> {
    troubles.iter().filter_map(|trouble| match &trouble.kind {
        Kind::Panic(point) => Some(point.as_str()),
        _ => None,
    })
}
