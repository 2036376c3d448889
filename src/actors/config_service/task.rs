//! The part of an ingest that is CPU work: takes the parts in, and stitches what came of it. For a blocking thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use time::OffsetDateTime;

use super::{
    funnel::{self, Intake, Rendered, Sources},
    memory::{Accepted, FunnelSource},
    parking::{News, Standing},
    relay,
};
use crate::{
    clock,
    model::{Candidate, Cause, Issue, SourceVersion, snapshot::hex},
    pipeline::{
        admission::{self, Offer, Part, Verdict},
        guard::{Content, Side, Trip},
        input::SourceInput,
    },
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
    /// Parts whose accepted bodies came by approval.
    pub(super) approved: BTreeSet<PartId>,
    /// What is parked of the source already.
    pub(super) standing: Option<Standing>,
    /// Who wants guards to be passed over; `None`: they are asked.
    pub(super) approval: Option<Approval>,
}

/// An operator's word that parked parts are right.
pub(super) struct Approval {
    /// What revisions say of it.
    pub(super) cause: Cause,
    /// Connections that may go.
    pub(super) removed: Vec<String>,
}

/// What the blocking part of a job found.
pub(super) struct Done {
    pub(super) intake: Intake,
    /// Whether something is taken that means something else than before.
    pub(super) is_news: bool,
    /// The input to keep, when it changed or its check time moved.
    pub(super) accepted: Option<Accepted>,
    /// The same, packed, when its content changed.
    pub(super) to_store: Option<PackedInput>,
    pub(super) rendered: Option<Rendered>,
    /// Why nothing can be published yet.
    pub(super) waiting_for: Option<String>,
    /// What guards keep from being published.
    pub(super) parked: Option<News>,
    /// A view that the stored inputs would empty; nothing is published then.
    pub(super) emptied: Option<(&'static str, Trip)>,
    /// Whether the same input came often enough to be taken without anybody's word.
    pub(super) is_auto_accepted: bool,
    /// What guards have to tell of what is taken.
    pub(super) warnings: Vec<Issue>,
    cause: Cause,
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
        let mut intake = funnel::take_in(
            &self.source,
            before,
            &self.parts,
            &self.approved,
            self.is_push,
        );
        if let Some(approval) = self.approval.as_ref().filter(|a| !a.removed.is_empty()) {
            let removed = Content::Removed(approval.removed.clone());
            intake.news.push(removed);
            intake.good.insert(Part::Connections);
        }
        let (mut verdict, cause) = self.judge(&intake, old.as_ref());
        let is_auto_accepted = self.approval.is_none() && cause.what.starts_with("auto-accept");
        let parked = park(&mut intake, &mut verdict);
        intake.is_whole &= self.has_all_parts;
        let done = Done {
            intake,
            is_news: verdict.is_news,
            accepted: None,
            to_store: None,
            rendered: None,
            waiting_for: None,
            parked,
            emptied: None,
            is_auto_accepted,
            warnings: verdict.warnings,
            cause,
        };
        self.decide(done, verdict.input, old.as_ref())
    }

    /// What is taken of the news, and what the revision that comes of it is to say.
    fn judge(&self, intake: &Intake, old: Option<&Accepted>) -> (Verdict, Cause) {
        let id = &self.source.id;
        let live = self.live.as_deref();
        let is_first = !funnel::contributes(live, id);
        let offer = Offer {
            source: id,
            rules: &self.source.rules,
            old: &intake.input,
            news: &intake.news,
            is_first,
            takes_part: &|input| !is_first || self.source.is_complete(input),
            side: &|input| self.side(input, old),
        };
        if let Some(approval) = &self.approval {
            return (admission::admit_all(&offer), approval.cause.clone());
        }
        let verdict = admission::admit(&offer);
        let is_due = self.standing.as_ref().is_some_and(|standing| {
            standing.is_due(
                self.source.auto_accept_after,
                &verdict.parked,
                &verdict.trips,
            )
        });
        if is_due {
            return (
                admission::admit_all(&offer),
                Cause::of(format!("auto-accept {id}")),
            );
        }
        let what = if self.is_push { "push" } else { "poll" };
        (verdict, Cause::of(format!("{what} {id}")))
    }

    /// The environment with an input of this source; time stands still, so that all differences are the input's.
    fn side(&self, input: &SourceInput, old: Option<&Accepted>) -> Side {
        let checked_at = old.map_or(self.at, |old| old.checked_at);
        let connections = Arc::clone(old.map_or(&self.source.listed, |old| &old.connections));
        let accepted = Accepted {
            input: Arc::new(input.clone()),
            version: SourceVersion::default(),
            checked_at,
            connections,
        };
        let sources = self.sources_with(&accepted);
        funnel::side(&self.source.environment, &sources, self.live.as_deref())
    }

    fn sources_with(&self, accepted: &Accepted) -> Sources {
        let mut sources = self.sources.clone();
        for (source, slot) in &mut sources {
            if source.id == self.source.id {
                *slot = Some(accepted.clone());
            }
        }
        sources
    }

    fn decide(&self, mut done: Done, input: SourceInput, old: Option<&Accepted>) -> Done {
        let live = self.live.as_deref();
        let checked_at = match old {
            Some(old) if !done.intake.is_whole => old.checked_at,
            _ => self.at,
        };
        let input = Arc::new(input);
        let known = old.map_or(&self.source.listed, |old| &old.connections);
        let keeps_connections = done.parked.as_ref().is_some_and(News::keeps_connections);
        let found = self.connections.as_ref().filter(|_| !keeps_connections);
        let connections = relay::proven(known, found, &done.intake);
        let is_first = !funnel::contributes(live, &self.source.id);
        let is_complete = self.source.is_complete(&input);
        let to_store = done.is_news.then(|| self.packed(&input));
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
        // An empty first load is no input yet.
        if old.is_none() && !done.is_news && done.parked.is_some() {
            return done;
        }
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
        if !(done.is_news || is_due || is_first || is_rekeyed) && self.was_settled && live.is_some()
        {
            return done;
        }
        // What guards compare with is not what is live: the input was lost, or the settings read it otherwise now.
        let is_unjudged = self.approval.is_none() && (old.is_none() || !done.is_news);
        self.stitch(&mut done, &accepted, is_unjudged);
        done
    }

    /// Stitches the environment with what was accepted.
    fn stitch(&self, done: &mut Done, accepted: &Accepted, is_unjudged: bool) {
        let live = self.live.as_deref();
        let sources = self.sources_with(accepted);
        if let Some(missing) = missing(&sources, live) {
            done.waiting_for = Some(format!(
                "the stored input of source `{missing}` is missing; waiting for its poll"
            ));
            return;
        }
        let environment = &self.source.environment;
        let mut rendered = funnel::render(environment, &sources, live, self.at, &done.cause);
        if let Some(trip) = rendered.emptied.take().filter(|_| is_unjudged) {
            let part = if self.source.has_experiments {
                "experiments"
            } else {
                "payload"
            };
            done.emptied = Some((part, trip));
            done.intake.accepted.clear();
            done.accepted = None;
            done.to_store = None;
            return;
        }
        rendered.tell(done.warnings.clone());
        done.rendered = Some(rendered);
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

/// Takes what is parked out of what counts as accepted, so that its validators are never sent.
fn park(intake: &mut Intake, verdict: &mut Verdict) -> Option<News> {
    if verdict.parked.is_empty() {
        return None;
    }
    intake.is_whole = false;
    for content in &verdict.parked {
        intake.good.remove(&Part::of(content));
        match content {
            Content::Payload(key, _) => {
                drop(intake.accepted.remove(&PartId::Payload(key.clone())));
            }
            Content::Experiments(_) => drop(intake.accepted.remove(&PartId::Experiments)),
            Content::Removed(_) => {}
        }
    }
    Some(News {
        contents: std::mem::take(&mut verdict.parked),
        trips: std::mem::take(&mut verdict.trips),
        difference: std::mem::take(&mut verdict.difference),
    })
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
