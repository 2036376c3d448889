//! What the store keeps, as the rest of the program sees it.
//!
//! `Debug` shows which record it is, never its content: that may be megabytes, and upstream's.

use std::fmt;

use bytes::Bytes;

use super::{StoreError, packed};
use crate::{
    clock,
    model::{Candidate, Snapshot, SnapshotMeta},
};

/// One revision as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct RevisionRow {
    /// Environment name.
    pub environment: String,
    /// Number within the environment.
    pub revision: u64,
    /// Hex SHA-256 over everything served.
    pub hash: String,
    /// How it came about. The database cuts long texts, and of the issues it has the numbers alone.
    pub meta: SnapshotMeta,
    /// See [`Candidate::size_bytes`].
    pub size_bytes: u64,
    /// When it was made, as Unix milliseconds.
    pub published_at_ms: i64,
    /// The packed candidate ([`packed::pack_candidate`]).
    pub body: Bytes,
}

impl RevisionRow {
    /// The row for a candidate that gets this number; `packed` is what [`packed::pack_candidate`] made of it.
    pub fn new(candidate: &Candidate, revision: u64, packed: Bytes) -> Self {
        Self {
            environment: candidate.environment.to_string(),
            revision,
            hash: candidate.hash.clone(),
            meta: candidate.meta.clone(),
            size_bytes: candidate.size_bytes(),
            published_at_ms: clock::to_ms(candidate.created_at),
            body: packed,
        }
    }
}

impl fmt::Debug for RevisionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevisionRow")
            .field("environment", &self.environment)
            .field("revision", &self.revision)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// What is known about a revision beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionInfo {
    /// Number within the environment.
    pub revision: u64,
    /// Hex SHA-256 over everything served.
    pub hash: String,
    /// When it was made, as Unix milliseconds.
    pub published_at_ms: i64,
    /// See [`Candidate::size_bytes`].
    pub size_bytes: u64,
    /// How it came about.
    pub meta: SnapshotMeta,
}

impl RevisionInfo {
    /// Of a packed revision, from its header alone: what follows is not looked at.
    pub fn of_packed(revision: u64, packed: &[u8]) -> Result<Self, StoreError> {
        let head = packed::read_head(packed)?;
        Ok(Self {
            revision,
            hash: head.hash,
            published_at_ms: clock::to_ms(head.created_at),
            size_bytes: head.size_bytes,
            meta: head.meta,
        })
    }
}

impl From<&RevisionRow> for RevisionInfo {
    fn from(row: &RevisionRow) -> Self {
        Self {
            revision: row.revision,
            hash: row.hash.clone(),
            published_at_ms: row.published_at_ms,
            size_bytes: row.size_bytes,
            meta: row.meta.clone(),
        }
    }
}

impl From<&Snapshot> for RevisionInfo {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            revision: snapshot.revision,
            hash: snapshot.hash.clone(),
            published_at_ms: clock::to_ms(snapshot.published_at),
            size_bytes: snapshot.size_bytes(),
            meta: snapshot.meta.clone(),
        }
    }
}

/// A revision read back, with its packed form for the side that lacks it.
#[derive(Clone)]
pub struct StoredRevision {
    /// Its number.
    pub revision: u64,
    /// Its content; [`Candidate::at_revision`] makes the snapshot of it.
    pub candidate: Candidate,
    /// The same, packed.
    pub packed: Bytes,
}

impl StoredRevision {
    /// Unpacks a row. Takes some tenths of a second for a large one: for a blocking thread.
    pub fn unpack(row: &RevisionRow) -> Result<Self, StoreError> {
        Ok(Self {
            revision: row.revision,
            candidate: packed::unpack_candidate(&row.environment, &row.body)?,
            packed: row.body.clone(),
        })
    }
}

impl fmt::Debug for StoredRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRevision")
            .field("revision", &self.revision)
            .field("hash", &self.candidate.hash)
            .finish_non_exhaustive()
    }
}

/// The last accepted input of a source.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredInput {
    /// Source id.
    pub source: String,
    /// Hash of the input, made by whoever accepted it; at most 64 characters.
    pub digest: String,
    /// When it was accepted, as Unix milliseconds.
    pub accepted_at_ms: i64,
    /// The input itself, opaque here.
    pub body: Bytes,
}

impl StoredInput {
    /// Packs it for both sides. Compresses: not for an actor's thread, see [`super::Store::pack_input`].
    pub fn pack(&self) -> PackedInput {
        PackedInput {
            source: self.source.clone(),
            digest: self.digest.clone(),
            accepted_at_ms: self.accepted_at_ms,
            body: packed::pack_blob(&self.body),
        }
    }
}

impl fmt::Debug for StoredInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredInput")
            .field("source", &self.source)
            .field("digest", &self.digest)
            .field("accepted_at_ms", &self.accepted_at_ms)
            .finish_non_exhaustive()
    }
}

/// An input as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct PackedInput {
    /// Source id.
    pub source: String,
    /// As in [`StoredInput::digest`].
    pub digest: String,
    /// When it was accepted, as Unix milliseconds.
    pub accepted_at_ms: i64,
    /// The packed input ([`packed::pack_blob`]).
    pub body: Bytes,
}

impl PackedInput {
    /// Unpacks it; fails when the bytes are not what was packed.
    pub fn unpack(&self) -> Result<StoredInput, StoreError> {
        Ok(StoredInput {
            source: self.source.clone(),
            digest: self.digest.clone(),
            accepted_at_ms: self.accepted_at_ms,
            body: packed::unpack_blob(&self.body)?,
        })
    }
}

impl fmt::Debug for PackedInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedInput")
            .field("source", &self.source)
            .field("digest", &self.digest)
            .field("accepted_at_ms", &self.accepted_at_ms)
            .finish_non_exhaustive()
    }
}

/// What must outlive the process about a source beside its input.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredState {
    /// Source id.
    pub source: String,
    /// When it was written, as Unix milliseconds.
    pub updated_at_ms: i64,
    /// JSON, opaque here.
    pub body: String,
}

impl fmt::Debug for StoredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredState")
            .field("source", &self.source)
            .field("updated_at_ms", &self.updated_at_ms)
            .finish_non_exhaustive()
    }
}

/// Which entries of the audit are meant; a member that is not there fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Who did it.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// To what.
    pub target: Option<String>,
}

/// One thing that somebody did. Texts longer than their column are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Id of the entry (a UUID): written twice, it is kept once.
    pub uid: String,
    /// When, as Unix milliseconds.
    pub at_ms: i64,
    /// Who: the token's name; at most 128 characters.
    pub actor: String,
    /// With which role; at most 16 characters.
    pub role: String,
    /// What; at most 64 characters.
    pub action: String,
    /// To what; at most 255 characters.
    pub target: String,
    /// Why, as they said.
    pub reason: Option<String>,
    /// How it ended; at most 255 characters.
    pub result: String,
}
