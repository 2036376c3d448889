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
    model::{Candidate, Cause, Document, Evaluators, Issue, IssueSummary, SnapshotMeta, Stitched},
    pipeline::{
        Refusal, adapt, guard,
        input::SourceInput,
        overrides,
        stitch::{self, StitchInput},
    },
    sources::{PartId, PartOutcome},
    views,
};

/// Sources with what was accepted from them.
pub(super) type Sources = Vec<(Arc<FunnelSource>, Option<Accepted>)>;

/// What taking a fetch in did to a source's input.
#[derive(Default)]
pub(super) struct Intake {
    /// The input after it.
    pub(super) input: SourceInput,
    /// Whether its meaning changed.
    pub(super) is_news: bool,
    /// Accepted parts and their validators.
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

/// How much of a source an ingest speaks for.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    /// Experiments are left as they were.
    pub(super) skip_experiments: bool,
    /// It brings what it brings and says nothing of the rest.
    pub(super) is_push: bool,
}

/// Takes the parts of a fetch into a source's input.
pub(super) fn take_in(
    source: &FunnelSource,
    old: &SourceInput,
    parts: &BTreeMap<PartId, PartOutcome>,
    scope: Scope,
) -> Intake {
    let Scope {
        skip_experiments,
        is_push,
    } = scope;
    let mut intake = Intake {
        input: old.clone(),
        is_whole: !skip_experiments && !is_push,
        ..Intake::default()
    };
    if !is_push {
        forget_removed_connections(&mut intake, parts);
    }
    for (part, outcome) in parts {
        if skip_experiments && *part == PartId::Experiments {
            continue;
        }
        let is_here = match part {
            PartId::Payload(key) => intake.input.payloads.contains_key(key),
            PartId::Experiments => intake.input.experiments.is_some(),
        };
        match outcome {
            PartOutcome::Fetched { body, validator } => {
                match take_part(source, &mut intake.input, part, body) {
                    Ok(is_news) => {
                        intake.is_news |= is_news;
                        intake.has_arrived = true;
                        intake.accepted.insert(part.clone(), validator.clone());
                    }
                    Err(refusal) => {
                        intake.is_whole = false;
                        intake.refused.push((part.kind(), refusal));
                    }
                }
            }
            PartOutcome::NotModified if !is_here => {
                intake.is_whole = false;
                intake.lost.push(part.clone());
            }
            PartOutcome::NotModified => intake.has_arrived = true,
            PartOutcome::Skipped => intake.is_whole &= is_here,
            PartOutcome::Failed(_) => intake.is_whole = false,
        }
    }
    intake
}

/// A connection that is no longer listed or discovered no longer counts.
fn forget_removed_connections(intake: &mut Intake, parts: &BTreeMap<PartId, PartOutcome>) {
    let is_payload = |part: &PartId| matches!(part, PartId::Payload(_));
    // Without any payload among the parts the connections themselves could not be read.
    if parts.keys().any(is_payload) {
        let before = intake.input.payloads.len();
        intake
            .input
            .payloads
            .retain(|key, _| parts.contains_key(&PartId::Payload(key.clone())));
        intake.is_news |= intake.input.payloads.len() != before;
    }
}

fn take_part(
    source: &FunnelSource,
    input: &mut SourceInput,
    part: &PartId,
    body: &Bytes,
) -> Result<bool, Refusal> {
    match part {
        PartId::Payload(key) if source.is_override => {
            input.take_payload(&source.id, key, &overrides::to_payload(body)?)
        }
        PartId::Payload(key) => input.take_payload(&source.id, key, body),
        PartId::Experiments => input.take_experiments(&source.id, body, &source.fields),
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
}

/// Stitches an environment and renders every route. `live` is what came of that the last time.
///
/// Fails when a consumer's view would be emptied by anything but the end of its experiments.
pub(super) fn render(
    environment: &Arc<str>,
    sources: &Sources,
    live: Option<&Candidate>,
    now: OffsetDateTime,
    cause: &Cause,
) -> Result<Rendered, Refusal> {
    let inputs: Vec<StitchInput> = sources
        .iter()
        .filter_map(|(s, a)| stitch_input(s, a.as_ref()?, live))
        .collect();
    // Half of a first input, say: nothing to serve is not the same as something empty to serve.
    if inputs.is_empty() {
        return Ok(Rendered {
            candidate: None,
            issues: Vec::new(),
        });
    }
    let stitched = stitch::stitch(environment, &inputs);
    let shown = stitch::shown(&stitched, &inputs);
    let views = views::render_consumers(&shown);
    let keys: BTreeSet<&str> = shown
        .iter()
        .map(|experiment| experiment.item.tracking_key.as_str())
        .collect();
    for view in &views {
        let members = live
            .and_then(|live| live.document(view.name))
            .map(|document| &document.members[..]);
        guard::view_not_emptied(view.name, members.unwrap_or_default(), &view.members, &keys)?;
    }
    let mut issues = stitched.issues.clone();
    let mut documents = Vec::with_capacity(views.len());
    for view in views {
        issues.extend(view.issues);
        documents.push(document(view.name, view.body, view.members, live, now));
    }
    let connections = relay::documents(sources, live, now);
    issues.extend(connections.issues);
    documents.extend(connections.documents);
    documents.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    issues.sort_unstable();
    let tail = views::snapshot::snapshot_tail(&stitched);
    let hash = Candidate::content_hash(&tail, &documents);
    if live.is_some_and(|live| live.hash == hash) {
        return Ok(Rendered {
            candidate: None,
            issues,
        });
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
    Ok(Rendered {
        candidate: Some(Arc::new(candidate)),
        issues,
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
