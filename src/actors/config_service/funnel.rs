//! The funnel as one function of its inputs, to be run on a blocking thread: no clock, no I/O, no actor.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use time::OffsetDateTime;

use super::{
    memory::{Accepted, FunnelSource},
    relay,
};
use crate::{
    model::{
        Candidate, Cause, Document, Evaluators, Experiment, Issue, IssueSummary, SnapshotMeta,
        Sourced, Stitched,
    },
    pipeline::{
        Refusal, adapt,
        admission::Part,
        guard::{self, Content, Guard, Reaction, Shown, Side, Trip},
        input::SourceInput,
        overrides,
        stitch::{self, StitchInput},
    },
    sources::{PartId, PartOutcome},
    views::{self, View},
};

/// Sources with what was accepted from them.
pub(super) type Sources = Vec<(Arc<FunnelSource>, Option<Accepted>)>;

/// What taking a fetch in did to a source's input.
#[derive(Default)]
pub(super) struct Intake {
    /// The input before it.
    pub(super) input: SourceInput,
    /// What means something else than before, to be judged.
    pub(super) news: Vec<Content>,
    /// Parts that could be read, or have not changed; a part that is parked is taken out again.
    pub(super) good: BTreeSet<Part>,
    /// Parts that could be read, and their validators; the same.
    pub(super) accepted: BTreeMap<PartId, Option<String>>,
    /// "Unchanged" parts without a body here.
    pub(super) lost: Vec<PartId>,
    /// Refused parts with the reason.
    pub(super) refused: Vec<(&'static str, Refusal)>,
    /// Whether every part arrived and was accepted.
    pub(super) is_whole: bool,
    /// Whether anything arrived at all.
    pub(super) has_arrived: bool,
}

/// Reads the parts of a fetch. A push brings what it brings and says nothing of the rest.
///
/// `approved` holds the parts whose accepted bodies came by an operator's approval: what a validator says of them is
/// about an older body.
pub(super) fn take_in(
    source: &FunnelSource,
    old: SourceInput,
    parts: &BTreeMap<PartId, PartOutcome>,
    approved: &BTreeSet<PartId>,
    is_push: bool,
) -> Intake {
    let mut intake = Intake {
        input: old,
        is_whole: !is_push,
        ..Intake::default()
    };
    if !is_push {
        find_removed_connections(&mut intake, parts);
    }
    for (id, outcome) in parts {
        let is_here = match id {
            PartId::Payload(key) => intake.input.payloads.contains_key(key),
            PartId::Experiments => intake.input.experiments.is_some(),
        };
        match outcome {
            PartOutcome::Fetched { body, validator } => {
                match read_part(source, &mut intake.input, id, body) {
                    Ok(news) => {
                        intake.news.extend(news);
                        intake.good.insert(part_of(id));
                        intake.has_arrived = true;
                        intake.accepted.insert(id.clone(), validator.clone());
                    }
                    Err(refusal) => {
                        intake.is_whole = false;
                        intake.refused.push((id.kind(), refusal));
                    }
                }
            }
            PartOutcome::NotModified if !is_here || approved.contains(id) => {
                intake.is_whole = false;
                intake.lost.push(id.clone());
            }
            PartOutcome::NotModified => {
                intake.good.insert(part_of(id));
                intake.has_arrived = true;
            }
            PartOutcome::Skipped => intake.is_whole &= is_here,
            PartOutcome::Failed(_) => intake.is_whole = false,
        }
    }
    intake
}

/// The pipeline's name of a part.
pub(super) fn part_of(id: &PartId) -> Part {
    match id {
        PartId::Payload(key) => Part::Payload(key.clone()),
        PartId::Experiments => Part::Experiments,
    }
}

/// A connection that is no longer listed or discovered no longer counts.
fn find_removed_connections(intake: &mut Intake, parts: &BTreeMap<PartId, PartOutcome>) {
    let is_payload = |part: &PartId| matches!(part, PartId::Payload(_));
    // Without any payload among the parts the connections themselves could not be read.
    if !parts.keys().any(is_payload) {
        return;
    }
    let keys = intake.input.payloads.keys();
    let removed: Vec<String> = keys
        .filter(|key| !parts.contains_key(&PartId::Payload((*key).clone())))
        .cloned()
        .collect();
    intake.good.insert(Part::Connections);
    if !removed.is_empty() {
        intake.news.push(Content::Removed(removed));
    }
}

fn read_part(
    source: &FunnelSource,
    input: &mut SourceInput,
    part: &PartId,
    body: &Bytes,
) -> Result<Option<Content>, Refusal> {
    match part {
        PartId::Payload(key) if source.is_override => {
            input.read_payload(&source.id, key, &overrides::to_payload(body)?)
        }
        PartId::Payload(key) => input.read_payload(&source.id, key, body),
        PartId::Experiments => input.read_experiments(&source.id, body, &source.fields),
    }
}

/// The environment as guards look at it.
pub(super) fn side(environment: &str, sources: &Sources, live: Option<&Candidate>) -> Side {
    let inputs = stitch_inputs(sources, live);
    let stitched = stitch::stitch(environment, &inputs);
    let shown = stitch::shown(&stitched, &inputs);
    let views = views::render_consumers(&shown).into_iter();
    Side {
        views: views
            .map(|view| Shown {
                name: view.name.into(),
                bytes: view.body.len(),
                members: view.members,
            })
            .collect(),
        shown: shown
            .iter()
            .map(|experiment| experiment.item.tracking_key.clone())
            .collect(),
        stitched,
    }
}

/// Whether time alone changes what consumers are shown of this input.
pub(super) fn is_due(input: &SourceInput, was: OffsetDateTime, now: OffsetDateTime) -> bool {
    let list = input
        .experiments
        .as_ref()
        .map(|part| &part.list.experiments);
    list.into_iter()
        .flatten()
        .any(|e| adapt::is_shown(e, was) != adapt::is_shown(e, now))
}

/// A stitched and rendered environment.
pub(super) struct Rendered {
    /// The candidate, unless the live content is the same or no source is complete yet.
    pub(super) candidate: Option<Arc<Candidate>>,
    /// Issues of all stages.
    pub(super) issues: Vec<Issue>,
    /// A consumer's view that lost its last member although a former one is still to be shown.
    pub(super) emptied: Option<Trip>,
}

impl Rendered {
    /// Adds what guards have to tell of the change: before all else, so that its revision keeps it in any case.
    pub(super) fn tell(&mut self, warnings: Vec<Issue>) {
        if warnings.is_empty() {
            return;
        }
        self.issues.splice(0..0, warnings);
        if let Some(candidate) = &mut self.candidate {
            Arc::make_mut(candidate).meta.issues = Some(IssueSummary::of(&self.issues));
        }
        self.issues.sort_unstable();
    }
}

/// Stitches an environment and renders every route. `live` is what came of that the last time.
pub(super) fn render(
    environment: &Arc<str>,
    sources: &Sources,
    live: Option<&Candidate>,
    now: OffsetDateTime,
    cause: &Cause,
) -> Rendered {
    let inputs = stitch_inputs(sources, live);
    // Half of a first input, say: nothing to serve is not the same as something empty to serve.
    if inputs.is_empty() {
        return Rendered {
            candidate: None,
            issues: Vec::new(),
            emptied: None,
        };
    }
    let stitched = stitch::stitch(environment, &inputs);
    let shown = stitch::shown(&stitched, &inputs);
    let views = views::render_consumers(&shown);
    let emptied = emptied(&views, &shown, live);
    let mut issues = stitched.issues.clone();
    let mut documents = Vec::with_capacity(views.len());
    for view in views {
        issues.extend(view.issues);
        documents.push(document(view.name, view.body, view.members, live, now));
    }
    let connections = relay::documents(sources, live, now);
    issues.extend(connections.issues);
    issues.extend(sources.iter().flat_map(near_limits));
    issues.retain(|issue| !is_ignored(sources, issue));
    documents.extend(connections.documents);
    documents.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    issues.sort_unstable();
    let tail = views::snapshot::snapshot_tail(&stitched);
    let hash = Candidate::content_hash(&tail, &documents);
    if live.is_some_and(|live| live.hash == hash) {
        return Rendered {
            candidate: None,
            issues,
            emptied,
        };
    }
    let candidate = Candidate {
        environment: Arc::clone(environment),
        hash,
        snapshot_tail: tail,
        documents,
        meta: meta(&stitched, sources, &issues, cause),
        created_at: now,
        evaluators: Evaluators::default(),
        base: None,
    };
    Rendered {
        candidate: Some(Arc::new(candidate)),
        issues,
        emptied,
    }
}

/// The first view that live content shows somebody in and this one, unduly, nobody.
fn emptied(
    views: &[View],
    shown: &[Sourced<Arc<Experiment>>],
    live: Option<&Candidate>,
) -> Option<Trip> {
    let shown: BTreeSet<String> = shown
        .iter()
        .map(|experiment| experiment.item.tracking_key.clone())
        .collect();
    let shown_as = |name: &str, members: &[String]| Shown {
        name: name.into(),
        members: members.to_vec(),
        bytes: 0,
    };
    views.iter().find_map(|view| {
        let old = live?.document(view.name)?;
        let [old, new] = [&old.members, &view.members].map(|m| shown_as(view.name, m));
        guard::view_emptied(&old, &new, &shown)
    })
}

/// Parts of a source that are over half of what a body may have.
fn near_limits((source, accepted): &(Arc<FunnelSource>, Option<Accepted>)) -> Vec<Issue> {
    let Some(accepted) = accepted else {
        return Vec::new();
    };
    let input = &accepted.input;
    let payloads = input.payloads.values();
    let payloads = payloads.map(|part| ("payload", part.raw.len()));
    let list = input.experiments.iter();
    payloads
        .chain(list.map(|part| ("experiments", part.raw.len())))
        .filter_map(|(part, bytes)| {
            guard::limits::of_bytes(&source.id, part, bytes, source.max_body_bytes)
        })
        .collect()
}

/// Whether the settings of an issue's source say that nobody wants to know.
fn is_ignored(sources: &Sources, issue: &Issue) -> bool {
    issue.code == Guard::NamespaceOverlap.as_str()
        && sources.iter().any(|(source, _)| {
            *source.id == *issue.source && source.rules.namespace_overlap == Reaction::Ignore
        })
}

/// A source takes part once it is complete; one that took part before goes on with what it has.
pub(super) fn takes_part(
    source: &FunnelSource,
    accepted: &Accepted,
    live: Option<&Candidate>,
) -> bool {
    source.is_complete(&accepted.input) || contributes(live, &source.id)
}

fn stitch_inputs(sources: &Sources, live: Option<&Candidate>) -> Vec<StitchInput> {
    sources
        .iter()
        .filter_map(|(source, accepted)| stitch_input(source, accepted.as_ref()?, live))
        .collect()
}

fn stitch_input(
    source: &FunnelSource,
    accepted: &Accepted,
    live: Option<&Candidate>,
) -> Option<StitchInput> {
    let input = &accepted.input;
    if !takes_part(source, accepted, live) {
        return None;
    }
    let listed = source
        .connections
        .iter()
        .filter_map(|key| input.payloads.get(key));
    let others = input
        .payloads
        .iter()
        .filter(|(key, _)| !source.connections.contains(key))
        .map(|(_, part)| part);
    Some(StitchInput {
        source: Arc::clone(&source.id),
        precedence: source.precedence,
        payloads: listed
            .chain(others)
            .map(|part| Arc::clone(&part.payload))
            .collect(),
        experiments: input
            .experiments
            .as_ref()
            .map(|part| Arc::clone(&part.list)),
        checked_at: accepted.checked_at,
    })
}

/// Whether a source is part of the live content.
pub(super) fn contributes(live: Option<&Candidate>, source: &str) -> bool {
    live.is_some_and(|live| live.meta.sources.iter().any(|id| id == source))
}

/// Takes over the live document where the bytes are the same: its date and compressed bodies still hold.
fn document(
    name: &'static str,
    body: Bytes,
    members: Vec<String>,
    live: Option<&Candidate>,
    now: OffsetDateTime,
) -> Arc<Document> {
    let served = live.and_then(|live| live.document(name));
    match served.filter(|served| served.body == body && served.members == members) {
        Some(served) => Arc::clone(served),
        None => Arc::new(Document::new(name, body, now, members)),
    }
}

fn meta(stitched: &Stitched, sources: &Sources, issues: &[Issue], cause: &Cause) -> SnapshotMeta {
    let version = |(source, accepted): &(Arc<FunnelSource>, Option<Accepted>)| {
        let takes_part = stitched.sources.iter().any(|id| **id == *source.id);
        let accepted = accepted.as_ref().filter(|_| takes_part)?;
        Some((source.id.to_string(), accepted.version.clone()))
    };
    SnapshotMeta {
        sources: stitched.sources.clone(),
        features: stitched.features.len(),
        experiments: stitched.experiments.len(),
        cause: cause.what.clone(),
        author: cause.by.clone(),
        reason: cause.reason.clone(),
        pinned_from: None,
        versions: sources.iter().filter_map(version).collect(),
        issues: Some(IssueSummary::of(issues)),
    }
}
