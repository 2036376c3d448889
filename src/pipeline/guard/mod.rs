//! What must not be published by itself although it is well-formed: a change that is too large to be meant.
//!
//! Pure: each guard compares a **baseline** (the environment stitched with the source's last accepted input) with a
//! candidate (the same with its new input) and says with numbers why the change should wait for somebody. All other
//! sources are the same on both sides, so every difference is this source's. What is served is not looked at: pins and
//! overrides change it, and no source is to blame for them.
//!
//! [`of_part`] looks at one part by itself, [`of_environment`] at what all of them lead to. [`super::admission`] asks both
//! and decides what is taken; a part that is not taken is parked there.

mod difference;
mod edits;
mod empty;
mod growth;
pub mod limits;
mod live;
mod sample;
mod shrink;
pub(super) mod splits;
#[cfg(test)]
pub(super) mod test_support;
mod touched;
mod units;

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

pub use self::{
    difference::{Changed, Difference, Items, difference},
    empty::{first_load, view as view_emptied},
    live::{Live, of_live},
};
use super::input::{ExperimentsPart, PayloadPart, SourceInput};
use crate::{
    eval::Dialect,
    model::{Issue, Stitched},
};

/// Which guard tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// A payload without features where there were some.
    EmptyFeatures,
    /// A list without experiments where there were some.
    EmptyExperiments,
    /// A consumer's view without members although a former one is still to be shown.
    EmptyView,
    /// A first load with nothing in it.
    EmptySource,
    /// Too much is gone.
    Shrink,
    /// Too much has come.
    Growth,
    /// Too many units would get another variation through something that an experiment refers to.
    ChangedUnits,
    /// The split of a running experiment is another one.
    WeightsChanged,
    /// A running experiment's units are hashed otherwise.
    HashChanged,
    /// Running experiments share a part of a namespace.
    NamespaceOverlap,
}

impl Guard {
    /// Stable word for answers, issues and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyFeatures => "empty_features",
            Self::EmptyExperiments => "empty_experiments",
            Self::EmptyView => "empty_view",
            Self::EmptySource => "empty_source",
            Self::Shrink => "shrink",
            Self::Growth => "growth",
            Self::ChangedUnits => "changed_units",
            Self::WeightsChanged => "weights_changed",
            Self::HashChanged => "hash_changed",
            Self::NamespaceOverlap => "namespace_overlap",
        }
    }

    /// Whether it is about emptiness, which only an operator may accept.
    pub const fn is_emptiness(self) -> bool {
        matches!(
            self,
            Self::EmptyFeatures | Self::EmptyExperiments | Self::EmptyView | Self::EmptySource
        )
    }
}

/// Why a change should wait for somebody.
#[derive(Clone, Debug, PartialEq)]
pub struct Trip {
    /// Which guard.
    pub guard: Guard,
    /// What it looked at: `features`, `payload sdk-abc123`, `view varnish`, `experiments.sticky-header`.
    pub subject: String,
    /// What is wrong, with numbers; lower case, no full stop.
    pub message: String,
    /// The number before.
    pub before: Value,
    /// The number after.
    pub after: Value,
    /// The limit that was passed; null where there is none.
    pub limit: Value,
}

impl Trip {
    /// Whether it is about emptiness, or says that nothing is left of what was there: only an operator may accept that.
    pub fn is_emptiness(&self) -> bool {
        self.guard.is_emptiness() || (self.guard == Guard::Shrink && self.after == 0)
    }
}

/// What is done about an unsafe edit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reaction {
    /// Served, with an issue.
    #[default]
    Warn,
    /// Parked.
    Hold,
    /// Served, and nobody is told.
    Ignore,
}

/// The limits that one source's changes have to keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Share of features, or of running experiments, that one change may remove.
    pub max_removed_share: f64,
    /// Fewer removals never trip, unless nothing is left.
    pub max_removed_min: u64,
    /// Growth in bytes, as a factor.
    pub max_growth: f64,
    /// What is not larger than this has not grown too much.
    pub growth_floor_bytes: u64,
    /// Share of the sample units in touched experiments whose variation may change.
    pub max_changed_units_share: f64,
    /// The split of a running experiment changes without a new phase or seed.
    pub weights_changed: Reaction,
    /// Seed, hash attribute or hash version of a running experiment change without a new phase.
    pub hash_changed: Reaction,
    /// Running experiments come to overlap in a namespace.
    pub namespace_overlap: Reaction,
    /// Whether a first load may have nothing in it.
    pub allow_empty: bool,
    /// Whether the settings list the connections: then only they take one away, and that is meant.
    pub lists_connections: bool,
    /// Dialect in which sample units are evaluated.
    pub dialect: Dialect,
}

impl Rules {
    /// Which share of what was there is gone, and whether that is too much for one change.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of items stay far below 2^52"
    )]
    fn gone(&self, removed: usize, before: usize) -> (f64, bool) {
        let share = removed as f64 / before.max(1) as f64;
        let is_too_much = share > self.max_removed_share && removed as u64 >= self.max_removed_min;
        (share, is_too_much)
    }
}

/// What one consumer is shown, as far as guards look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Name of the view.
    pub name: Arc<str>,
    /// Tracking keys of the experiments in it, sorted.
    pub members: Vec<String>,
    /// Size of its document.
    pub bytes: usize,
}

/// An environment on one side of the comparison.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// What its sources were merged to.
    pub stitched: Stitched,
    /// What consumers are shown of it.
    pub views: Vec<Shown>,
    /// Tracking keys of the experiments that any consumer may be shown.
    pub shown: BTreeSet<String>,
}

/// What the guards have to say of a change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Reasons to park it.
    pub trips: Vec<Trip>,
    /// Reasons to tell somebody.
    pub warnings: Vec<Issue>,
}

/// What arrived, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The payload of the connection with this client key; empty for a file.
    Payload(String, PayloadPart),
    /// The list of experiments.
    Experiments(ExperimentsPart),
    /// The connections with these client keys are no longer there.
    Removed(Vec<String>),
}

/// Looks at one part of a source's new input by itself.
pub fn of_part(rules: &Rules, old: &SourceInput, new: &Content) -> Vec<Trip> {
    match new {
        Content::Payload(key, part) => {
            let Some(before) = old.payloads.get(key) else {
                return Vec::new();
            };
            let subject = payload_subject(key);
            if let Some(trip) = empty::payload(&subject, &before.payload, &part.payload) {
                return vec![trip];
            }
            let was_empty = before.payload.features.is_empty();
            let bytes = [before.raw.len(), part.raw.len()];
            let growth = growth::trip(rules, &subject, bytes).filter(|_| !was_empty);
            let shrink = shrink::payload(rules, &subject, &before.payload, &part.payload);
            shrink.into_iter().chain(growth).collect()
        }
        Content::Experiments(part) => {
            let Some(before) = &old.experiments else {
                return Vec::new();
            };
            if let Some(trip) = empty::experiments(&before.list, &part.list) {
                return vec![trip];
            }
            let bytes = [before.raw.len(), part.raw.len()];
            let was_empty = before.list.experiments.is_empty();
            growth::trip(rules, "experiments", bytes)
                .filter(|_| !was_empty)
                .into_iter()
                .collect()
        }
        // What goes with them is looked at all the same, as part of the environment.
        Content::Removed(_) if rules.lists_connections => Vec::new(),
        Content::Removed(keys) => shrink::connections(rules, old.payloads.len(), keys.len())
            .into_iter()
            .collect(),
    }
}

/// Looks at what a change of this source makes of its environment.
pub fn of_environment(rules: &Rules, source: &Arc<str>, before: &Side, after: &Side) -> Findings {
    let mut trips = shrink::environment(rules, source, &before.stitched, &after.stitched);
    for old in &before.views {
        let Some(new) = after.views.iter().find(|view| view.name == old.name) else {
            continue;
        };
        if let Some(trip) = empty::view(old, new, &after.shown) {
            trips.push(trip);
            continue;
        }
        trips.extend(shrink::view(rules, old, new));
        let subject = format!("view {}", old.name);
        let growth = growth::trip(rules, &subject, [old.bytes, new.bytes]);
        // What had nothing to show may begin with anything.
        trips.extend(growth.filter(|_| !old.members.is_empty()));
    }
    let mut findings = edits::findings(rules, source, &before.stitched, &after.stitched);
    trips.append(&mut findings.trips);
    // The dearest question last, and only where nothing else speaks against the change.
    if trips.is_empty() {
        trips.extend(units::trip(rules, &before.stitched, &after.stitched));
    }
    findings.trips = trips;
    findings
}

fn payload_subject(key: &str) -> String {
    // A file has no client key.
    if key.is_empty() {
        "payload".to_owned()
    } else {
        format!("payload {key}")
    }
}

/// A share as people read it.
fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
