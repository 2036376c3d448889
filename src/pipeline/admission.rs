//! Decides how much of a source's news is taken: all that no guard objects to, and as much of it as possible.
//!
//! First each part by itself, then what the rest leads to: all of it, else all but the experiments, all but one payload,
//! the payloads alone, the experiments alone. The largest that passes is taken; what is left over is **parked**: it waits
//! for an operator, or for the next input, and everything else goes on being published.

use std::{collections::BTreeSet, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::{
    guard::{self, Content, Difference, Findings, Guard, Live, Rules, Side, Trip},
    input::SourceInput,
};
use crate::model::{Issue, snapshot::hex};

/// Most parts of which each one is tried to be left out: trying costs a stitch.
const LEFT_OUT_MAX: usize = 8;

/// A part of an input, as far as parking is concerned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The payload of the connection with this client key; empty for a file.
    Payload(String),
    /// The list of experiments.
    Experiments,
    /// Which connections there are.
    Connections,
}

impl Part {
    /// The part that this content belongs to.
    pub fn of(content: &Content) -> Self {
        match content {
            Content::Payload(key, _) => Self::Payload(key.clone()),
            Content::Experiments(_) => Self::Experiments,
            Content::Removed(_) => Self::Connections,
        }
    }

    /// The word used in answers: `payload`, `experiments`, `connections`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Payload(_) => "payload",
            Self::Experiments => "experiments",
            Self::Connections => "connections",
        }
    }
}

/// What a source offers, and what is needed to judge it.
pub struct Offer<'a> {
    /// Source id.
    pub source: &'a Arc<str>,
    /// Its limits.
    pub rules: &'a Rules,
    /// The last accepted input.
    pub old: &'a SourceInput,
    /// Parts that mean something else than before.
    pub news: &'a [Content],
    /// Whether nothing of the source was ever published.
    pub is_first: bool,
    /// What is live of the source, where the input that it was made of is lost: then that is compared with, and all of
    /// the news is taken or nothing.
    pub live: Option<&'a Live>,
    /// Whether the environment would be stitched with an input of this source.
    pub takes_part: &'a dyn Fn(&SourceInput) -> bool,
    /// The environment with an input of this source in its place.
    pub side: &'a dyn Fn(&SourceInput) -> Side,
}

/// What is taken and what is not.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The input with what is taken.
    pub input: SourceInput,
    /// Whether anything is taken that means something else than before.
    pub is_news: bool,
    /// What is not taken.
    pub parked: Vec<Content>,
    /// Why, each with the part it speaks against.
    pub trips: Vec<(Part, Trip)>,
    /// What should be told about what is taken.
    pub warnings: Vec<Issue>,
    /// What the parked parts would change.
    pub difference: Difference,
}

/// Takes everything, whatever guards would say: somebody has looked at it.
pub fn admit_all(offer: &Offer<'_>) -> Verdict {
    Verdict {
        input: offer.old.with(offer.news),
        is_news: !offer.news.is_empty(),
        ..Verdict::default()
    }
}

/// Takes as much as guards let pass.
pub fn admit(offer: &Offer<'_>) -> Verdict {
    if offer.news.is_empty() {
        return admit_all(offer);
    }
    let mut verdict = Verdict::default();
    let mut rest = Vec::new();
    for content in offer.news {
        let found = guard::of_part(offer.rules, offer.old, content);
        if found.is_empty() {
            rest.push(content.clone());
            continue;
        }
        let part = Part::of(content);
        let found = found.into_iter().map(|trip| (part.clone(), trip));
        verdict.trips.extend(found);
        verdict.parked.push(content.clone());
    }
    let before = (offer.side)(offer.old);
    let taken = largest(offer, &rest, &before, &mut verdict);
    verdict.input = offer.old.with(&taken);
    verdict.is_news = !taken.is_empty();
    if !verdict.parked.is_empty() {
        let [now, then] = [&verdict.input, &verdict.input.with(&verdict.parked)].map(offer.side);
        verdict.difference = guard::difference(&now.stitched, &then.stitched);
        if !offer.is_first && offer.live.is_none() {
            look_ahead(offer, &before, &then, &mut verdict);
        }
    }
    verdict
}

/// Adds what guards say of the environment with all that is parked: a part that trips by itself may lead to more than it
/// shows, and whoever decides about it has to know.
fn look_ahead(offer: &Offer<'_>, before: &Side, then: &Side, verdict: &mut Verdict) {
    let parts = verdict.parked.iter().map(Part::of);
    let Some(part) = parts.min_by_key(|part| *part != Part::Experiments) else {
        return;
    };
    for trip in guard::of_environment(offer.rules, offer.source, before, then).trips {
        let mut known = verdict.trips.iter();
        if !known.any(|(_, other)| other.guard == trip.guard && other.subject == trip.subject) {
            verdict.trips.push((part.clone(), trip));
        }
    }
}

/// The largest choice of `rest` that passes; the others are parked.
fn largest(
    offer: &Offer<'_>,
    rest: &[Content],
    before: &Side,
    verdict: &mut Verdict,
) -> Vec<Content> {
    let mut reasons: Vec<Trip> = Vec::new();
    for choice in choices(rest) {
        let input = offer.old.with(&choice);
        let findings = judge(offer, &choice, &input, before);
        if reasons.is_empty() {
            reasons.clone_from(&findings.trips);
        }
        let is_empty_source = |trip: &Trip| trip.guard == Guard::EmptySource;
        let has_tripped = !findings.trips.is_empty();
        // Half of an empty source, or of one whose input is lost, is no better than all of it.
        let is_all_or_nothing = offer.live.is_some() || findings.trips.iter().any(is_empty_source);
        let is_hopeless = has_tripped && is_all_or_nothing;
        if has_tripped && !is_hopeless {
            continue;
        }
        let choice = if is_hopeless { Vec::new() } else { choice };
        let left_over = rest.iter().filter(|content| !choice.contains(content));
        let left_over: Vec<Content> = left_over.cloned().collect();
        // The experiments, where they are among what is parked: they were tried to be left out first.
        let blamed = left_over.iter().map(Part::of);
        if let Some(part) = blamed.min_by_key(|part| *part != Part::Experiments || is_hopeless) {
            let reasons = reasons.into_iter().map(|trip| (part.clone(), trip));
            verdict.trips.extend(reasons);
        }
        verdict.parked.extend(left_over);
        verdict.warnings = findings.warnings;
        return choice;
    }
    Vec::new()
}

/// What guards say of the environment with this input.
fn judge(offer: &Offer<'_>, choice: &[Content], input: &SourceInput, before: &Side) -> Findings {
    if let Some(live) = offer.live {
        if !(offer.takes_part)(input) {
            return Findings::default();
        }
        let after = (offer.side)(input).stitched;
        return Findings {
            trips: guard::of_live(offer.rules, offer.source, live, &after),
            warnings: Vec::new(),
        };
    }
    if offer.is_first && !offer.rules.allow_empty && (offer.takes_part)(input) {
        let payloads = input.payloads.values().map(|part| &*part.payload);
        let list = input.experiments.as_ref().map(|part| &*part.list);
        if let Some(trip) = guard::first_load(payloads, list) {
            return Findings {
                trips: vec![trip],
                warnings: Vec::new(),
            };
        }
    }
    // With nothing of the source before, there is nothing to compare with.
    if choice.is_empty() || offer.is_first {
        return Findings::default();
    }
    guard::of_environment(offer.rules, offer.source, before, &(offer.side)(input))
}

/// Choices of parts, the larger ones first; the last one is none.
fn choices(parts: &[Content]) -> Vec<Vec<Content>> {
    let mut found: Vec<Vec<Content>> = vec![parts.to_vec()];
    let mut add = |choice: Vec<Content>| {
        if !found.contains(&choice) {
            found.push(choice);
        }
    };
    let is_list = |content: &Content| matches!(content, Content::Experiments(_));
    let without = |left_out: &dyn Fn(&Content) -> bool| -> Vec<Content> {
        let kept = parts.iter().filter(|content| !left_out(content));
        kept.cloned().collect()
    };
    add(without(&is_list));
    if parts.len() <= LEFT_OUT_MAX {
        for one in parts.iter().rev() {
            add(without(&|content| content == one));
        }
    }
    add(without(&|content| !is_list(content)));
    add(Vec::new());
    found
}

/// What parked parts mean, as one hash: equal for the same input with another date, order or spelling.
pub fn digest(parked: &[Content]) -> String {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    let mut parts: Vec<(Part, &Content)> = parked.iter().map(|c| (Part::of(c), c)).collect();
    parts.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (part, content) in parts {
        text(part.kind());
        match content {
            Content::Payload(key, part) => {
                text(key);
                text(&hex(&part.payload.digest));
            }
            Content::Experiments(part) => {
                for experiment in &part.list.experiments {
                    text(experiment.definition.as_str());
                }
                for (id, group) in &part.list.saved_groups {
                    text(id);
                    text(group.as_str());
                }
            }
            Content::Removed(keys) => keys.iter().for_each(|key| text(key)),
        }
    }
    let mut digest = hex(&hash.finalize());
    digest.truncate(32);
    digest
}

/// The guards in a list of reasons, each once.
pub fn guards(trips: &[(Part, Trip)]) -> BTreeSet<Guard> {
    trips.iter().map(|(_, trip)| trip.guard).collect()
}

#[cfg(test)]
mod tests;
