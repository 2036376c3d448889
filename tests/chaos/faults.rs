//! Everything that is made to break, by name.

use std::time::Duration;

use bytes::Bytes;
use stitchd::cli::demo::upstream::{CLIENT_KEY, Fault, Shift};

use crate::support::storage::{BackupTrouble, DatabaseTrouble};

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A lie of the upstream's.
    Lie(Lie),
    /// Nobody listens where the upstream was.
    UpstreamDown,
    /// One feature and one experiment that cannot be represented.
    BadItems,
    Database(DatabaseTrouble),
    Backup(BackupTrouble),
    /// A panic at this fail point.
    Panic(String),
    /// The end of the process by this signal, and a start.
    Signal(Signal),
}

/// What the upstream says, and of what.
#[derive(Clone, Debug)]
pub(crate) struct Lie {
    pub(crate) fault: Fault,
    pub(crate) of: Of,
    /// What of the lie may be taken in.
    pub(crate) effect: Effect,
}

/// The parts that are lied about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Everything,
    Payload,
    List,
}

/// What becomes of a part's news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// They are served.
    Live,
    /// Nothing of that part changes by a bit.
    Frozen,
    /// It depends on the moment: they are served, or nothing changes.
    Either,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Term,
    Kill,
}

fn lie(name: &str, fault: Fault, of: Of, effect: Effect) -> Trouble {
    let what = match of {
        Of::Everything => "upstream",
        Of::Payload => "payload",
        Of::List => "list",
    };
    Trouble {
        name: format!("{what}: {name}"),
        kind: Kind::Lie(Lie { fault, of, effect }),
    }
}

fn retry_after(status: u16) -> Fault {
    let value = "1".to_owned();
    Fault::RetryAfter { status, value }
}

fn body(text: &'static str) -> Fault {
    Fault::Body {
        status: 200,
        content_type: "application/json".to_owned(),
        bytes: Bytes::from_static(text.as_bytes()),
    }
}

/// Longer than one request may take, which is a second here.
const TOO_LONG: Duration = Duration::from_millis(1500);

/// `poll.max_body_bytes` here. Some times what is right, and no more: the upstream hashes each body on the readers' threads.
pub(crate) const BODY_MAX: usize = 1_000_000;

/// `elsewhere`: where nobody may be asked.
fn lies_about_everything(elsewhere: &str) -> Vec<Trouble> {
    let slow = Fault::SlowBody {
        bytes_per_tick: 1,
        tick: Duration::from_millis(50),
    };
    let elsewhere = Fault::Redirect(format!("{elsewhere}/api/features/{CLIENT_KEY}"));
    let bad = [
        ("never answers", Fault::Hang),
        ("too late", Fault::Delay(TOO_LONG)),
        ("resets", Fault::Reset),
        ("body trickles", slow),
        ("body half sent", Fault::HalfSent),
        ("400", Fault::Status(400)),
        ("401", Fault::Status(401)),
        ("403", Fault::Status(403)),
        ("404", Fault::Status(404)),
        ("429", retry_after(429)),
        ("500", Fault::Status(500)),
        ("502", Fault::Status(502)),
        ("503", retry_after(503)),
        ("504", Fault::Status(504)),
        ("key revoked", Fault::Unrecoverable),
        ("truncated JSON", Fault::TruncatedJson),
        ("{}", Fault::EmptyObject),
        ("[]", Fault::EmptyArray),
        ("no body", body("")),
        ("null", body("null")),
        ("a web page", Fault::Html),
        ("gzip bomb", Fault::GzipBomb),
        ("too large", Fault::Oversized(BODY_MAX + 100_000)),
        ("redirect", elsewhere),
        ("304 to everybody", Fault::Always304),
    ];
    let mut lies: Vec<Trouble> = bad
        .into_iter()
        .map(|(name, fault)| lie(name, fault, Of::Everything, Effect::Frozen))
        .collect();
    let late = Fault::Delay(Duration::from_millis(200));
    lies.push(lie("late", late, Of::Everything, Effect::Live));
    // Whoever sends it back gets 304 for as long as the lie lasts.
    let tag = Fault::BadEtag("not a tag".to_owned());
    lies.push(lie("bad entity tag", tag, Of::Everything, Effect::Either));
    lies
}

fn lies_about_parts() -> Vec<Trouble> {
    let (frozen, payload, list) = (Effect::Frozen, Of::Payload, Of::List);
    let malformed = body("{\"features\":[]}");
    vec![
        lie("empty", Fault::EmptyFeatures, payload, frozen),
        lie("malformed", malformed, payload, frozen),
        lie("wrong encryption", Fault::WrongEncryption, payload, frozen),
        lie("500", Fault::Status(500), payload, frozen),
        lie("empty", Fault::EmptyList, list, frozen),
        lie("500", Fault::Status(500), list, frozen),
        // Until so many have vanished that a page holds the rest, which is then the truth.
        lie(
            "items vanish",
            Fault::ShiftingList(Shift::Delete),
            list,
            Effect::Either,
        ),
        lie(
            "items appear",
            Fault::ShiftingList(Shift::Insert),
            list,
            frozen,
        ),
    ]
}

fn of_database(backend: &str) -> Vec<Trouble> {
    use DatabaseTrouble::{CutMidWrite, Deleted, Full, Gone, Hanging, Locked, ReadOnly, Slow};
    let kinds = match backend {
        "sqlite" => vec![
            ("read-only", ReadOnly),
            ("locked", Locked),
            ("deleted", Deleted),
            ("full", Full),
        ],
        "mariadb" => vec![
            ("gone", Gone),
            ("hanging", Hanging),
            ("slow", Slow),
            ("cut mid-write", CutMidWrite),
            ("locked", Locked),
        ],
        _ => vec![
            ("gone", Gone),
            ("hanging", Hanging),
            ("slow", Slow),
            ("cut mid-write", CutMidWrite),
            ("read-only", ReadOnly),
            ("locked", Locked),
        ],
    };
    let trouble = |(name, kind)| Trouble {
        name: format!("database: {name}"),
        kind: Kind::Database(kind),
    };
    kinds.into_iter().map(trouble).collect()
}

fn of_backup() -> Vec<Trouble> {
    let kinds = [
        ("unwritable", BackupTrouble::Unwritable),
        ("full", BackupTrouble::Full),
        ("removed", BackupTrouble::Removed),
    ];
    let trouble = |(name, kind)| Trouble {
        name: format!("backup: {name}"),
        kind: Kind::Backup(kind),
    };
    kinds.into_iter().map(trouble).collect()
}

/// Points on the way of a poll and of a publish; every actor dies of its watchdog's ping besides.
const POINTS: &[&str] = &[
    "client.Fetch",
    "client.fetch_future",
    "poller.ForcePoll",
    "poller.timer",
    "poller.fetch_future",
    "poller.ingest_future",
    "config_service.Ingest",
    "config_service.ingest_future",
    "config_service.job_future",
    "config_service.blocking",
    "store.timer",
    "store.Publish",
    "store.publish_future",
    "store.SaveInput",
    "store.save_input_future",
    "store.GetSnapshot",
    "store.flush_future",
    "store.compress",
];

/// Panics of each of these actors, given by name as the status has them.
fn panics(actors: &[String]) -> Vec<Trouble> {
    if cfg!(not(feature = "failpoints")) {
        return Vec::new();
    }
    let pings = actors.iter().map(|actor| format!("{actor}.Ping"));
    let points = POINTS.iter().map(|point| (*point).to_owned());
    let trouble = |point: String| Trouble {
        name: format!("panic: {point}"),
        kind: Kind::Panic(point),
    };
    pings.chain(points).map(trouble).collect()
}

/// Everything that can happen to a service on this backend with these actors.
///
/// `elsewhere` is the address of a server that only redirects lead to.
pub(crate) fn all(backend: &str, actors: &[String], elsewhere: &str) -> Vec<Trouble> {
    let plain = |name: &str, kind| Trouble {
        name: name.to_owned(),
        kind,
    };
    let mut all = lies_about_everything(elsewhere);
    all.extend(lies_about_parts());
    all.push(plain("upstream: down", Kind::UpstreamDown));
    all.push(plain("upstream: bad items", Kind::BadItems));
    all.extend(of_database(backend));
    all.extend(of_backup());
    all.extend(panics(actors));
    all.push(plain("SIGTERM", Kind::Signal(Signal::Term)));
    all.push(plain("SIGKILL", Kind::Signal(Signal::Kill)));
    all
}
