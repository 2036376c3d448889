//! Inputs that guards keep from being published: what they are, why, and for how long already.
//!
//! Per source there is one record at most. It ends by itself when every part of it has come again and passed, or when an
//! operator approves it; a discarded one stays visible and alarms nobody. It is in memory alone: after a restart of the
//! process the source delivers the same parts again, because their validators were never kept. What was discarded is a
//! register each, so that the same input is still not wanted then, nor at another replica.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    pipeline::{
        admission::{self, Part},
        guard::{Content, Difference, Trip},
    },
    settings::Connection,
    sources::{PartId, PartOutcome},
};

/// Most digests remembered of what was discarded of one source.
const DISCARDED_MAX: usize = 32;

/// How the registers of what was discarded begin; source and digest follow.
const DISCARDED: &str = "discarded:";

/// What one ingest left over.
pub(super) struct News {
    pub(super) contents: Vec<Content>,
    /// Why, each with the part it speaks against.
    pub(super) trips: Vec<(Part, Trip)>,
    pub(super) difference: Difference,
}

impl News {
    /// Whether it is about connections that are gone: then they stay.
    pub(super) fn keeps_connections(&self) -> bool {
        let mut contents = self.contents.iter();
        contents.any(|content| matches!(content, Content::Removed(_)))
    }
}

/// When and how a parked input came.
#[derive(Clone)]
pub(super) struct Arrival {
    pub(super) at: OffsetDateTime,
    pub(super) sequence: u64,
    pub(super) connections: Option<Arc<Vec<Connection>>>,
}

/// An input that waits.
#[derive(Clone)]
pub(super) struct Parked {
    pub(super) contents: Vec<Content>,
    pub(super) digest: String,
    pub(super) trips: Vec<(Part, Trip)>,
    pub(super) difference: Difference,
    pub(super) first_seen: OffsetDateTime,
    /// The last time it came.
    pub(super) last: Arrival,
    /// How often it came again.
    pub(super) repeats: u32,
    pub(super) is_discarded: bool,
}

impl Parked {
    /// Its parts as if they had just been fetched.
    pub(super) fn parts(&self) -> BTreeMap<PartId, PartOutcome> {
        let fetched = |body: &bytes::Bytes| PartOutcome::Fetched {
            body: body.clone(),
            validator: None,
        };
        let part = |content: &Content| match content {
            Content::Payload(key, part) => Some((PartId::Payload(key.clone()), fetched(&part.raw))),
            Content::Experiments(part) => Some((PartId::Experiments, fetched(&part.raw))),
            Content::Removed(_) => None,
        };
        self.contents.iter().filter_map(part).collect()
    }

    /// Client keys of connections that it would remove.
    pub(super) fn removed(&self) -> Vec<String> {
        let keys = self.contents.iter().filter_map(|content| match content {
            Content::Removed(keys) => Some(keys.clone()),
            _ => None,
        });
        keys.flatten().collect()
    }

    /// `payload`, `experiments`, `connections`.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        let kinds = self.contents.iter().map(|content| Part::of(content).kind());
        kinds.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// After how many repeats it is taken by itself; `None`: never.
    pub(super) fn auto_accept_after(&self, setting: u32) -> Option<u32> {
        let is_open = setting > 0 && !self.is_discarded && !is_empty(&self.trips);
        is_open.then_some(setting)
    }
}

fn is_empty(trips: &[(Part, Trip)]) -> bool {
    trips.iter().any(|(_, trip)| trip.is_emptiness())
}

/// How often what is parked has come already.
pub(super) struct Standing {
    digest: String,
    repeats: u32,
    is_discarded: bool,
}

impl Standing {
    /// Whether these parts, coming once more, have come often enough to be taken by themselves.
    pub(super) fn is_due(&self, setting: u32, parked: &[Content], trips: &[(Part, Trip)]) -> bool {
        setting > 0
            && !parked.is_empty()
            && !self.is_discarded
            && !is_empty(trips)
            && self.repeats + 1 >= setting
            && self.digest == admission::digest(parked)
    }
}

/// What an ingest changed about what is parked of its source.
pub(super) enum Change {
    /// Nothing that anybody has to be told.
    None,
    /// Something new is parked.
    Parked,
    /// Nothing is parked any more.
    Ended,
}

#[derive(Default)]
struct Inner {
    parked: BTreeMap<Arc<str>, Parked>,
    /// Digests of what was discarded, and when in Unix milliseconds.
    discarded: BTreeMap<Arc<str>, BTreeMap<String, i64>>,
    /// Parts whose accepted bodies came by approval, until they come by themselves.
    approved: BTreeMap<Arc<str>, BTreeSet<PartId>>,
}

/// The register that says that a digest was discarded.
fn register(source: &str, digest: &str) -> String {
    format!("{DISCARDED}{source}:{digest}")
}

/// What is parked, by source; locked for moments only.
#[derive(Default)]
pub(super) struct Parking(Mutex<Inner>);

impl Parking {
    pub(super) fn get(&self, source: &str) -> Option<Parked> {
        self.0.lock().parked.get(source).cloned()
    }

    pub(super) fn standing(&self, source: &str) -> Option<Standing> {
        let inner = self.0.lock();
        let parked = inner.parked.get(source)?;
        Some(Standing {
            digest: parked.digest.clone(),
            repeats: parked.repeats,
            is_discarded: parked.is_discarded,
        })
    }

    /// Whether something of a source waits for an operator.
    pub(super) fn is_waiting(&self, source: &str) -> bool {
        let inner = self.0.lock();
        inner
            .parked
            .get(source)
            .is_some_and(|parked| !parked.is_discarded)
    }

    /// Takes over what an ingest brought: `good` parts are no longer parked, those of `news` are.
    pub(super) fn update(
        &self,
        source: &Arc<str>,
        good: &BTreeSet<Part>,
        news: Option<News>,
        arrival: Arrival,
    ) -> Change {
        let mut inner = self.0.lock();
        let old = inner.parked.remove(source);
        let had_any = old.is_some();
        let (mut contents, mut trips) = old.as_ref().map_or_else(Default::default, |old| {
            (old.contents.clone(), old.trips.clone())
        });
        let is_news = news.is_some();
        let mut replaced = good.clone();
        if let Some(news) = &news {
            replaced.extend(news.contents.iter().map(Part::of));
        }
        contents.retain(|content| !replaced.contains(&Part::of(content)));
        trips.retain(|(part, _)| !replaced.contains(part));
        let mut difference = old.as_ref().map(|old| old.difference.clone());
        if let Some(news) = news {
            contents.extend(news.contents);
            trips.extend(news.trips);
            difference = Some(news.difference);
        }
        if contents.is_empty() {
            return if had_any { Change::Ended } else { Change::None };
        }
        let digest = admission::digest(&contents);
        let same = old.filter(|old| old.digest == digest);
        let is_new = same.is_none();
        let discarded = inner.discarded.get(source);
        let is_discarded = discarded.is_some_and(|digests| digests.contains_key(&digest));
        let (first_seen, repeats, last) = match same {
            Some(old) if is_news => (old.first_seen, old.repeats.saturating_add(1), arrival),
            Some(old) => (old.first_seen, old.repeats, old.last),
            None => (arrival.at, 0, arrival),
        };
        let parked = Parked {
            contents,
            digest,
            trips,
            difference: difference.unwrap_or_default(),
            first_seen,
            last,
            repeats,
            is_discarded,
        };
        inner.parked.insert(Arc::clone(source), parked);
        if is_new && !is_discarded {
            Change::Parked
        } else {
            Change::None
        }
    }

    /// Remembers that what has this digest is not wanted; gives the registers that say so and take back the oldest.
    pub(super) fn discard(
        &self,
        source: &Arc<str>,
        digest: &str,
        at_ms: i64,
    ) -> Vec<(String, Option<Value>)> {
        let mut inner = self.0.lock();
        if let Some(parked) = inner.parked.get_mut(source) {
            parked.is_discarded |= parked.digest == digest;
        }
        let digests = inner.discarded.entry(Arc::clone(source)).or_default();
        digests.insert(digest.to_owned(), at_ms);
        let mut changes = vec![(register(source, digest), Some(json!(at_ms)))];
        while digests.len() > DISCARDED_MAX {
            let others = digests.iter().filter(|(other, _)| *other != digest);
            let oldest = others.min_by_key(|(_, at_ms)| **at_ms);
            let Some(oldest) = oldest.map(|(oldest, _)| oldest.clone()) else {
                break;
            };
            digests.remove(&oldest);
            changes.push((register(source, &oldest), None));
        }
        changes
    }

    /// Forgets that what has this digest was discarded: it is wanted now. Gives the register that takes that back.
    pub(super) fn want(&self, source: &str, digest: &str) -> Vec<(String, Option<Value>)> {
        let mut inner = self.0.lock();
        let digests = inner.discarded.get_mut(source);
        let was_discarded = digests.is_some_and(|digests| digests.remove(digest).is_some());
        let taken_back = was_discarded.then(|| (register(source, digest), None));
        taken_back.into_iter().collect()
    }

    /// Takes in what the registers say was discarded of a source, here or at another replica.
    pub(super) fn restore_discarded(&self, source: &Arc<str>, registers: &BTreeMap<String, Value>) {
        let of_source = register(source, "");
        let digests: BTreeMap<String, i64> = registers
            .iter()
            .filter_map(|(name, at_ms)| {
                let digest = name.strip_prefix(&of_source)?;
                // Another source's id may begin with this one's.
                (!digest.contains(':')).then_some((digest.to_owned(), at_ms.as_i64()?))
            })
            .collect();
        let mut inner = self.0.lock();
        if let Some(parked) = inner.parked.get_mut(source) {
            parked.is_discarded = digests.contains_key(&parked.digest);
        }
        inner.discarded.insert(Arc::clone(source), digests);
    }

    /// Notes whose validators are about older bodies than the accepted ones.
    pub(super) fn set_approved(&self, source: &Arc<str>, parts: impl Iterator<Item = PartId>) {
        let mut inner = self.0.lock();
        let approved = inner.approved.entry(Arc::clone(source)).or_default();
        approved.extend(parts);
    }

    pub(super) fn approved(&self, source: &str) -> BTreeSet<PartId> {
        self.0
            .lock()
            .approved
            .get(source)
            .cloned()
            .unwrap_or_default()
    }

    /// These parts came by themselves again.
    pub(super) fn clear_approved<'a>(&self, source: &str, parts: impl Iterator<Item = &'a PartId>) {
        let mut inner = self.0.lock();
        if let Some(approved) = inner.approved.get_mut(source) {
            for part in parts {
                approved.remove(part);
            }
        }
    }
}
