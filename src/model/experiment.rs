//! The neutral model of an experiment: what every consumer format is made from.

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::CanonicalJson;

/// Life-cycle state of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Being prepared; never shown to a consumer.
    Draft,
    /// Collecting exposures.
    Running,
    /// Over; shown for another 24 hours.
    Stopped,
    /// A word this version does not know; treated like a draft.
    Unknown,
}

impl Status {
    /// GrowthBook's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

/// One arm of an experiment, in the order that hashing depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variation {
    /// GrowthBook's id, which a phase's split refers to.
    pub id: String,
    /// Key that SDKs report.
    pub key: String,
    /// Display name; may be empty.
    pub name: String,
}

/// Part of a mutual-exclusion namespace that an experiment occupies.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// GrowthBook's namespace id.
    pub id: String,
    /// Half-open ranges within 0..1.
    pub ranges: Vec<(f64, f64)>,
}

/// A period of an experiment with constant traffic settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Display name.
    pub name: String,
    /// Start, or `None` where upstream sent no date that can be read.
    pub started: Option<OffsetDateTime>,
    /// End, or `None` while it runs.
    pub ended: Option<OffsetDateTime>,
    /// Hash seed.
    pub seed: String,
    /// Share of units that take part, 0..=1.
    pub coverage: f64,
    /// `(variation id, weight)` in upstream's order; weights are finite, their sum is not checked.
    pub split: Vec<(String, f64)>,
    /// Targeting condition as upstream sent it: JSON text, "" when there is none.
    pub targeting_condition: String,
    /// `savedGroupTargeting` as sent (a list), if any.
    pub saved_group_targeting: Option<CanonicalJson>,
    /// `prerequisites` as sent (a list), if any.
    pub prerequisites: Option<CanonicalJson>,
    /// Namespace, where one is enabled.
    pub namespace: Option<Namespace>,
}

/// What consumer formats need beyond the experiment itself, read from dates and custom fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivery {
    /// Start of the last phase.
    pub start: Option<OffsetDateTime>,
    /// Effective end: the phase's end, else the scheduled stop, else the custom field, else start + `max_duration`.
    pub end: Option<OffsetDateTime>,
    /// Host names (lower case) for the edge; empty: not for Varnish.
    pub domains: Vec<String>,
    /// Database names; empty: not for MediaWiki.
    pub wikis: Vec<String>,
    /// `edge-unique` or `mw-user` when it is one that consumers know.
    pub user_identifier_type: String,
    /// Event stream name.
    pub stream_name: String,
    /// Attributes to record with each event.
    pub contextual_attributes: Vec<String>,
    /// Custom field `sample_unit`, where the experiment has it.
    pub sample_unit: Option<String>,
    /// Custom field `schema_id`, where the experiment has it.
    pub schema_id: Option<String>,
    /// `(field, what is wrong)` for values that could not be read; any of them keeps the experiment from consumers.
    pub problems: Vec<(String, String)>,
}

/// An experiment with its last phase in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Upstream's internal id.
    pub id: String,
    /// Key that SDKs and consumers know it by.
    pub tracking_key: String,
    /// Display name; may be empty.
    pub name: String,
    /// Hypothesis; may be empty.
    pub hypothesis: String,
    /// Owner; may be empty.
    pub owner: String,
    /// Project id; empty when none.
    pub project: String,
    /// Life-cycle state.
    pub status: Status,
    /// Archived experiments are never shown.
    pub archived: bool,
    /// Attribute whose value is hashed.
    pub hash_attribute: String,
    /// Second choice of hash attribute.
    pub fallback_attribute: Option<String>,
    /// 1 or 2.
    pub hash_version: u8,
    /// Arms in hashing order.
    pub variations: Vec<Variation>,
    /// Oldest first; the last one is in force. May be empty for drafts.
    pub phases: Vec<Phase>,
    /// Custom fields as sent.
    pub custom_fields: Map<String, Value>,
    /// `statusUpdateSchedule.stopAt`.
    pub scheduled_stop: Option<OffsetDateTime>,
    /// `dateUpdated`, to settle duplicate tracking keys; never part of what is served.
    pub updated: Option<OffsetDateTime>,
    /// What consumer formats need; filled in by `pipeline::adapt`.
    pub delivery: Delivery,
    /// The whole experiment as served in the snapshot: canonical, without volatile members and without `source`.
    pub definition: CanonicalJson,
}

impl Experiment {
    /// The phase in force.
    pub fn current_phase(&self) -> Option<&Phase> {
        self.phases.last()
    }

    /// When it stopped, if it has.
    pub fn stopped_at(&self) -> Option<OffsetDateTime> {
        (self.status == Status::Stopped)
            .then(|| self.current_phase().and_then(|p| p.ended))
            .flatten()
    }
}
