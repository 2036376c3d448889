//! What operators force, laid over finished documents.
//!
//! Works on the documents and not on the sources' items, so that the same code serves what was just stitched and what a
//! pin brings back from the history. Of a document only the places change that an override names: members unknown here,
//! the order of keys and the spelling of numbers stay. The content without overrides is kept beside, so that removing
//! one gives the very bytes back that were there before.

mod edit;
mod near;
mod text;

use std::{str, sync::Arc};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use self::{
    edit::Found,
    near::{Names, near},
    text::type_of,
};
use self::{
    edit::{Editor, Locked},
    text::{Edits, member, members},
};
use super::relay::{self, EncryptionKey};
use crate::model::{
    Candidate, Document, Forced, Issue, Override, Snapshot,
    snapshot::{connection_of, hex},
};

/// What issues about overrides name as their source.
const SOURCE: &str = "operator";

/// Overrides, and what laying them over a content needs to know.
pub struct Overlay<'a> {
    /// Those in force, each target once.
    pub overrides: &'a [Override],
    /// The encryption key of a connection by its client key, where it is known.
    pub key_of: &'a dyn Fn(&str) -> Option<EncryptionKey>,
    /// What is served now: documents that come out the same are taken from there.
    pub served: Option<&'a Snapshot>,
    /// Whether that was made of an older state of this content, and not of one that is pinned or no longer is: then a
    /// document that cannot be opened stays as it is served.
    pub is_successor: bool,
    /// When documents that come out differently are said to be made.
    pub now: OffsetDateTime,
}

/// A content with its overrides.
#[derive(Debug)]
pub struct Overlaid {
    /// As in [`Candidate::snapshot_tail`].
    pub snapshot_tail: Bytes,
    /// As in [`Candidate::documents`].
    pub documents: Vec<Arc<Document>>,
    /// Experiments of the snapshot's list that are off.
    pub experiments_off: usize,
    /// What a person should know about it.
    pub issues: Vec<Issue>,
    /// What each override met, in their order.
    pub found: Vec<Found>,
    /// Client keys of the connections whose documents cannot be opened: no override is in them.
    pub locked: Vec<String>,
}

impl Overlay<'_> {
    /// Lays the overrides over a content. Reads all of it: for a blocking thread.
    pub fn apply(&self, base: &Candidate) -> Overlaid {
        let mut editor = Editor::new(self.overrides);
        let (mut issues, mut locked) = (Vec::new(), Vec::new());
        let (snapshot_tail, experiments_off) = self.tail(&base.snapshot_tail, &mut editor);
        editor.take_touched();
        let documents = base.documents.iter();
        let documents = documents
            .map(|document| match connection_of(&document.name) {
                Some((client_key, _)) => self
                    .payload(document, client_key, &mut editor)
                    .unwrap_or_else(|Locked| {
                        issues.push(key_unknown());
                        locked.push(client_key.to_owned());
                        self.unopened(document)
                    }),
                None => self.consumer(document, &mut editor),
            })
            .collect();
        for (forced, found) in self.overrides.iter().zip(&editor.found) {
            if !found.is_there {
                let path = format!("overrides.{}.{}", forced.kind(), forced.key);
                let message = format!(
                    "override `{}` has no target: no such {} is there",
                    forced.id,
                    forced.kind()
                );
                issues.push(Issue::warning(
                    "override_without_target",
                    SOURCE,
                    path,
                    message,
                ));
            }
        }
        Overlaid {
            snapshot_tail,
            documents,
            experiments_off,
            issues,
            found: editor.found,
            locked,
        }
    }

    /// What is served in the place of a document that cannot be opened.
    fn unopened(&self, base: &Arc<Document>) -> Arc<Document> {
        let served = self.served.filter(|_| self.is_successor);
        let served = served.and_then(|served| served.document(&base.name));
        Arc::clone(served.unwrap_or(base))
    }

    fn tail(&self, tail: &Bytes, editor: &mut Editor<'_>) -> (Bytes, usize) {
        let Ok(text) = str::from_utf8(tail) else {
            // It was written by us, as JSON.
            return (tail.clone(), 0);
        };
        let document = format!("{{{text}");
        let (mut edited, removed) = editor.snapshot(&document, listed(self.overrides));
        edited.remove(0);
        edited.shrink_to_fit();
        (edited.into(), removed)
    }

    fn consumer(&self, base: &Arc<Document>, editor: &mut Editor<'_>) -> Arc<Document> {
        let edited = str::from_utf8(&base.body)
            .ok()
            .and_then(|text| editor.consumer(text));
        editor.take_touched();
        let Some(body) = edited.map(Bytes::from) else {
            return Arc::clone(base);
        };
        let is_off = |name: &String| {
            let off = |one: &Override| one.forced == Forced::Off && *one.key == **name;
            self.overrides.iter().any(off)
        };
        let members = base.members.iter().filter(|name| !is_off(name));
        let members: Vec<String> = members.cloned().collect();
        let served = self.served.and_then(|served| served.document(&base.name));
        match served.filter(|served| served.body == body && served.members == members) {
            Some(served) => Arc::clone(served),
            None => Arc::new(Document::new(
                Arc::clone(&base.name),
                body,
                self.now,
                members,
            )),
        }
    }

    fn payload(
        &self,
        base: &Arc<Document>,
        client_key: &str,
        editor: &mut Editor<'_>,
    ) -> Result<Arc<Document>, Locked> {
        let served = self.served.and_then(|served| served.document(&base.name));
        let Ok(text) = str::from_utf8(&base.body) else {
            return Ok(Arc::clone(base));
        };
        let edited = editor.payload(text, (self.key_of)(client_key).as_ref());
        let touched = editor.take_touched();
        let Some(edited) = edited? else {
            return Ok(Arc::clone(base));
        };
        let (content, digest) = self.content(base, &touched);
        if let Some(served) = served.filter(|served| served.content.as_ref() == Some(&content)) {
            return Ok(Arc::clone(served));
        }
        let body = with_date_moved(edited, &digest);
        let members = base.members.clone();
        let made = Document::new(Arc::clone(&base.name), body.into(), self.now, members);
        let made = made.with_content(Some(content));
        made.compile_like(served.unwrap_or(base));
        Ok(Arc::new(made))
    }

    /// What a document with these overrides in it means, see [`Document::content`].
    fn content(&self, base: &Document, touched: &[usize]) -> (String, [u8; 32]) {
        let meaning = base.content.as_deref().unwrap_or(&base.tag);
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        part(meaning);
        let mut touched: Vec<&Override> = touched.iter().map(|at| &self.overrides[*at]).collect();
        touched.sort_unstable_by_key(|forced| rank(forced));
        for forced in touched {
            part(forced.kind());
            part(&forced.key);
            match &forced.forced {
                Forced::Value(value) => part(value.as_str()),
                Forced::Off => part(""),
            }
        }
        let digest: [u8; 32] = hash.finalize().into();
        // What stands behind the dot tells encryption keys apart.
        let suffix = meaning.find('.').map_or("", |dot| &meaning[dot..]);
        (format!("{}{suffix}", hex(&digest)), digest)
    }
}

fn key_unknown() -> Issue {
    let message = "the key of an encrypted connection is not known, or does not open what is pinned or was served last; \
                   SDKs get that document as it is, and overrides do not change it";
    Issue::warning("connection_key_unknown", SOURCE, "overrides", message)
}

fn rank(forced: &Override) -> (&'static str, &str) {
    (forced.kind(), &forced.key)
}

/// SDKs ignore a change under the same date.
fn with_date_moved(document: String, digest: &[u8; 32]) -> String {
    let moved = {
        let mut edits = Edits::new(&document);
        for (name, value) in members(&document) {
            if name == "dateUpdated" {
                edits.replace(value.get(), relay::moved(value, digest).into_owned());
            }
        }
        edits.finish()
    };
    moved.unwrap_or(document)
}

/// The overrides as the snapshot shows them.
fn listed(overrides: &[Override]) -> String {
    let mut sorted: Vec<&Override> = overrides.iter().collect();
    sorted.sort_unstable_by_key(|forced| rank(forced));
    let shown = sorted.into_iter().map(shown);
    Value::Array(shown.map(Value::Object).collect()).to_string()
}

/// One override as JSON: in the snapshot, and wherever operators look at it.
pub fn shown(forced: &Override) -> Map<String, Value> {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
    put("id", json!(forced.id));
    put("kind", json!(forced.kind()));
    put("key", json!(forced.key));
    match &forced.forced {
        Forced::Value(value) => put("value", value.to_value()),
        Forced::Off => put("off", json!(true)),
    };
    put("reason", json!(forced.reason));
    put("author", json!(forced.author));
    put("created_at", json!(moment(forced.created_at_ms)));
    put("expires_at", json!(forced.expires_at_ms.map(moment)));
    members
}

fn moment(ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}

/// Keys of everything that can be overridden in a content, as its snapshot has them.
pub fn names(snapshot_tail: &[u8]) -> Names {
    let mut names = Names::default();
    let Ok(text) = str::from_utf8(snapshot_tail) else {
        return names;
    };
    let document = format!("{{{text}");
    let all = members(&document);
    for (key, feature) in member(&all, "features").map(members).unwrap_or_default() {
        names
            .experiments
            .extend(edit::experiments_of(&key, feature));
        names.features.insert(key.into_owned());
    }
    for (list, key) in [("experiments", "trackingKey"), ("auto_experiments", "key")] {
        let items = member(&all, list).map(text::items).unwrap_or_default();
        let keys = items
            .into_iter()
            .filter_map(|item| text::string(member(&members(item.get()), key)?));
        names.experiments.extend(keys);
    }
    names
}

#[cfg(test)]
mod tests;
