//! What is known about a revision, as it stands in the header of a packed one.
//!
//! Members that an older release did not write are optional: what it packed must still be read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{IssueSummary, KeptIssue, Severity, SnapshotMeta, SourceVersion};

#[derive(Serialize, Deserialize)]
pub(super) struct Meta {
    sources: Vec<String>,
    features: usize,
    experiments: usize,
    cause: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned_from: Option<u64>,
    /// Digest of a source's input and when that was accepted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    versions: BTreeMap<String, (String, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issues: Option<Issues>,
}

#[derive(Serialize, Deserialize)]
struct Issues {
    errors: usize,
    warnings: usize,
    first: Vec<IssueLine>,
}

#[derive(Serialize, Deserialize)]
struct IssueLine {
    is_error: bool,
    code: String,
    source: String,
    path: String,
    message: String,
}

impl From<&SnapshotMeta> for Meta {
    fn from(meta: &SnapshotMeta) -> Self {
        let meta = meta.clone();
        Self {
            sources: meta.sources,
            features: meta.features,
            experiments: meta.experiments,
            cause: meta.cause,
            author: meta.author,
            reason: meta.reason,
            pinned_from: meta.pinned_from,
            versions: meta
                .versions
                .into_iter()
                .map(|(id, version)| (id, (version.digest, version.accepted_at_ms)))
                .collect(),
            issues: meta.issues.map(Issues::from),
        }
    }
}

impl From<IssueSummary> for Issues {
    fn from(summary: IssueSummary) -> Self {
        let line = |issue: KeptIssue| IssueLine {
            is_error: issue.severity == Severity::Error,
            code: issue.code.into_owned(),
            source: issue.source,
            path: issue.path,
            message: issue.message,
        };
        Self {
            errors: summary.errors,
            warnings: summary.warnings,
            first: summary.first.into_iter().map(line).collect(),
        }
    }
}

impl From<Issues> for IssueSummary {
    fn from(issues: Issues) -> Self {
        let issue = |line: IssueLine| KeptIssue {
            severity: if line.is_error {
                Severity::Error
            } else {
                Severity::Warning
            },
            code: line.code.into(),
            source: line.source,
            path: line.path,
            message: line.message,
        };
        Self {
            errors: issues.errors,
            warnings: issues.warnings,
            first: issues.first.into_iter().map(issue).collect(),
        }
    }
}

impl From<Meta> for SnapshotMeta {
    fn from(meta: Meta) -> Self {
        Self {
            sources: meta.sources,
            features: meta.features,
            experiments: meta.experiments,
            cause: meta.cause,
            author: meta.author,
            reason: meta.reason,
            pinned_from: meta.pinned_from,
            versions: meta
                .versions
                .into_iter()
                .map(|(id, (digest, accepted_at_ms))| {
                    let version = SourceVersion {
                        digest,
                        accepted_at_ms,
                    };
                    (id, version)
                })
                .collect(),
            issues: meta.issues.map(IssueSummary::from),
        }
    }
}
