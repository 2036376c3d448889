//! Carrying decisions out: keep, put in force, publish.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::Instant;
use tracing::{error, info};

use super::{
    super::{
        ConfigLinks, ConfigMemory,
        job::{JobError, STORE_LIMIT, blocking, current, note_discarded},
        publish::{self, Note, bring_out, compose, prepare, serve},
    },
    Decided, OVERRIDES_BYTES_MAX, OVERRIDES_MAX, Order, OrderError, Pin, RemoveOverride, RemovePin,
    SetOverride, SetPin,
    decisions::{Decisions, PIN, override_value, pin_value, register_of},
};
use crate::{
    actors::store::{GetRevision, LoadRegisters, SaveRegisters},
    clock,
    model::{Candidate, Forced, Json, Override, Snapshot},
    pipeline::{
        overlay::{names, near, type_of},
        validate::DEPTH_MAX,
    },
};

/// How long the store may take to find a revision.
const REVISION_LIMIT: Duration = Duration::from_secs(5);

/// Carries an order out.
pub(in super::super) async fn carry_out(
    memory: &Arc<ConfigMemory>,
    links: &ConfigLinks,
    order: Order,
) -> Result<Decided, OrderError> {
    let done = match order {
        Order::Override(message) => {
            Job::new(memory, links, &message.environment)
                .await?
                .set_override(message)
                .await
        }
        Order::RemoveOverride(message) => {
            Job::new(memory, links, &message.environment)
                .await?
                .remove_override(message)
                .await
        }
        Order::Pin(message) => {
            Job::new(memory, links, &message.environment)
                .await?
                .pin(message)
                .await
        }
        Order::Unpin(message) => {
            Job::new(memory, links, &message.environment)
                .await?
                .unpin(message)
                .await
        }
        Order::Refresh { environment } => {
            Job::new(memory, links, &environment).await?.refresh().await
        }
    };
    done.map_err(Failure::into_error)
}

/// Takes the stored decisions in, once per process.
pub(in super::super) async fn restore(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
) -> Result<(), JobError> {
    if memory.operated(environment, |of_it| of_it.is_loaded) {
        return Ok(());
    }
    take_in(memory, links, environment).await?;
    // A crash may have come between a decision and its revision.
    memory.operated(environment, |of_it| {
        (of_it.is_loaded, of_it.is_due) = (true, true);
    });
    Ok(())
}

/// Takes in what is stored; where the pin is news its content is looked for.
async fn take_in(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
) -> Result<(), JobError> {
    let cell = links.board.environment(environment);
    let seen = cell.map_or(0, |cell| cell.decisions());
    let question = LoadRegisters {
        environment: Arc::clone(environment),
    };
    let registers = links.store.ask_again(question, STORE_LIMIT).await?;
    note_discarded(memory, links, environment, &registers);
    let stored = Decisions::read(&registers);
    // One step: should this be cut short, the content is looked for the next time.
    let is_other_pin = memory.operated(environment, |of_it| {
        of_it.seen = seen;
        of_it.is_due |= of_it.decisions != stored;
        let old = of_it.set_decisions(stored.clone());
        let is_other = old.pin != stored.pin;
        if is_other {
            of_it.lose_pinned();
        }
        is_other
    });
    if is_other_pin {
        match stored.pin {
            Some(pin) => look_for_pinned(memory, links, environment, pin).await?,
            None => memory.set_pin(environment, None),
        }
    }
    Ok(())
}

/// Finds the content of a pin, or notes that it cannot be found.
async fn look_for_pinned(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    environment: &Arc<str>,
    pin: Pin,
) -> Result<(), JobError> {
    memory.operated(environment, |of_it| of_it.sought_at = Some(Instant::now()));
    let served = current(links, environment).await?;
    let is_served = |served: &&Arc<Snapshot>| served.meta.pinned_from == Some(pin.revision);
    let found = match served.as_ref().filter(is_served) {
        Some(served) => Ok(served.content()),
        None => content_of(links, environment, pin.revision).await,
    };
    match found {
        Ok(content) => {
            let was_lost = memory.operated(environment, |of_it| of_it.lost.is_some());
            if was_lost {
                info!(
                    environment = &**environment,
                    "the pinned revision {} of {environment} was found", pin.revision
                );
            }
            memory.set_pin(environment, Some((pin, content)));
        }
        Err(reason) => {
            let is_news = memory.operated(environment, |of_it| {
                of_it.pinned = None;
                of_it.lost.replace(reason.to_string()).is_none()
            });
            if is_news {
                error!(
                    environment = &**environment,
                    "revision {} of {environment} is pinned and cannot be found, what is served stays: {reason}",
                    pin.revision
                );
            }
        }
    }
    Ok(())
}

/// The content of a revision, without the overrides of its time.
async fn content_of(
    links: &ConfigLinks,
    environment: &Arc<str>,
    revision: u64,
) -> Result<Arc<Candidate>, OrderError> {
    let question = GetRevision {
        environment: Arc::clone(environment),
        revision,
    };
    let found = links.store.ask_again(question, REVISION_LIMIT).await;
    let found = found.map_err(|error| OrderError::Unavailable(error.to_string()))?;
    let found = found.map_err(|error| OrderError::Unavailable(error.to_string()))?;
    Ok(found.ok_or(OrderError::UnknownRevision)?.content())
}

/// Why an order ended.
enum Failure {
    Refused(OrderError),
    Job(JobError),
}

impl Failure {
    fn into_error(self) -> OrderError {
        match self {
            Self::Refused(error) => error,
            Self::Job(error) => OrderError::Unavailable(error.to_string()),
        }
    }
}

impl From<OrderError> for Failure {
    fn from(error: OrderError) -> Self {
        Self::Refused(error)
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self::Job(error)
    }
}

/// One order under way.
struct Job<'a> {
    memory: &'a Arc<ConfigMemory>,
    links: &'a ConfigLinks,
    environment: Arc<str>,
    served: Option<Arc<Snapshot>>,
}

impl<'a> Job<'a> {
    async fn new(
        memory: &'a Arc<ConfigMemory>,
        links: &'a ConfigLinks,
        environment: &Arc<str>,
    ) -> Result<Self, OrderError> {
        let failed = |error: JobError| OrderError::Unavailable(error.to_string());
        restore(memory, links, environment).await.map_err(failed)?;
        let served = current(links, environment).await.map_err(failed)?;
        // Where the funnel has nothing yet, what is served stands for it.
        memory.live(environment, served.as_ref());
        Ok(Self {
            memory,
            links,
            environment: Arc::clone(environment),
            served,
        })
    }

    /// Forces a value or an experiment off. The revision is made ready while the decision is stored.
    async fn set_override(self, message: SetOverride) -> Result<Decided, Failure> {
        let now = clock::now();
        let (memory, environment) = (self.memory, &self.environment);
        let forced = message.forced;
        let mut overrides = memory.overrides(environment);
        let is_it = |other: &Override| other.kind() == forced.kind() && other.key == forced.key;
        let replaced = overrides
            .iter()
            .position(is_it)
            .map(|at| overrides.remove(at).id);
        overrides.push(forced.clone());
        check_bounds(&overrides)?;
        let plan = memory.plan(environment, self.served.as_ref());
        let mut plan = plan.ok_or(OrderError::NotLoaded)?;
        plan.overrides.clone_from(&overrides);
        let note = Note {
            cause: format!("override {} {}", forced.kind(), forced.key),
            author: Some(forced.author.clone()),
            reason: Some(forced.reason.clone()),
        };
        let (served, new) = (self.served.clone(), forced.clone());
        let composed = blocking(move || {
            let base = Arc::clone(&plan.base);
            let composed = compose(plan, served.as_deref(), now, Some(note));
            check_target(&new, composed.found.last().copied(), &base).map(|()| composed)
        });
        let composed = composed.await??;
        let change = (register_of(&forced), Some(override_value(&forced)));
        let save = self.save(vec![change]);
        let ready = async {
            match composed.candidate {
                Some(candidate) => prepare(self.links, candidate).await.map(Some),
                None => Ok(None),
            }
        };
        let (is_durable, ready) = tokio::join!(save, ready);
        let is_durable = is_durable?;
        memory.operated(environment, |of_it| {
            overrides.sort_by(|a, b| (a.kind(), &a.key).cmp(&(b.kind(), &b.key)));
            of_it.set_overrides(overrides);
        });
        publish::set_issues(memory, self.links, environment, composed.issues);
        let published = match ready? {
            Some(publish) => Some(serve(self.links, publish).await?.revision),
            None => None,
        };
        memory.set_served(environment);
        Ok(Decided {
            replaced: replaced.filter(|id| *id != forced.id),
            not_applied: composed.locked,
            ..self.decided(published, is_durable)
        })
    }

    async fn remove_override(self, message: RemoveOverride) -> Result<Decided, Failure> {
        let (memory, environment) = (self.memory, &self.environment);
        let overrides = memory.overrides(environment);
        let removed = overrides.iter().find(|forced| forced.id == message.id);
        let removed = removed.ok_or(OrderError::UnknownOverride)?;
        let is_durable = self.end(&[removed]).await?;
        let note = Note {
            cause: format!("override removed {} {}", removed.kind(), removed.key),
            author: Some(message.by),
            reason: message.reason,
        };
        self.finish(note, is_durable).await
    }

    async fn pin(self, message: SetPin) -> Result<Decided, Failure> {
        let pin = message.pin;
        let served = self.served.as_ref().ok_or(OrderError::NotLoaded)?;
        let content = if served.revision == pin.revision {
            served.content()
        } else {
            content_of(self.links, &self.environment, pin.revision).await?
        };
        let change = (PIN.to_owned(), Some(pin_value(&pin)));
        let is_durable = self.save(vec![change]).await?;
        let note = Note {
            cause: format!("pin {}", pin.revision),
            author: Some(pin.by.clone()),
            reason: Some(pin.reason.clone()),
        };
        self.memory.set_pin(&self.environment, Some((pin, content)));
        self.finish(note, is_durable).await
    }

    async fn unpin(self, message: RemovePin) -> Result<Decided, Failure> {
        if !self.memory.is_pinned(&self.environment) {
            return Err(OrderError::NotPinned.into());
        }
        let is_durable = self.save(vec![(PIN.to_owned(), None)]).await?;
        self.memory.set_pin(&self.environment, None);
        let note = Note {
            cause: "unpin".to_owned(),
            author: Some(message.by),
            reason: Some(message.reason),
        };
        self.finish(note, is_durable).await
    }

    /// Takes in what other replicas decided, ends what is over, looks for lost content; serves what came of it.
    async fn refresh(self) -> Result<Decided, Failure> {
        let (memory, links, environment) = (self.memory, self.links, &self.environment);
        let before = memory.operated(environment, |of_it| of_it.decisions.clone());
        let news = links.board.environment(environment);
        let news = news.map_or(0, |cell| cell.decisions());
        if memory.operated(environment, |of_it| of_it.seen != news) {
            take_in(memory, links, environment).await?;
        }
        let after = memory.operated(environment, |of_it| of_it.decisions.clone());
        let sought = memory.operated(environment, |of_it| {
            let pin = of_it.decisions.pin.clone();
            pin.filter(|_| of_it.is_pin_sought())
        });
        if let Some(pin) = sought {
            look_for_pinned(memory, links, environment, pin).await?;
        }
        let ended = memory.ended(environment);
        let mut note = (before != after).then(|| of_news(&before, &after));
        if !ended.is_empty() {
            self.end(&ended.iter().collect::<Vec<_>>()).await?;
            note = Some(Note {
                cause: "override expired".to_owned(),
                author: None,
                reason: None,
            });
        }
        let published = bring_out(memory, links, environment, note).await?;
        Ok(self.decided(published.map(|published| published.revision), true))
    }

    /// Ends these overrides, and none that somebody has set for the same target since.
    async fn end(&self, ended: &[&Override]) -> Result<bool, JobError> {
        let name = |forced: &&Override| (register_of(forced), forced.id.clone());
        let save = SaveRegisters {
            environment: Arc::clone(&self.environment),
            changes: Vec::new(),
            ended: ended.iter().map(name).collect(),
        };
        let is_durable = self.links.store.ask_again(save, STORE_LIMIT).await?;
        self.memory.operated(&self.environment, |of_it| {
            let mut overrides = of_it.decisions.overrides.clone();
            overrides.retain(|forced| !ended.iter().any(|ended| ended.id == forced.id));
            of_it.set_overrides(overrides);
        });
        Ok(is_durable)
    }

    async fn save(&self, changes: Vec<(String, Option<Value>)>) -> Result<bool, JobError> {
        let save = SaveRegisters {
            environment: Arc::clone(&self.environment),
            changes,
            ended: Vec::new(),
        };
        Ok(self.links.store.ask_again(save, STORE_LIMIT).await?)
    }

    async fn finish(self, note: Note, is_durable: bool) -> Result<Decided, Failure> {
        let published = bring_out(self.memory, self.links, &self.environment, Some(note)).await?;
        let published = published.map(|published| published.revision);
        Ok(self.decided(published, is_durable))
    }

    fn decided(&self, published: Option<u64>, is_durable: bool) -> Decided {
        let served = self.served.as_ref().map_or(0, |served| served.revision);
        Decided {
            revision: published.unwrap_or(served),
            is_durable,
            replaced: None,
            not_applied: Vec::new(),
        }
    }
}

/// Whether they are within the limits; the last one is new.
fn check_bounds(overrides: &[Override]) -> Result<(), OrderError> {
    if overrides.len() > OVERRIDES_MAX {
        let message = format!("there are {OVERRIDES_MAX} overrides already; remove some");
        return Err(OrderError::TooMany(message));
    }
    let bytes = |forced: &Override| match &forced.forced {
        Forced::Value(value) => value.as_str().len(),
        Forced::Off => 0,
    };
    let is_deep = |forced: &Override| match &forced.forced {
        Forced::Value(value) => Json::from(&value.to_value()).depth() > DEPTH_MAX,
        Forced::Off => false,
    };
    if overrides.last().is_some_and(is_deep) {
        return Err(OrderError::TooDeep(DEPTH_MAX));
    }
    if overrides.iter().map(bytes).sum::<usize>() > OVERRIDES_BYTES_MAX {
        let message =
            format!("the values of all overrides are larger than {OVERRIDES_BYTES_MAX} bytes");
        return Err(OrderError::TooMany(message));
    }
    Ok(())
}

/// Whether the target is there and the value of the right type.
fn check_target(
    forced: &Override,
    found: Option<crate::pipeline::overlay::Found>,
    base: &Candidate,
) -> Result<(), OrderError> {
    let found = found.unwrap_or_default();
    if !found.is_there {
        let names = names(&base.snapshot_tail);
        let names = match forced.forced {
            Forced::Value(_) => names.features,
            Forced::Off => names.experiments,
        };
        return Err(OrderError::UnknownTarget {
            kind: forced.kind(),
            near: near(&forced.key, names.iter()),
        });
    }
    if let Forced::Value(value) = &forced.forced
        && let Some(wanted) = found.default_type.filter(|wanted| *wanted != "null")
    {
        let got = type_of(value.as_str());
        if got != wanted {
            return Err(OrderError::WrongType { wanted, got });
        }
    }
    Ok(())
}

/// What another replica did, in the words that it used itself.
fn of_news(before: &Decisions, after: &Decisions) -> Note {
    let name = |forced: &Override| format!("{} {}", forced.kind(), forced.key);
    let set = after
        .overrides
        .iter()
        .find(|forced| !before.overrides.contains(forced));
    let removed = before
        .overrides
        .iter()
        .find(|forced| !after.overrides.contains(forced));
    let (cause, author, reason) = match (&after.pin, set, removed) {
        (Some(pin), ..) if before.pin.as_ref() != Some(pin) => (
            format!("pin {}", pin.revision),
            Some(&pin.by),
            Some(&pin.reason),
        ),
        (None, ..) if before.pin.is_some() => ("unpin".to_owned(), None, None),
        (_, Some(set), _) => (
            format!("override {}", name(set)),
            Some(&set.author),
            Some(&set.reason),
        ),
        (_, None, Some(removed)) => (format!("override removed {}", name(removed)), None, None),
        (_, None, None) => ("decisions".to_owned(), None, None),
    };
    Note {
        cause,
        author: author.cloned(),
        reason: reason.cloned(),
    }
}
