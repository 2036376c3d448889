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
        guard::{self, Content, Difference, Live, Side, Trip},
        input::{PayloadPart, SourceInput},
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
        let is_lost = self.is_lost(old.as_ref());
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
        if is_lost {
            start_over(&mut intake);
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
        let lost = live.filter(|_| self.is_lost(old));
        let lost = lost.map(|live| Live::read(id, &live.snapshot_tail));
        let offer = Offer {
            source: id,
            rules: &self.source.rules,
            old: &intake.input,
            news: &intake.news,
            is_first,
            live: lost.as_ref(),
            takes_part: &|input| match lost {
                Some(_) => self.is_all_there(input),
                None => !is_first || self.source.is_complete(input),
            },
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

    /// Whether the input that live content was made of is not here, or not all of it.
    fn is_lost(&self, old: Option<&Accepted>) -> bool {
        funnel::contributes(self.live.as_deref(), &self.source.id)
            && old.is_none_or(|old| old.is_lost)
    }

    /// Whether this input makes up for a lost one: one poll has to bring all parts, or an operator to approve them.
    fn is_all_there(&self, input: &SourceInput) -> bool {
        let is_here = |part: &PartId| match part {
            PartId::Payload(key) => input.payloads.contains_key(key),
            PartId::Experiments => input.experiments.is_some(),
        };
        let is_poll = self.has_all_parts && !self.is_push && self.parts.keys().all(is_here);
        (is_poll || self.approval.is_some()) && self.source.is_complete(input)
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
            is_lost: false,
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

    fn decide(&self, mut done: Done, mut input: SourceInput, old: Option<&Accepted>) -> Done {
        let live = self.live.as_deref();
        let is_lost = self.is_lost(old);
        if is_lost && done.parked.is_none() && !self.is_all_there(&input) {
            done.intake.accepted.clear();
            done.is_news = false;
            done.waiting_for = Some(format!(
                "the stored input of source `{}` is lost; waiting for a poll that brings all of its parts",
                self.source.id
            ));
            return done;
        }
        let checked_at = match old {
            Some(old) if !done.intake.is_whole => old.checked_at,
            _ => self.at,
        };
        // What cannot be compared with the live content yet is compared later.
        let blocker = self.missing_other();
        let is_reread = old.is_some_and(|old| is_reread(&self.source, old, live));
        input.reading = match blocker {
            Some(_) => old.and_then(|old| old.input.reading.clone()),
            None => Some(self.source.reading.clone()),
        };
        let input = Arc::new(input);
        let known = old.map_or(&self.source.listed, |old| &old.connections);
        let keeps_connections = done.parked.as_ref().is_some_and(News::keeps_connections);
        let found = self.connections.as_ref().filter(|_| !keeps_connections);
        let connections = relay::proven(known, found, &done.intake);
        let is_first = !funnel::contributes(live, &self.source.id);
        let is_complete = self.source.is_complete(&input);
        // As long as it cannot be compared it is not read anew either.
        let is_judged_anew = is_reread && blocker.is_none();
        let to_store = (done.is_news || is_judged_anew).then(|| self.packed(&input));
        let version = match &to_store {
            Some(packed) => version_of(packed),
            None => old.map(|old| old.version.clone()).unwrap_or_default(),
        };
        let accepted = Accepted {
            input: Arc::clone(&input),
            version,
            checked_at,
            connections,
            is_lost: false,
        };
        // An empty first load is no input yet, nor is one in the place of a lost one that would empty what is live.
        if (old.is_none() || is_lost) && !done.is_news && done.parked.is_some() {
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
        let is_wanted = done.is_news || is_due || is_first || is_rekeyed || is_reread;
        if !is_wanted && self.approval.is_none() && self.was_settled && live.is_some() {
            return done;
        }
        if let Some(missing) = blocker {
            done.waiting_for = Some(format!(
                "the stored input of source `{missing}` is missing; waiting for its poll"
            ));
            return done;
        }
        self.stitch(&mut done, &accepted, old);
        done
    }

    /// Whether what is live has still to be compared with: nobody was asked, or guards compared with something else
    /// because the input was lost, or one of the environment's is read otherwise now.
    fn is_unjudged(&self, done: &Done, old: Option<&Accepted>) -> bool {
        let is_known =
            old.is_some_and(|old| !old.is_lost) && !are_reread(&self.sources, self.live.as_deref());
        self.approval.is_none() && (done.is_auto_accepted || !is_known)
    }

    /// Another source without which nothing can be stitched.
    fn missing_other(&self) -> Option<Arc<str>> {
        let mut others = self.sources.clone();
        others.retain(|(source, _)| source.id != self.source.id);
        missing(&others, self.live.as_deref())
    }

    /// Stitches the environment with what was accepted.
    fn stitch(&self, done: &mut Done, accepted: &Accepted, old: Option<&Accepted>) {
        let live = self.live.as_deref();
        let sources = self.sources_with(accepted);
        let environment = &self.source.environment;
        let mut rendered = funnel::render(environment, &sources, live, self.at, &done.cause);
        let emptied = rendered.emptied.take();
        if let Some(trip) = emptied.filter(|_| self.is_unjudged(done, old)) {
            self.hold(done, &accepted.input, old, trip);
            return;
        }
        rendered.tell(done.warnings.clone());
        done.rendered = Some(rendered);
    }

    /// Parks all that came, and what is read otherwise, because of a view that it would empty.
    fn hold(&self, done: &mut Done, input: &SourceInput, old: Option<&Accepted>, trip: Trip) {
        let mut news = emptied(input, trip);
        for content in &done.intake.news {
            news.contents
                .retain(|other| Part::of(other) != Part::of(content));
            news.contents.push(content.clone());
        }
        if !done.intake.news.is_empty() {
            let before = old.map_or_else(SourceInput::default, |old| (*old.input).clone());
            let after = before.with(&done.intake.news);
            let [before, after] = [before, after].map(|input| self.side(&input, old));
            news.difference = guard::difference(&before.stitched, &after.stitched);
        }
        if let Some(parked) = done.parked.take() {
            news.trips.splice(0..0, parked.trips);
        }
        take_out(&mut done.intake, &news.contents);
        done.intake.accepted.clear();
        done.parked = Some(news);
        done.is_news = false;
        (done.accepted, done.to_store) = (None, None);
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
    take_out(intake, &verdict.parked);
    Some(News {
        contents: std::mem::take(&mut verdict.parked),
        trips: std::mem::take(&mut verdict.trips),
        difference: std::mem::take(&mut verdict.difference),
    })
}

fn take_out(intake: &mut Intake, parked: &[Content]) {
    intake.is_whole = false;
    for content in parked {
        intake.good.remove(&Part::of(content));
        match content {
            Content::Payload(key, _) => {
                drop(intake.accepted.remove(&PartId::Payload(key.clone())));
            }
            Content::Experiments(_) => drop(intake.accepted.remove(&PartId::Experiments)),
            Content::Removed(_) => {}
        }
    }
}

/// An accepted input that would empty a view as it is read now: its experiments, or all it has where there are none.
pub(super) fn emptied(input: &SourceInput, trip: Trip) -> News {
    let contents: Vec<Content> = if let Some(part) = &input.experiments {
        vec![Content::Experiments(part.clone())]
    } else {
        let payloads = input.payloads.iter();
        let payload =
            |(key, part): (&String, &_)| Content::Payload(key.clone(), PayloadPart::clone(part));
        payloads.map(payload).collect()
    };
    let part = contents.first().map(Part::of);
    News {
        trips: part.map(|part| (part, trip)).into_iter().collect(),
        contents,
        difference: Difference::default(),
    }
}

/// Whether an accepted input is read otherwise now than when it was judged, or is an older one than live content was
/// made of: that was judged before what came after it.
pub(super) fn is_reread(
    source: &FunnelSource,
    accepted: &Accepted,
    live: Option<&Candidate>,
) -> bool {
    let of_live = live.and_then(|live| live.meta.versions.get(&*source.id));
    let is_older =
        of_live.is_some_and(|of_live| accepted.version.accepted_at_ms < of_live.accepted_at_ms);
    is_older || source.reads_otherwise(&accepted.input)
}

/// The same of any input of an environment.
pub(super) fn are_reread(sources: &Sources, live: Option<&Candidate>) -> bool {
    sources.iter().any(|(source, accepted)| {
        let accepted = accepted.as_ref();
        accepted.is_some_and(|accepted| is_reread(source, accepted, live))
    })
}

/// Makes news of all that is there, as far as this fetch has confirmed it: nothing counts as accepted.
fn start_over(intake: &mut Intake) {
    let input = std::mem::take(&mut intake.input);
    intake
        .news
        .retain(|content| !matches!(content, Content::Removed(_)));
    let payloads = input.payloads.into_iter();
    let payloads = payloads.map(|(key, part)| Content::Payload(key, part));
    for content in payloads.chain(input.experiments.map(Content::Experiments)) {
        let part = Part::of(&content);
        let mut news = intake.news.iter();
        if intake.good.contains(&part) && !news.any(|other| Part::of(other) == part) {
            intake.news.push(content);
        }
    }
}

/// A source that is part of the live content and whose input is not here, or not all of it: stitching without it would drop its items.
pub(super) fn missing(sources: &Sources, live: Option<&Candidate>) -> Option<Arc<str>> {
    let is_missing = |(source, accepted): &&(Arc<FunnelSource>, Option<Accepted>)| {
        accepted.as_ref().is_none_or(|accepted| accepted.is_lost)
            && source.is_enabled
            && funnel::contributes(live, &source.id)
    };
    sources
        .iter()
        .find(is_missing)
        .map(|(source, _)| Arc::clone(&source.id))
}
