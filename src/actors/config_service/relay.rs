//! The documents of the connections of an environment: which there are, and which of them are news.

use std::{collections::BTreeMap, sync::Arc};

use secrecy::ExposeSecret as _;
use time::OffsetDateTime;

use super::funnel::{Intake, Sources, takes_part};
use crate::{
    model::{Candidate, Document, Issue, snapshot::connection_document},
    pipeline::{
        input::PayloadPart,
        relay::{self, Form},
    },
    settings::Connection,
    sources::PartId,
};

/// The documents, sorted by name, and what is wrong with them.
#[derive(Default)]
pub(super) struct Relayed {
    pub(super) documents: Vec<Arc<Document>>,
    pub(super) issues: Vec<Issue>,
}

/// Makes the document of every connection whose source takes part.
///
/// A document that means what the served one means *is* the served one, bytes and date: what an upstream changes
/// without meaning anything never reaches an SDK.
pub(super) fn documents(
    sources: &Sources,
    live: Option<&Candidate>,
    now: OffsetDateTime,
) -> Relayed {
    let mut sources: Vec<_> = sources
        .iter()
        .filter_map(|(source, accepted)| Some((source, accepted.as_ref()?)))
        .filter(|(source, accepted)| takes_part(source, accepted, live))
        .collect();
    // As in stitching: of two sources with the same client key the same one wins.
    sources.sort_by(|(a, _), (b, _)| {
        b.precedence
            .cmp(&a.precedence)
            .then_with(|| a.id.cmp(&b.id))
    });
    let mut made: BTreeMap<Arc<str>, Arc<Document>> = BTreeMap::new();
    let mut issues = Vec::new();
    for (source, accepted) in sources {
        for (key, part) in &accepted.input.payloads {
            let connection = accepted.connections.iter().find(|known| known.key == *key);
            let Some((name, is_remote_eval)) = name(key, connection, live) else {
                continue;
            };
            if made.contains_key(&name) {
                continue;
            }
            let served = live.and_then(|live| live.document(&name));
            let document = if is_remote_eval {
                Some(document(&name, part, Form::Eval, served, now))
            } else {
                let encryption_key = connection
                    .and_then(|connection| connection.decryption_key.as_ref())
                    .and_then(|text| relay::encryption_key(text.expose_secret()));
                let form = Form::Features(encryption_key.as_ref());
                if form.lacks_key(&part.payload) {
                    issues.extend(without_key(&source.id, part, served));
                    served.cloned()
                } else {
                    Some(document(&name, part, form, served, now))
                }
            };
            if let Some(document) = document {
                made.insert(name, document);
            }
        }
    }
    Relayed {
        documents: made.into_values().collect(),
        issues,
    }
}

/// Name of a connection's document, and whether it is for remote evaluation; `None`: not for anybody.
fn name(
    key: &str,
    connection: Option<&Connection>,
    live: Option<&Candidate>,
) -> Option<(Arc<str>, bool)> {
    // A file has no connection and no client key.
    if key.is_empty() {
        return None;
    }
    if let Some(connection) = connection {
        let is_remote_eval = connection.remote_eval;
        return Some((connection_document(key, is_remote_eval), is_remote_eval));
    }
    // After a restart, before the connections are discovered again: what it was.
    [false, true]
        .into_iter()
        .map(|is_remote_eval| (connection_document(key, is_remote_eval), is_remote_eval))
        .find(|(name, _)| live.is_some_and(|live| live.document(name).is_some()))
}

fn document(
    name: &Arc<str>,
    part: &PayloadPart,
    form: Form<'_>,
    served: Option<&Arc<Document>>,
    now: OffsetDateTime,
) -> Arc<Document> {
    let content = relay::content(&part.payload, form);
    let is_same = |served: &&Arc<Document>| served.content.as_ref() == Some(&content);
    served.filter(is_same).map_or_else(
        || {
            let body = relay::render(&part.raw, &part.payload, form);
            let delivered = part.payload.features.keys().map(ToString::to_string);
            let made = Document::new(Arc::clone(name), body, now, delivered.collect());
            let made = made.with_content(Some(content));
            if let Some(served) = served {
                made.compile_like(served);
            }
            Arc::new(made)
        },
        Arc::clone,
    )
}

/// What to say of an encrypted document that cannot be written because its key is not known yet.
fn without_key(source: &str, part: &PayloadPart, served: Option<&Arc<Document>>) -> Option<Issue> {
    let plain = relay::content(&part.payload, Form::Eval);
    let served = served.and_then(|served| served.content.as_deref());
    let is_same = served.is_some_and(|content| content.split('.').next() == Some(&plain));
    let message = "the key of an encrypted connection is not known before its connections are \
                   discovered again; SDKs get its last document until then";
    (!is_same).then(|| Issue::warning("connection_key_unknown", source, "connections", message))
}

/// The connections as this fetch or an earlier one found them.
///
/// A list may tell a wrong encryption key. A new one counts once a payload was opened with it.
pub(super) fn proven(
    known: &Arc<Vec<Connection>>,
    found: Option<&Arc<Vec<Connection>>>,
    intake: &Intake,
) -> Arc<Vec<Connection>> {
    let Some(found) = found else {
        return Arc::clone(known);
    };
    let proven = found.iter().map(|connection| {
        let part = PartId::Payload(connection.key.clone());
        let old = known.iter().find(|old| old.key == connection.key);
        match old.filter(|_| !intake.accepted.contains_key(&part)) {
            Some(old) => Connection {
                decryption_key: old.decryption_key.clone(),
                ..connection.clone()
            },
            None => connection.clone(),
        }
    });
    Arc::new(proven.collect())
}

/// Whether two lists of connections give the same documents.
pub(super) fn is_same(old: &[Connection], new: &[Connection]) -> bool {
    let key_of = |connection: &Connection| {
        let key = connection.decryption_key.as_ref();
        key.map(|key| key.expose_secret().to_owned())
    };
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| {
            old.key == new.key && old.remote_eval == new.remote_eval && key_of(old) == key_of(new)
        })
}
