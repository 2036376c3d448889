//! What a poller is asked, and what it answers.

use std::time::Duration;

use actix::Message;
use bytes::Bytes;

use crate::settings::Connection;

/// Stops everything that an operator did not ask for. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "PollerStatus")]
pub struct Pause {
    /// Who asked.
    pub by: String,
    /// Why, if said.
    pub reason: Option<String>,
}

/// Ends a pause and polls at once. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "PollerStatus")]
pub struct Resume {
    /// Who asked.
    pub by: String,
    /// Why, if said.
    pub reason: Option<String>,
}

/// Polls now, paused or not, and answers with the outcome. Sent by the control plane; may be asked twice.
#[derive(Clone, Message)]
#[rtype(result = "PollReport")]
pub struct ForcePoll;

/// The upstream's event stream said that something changed. Sent by the `ClientActor`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct UpstreamChanged;

/// Takes a payload in that the upstream has pushed. Sent by the data plane, which has checked its signature; may be
/// asked twice.
#[derive(Clone, Message)]
#[rtype(result = "PushReport")]
pub struct TakePush {
    /// The connection it was pushed for.
    pub connection: Connection,
    /// As it was sent.
    pub body: Bytes,
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushReport {
    /// The source is paused.
    IgnoredPaused,
    /// It went through the funnel; the outcome is `Published`, `Unchanged` or `Held`.
    Taken(Outcome),
    /// It is no payload, or cannot be decrypted; why.
    Refused(String),
    /// It could not be looked at; why. The upstream may send it again.
    Failed(String),
}

/// Polls soon, because the upstream says that something changed. Sent by the data plane; may be asked twice.
///
/// The answer is `false` while the source is paused: then nothing happens.
#[derive(Clone, Message)]
#[rtype(result = "bool")]
pub struct PollSoon;

/// Asks how the source is doing. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "PollerStatus")]
pub struct GetPollerStatus;

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new revision is served.
    Published,
    /// What arrived is what is served.
    Unchanged,
    /// What arrived is well-formed and was not taken; the last accepted input stays.
    Held,
    /// Nothing usable arrived.
    Failed,
}

impl Outcome {
    /// The word used in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Unchanged => "unchanged",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }
}

/// What a poll brought.
#[derive(Clone, Debug)]
pub struct PollReport {
    /// How it ended.
    pub outcome: Outcome,
    /// Revision served after it; `None`: still nothing.
    pub revision: Option<u64>,
    /// Why it failed or was held; which parts are missing.
    pub reason: Option<String>,
    /// `payload`, `experiments`, `connections`: what did not arrive or was not taken, sorted.
    pub failed_parts: Vec<&'static str>,
    /// From the first request to the end of the funnel.
    pub duration: Duration,
}

/// Whether a source is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// By schedule.
    Running,
    /// Only on demand, until resumed.
    Paused,
    /// Only on demand, by settings (`poll.enabled = false`).
    Disabled,
}

impl RunState {
    /// The word used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

/// How a source is doing; times are Unix milliseconds.
#[derive(Clone, Debug)]
pub struct PollerStatus {
    /// Whether it is polled.
    pub state: RunState,
    /// Start of the last poll.
    pub last_attempt_ms: Option<i64>,
    /// Last time everything arrived and was taken.
    pub last_success_ms: Option<i64>,
    /// Why the last poll was not a success; `None` when it was.
    pub last_error: Option<String>,
    /// When the next scheduled poll is due.
    pub next_poll_ms: Option<i64>,
    /// Failed polls in a row.
    pub failure_streak: u32,
    /// The upstream refuses us for good until somebody changes a key.
    pub is_permanent: bool,
    /// How the last poll ended.
    pub last_outcome: Option<Outcome>,
    /// Who paused it.
    pub paused_by: Option<String>,
    /// Why it was paused.
    pub pause_reason: Option<String>,
    /// When it was paused.
    pub paused_at_ms: Option<i64>,
}
