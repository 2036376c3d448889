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

    /// Whether there is surely something to publish. Without it the points on the way there are not reached before the end
    /// of the trouble.
    pub(crate) fn has_news(self) -> bool {
        self.payload == Effect::Live || self.list == Effect::Live
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

/// What must not be left to chance: each trouble of the storage while the process is killed and started anew.
pub(crate) fn storage_away_at_start(troubles: &[Trouble]) -> Vec<[Trouble; 2]> {
    let is_kill = |trouble: &&Trouble| matches!(trouble.kind, Kind::Signal(Signal::Kill));
    let kill = troubles.iter().find(is_kill);
    let kill = kill.expect("a kill is among the troubles");
    let of_storage = troubles
        .iter()
        .filter(|trouble| matches!(trouble.kind, Kind::Database(_) | Kind::Backup(_)));
    of_storage
        .map(|trouble| [trouble.clone(), kill.clone()])
        .collect()
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

/// What a trouble is of; every run has one of each as early as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    LieAboutEverything,
    LieAboutPayload,
    LieAboutList,
    UpstreamDown,
    BadItems,
    Database,
    Backup,
    Panic,
    Term,
    Kill,
}

impl Sort {
    fn of(trouble: &Trouble) -> Self {
        match &trouble.kind {
            Kind::Lie(lie) => match lie.of {
                Of::Everything => Self::LieAboutEverything,
                Of::Payload => Self::LieAboutPayload,
                Of::List => Self::LieAboutList,
            },
            Kind::UpstreamDown => Self::UpstreamDown,
            Kind::BadItems => Self::BadItems,
            Kind::Database(_) => Self::Database,
            Kind::Backup(_) => Self::Backup,
            Kind::Panic(_) => Self::Panic,
            Kind::Signal(Signal::Term) => Self::Term,
            Kind::Signal(Signal::Kill) => Self::Kill,
        }
    }
}

/// Puts the first trouble of each sort before all others, which stay in their order.
pub(crate) fn one_of_each_sort_first(troubles: &mut [Trouble]) {
    let mut sorts = Vec::new();
    for index in 0..troubles.len() {
        let sort = Sort::of(&troubles[index]);
        if !sorts.contains(&sort) {
            troubles[sorts.len()..=index].rotate_right(1);
            sorts.push(sort);
        }
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
