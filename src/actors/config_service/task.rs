//! The part of an ingest that is CPU work: takes the parts in, and stitches what came of it. For a blocking thread.

use std::{collections::BTreeMap, sync::Arc};

use time::OffsetDateTime;

use super::{
    funnel::{self, Intake, Rendered, Scope, Sources},
    memory::{Accepted, FunnelSource},
    relay,
};
use crate::{
    clock,
    model::{Candidate, Cause, SourceVersion, snapshot::hex},
    pipeline::{Refusal, guard, input::SourceInput},
    settings::Connection,
    sources::{PartId, PartOutcome},
    store::{PackedInput, StoredInput},
};

/// What the blocking part of a job needs.
pub(super) struct Task {
    pub(super) source: Arc<FunnelSource>,
    pub(super) sources: Sources,
    pub(super) parts: Arc<BTreeMap<PartId, PartOutcome>>,
    pub(super) connections: Option<Arc<Vec<Connection>>>,
    pub(super) has_all_parts: bool,
    pub(super) is_push: bool,
    pub(super) at: OffsetDateTime,
    /// What came of the last stitch; `None`: nothing was ever published.
    pub(super) live: Option<Arc<Candidate>>,
    pub(super) was_settled: bool,
}

/// What the blocking part of a job found.
pub(super) struct Done {
    pub(super) intake: Intake,
    /// The input to keep, when it changed or its check time moved.
    pub(super) accepted: Option<Accepted>,
    /// The same, packed, when its content changed.
    pub(super) to_store: Option<PackedInput>,
    pub(super) rendered: Option<Rendered>,
    /// Why nothing can be published yet.
    pub(super) waiting_for: Option<String>,
}

impl Task {
    /// Does all of it.
    pub(super) fn run(self) -> Done {
        let old = self
            .sources
            .iter()
            .find(|(source, _)| source.id == self.source.id);
        let old = old.and_then(|(_, accepted)| accepted.clone());
        let before = old
            .as_ref()
            .map_or_else(SourceInput::default, |old| (*old.input).clone());
        let intake = funnel::take_in(&self.source, &before, &self.parts, self.scope(false));
        let done = self.decide(intake, old.as_ref());
        let emptied = done.intake.refused.iter().any(|(part, refusal)| {
            *part == "experiments"
                && matches!(
                    refusal,
                    Refusal::Empty {
                        code: "empty_view",
                        ..
                    }
                )
        });
        if !emptied {
            return done;
        }
        // The experiments would empty a consumer: they are left as they were, the payload's news still counts.
        let refused = done.intake.refused;
        let mut intake = funnel::take_in(&self.source, &before, &self.parts, self.scope(true));
        intake.refused.extend(refused);
        self.decide(intake, old.as_ref())
    }

    fn scope(&self, skip_experiments: bool) -> Scope {
        Scope {
            skip_experiments,
            is_push: self.is_push,
        }
    }

    fn decide(&self, mut intake: Intake, old: Option<&Accepted>) -> Done {
        intake.is_whole &= self.has_all_parts;
        let mut done = Done {
            intake,
            accepted: None,
            to_store: None,
            rendered: None,
            waiting_for: None,
        };
        let live = self.live.as_deref();
        let checked_at = match old {
            Some(old) if !done.intake.is_whole => old.checked_at,
            _ => self.at,
        };
        let input = Arc::new(std::mem::take(&mut done.intake.input));
        let known = old.map_or(&self.source.listed, |old| &old.connections);
        let connections = relay::proven(known, self.connections.as_ref(), &done.intake);
        let is_first = !funnel::contributes(live, &self.source.id);
        let is_complete = self.source.is_complete(&input);
        if is_first && is_complete && !self.source.allow_empty {
            let payloads: Vec<_> = input.payloads.values().map(|part| &*part.payload).collect();
            let list = input.experiments.as_ref().map(|part| &*part.list);
            if let Err(refusal) = guard::first_load_not_empty(&payloads, list) {
                done.intake.refused.push(("payload", refusal));
                done.intake.accepted.clear();
                return done;
            }
        }
        let to_store = done.intake.is_news.then(|| self.packed(&input));
        let version = match &to_store {
            Some(packed) => version_of(packed),
            None => old.map(|old| old.version.clone()).unwrap_or_default(),
        };
        let accepted = Accepted {
            input: Arc::clone(&input),
            version,
            checked_at,
            connections,
        };
        // Another encryption key, say: the same content in other bytes.
        let is_rekeyed =
            old.is_some_and(|old| !relay::is_same(&old.connections, &accepted.connections));
        let is_due = old.is_some_and(|old| funnel::is_due(&input, old.checked_at, checked_at));
        done.accepted = Some(accepted.clone());
        done.to_store = to_store;
        if is_first && !is_complete {
            done.waiting_for = Some(self.incomplete(&input));
            return done;
        }
        if !(done.intake.is_news || is_due || is_first || is_rekeyed)
            && self.was_settled
            && live.is_some()
        {
            return done;
        }
        self.stitch(&mut done, &accepted);
        done
    }

    /// Stitches the environment with what was accepted.
    fn stitch(&self, done: &mut Done, accepted: &Accepted) {
        let live = self.live.as_deref();
        let mut sources = self.sources.clone();
        for (source, slot) in &mut sources {
            if source.id == self.source.id {
                *slot = Some(accepted.clone());
            }
        }
        if let Some(missing) = missing(&sources, live) {
            done.waiting_for = Some(format!(
                "the stored input of source `{missing}` is missing; waiting for its poll"
            ));
            return;
        }
        let what = if self.is_push { "push" } else { "poll" };
        let cause = Cause::of(format!("{what} {}", self.source.id));
        match funnel::render(&self.source.environment, &sources, live, self.at, &cause) {
            Ok(rendered) => done.rendered = Some(rendered),
            Err(refusal) => {
                let part = if self.source.has_experiments {
                    "experiments"
                } else {
                    "payload"
                };
                done.intake.refused.push((part, refusal));
                done.intake.accepted.clear();
                done.accepted = None;
                done.to_store = None;
            }
        }
    }

    fn incomplete(&self, input: &SourceInput) -> String {
        let lacks_list = self.source.has_experiments && input.experiments.is_none();
        let what = if lacks_list {
            "experiments"
        } else {
            "payloads"
        };
        format!(
            "the first publish waits for the {what} of source `{}`",
            self.source.id
        )
    }

    fn packed(&self, input: &SourceInput) -> PackedInput {
        use sha2::Digest as _;
        let body = input.to_bytes();
        let stored = StoredInput {
            source: self.source.id.to_string(),
            digest: hex(&sha2::Sha256::digest(&body)),
            accepted_at_ms: clock::to_ms(self.at),
            body,
        };
        stored.pack()
    }
}

fn version_of(packed: &PackedInput) -> SourceVersion {
    SourceVersion {
        digest: packed.digest.clone(),
        accepted_at_ms: packed.accepted_at_ms,
    }
}

/// A source that is part of the live content and whose input is not here: stitching without it would drop its items.
pub(super) fn missing(sources: &Sources, live: Option<&Candidate>) -> Option<Arc<str>> {
    let is_missing = |(source, accepted): &&(Arc<FunnelSource>, Option<Accepted>)| {
        accepted.is_none() && source.is_enabled && funnel::contributes(live, &source.id)
    };
    sources
        .iter()
        .find(is_missing)
        .map(|(source, _)| Arc::clone(&source.id))
}
