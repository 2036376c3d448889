//! Where a revision came from: who or what caused it, of which inputs it was made, what was wrong with them.

use std::borrow::Cow;

use super::{Issue, Severity};

/// What made a revision, and who wanted it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cause {
    /// `poll growthbook-prod`, `start`, `pin`.
    pub what: String,
    /// Name of the operator's token; `None`: nobody in particular.
    pub by: Option<String>,
    /// The operator's words.
    pub reason: Option<String>,
}

impl Cause {
    /// Something that happened by itself.
    pub fn of(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ..Self::default()
        }
    }
}

/// Which input of a source something was made of.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SourceVersion {
    /// Hash of the input.
    pub digest: String,
    /// When it was accepted, as Unix milliseconds.
    pub accepted_at_ms: i64,
}

/// The issues of a revision: how many there were, and the first of them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct IssueSummary {
    /// Items that are not served as upstream has them.
    pub errors: usize,
    /// Items that are served, and were probably meant otherwise.
    pub warnings: usize,
    /// The first [`IssueSummary::KEPT_MAX`], errors before warnings.
    pub first: Vec<KeptIssue>,
}

/// An issue as it is kept with a revision: other releases may know other codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptIssue {
    /// See [`Issue::severity`].
    pub severity: Severity,
    /// See [`Issue::code`].
    pub code: Cow<'static, str>,
    /// See [`Issue::source`].
    pub source: String,
    /// See [`Issue::path`].
    pub path: String,
    /// See [`Issue::message`].
    pub message: String,
}

impl IssueSummary {
    /// Issues kept whole with a revision; some kilobytes in thousands.
    pub const KEPT_MAX: usize = 100;

    /// Counts the issues and keeps the first.
    pub fn of(issues: &[Issue]) -> Self {
        let of = |severity| move |issue: &&Issue| issue.severity == severity;
        let errors = issues.iter().filter(of(Severity::Error));
        let warnings = issues.iter().filter(of(Severity::Warning));
        Self {
            errors: errors.clone().count(),
            warnings: warnings.clone().count(),
            first: errors
                .chain(warnings)
                .take(Self::KEPT_MAX)
                .map(KeptIssue::from)
                .collect(),
        }
    }
}

impl From<&Issue> for KeptIssue {
    fn from(issue: &Issue) -> Self {
        Self {
            severity: issue.severity,
            code: issue.code.into(),
            source: issue.source.clone(),
            path: issue.path.clone(),
            message: issue.message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_kept_before_warnings_and_all_are_counted() {
        let mut issues: Vec<Issue> = (0..150)
            .map(|number| Issue::warning("odd_weights", "gb", format!("features.f{number}"), "odd"))
            .collect();
        issues.push(Issue::error("quarantined", "gb", "features.bad", "is bad"));
        let summary = IssueSummary::of(&issues);
        assert_eq!((summary.errors, summary.warnings), (1, 150));
        assert_eq!(summary.first.len(), IssueSummary::KEPT_MAX);
        assert_eq!(summary.first[0].path, "features.bad");
        assert_eq!(summary.first[1].path, "features.f0");
    }
}
