//! Something about the configuration that a person should know.

use std::fmt;

/// How much an issue matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Served as it is; somebody probably meant something else.
    Warning,
    /// The item is not served as upstream has it: quarantined, or withheld from a consumer.
    Error,
}

impl Severity {
    /// The word used in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One problem of one item of one source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issue {
    /// How much it matters.
    pub severity: Severity,
    /// Stable word for machines, for example `unequal_split`.
    pub code: &'static str,
    /// Id of the source the item came from.
    pub source: String,
    /// Where: `features.checkout-v2.rules[1].weights`, `experiments.sticky-header-2026`.
    pub path: String,
    /// What is wrong, lower case, no full stop.
    pub message: String,
}

impl Issue {
    /// A warning: the item is served all the same.
    pub fn warning(
        code: &'static str,
        source: &str,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            code,
            source: source.to_owned(),
            path: path.into(),
            message: message.into(),
        }
    }

    /// An error: the item is not served as upstream has it.
    pub fn error(
        code: &'static str,
        source: &str,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code,
            source: source.to_owned(),
            path: path.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} `{}` ({}, source `{}`): {}",
            self.severity.as_str(),
            self.path,
            self.code,
            self.source,
            self.message
        )
    }
}
