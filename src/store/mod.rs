//! What stitchd keeps: revisions, inputs, states and the audit, in an SQL database and in a backup on disk.
//!
//! The two halves know nothing of each other. [`Database`] is shared by replicas and allots revision numbers by refusing
//! duplicates; [`Backup`] is this process's own and alone reproduces every route's bytes. [`Store::load`] merges them at a
//! start. In which order a revision is written, and what is retried, is the `StoreActor`'s business.
//!
//! Everything runs on threads of the store's own ([`StoreRuntime`]): no caller's death or stall touches a connection, and a
//! write that was begun is finished. Bytes at rest are described in [`packed`].

mod audit_file;
mod backup;
mod connection;
mod database;
mod entity;
mod environment_states;
mod error;
mod folder;
mod generations;
mod load;
pub mod packed;
mod records;
mod registers;
mod revisions;
mod runtime;
mod sticky;
mod tokens;

use std::sync::Arc;

use bytes::Bytes;

pub use backup::{Backup, Found, FoundSnapshot, Generation};
pub use database::Database;
pub use environment_states::EnvironmentState;
pub use error::{Outage, StoreError};
pub use load::{Loaded, LoadedEnvironment, LoadedInput, LoadedRegisters, LoadedState, Side};
pub use migration::State as MigrationState;
pub use records::{
    AuditEntry, AuditFilter, PackedInput, RevisionInfo, RevisionRow, StoredInput, StoredRevision,
    StoredState,
};
pub use registers::{PIN, Register, Registers};
pub use revisions::Inserted;
pub use runtime::StoreRuntime;
pub use sticky::{KeyedDocument, StickyError, StickyStore};
pub use tokens::{StoredToken, TOKENS_PER_WRITE, TokenBackup, TokenPage};

use crate::{
    model::{Candidate, Snapshot},
    settings,
};

/// Both halves of the store; clones share them.
#[derive(Clone, Debug)]
pub struct Store {
    runtime: StoreRuntime,
    database: Database,
    backup: Backup,
}

impl Store {
    /// Starts the store's threads; touches neither database nor disk yet.
    pub fn new(
        database: &settings::Database,
        backup: &settings::Backup,
    ) -> Result<Self, StoreError> {
        let runtime = StoreRuntime::new()?;
        Ok(Self {
            database: Database::new(database, runtime.clone())?,
            backup: Backup::new(backup, runtime.clone()),
            runtime,
        })
    }

    /// Where sticky buckets are kept, if the settings say so; touches nothing yet.
    pub fn sticky_buckets(
        &self,
        settings: &settings::StickyBuckets,
    ) -> Result<Option<StickyStore>, StickyError> {
        StickyStore::new(settings, &self.database, &self.runtime)
    }

    /// The SQL half.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The disk half.
    pub fn backup(&self) -> &Backup {
        &self.backup
    }

    /// Packs a candidate on the store's threads, for both halves at once.
    pub async fn pack_candidate(&self, candidate: Arc<Candidate>) -> Result<Bytes, StoreError> {
        let pack = move || Ok(packed::pack_candidate(&candidate));
        self.runtime.run_blocking(pack).await
    }

    /// Unpacks a revision on the store's threads, under its number.
    pub async fn unpack_revision(&self, row: RevisionRow) -> Result<Snapshot, StoreError> {
        let unpack = move || {
            let stored = StoredRevision::unpack(&row)?;
            Ok(stored.candidate.at_revision(stored.revision))
        };
        self.runtime.run_blocking(unpack).await
    }

    /// Packs an input on the store's threads, for both halves at once.
    pub async fn pack_input(&self, input: StoredInput) -> Result<PackedInput, StoreError> {
        self.runtime.run_blocking(move || Ok(input.pack())).await
    }

    /// What there is of these environments and of all sources, from whichever half has the newer.
    ///
    /// Quick when the backup has something: the database is then waited for half a second at most. With an empty backup it
    /// takes up to `database.connect_timeout` and a few seconds. Fails only when the store's threads have ended.
    pub async fn load(&self, environments: &[String]) -> Result<Loaded, StoreError> {
        let loading = load::load(
            self.runtime.clone(),
            self.database.clone(),
            self.backup.clone(),
            environments.to_vec(),
        );
        self.runtime.run(async move { Ok(loading.await) }).await
    }

    /// Closes the database in an orderly way; for the end of the process.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.database.close().await
    }
}
