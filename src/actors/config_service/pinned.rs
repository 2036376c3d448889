//! What a pinned content lacks: documents of connections that are newer than it, or were of another kind at its time.
//!
//! A connection that is answered goes on being answered. Where the pinned content has its document for the other kind of
//! connection that one is taken, else the newest there is.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{
    Candidate, Document, Issue, Snapshot,
    snapshot::{SNAPSHOT_DOCUMENT, connection_document, connection_of},
};

/// A pinned content with what it lacks, and what to say of that; the content itself is its base. `None`: it lacks nothing.
pub(super) fn completed(
    pinned: &Arc<Candidate>,
    live: Option<&Candidate>,
    served: Option<&Snapshot>,
) -> Option<(Arc<Candidate>, Vec<Issue>)> {
    let known = pinned.documents.iter();
    let mut found = Found {
        documents: known
            .map(|document| (Arc::clone(&document.name), Arc::clone(document)))
            .collect(),
        issues: Vec::new(),
        is_changed: false,
    };
    for newer in live.into_iter().flat_map(|live| &live.documents) {
        found.complete(newer);
    }
    // After a restart live content may lack what was lent before it.
    let lent = served.filter(|served| served.meta.pinned_from.is_some());
    let lent = lent
        .into_iter()
        .flat_map(|served| served.documents.values());
    for lent in lent.filter(|lent| *lent.name != *SNAPSHOT_DOCUMENT) {
        if found.of_other_kind(&lent.name).is_none() {
            found.complete(lent);
        }
    }
    let completed = Candidate {
        documents: found.documents.into_values().collect(),
        base: Some(Arc::clone(pinned)),
        ..(**pinned).clone()
    };
    found
        .is_changed
        .then(|| (Arc::new(completed), found.issues))
}

struct Found {
    /// By name.
    documents: BTreeMap<Arc<str>, Arc<Document>>,
    issues: Vec<Issue>,
    is_changed: bool,
}

impl Found {
    /// Takes a document in whose name is not there.
    fn complete(&mut self, newer: &Arc<Document>) {
        if self.documents.contains_key(&newer.name) {
            return;
        }
        // Both at once would have a start take the connection for the wrong kind.
        let other = self.of_other_kind(&newer.name);
        let other = other.and_then(|name| self.documents.remove(&name));
        let renamed = other.and_then(|other| renamed(&other, newer));
        let document = renamed.unwrap_or_else(|| {
            let path = format!("pin.{}", newer.name);
            let message = "the pinned revision has no such document; its newest is served";
            self.issues.push(Issue::warning(
                "pin_without_document",
                "operator",
                path,
                message,
            ));
            Arc::clone(newer)
        });
        self.documents.insert(Arc::clone(&newer.name), document);
        self.is_changed = true;
    }

    /// The name of the document that the same connection has as one of the other kind.
    fn of_other_kind(&self, name: &str) -> Option<Arc<str>> {
        let (client_key, is_remote_eval) = connection_of(name)?;
        let other = connection_document(client_key, !is_remote_eval);
        self.documents.contains_key(&other).then_some(other)
    }
}

/// A connection's document under the name of `newer`; `None`: for that it would have to be encrypted or opened.
fn renamed(old: &Document, newer: &Document) -> Option<Arc<Document>> {
    // What stands behind a dot tells encryption keys apart.
    let is_plain = |document: &Document| {
        let content = document.content.as_deref();
        content.is_some_and(|content| !content.contains('.'))
    };
    if !is_plain(old) || !is_plain(newer) {
        return None;
    }
    let (name, body) = (Arc::clone(&newer.name), old.body.clone());
    let made = Document::new(name, body, old.last_modified, old.members.clone());
    let made = made.with_content(old.content.clone());
    made.compile_like(newer);
    Some(Arc::new(made))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use time::OffsetDateTime;

    use super::*;
    use crate::model::{Evaluators, SnapshotMeta};

    fn candidate(documents: &[(&str, &'static str, &str)]) -> Arc<Candidate> {
        let documents = documents.iter().map(|(name, body, content)| {
            let body = Bytes::from_static(body.as_bytes());
            let made = Document::new(*name, body, OffsetDateTime::UNIX_EPOCH, Vec::new());
            Arc::new(made.with_content(Some((*content).to_owned())))
        });
        Arc::new(Candidate {
            environment: "production".into(),
            hash: "h".to_owned(),
            snapshot_tail: Bytes::from_static(b"\"features\":{}}"),
            documents: documents.collect(),
            meta: SnapshotMeta {
                pinned_from: Some(1),
                ..SnapshotMeta::default()
            },
            created_at: OffsetDateTime::UNIX_EPOCH,
            evaluators: Evaluators::default(),
            base: None,
        })
    }

    fn shown(completed: &Candidate) -> Vec<(&str, &[u8])> {
        let documents = completed.documents.iter();
        documents
            .map(|document| (&*document.name, &*document.body))
            .collect()
    }

    #[test]
    fn a_connection_that_is_newer_than_the_pin_is_lent_its_newest_document() {
        let pinned = candidate(&[("features/a", "old", "1")]);
        assert!(completed(&pinned, Some(&pinned), None).is_none());
        let live = candidate(&[("eval/b", "new", "2"), ("features/a", "new", "2")]);
        let (made, issues) = completed(&pinned, Some(&live), None).unwrap();
        let wanted: [(&str, &[u8]); 2] = [("eval/b", b"new"), ("features/a", b"old")];
        assert_eq!(shown(&made), wanted);
        assert_eq!(
            (issues[0].code, &*issues[0].path),
            ("pin_without_document", "pin.eval/b")
        );
        assert!(Arc::ptr_eq(made.base.as_ref().unwrap(), &pinned));
        // Until live content has it again, what was lent stays.
        let served = made.at_revision(7);
        let (again, _) = completed(&pinned, Some(&pinned), Some(&served)).unwrap();
        assert_eq!(shown(&again), wanted);
    }

    #[test]
    fn a_connection_of_another_kind_keeps_what_is_pinned_unless_it_is_encrypted() {
        let pinned = candidate(&[
            ("eval/c", "pinned", "1"),
            ("features/a", "pinned", "1"),
            ("features/b", "pinned", "1.k"),
        ]);
        let live = candidate(&[
            ("eval/a", "new", "2"),
            ("eval/b", "new", "2"),
            ("features/c", "new", "2.k"),
        ]);
        let served = pinned.at_revision(7);
        let (made, issues) = completed(&pinned, Some(&live), Some(&served)).unwrap();
        let wanted: [(&str, &[u8]); 3] = [
            ("eval/a", b"pinned"),
            ("eval/b", b"new"),
            ("features/c", b"new"),
        ];
        assert_eq!(shown(&made), wanted, "and no document of the old kind");
        assert_eq!(issues.len(), 2);
    }
}
