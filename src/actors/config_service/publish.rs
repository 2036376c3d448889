//! From live content to what is served: pinned content in its place, overrides over it, compiled, packed, published.

use std::sync::Arc;

use bytes::Bytes;
use time::OffsetDateTime;
use tracing::warn;

use super::{
    ConfigLinks, ConfigMemory,
    funnel::Rendered,
    job::{JobError, STORE_LIMIT, blocking, current},
    operator::Plan,
    pinned,
};
use crate::{
    actors::store::{Publish, Published},
    clock,
    model::{Candidate, Document, Evaluators, Issue, Snapshot, SnapshotMeta},
    pipeline::overlay::{Found, Overlay},
    store::packed,
};

/// An operator's part in a revision.
#[derive(Clone, Debug)]
pub(super) struct Note {
    /// What made it.
    pub(super) cause: String,
    /// Name of the operator's token.
    pub(super) author: Option<String>,
    /// Why, in the operator's words.
    pub(super) reason: Option<String>,
}

/// Publishes what was stitched, unless that changes nothing of what is served; `None` then.
pub(super) async fn publish(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
    rendered: Rendered,
) -> Result<Option<Published>, JobError> {
    memory.set_live(environment, rendered.candidate, rendered.issues);
    let published = bring_out(memory, links, environment, None).await?;
    memory.set_settled(environment, true);
    Ok(published)
}

/// Serves what is to be served by now, unless it is served already; `None` then.
pub(super) async fn bring_out(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
    note: Option<Note>,
) -> Result<Option<Published>, JobError> {
    let served = current(links, environment).await?;
    let now = clock::now();
    let plan = memory.plan(environment, served.as_ref());
    let (candidate, issues) = match plan {
        Some(plan) => {
            let composed = blocking(move || compose(plan, served.as_deref(), now, note)).await?;
            (composed.candidate, composed.issues)
        }
        None => (None, Vec::new()),
    };
    set_issues(memory, links, environment, issues);
    if let Some(cell) = links.board.environment(environment) {
        let pin = memory.pin_status(environment);
        cell.set_pin_lost(pin.is_some_and(|pin| pin.lost.is_some()));
    }
    let published = match candidate {
        Some(candidate) => Some(serve(links, prepare(links, candidate).await?).await?),
        None => None,
    };
    memory.set_served(environment);
    Ok(published)
}

/// Notes the issues of the last stitch and those of laying overrides over it.
pub(super) fn set_issues(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
    overlaid: Vec<Issue>,
) {
    let issues = memory.all_issues(environment, overlaid);
    links.metrics.issues(environment, issues.len());
    memory.set_issues(environment, issues);
}

/// What is to be served, put together.
pub(super) struct Composed {
    /// `None`: it is what is served.
    pub(super) candidate: Option<Arc<Candidate>>,
    /// Issues of laying the overrides over it, and of what the pinned content lacks.
    pub(super) issues: Vec<Issue>,
    /// What each override met.
    pub(super) found: Vec<Found>,
    /// Client keys of the connections that no override reaches.
    pub(super) locked: Vec<String>,
}

/// Puts together what is to be served. For a blocking thread.
pub(super) fn compose(
    plan: Plan,
    served: Option<&Snapshot>,
    now: OffsetDateTime,
    note: Option<Note>,
) -> Composed {
    let (base, lent) = completed(&plan, served);
    let is_stitched = note.is_none() && !plan.is_pinned;
    // What was just stitched is as old as the fetch that it was made of.
    let is_fresh = served.is_none_or(|served| served.published_at < base.created_at);
    let now = if is_stitched && is_fresh {
        base.created_at
    } else {
        now
    };
    let mut composed = Composed {
        candidate: None,
        issues: lent,
        found: Vec::new(),
        locked: Vec::new(),
    };
    let mut meta = meta(&base.meta, &plan, note);
    let (snapshot_tail, documents, evaluators, below) = if plan.overrides.is_empty() {
        let evaluators = base.evaluators.clone();
        let tail = Bytes::clone(&base.snapshot_tail);
        (tail, base.documents.clone(), evaluators, base.base.clone())
    } else {
        let overlay = Overlay {
            overrides: &plan.overrides,
            key_of: &|client_key| plan.keys.get(client_key).copied(),
            served,
            is_successor: served.is_some_and(|served| served.meta.pinned_from == plan.pinned_from),
            now,
        };
        let overlaid = overlay.apply(&base);
        composed.issues.extend(overlaid.issues);
        (composed.found, composed.locked) = (overlaid.found, overlaid.locked);
        meta.experiments = meta.experiments.saturating_sub(overlaid.experiments_off);
        let (tail, documents) = (overlaid.snapshot_tail, overlaid.documents);
        (tail, documents, Evaluators::default(), Some(plan.base))
    };
    let hash = Candidate::content_hash(&snapshot_tail, &documents);
    if served.is_some_and(|served| served.hash == hash) {
        return composed;
    }
    let documents = documents
        .into_iter()
        .map(|document| dated(document, served, now));
    composed.candidate = Some(Arc::new(Candidate {
        environment: Arc::clone(&base.environment),
        hash,
        snapshot_tail,
        documents: documents.collect(),
        meta,
        created_at: now,
        evaluators,
        base: below,
    }));
    composed
}

/// What the overrides are laid over, and what a person should know about it.
fn completed(plan: &Plan, served: Option<&Snapshot>) -> (Arc<Candidate>, Vec<Issue>) {
    let lacking = plan
        .is_pinned
        .then(|| pinned::completed(&plan.base, plan.live.as_deref(), served))
        .flatten();
    lacking.unwrap_or_else(|| (Arc::clone(&plan.base), Vec::new()))
}

/// Without a note the sources are the cause: beside a pin, too, whose own revision has another.
fn meta(base: &SnapshotMeta, plan: &Plan, note: Option<Note>) -> SnapshotMeta {
    let mut meta = base.clone();
    meta.pinned_from = plan.pinned_from;
    let of_sources = || {
        let live = &plan.live.as_ref().filter(|_| plan.is_pinned)?.meta;
        Some(Note {
            cause: live.cause.clone(),
            author: live.author.clone(),
            reason: live.reason.clone(),
        })
    };
    if let Some(note) = note.or_else(of_sources) {
        (meta.cause, meta.author, meta.reason) = (note.cause, note.author, note.reason);
    }
    meta
}

/// A document that is not the served one and older than that would be taken for "not modified" by caches that go by dates.
fn dated(document: Arc<Document>, served: Option<&Snapshot>, now: OffsetDateTime) -> Arc<Document> {
    let Some(there) = served.and_then(|served| served.document(&document.name)) else {
        return document;
    };
    if Arc::ptr_eq(there, &document) || document.last_modified > there.last_modified {
        return document;
    }
    let is_same = there.body == document.body
        && there.members == document.members
        && there.content == document.content;
    if is_same {
        return Arc::clone(there);
    }
    let (name, body) = (Arc::clone(&document.name), document.body.clone());
    let made = Document::new(name, body, now, document.members.clone());
    let made = made.with_content(document.content.clone());
    made.compile_like(there);
    Arc::new(made)
}

/// Compiles and packs a candidate: all that has to be done before it can be published.
pub(super) async fn prepare(
    links: &ConfigLinks,
    candidate: Arc<Candidate>,
) -> Result<Publish, JobError> {
    compile(links, &candidate).await;
    let made = Arc::clone(&candidate);
    let packed = blocking(move || packed::pack_candidate(&made)).await?;
    Ok(Publish { candidate, packed })
}

/// Makes a candidate the current snapshot.
pub(super) async fn serve(links: &ConfigLinks, publish: Publish) -> Result<Published, JobError> {
    Ok(links.store.ask_again(publish, STORE_LIMIT).await?)
}

/// Compiles a candidate for the dialects its environment is evaluated in: no request is to wait for that.
async fn compile(links: &ConfigLinks, candidate: &Arc<Candidate>) {
    let cell = links.board.environment(&candidate.environment);
    let dialects = cell.map(|cell| cell.evaluated()).unwrap_or_default();
    if dialects.is_empty() {
        return;
    }
    let flagged = cell.map(|cell| cell.flagged()).unwrap_or_default();
    let made = Arc::clone(candidate);
    let name = &*candidate.environment;
    let compile = move || {
        made.prepare(&dialects)
            .map(|()| made.prepare_flags(&flagged))
    };
    match blocking(compile).await {
        Ok(Ok(())) => {}
        // What cannot be evaluated can be served all the same.
        Ok(Err(error)) => warn!(
            environment = name,
            "{name} cannot be compiled for evaluation: {error}"
        ),
        Err(_) => warn!(
            environment = name,
            "{name} cannot be compiled for evaluation: the compiler panicked"
        ),
    }
}
