//! What all readers together were given, and what must hold of it.
//!
//! * No answer but 200 or 304. A connection may be cut or refused while a process ends that is meant to end, never else.
//! * A revision has one content: the same bytes and tag of a route for every reader, in every life of the service.
//! * The counter, which upstream only raises, never falls from one revision to the next.
//! * What was ever read is not taken back by a restart, unless the log said that it is served without a durable copy, and
//!   nothing has said since that everything is stored.
//!   One more exception, which the log tells too: a start while the backup is in trouble and the database takes longer than half
//!   a second. What it serves then is older until the database answers; numbers and contents are what they were.
//! * A unit has the same variation in every answer: nothing that happens here touches a split.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::Value;

use crate::support::ENVIRONMENT;

/// One process, from its start to its end.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) number: u64,
    /// Where its data plane is.
    pub(crate) data: Arc<str>,
    /// The revision that it must not be behind of.
    pub(crate) floor: u64,
    /// One of [`RUNNING`], [`STOPPING`] and [`KILLED`].
    end: Arc<AtomicU8>,
}

const RUNNING: u8 = 0;
/// New connections may be refused, and streams end.
const STOPPING: u8 = 1;
/// Every connection may break.
const KILLED: u8 = 2;

impl Life {
    pub(crate) fn new(number: u64, data: Arc<str>, floor: u64) -> Self {
        let end = Arc::new(AtomicU8::new(RUNNING));
        Self {
            number,
            data,
            floor,
            end,
        }
    }

    /// To be called before the signal is sent.
    pub(crate) fn ends(&self, is_killed: bool) {
        let end = if is_killed { KILLED } else { STOPPING };
        self.end.store(end, Ordering::SeqCst);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.end.load(Ordering::SeqCst) != RUNNING
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.end.load(Ordering::SeqCst) == KILLED
    }
}

/// What one read brought.
pub(crate) struct Read<'a> {
    pub(crate) path: &'a str,
    pub(crate) revision: u64,
    pub(crate) etag: Option<&'a str>,
    /// `None` after a 304.
    pub(crate) body: Option<&'a [u8]>,
    /// The counter, where the route has it.
    pub(crate) counter: Option<u64>,
}

#[derive(Default)]
struct Revision {
    /// Tag and hash of the bytes by path; either may not have been seen yet.
    routes: HashMap<String, (Option<String>, Option<u64>)>,
    counter: Option<u64>,
}

#[derive(Default)]
struct Inner {
    /// Of the process that runs; notes of an earlier one come too late.
    life: u64,
    revisions: BTreeMap<u64, Revision>,
    /// Up to here every revision is owed, whatever a log says.
    stored_to: u64,
    /// What each follower was told last, by path and number.
    followed: BTreeMap<(String, usize), u64>,
    /// What each unit was given, by the question.
    assigned: HashMap<String, Value>,
    reads: usize,
    events: usize,
    cut: usize,
    given_up: usize,
    failures: Vec<String>,
}

/// Shared by all readers.
#[derive(Default)]
pub(crate) struct Seen(Mutex<Inner>);

/// Sums for the table.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) reads: usize,
    pub(crate) events: usize,
    /// Connections that ended with their process.
    pub(crate) cut: usize,
    pub(crate) revisions: usize,
    /// Read, and taken back by a kill, as the log had said.
    pub(crate) given_up: usize,
}

impl Seen {
    pub(crate) fn note(&self, life: &Life, read: &Read<'_>) {
        let mut inner = self.0.lock();
        inner.reads += 1;
        if life.number == inner.life
            && let Err(failure) = inner.check(life, read)
        {
            inner.fail(format!("{}: {failure}", read.path));
        }
    }

    /// A follower of a stream was told of this.
    pub(crate) fn note_event(&self, path: &str, follower: usize, value: u64) {
        let mut inner = self.0.lock();
        inner.events += 1;
        inner.followed.insert((path.to_owned(), follower), value);
    }

    /// What the followers of a stream were told last.
    pub(crate) fn followed(&self, path: &str) -> Vec<u64> {
        let inner = self.0.lock();
        let of_path = inner.followed.iter().filter(|((of, _), _)| of == path);
        of_path.map(|(_, value)| *value).collect()
    }

    /// A unit was given these assignments.
    pub(crate) fn note_assignments(&self, question: &str, assignments: &Value) {
        let mut inner = self.0.lock();
        let known = inner.assigned.entry(question.to_owned());
        let known = known.or_insert_with(|| assignments.clone()).clone();
        if known != *assignments {
            inner.fail(format!("{question}: {assignments} after {known}"));
        }
    }

    /// The service has said that everything is stored that was served up to here.
    pub(crate) fn stored_to(&self, revision: u64) {
        self.0.lock().stored_to = revision;
    }

    /// A connection ended although nobody ended the process, or an answer was none of those that may be.
    pub(crate) fn fail(&self, failure: String) {
        self.0.lock().fail(failure);
    }

    /// A connection ended: right, if its process was to end.
    pub(crate) fn cut(&self, life: &Life, what: &str) {
        let mut inner = self.0.lock();
        if life.is_ending() {
            inner.cut += 1;
        } else {
            inner.fail(what.to_owned());
        }
    }

    /// A process is gone; what its log gave up may be gone with it. Gives the number and floor of the next one.
    pub(crate) fn begin_life(&self, log: &[String]) -> (u64, u64) {
        let mut inner = self.0.lock();
        let mark = format!(" of {ENVIRONMENT} is served without a durable copy");
        for line in log {
            let before = line.split_once(&mark).map(|(before, _)| before);
            let number = before.and_then(|before| before.rsplit_once("revision ")?.1.parse().ok());
            if let Some(number) = number.filter(|number| *number > inner.stored_to) {
                let gone: Option<Revision> = inner.revisions.remove(&number);
                inner.given_up += usize::from(gone.is_some());
            }
        }
        inner.life += 1;
        (inner.life, inner.highest())
    }

    /// Numbers and snapshot tags from `oldest` on.
    pub(crate) fn tags(&self, path: &str, oldest: u64) -> BTreeMap<u64, String> {
        let inner = self.0.lock();
        let revisions = inner.revisions.range(oldest..);
        revisions
            .filter_map(|(number, revision)| {
                let (tag, _) = revision.routes.get(path)?;
                Some((*number, tag.clone()?))
            })
            .collect()
    }

    pub(crate) fn highest(&self) -> u64 {
        self.0.lock().highest()
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.0.lock().failures.clone()
    }

    pub(crate) fn sums(&self) -> Sums {
        let inner = self.0.lock();
        Sums {
            reads: inner.reads,
            events: inner.events,
            cut: inner.cut,
            revisions: inner.revisions.len(),
            given_up: inner.given_up,
        }
    }
}

impl Inner {
    fn highest(&self) -> u64 {
        self.revisions.keys().next_back().copied().unwrap_or(0)
    }

    fn fail(&mut self, failure: String) {
        // The first ones tell the story.
        if self.failures.len() < 20 {
            self.failures.push(failure);
        }
    }

    fn check(&mut self, life: &Life, read: &Read<'_>) -> Result<(), String> {
        let (number, floor) = (read.revision, life.floor);
        if number < floor {
            return Err(format!("revision {number} after {floor} had been read"));
        }
        let revision = self.revisions.entry(number).or_default();
        let route = revision.routes.entry(read.path.to_owned()).or_default();
        if let Some(tag) = read.etag {
            let known = route.0.get_or_insert_with(|| tag.to_owned());
            if known != tag {
                return Err(format!("revision {number} has the tags {known} and {tag}"));
            }
        }
        if let Some(body) = read.body {
            let mut hasher = DefaultHasher::new();
            body.hash(&mut hasher);
            let hash = hasher.finish();
            if *route.1.get_or_insert(hash) != hash {
                return Err(format!("revision {number} has two contents"));
            }
        }
        let Some(counter) = read.counter else {
            return Ok(());
        };
        revision.counter = Some(counter);
        let counters = |(_, revision): (&u64, &Revision)| revision.counter;
        let before = self.revisions.range(..number).rev().find_map(counters);
        let after = self.revisions.range(number + 1..).find_map(counters);
        if before.is_some_and(|before| before > counter)
            || after.is_some_and(|after| after < counter)
        {
            return Err(format!(
                "the counter is {before:?}, {counter}, {after:?} before, in and after revision {number}"
            ));
        }
        Ok(())
    }
}
