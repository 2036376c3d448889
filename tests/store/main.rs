//! The storage layer against real databases and a real disk.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads its own environment and fails by panicking"
)]

#[path = "../support/databases.rs"]
mod databases;

mod backup;
mod database;
mod load;
mod outage;
mod packed;
mod registers;
mod tokens;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use secrecy::SecretString;
use stitchd::{
    model::{Candidate, Document, Evaluators, IssueSummary, SnapshotMeta, SourceVersion},
    settings,
    store::{RevisionRow, Store, StoredInput, StoredState, packed::pack_candidate},
};
use time::macros::datetime;

/// A store on a database and a folder.
fn store(url: &str, dir: &Path) -> Store {
    Store::new(&database_settings(url), &backup_settings(dir)).unwrap()
}

fn database_settings(url: &str) -> settings::Database {
    settings::Database {
        url: Some(SecretString::from(url)),
        ..settings::Database::default()
    }
}

fn backup_settings(dir: &Path) -> settings::Backup {
    settings::Backup {
        dir: dir.to_owned(),
        generations: 3,
    }
}

/// A candidate whose content depends on `text` alone.
fn candidate(text: &str) -> Candidate {
    let created_at = datetime!(2026-11-20 10:00:00.123456789 UTC);
    let members = vec!["blue-button".to_owned()];
    let body = Bytes::from(format!("[\"{text}\"]"));
    let document = Document::new("varnish", body, created_at, members);
    let documents = vec![Arc::new(document)];
    let snapshot_tail = Bytes::from(format!("\"features\":{{\"flag\":\"{text}\"}}}}"));
    Candidate {
        environment: "production".into(),
        hash: Candidate::content_hash(&snapshot_tail, &documents),
        snapshot_tail,
        documents,
        meta: SnapshotMeta {
            sources: vec!["growthbook-prod".to_owned()],
            features: 1,
            experiments: 1,
            cause: "poll growthbook-prod".to_owned(),
            author: Some("alice".to_owned()),
            reason: Some("because €".to_owned()),
            pinned_from: Some(7),
            versions: [("growthbook-prod".to_owned(), version())].into(),
            issues: Some(IssueSummary {
                errors: 1,
                warnings: 2,
                first: Vec::new(),
            }),
        },
        created_at,
        evaluators: Evaluators::default(),
        base: None,
    }
}

fn version() -> SourceVersion {
    SourceVersion {
        digest: "digest-of-growthbook".to_owned(),
        accepted_at_ms: 1_700_000_000_000,
    }
}

fn row(revision: u64, text: &str) -> RevisionRow {
    let candidate = candidate(text);
    RevisionRow::new(&candidate, revision, pack_candidate(&candidate))
}

fn input(source: &str, accepted_at_ms: i64, body: &str) -> StoredInput {
    StoredInput {
        source: source.to_owned(),
        digest: format!("digest-of-{body}"),
        accepted_at_ms,
        body: Bytes::from(body.to_owned()),
    }
}

fn state(source: &str, updated_at_ms: i64, body: &str) -> StoredState {
    StoredState {
        source: source.to_owned(),
        updated_at_ms,
        body: body.to_owned(),
    }
}

/// What a search for a dead database may take, on a busy machine.
const SOON: Duration = Duration::from_millis(1500);
