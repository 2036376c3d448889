//! What operators force, whatever the sources say.

use std::sync::Arc;

use super::CanonicalJson;

/// What is done to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forced {
    /// A feature has this value for everybody.
    Value(CanonicalJson),
    /// An experiment takes nobody.
    Off,
}

/// One operator's word over the sources'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Names it for as long as it lasts.
    pub id: String,
    /// Key of the feature, tracking key of the experiment.
    pub key: Arc<str>,
    /// What is done.
    pub forced: Forced,
    /// Why, in the operator's words.
    pub reason: String,
    /// Name of the operator's token.
    pub author: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds from which on it is over, by the clock of when it was set; `None`: until somebody removes it.
    pub expires_at_ms: Option<i64>,
}

impl Override {
    /// `feature` or `experiment`.
    pub fn kind(&self) -> &'static str {
        match self.forced {
            Forced::Value(_) => "feature",
            Forced::Off => "experiment",
        }
    }
}
