//! What operators decided, and the contents that they decide between. Outlives the actor.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::{
    super::{ConfigMemory, FunnelEnvironment, PinStatus},
    Pin,
    decisions::Decisions,
    ends::Ends,
};
use crate::{
    clock,
    model::{Candidate, Issue, Override, Snapshot},
    pipeline::relay::{EncryptionKey, encryption_key},
};

/// How often content that is pinned and cannot be found is looked for.
const SOUGHT_EVERY: Duration = Duration::from_secs(5);

/// What operators decided about every environment.
pub(in super::super) type Operated = Mutex<BTreeMap<Arc<str>, Environment>>;

/// One environment's part.
#[derive(Default)]
pub(in super::super) struct Environment {
    /// What came of the last stitch, served or not.
    live: Option<Arc<Candidate>>,
    /// Issues of the last stitch.
    stitched: Vec<Issue>,
    pub(super) decisions: Decisions,
    ends: Ends,
    /// The pinned content, once it is here.
    pub(super) pinned: Option<Arc<Candidate>>,
    /// Why it is not.
    pub(super) lost: Option<String>,
    /// When it was looked for last.
    pub(super) sought_at: Option<Instant>,
    /// Live contents that were not served because of the pin.
    skipped: u64,
    /// Whether the stored decisions were taken in.
    pub(super) is_loaded: bool,
    /// News of decisions on the board when they were taken in last.
    pub(super) seen: u64,
    /// Whether what is served may not be what it should be.
    pub(super) is_due: bool,
}

impl Environment {
    /// Takes over what was decided; gives what was before.
    pub(super) fn set_decisions(&mut self, decisions: Decisions) -> Decisions {
        self.ends
            .follow(&decisions.overrides, (Instant::now(), clock::now_ms()));
        std::mem::replace(&mut self.decisions, decisions)
    }

    /// Takes over which overrides there are.
    pub(super) fn set_overrides(&mut self, overrides: Vec<Override>) {
        let pin = self.decisions.pin.clone();
        self.set_decisions(Decisions { pin, overrides });
        self.is_due = true;
    }

    /// There is another pin, or none: its content is still to be found.
    pub(super) fn lose_pinned(&mut self) {
        (self.pinned, self.lost, self.sought_at) = (None, None, None);
    }

    /// Whether the pinned content is to be looked for. Not all the time: a database that hangs takes seconds to say so.
    pub(super) fn is_pin_sought(&self) -> bool {
        let is_time = self.sought_at.is_none_or(|at| at.elapsed() >= SOUGHT_EVERY);
        self.decisions.pin.is_some() && self.pinned.is_none() && is_time
    }

    /// Whether an override has ended by itself.
    fn is_over(&self, forced: &Override) -> bool {
        self.ends.is_over(forced, Instant::now())
    }
}

/// What is to be served.
pub(in super::super) struct Plan {
    /// The live or the pinned content.
    pub(in super::super) base: Arc<Candidate>,
    /// The live content.
    pub(in super::super) live: Option<Arc<Candidate>>,
    /// In force, each target once.
    pub(in super::super) overrides: Vec<Override>,
    /// Whether a revision is pinned, found or not: documents that the base lacks are lent by the live content.
    pub(in super::super) is_pinned: bool,
    /// Revision whose content the base is, because of a pin.
    pub(in super::super) pinned_from: Option<u64>,
    /// Encryption keys by client key.
    pub(in super::super) keys: BTreeMap<String, EncryptionKey>,
}

impl ConfigMemory {
    /// Looks at an environment's part, or changes it; not across an await.
    pub(super) fn operated<T>(
        &self,
        environment: &Arc<str>,
        look: impl FnOnce(&mut Environment) -> T,
    ) -> T {
        look(
            self.operated
                .lock()
                .entry(Arc::clone(environment))
                .or_default(),
        )
    }

    /// The live content. Before the first stitch of this process it is what is served.
    pub(in super::super) fn live(
        &self,
        environment: &Arc<str>,
        served: Option<&Arc<Snapshot>>,
    ) -> Option<Arc<Candidate>> {
        self.operated(environment, |of_it| {
            if of_it.live.is_none() {
                of_it.live = served.map(|served| served.content());
            }
            of_it.live.clone()
        })
    }

    /// Notes what came of a stitch.
    pub(in super::super) fn set_live(
        &self,
        environment: &Arc<str>,
        candidate: Option<Arc<Candidate>>,
        issues: Vec<Issue>,
    ) {
        self.operated(environment, |of_it| {
            if let Some(candidate) = candidate {
                of_it.skipped += u64::from(of_it.decisions.pin.is_some());
                of_it.live = Some(candidate);
            }
            of_it.stitched = issues;
            of_it.is_due = true;
        });
    }

    /// Notes that what should be served is served.
    pub(in super::super) fn set_served(&self, environment: &Arc<str>) {
        self.operated(environment, |of_it| of_it.is_due = false);
    }

    /// Issues of the last stitch and of what operators decided.
    pub(in super::super) fn all_issues(
        &self,
        environment: &Arc<str>,
        overlaid: Vec<Issue>,
    ) -> Vec<Issue> {
        let mut issues = self.operated(environment, |of_it| of_it.stitched.clone());
        issues.extend(overlaid);
        issues.sort_unstable();
        issues.dedup();
        issues
    }

    /// Whether an environment is pinned.
    pub(in super::super) fn is_pinned(&self, environment: &Arc<str>) -> bool {
        self.operated(environment, |of_it| of_it.decisions.pin.is_some())
    }

    /// The overrides in force.
    pub(super) fn overrides(&self, environment: &Arc<str>) -> Vec<Override> {
        self.operated(environment, |of_it| {
            let all = of_it.decisions.overrides.iter();
            all.filter(|forced| !of_it.is_over(forced))
                .cloned()
                .collect()
        })
    }

    /// The overrides that have ended by themselves and still stand among the decisions.
    pub(super) fn ended(&self, environment: &Arc<str>) -> Vec<Override> {
        self.operated(environment, |of_it| {
            let all = of_it.decisions.overrides.iter();
            all.filter(|forced| of_it.is_over(forced))
                .cloned()
                .collect()
        })
    }

    /// What is to be served; `None`: there is nothing yet.
    pub(in super::super) fn plan(
        &self,
        environment: &Arc<str>,
        served: Option<&Arc<Snapshot>>,
    ) -> Option<Plan> {
        let overrides = self.overrides(environment);
        let keys = self.encryption_keys(environment);
        self.operated(environment, |of_it| {
            let (base, pinned_from) = match (&of_it.decisions.pin, &of_it.pinned) {
                (Some(pin), Some(pinned)) => (Some(Arc::clone(pinned)), Some(pin.revision)),
                // What is served stays until the pinned content is found, and is not taken for it.
                (Some(_), None) => match served {
                    Some(served) => (Some(served.content()), served.meta.pinned_from),
                    None => (of_it.live.clone(), None),
                },
                (None, _) => (of_it.live.clone(), None),
            };
            Some(Plan {
                base: base?,
                live: of_it.live.clone(),
                overrides,
                is_pinned: of_it.decisions.pin.is_some(),
                pinned_from,
                keys,
            })
        })
    }

    fn encryption_keys(&self, environment: &str) -> BTreeMap<String, EncryptionKey> {
        let mut keys = BTreeMap::new();
        let mut sources = self.of_environment(environment);
        // As with documents: of two sources with the same client key the same one wins.
        sources.sort_by(|(a, _), (b, _)| {
            b.precedence
                .cmp(&a.precedence)
                .then_with(|| a.id.cmp(&b.id))
        });
        for (_, accepted) in sources {
            let connections = accepted.map(|accepted| accepted.connections);
            for connection in connections.iter().flat_map(|list| list.iter()) {
                let text = connection.decryption_key.as_ref();
                if let Some(key) = text.and_then(|text| encryption_key(text.expose_secret())) {
                    keys.entry(connection.key.clone()).or_insert(key);
                }
            }
        }
        keys
    }

    /// Notes a pin and its content, or that there is none any more.
    pub(super) fn set_pin(&self, environment: &Arc<str>, pin: Option<(Pin, Arc<Candidate>)>) {
        self.operated(environment, |of_it| {
            let (pin, content) = pin.unzip();
            (of_it.decisions.pin, of_it.pinned) = (pin, content);
            (of_it.lost, of_it.sought_at) = (None, None);
            (of_it.skipped, of_it.is_due) = (0, true);
        });
    }

    /// How an environment's pin is doing; `None`: it is not pinned.
    pub(in super::super) fn pin_status(&self, environment: &Arc<str>) -> Option<PinStatus> {
        self.operated(environment, |of_it| {
            let pin = of_it.decisions.pin.clone()?;
            let hash = |content: &Option<Arc<Candidate>>| content.as_ref().map(|c| c.hash.clone());
            Some(PinStatus {
                pin,
                skipped: of_it.skipped,
                differs: hash(&of_it.live) != hash(&of_it.pinned),
                lost: of_it.lost.clone(),
                live: of_it.live.clone(),
                content: of_it.pinned.clone(),
            })
        })
    }

    /// Says of each environment what operators decided.
    pub(in super::super) fn add_decisions(&self, status: &mut BTreeMap<String, FunnelEnvironment>) {
        for (name, shown) in status {
            let name = name.as_str().into();
            shown.overrides = self.overrides(&name).len();
            shown.pinned = self.pin_status(&name);
        }
    }

    /// Environments of which something has to be looked at: an override has just ended, a decision came from elsewhere, or
    /// what is served may not be what it should be. `news` is what the board says.
    pub(in super::super) fn due(&self, news: impl Fn(&str) -> u64) -> Vec<Arc<str>> {
        let operated = self.operated.lock();
        let is_due = |(name, of_it): &(&Arc<str>, &Environment)| {
            let mut overrides = of_it.decisions.overrides.iter();
            of_it.is_due
                || of_it.is_pin_sought()
                || of_it.is_loaded && news(name) != of_it.seen
                || overrides.any(|forced| of_it.is_over(forced))
        };
        let due = operated.iter().filter(is_due);
        due.map(|(name, _)| Arc::clone(name)).collect()
    }
}
