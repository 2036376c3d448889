//! What others are told of a revision: the paths whose bytes differ from those of the revision before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::{format_description::BorrowedFormatItem, macros::format_description};

use crate::{
    model::{
        Snapshot,
        snapshot::{SNAPSHOT_DOCUMENT, hex},
    },
    notify::Message,
};

/// RFC 3339 in UTC with milliseconds, as everywhere in our answers.
const RFC3339: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Every path that a document of an environment is answered under; the environment may be the default one.
pub type PathsOf = fn(document: &str, environment: &str, is_default: bool) -> Vec<String>;

/// The entity tags of a revision's documents.
pub(super) struct Seen {
    pub(super) revision: u64,
    tags: BTreeMap<Arc<str>, String>,
}

impl Seen {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let documents = snapshot.documents.iter();
        Self {
            revision: snapshot.revision,
            tags: documents
                .map(|(name, document)| (Arc::clone(name), document.tag.clone()))
                .collect(),
        }
    }

    /// Names of the documents that came, went, or have other bytes; without an earlier revision all of them.
    pub(super) fn changed_since(&self, earlier: Option<&Self>) -> BTreeSet<Arc<str>> {
        let Some(earlier) = earlier else {
            return self.tags.keys().cloned().collect();
        };
        let names = self.tags.keys().chain(earlier.tags.keys());
        names
            .filter(|name| self.tags.get(*name) != earlier.tags.get(*name))
            .cloned()
            .collect()
    }
}

/// The webhook of a revision.
///
/// Its id is the same on every replica that publishes the revision, so that receivers can leave repetitions out.
pub(super) fn message(snapshot: &Snapshot, changed: &[String]) -> Message {
    let (environment, revision) = (&*snapshot.environment, snapshot.revision);
    let etag = snapshot
        .document(SNAPSHOT_DOCUMENT)
        .map(|document| format!("\"{}\"", document.tag));
    let body = json!({
        "type": "revision.published",
        "timestamp": snapshot.published_at.to_utc().format(RFC3339).ok(),
        "data": {
            "environment": environment,
            "revision": revision,
            "etag": etag,
            "hash": snapshot.hash,
            "cause": snapshot.meta.cause,
            "changed": changed,
        },
    });
    let named = format!("{environment} {revision} {}", snapshot.hash);
    let mut id = hex(&Sha256::digest(named));
    id.truncate(32);
    Message {
        id: format!("msg_{id}"),
        body: body.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::model::{Candidate, Document, Evaluators, SnapshotMeta};

    fn snapshot(revision: u64, documents: &[(&str, &'static str)]) -> Snapshot {
        let at = datetime!(2026-11-21 12:00:00 UTC);
        let document = |(name, body): &(&str, &'static str)| {
            Arc::new(Document::new(*name, (*body).into(), at, Vec::new()))
        };
        let candidate = Candidate {
            environment: "e".into(),
            hash: "ab".to_owned(),
            snapshot_tail: "\"features\":{}}".into(),
            documents: documents.iter().map(document).collect(),
            meta: SnapshotMeta {
                cause: "poll gb".to_owned(),
                ..SnapshotMeta::default()
            },
            created_at: at,
            evaluators: Evaluators::default(),
            base: None,
        };
        candidate.at_revision(revision)
    }

    #[test]
    fn only_documents_with_other_bytes_have_changed() {
        let before = Seen::of(&snapshot(
            1,
            &[("varnish", "{}"), ("a", "1"), ("gone", "x")],
        ));
        let after = Seen::of(&snapshot(2, &[("varnish", "{}"), ("a", "2"), ("new", "x")]));
        let names = |changed: BTreeSet<Arc<str>>| changed.into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(
            names(after.changed_since(Some(&before))),
            "a gone new snapshot"
        );
        assert_eq!(names(after.changed_since(Some(&after))), "");
        assert_eq!(names(after.changed_since(None)), "a new snapshot varnish");
    }

    #[test]
    fn a_webhook_says_what_was_published() {
        let snapshot = snapshot(7, &[]);
        let message = message(&snapshot, &["/v1/snapshot/e".to_owned()]);
        let tag = &snapshot.documents[SNAPSHOT_DOCUMENT].tag;
        let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
        assert_eq!(
            body,
            json!({
                "type": "revision.published",
                "timestamp": "2026-11-21T12:00:00.000Z",
                "data": {
                    "environment": "e", "revision": 7, "etag": format!("\"{tag}\""), "hash": "ab",
                    "cause": "poll gb", "changed": ["/v1/snapshot/e"],
                },
            })
        );
        assert_eq!(message.id.len(), 36);
        assert_eq!(
            message,
            super::message(&snapshot, &["/v1/snapshot/e".to_owned()])
        );
    }
}
