//! The SQL half of the store: inputs, states and the audit here, the history in `revisions`.
//!
//! Every call runs on the store's own threads to its end, whatever becomes of the caller, and answers within seconds: a server
//! that is away or hangs is [`StoreError::Unavailable`], and the next call tries anew. The first call that gets through
//! migrates the schema, if the settings say so.
//!
//! `SQLite` commits with `synchronous = NORMAL` in WAL mode: what was committed survives the process, killed or not; a power
//! cut may take the last commits back. The disk backup, which is fsynced, covers that.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, DatabaseConnection, DbErr, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
    sea_query::OnConflict,
};

use super::{
    AuditEntry, AuditFilter, PackedInput, StoreError, StoreRuntime, StoredState,
    connection::{Connector, Migrate},
    entity::{audit_entries, source_inputs, source_states},
};
use crate::settings;

/// Entries of the audit in one statement.
const AUDIT_ENTRIES_MAX: usize = 50;

/// Characters kept of a reason, which comes from outside.
pub(super) const REASON_CHARS_MAX: usize = 10_000;

/// Most that a statement with entries of the audit can carry, at 4 bytes a character; fits into every usual packet.
const AUDIT_BYTES: usize =
    AUDIT_ENTRIES_MAX * 4 * (36 + 128 + 16 + 64 + 255 + 255 + REASON_CHARS_MAX);

/// The database, connected or not.
#[derive(Clone, Debug)]
pub struct Database {
    runtime: StoreRuntime,
    connector: Arc<Connector>,
}

impl Database {
    /// Connects to nothing yet; fails only on a URL that can never work.
    pub fn new(settings: &settings::Database, runtime: StoreRuntime) -> Result<Self, StoreError> {
        Ok(Self {
            runtime,
            connector: Arc::new(Connector::new(settings)?),
        })
    }

    /// `sqlite`, `postgres` or `mysql`.
    pub fn kind(&self) -> &'static str {
        self.connector.kind()
    }

    /// How often the file of an `SQLite` database was found deleted or replaced, whoever found it: what was written before
    /// is not in the one that is open now. 0 for servers.
    pub fn times_replaced(&self) -> u64 {
        self.connector.times_replaced()
    }

    /// Whether it answers and its schema is up to date.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(0, |db| async move { db.ping().await }).await
    }

    /// Applies pending migrations, whatever `migrate_on_start` says; returns their names.
    pub async fn migrate_up(&self) -> Result<Vec<String>, StoreError> {
        self.migrate(Migrate::Up).await
    }

    /// Takes every migration back, data included; returns their names.
    pub async fn migrate_down(&self) -> Result<Vec<String>, StoreError> {
        self.migrate(Migrate::Down).await
    }

    /// Every migration and its state, oldest first; changes nothing.
    pub async fn migrations(&self) -> Result<Vec<(String, migration::State)>, StoreError> {
        let connector = Arc::clone(&self.connector);
        let work = async move { connector.migrations().await };
        self.runtime.run(work).await
    }

    /// Closes the connections; on `SQLite` this also writes the log back into the database file.
    pub async fn close(&self) -> Result<(), StoreError> {
        let connector = Arc::clone(&self.connector);
        let work = async move { connector.close().await };
        self.runtime.run(work).await
    }

    /// Replaces a source's last accepted input.
    pub async fn upsert_input(&self, input: &PackedInput) -> Result<(), StoreError> {
        let model = source_inputs::ActiveModel {
            source: Set(input.source.clone()),
            digest: Set(input.digest.clone()),
            accepted_at_ms: Set(input.accepted_at_ms),
            body: Set(input.body.to_vec()),
        };
        let mut replace = OnConflict::column(source_inputs::Column::Source);
        replace.update_columns([
            source_inputs::Column::Digest,
            source_inputs::Column::AcceptedAtMs,
            source_inputs::Column::Body,
        ]);
        self.run(input.body.len(), move |db| async move {
            let insert = source_inputs::Entity::insert(model).on_conflict(replace);
            insert.exec_without_returning(&db).await.map(drop)
        })
        .await
    }

    /// The last accepted input of every source, still packed.
    pub async fn load_inputs(&self) -> Result<Vec<PackedInput>, StoreError> {
        self.run(0, |db| async move {
            let rows = source_inputs::Entity::find().all(&db).await?;
            Ok(rows.into_iter().map(PackedInput::from).collect())
        })
        .await
    }

    /// Replaces what is remembered about a source.
    pub async fn upsert_state(&self, state: &StoredState) -> Result<(), StoreError> {
        let model = source_states::ActiveModel {
            source: Set(state.source.clone()),
            updated_at_ms: Set(state.updated_at_ms),
            body: Set(state.body.clone()),
        };
        let mut replace = OnConflict::column(source_states::Column::Source);
        replace.update_columns([
            source_states::Column::UpdatedAtMs,
            source_states::Column::Body,
        ]);
        self.run(state.body.len(), move |db| async move {
            let insert = source_states::Entity::insert(model).on_conflict(replace);
            insert.exec_without_returning(&db).await.map(drop)
        })
        .await
    }

    /// What is remembered about every source.
    pub async fn load_states(&self) -> Result<Vec<StoredState>, StoreError> {
        self.run(0, |db| async move {
            let rows = source_states::Entity::find().all(&db).await?;
            Ok(rows.into_iter().map(StoredState::from).collect())
        })
        .await
    }

    /// Adds entries to the audit, in this order; those already there are left as they are.
    pub async fn append_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        for entries in entries.chunks(AUDIT_ENTRIES_MAX) {
            let models: Vec<_> = entries.iter().map(audit_model).collect();
            let mut keep = OnConflict::column(audit_entries::Column::Uid);
            // MariaDB has no DO NOTHING; setting the id to itself comes to the same.
            keep.do_nothing_on([audit_entries::Column::Id]);
            self.run(AUDIT_BYTES, move |db| async move {
                let insert = audit_entries::Entity::insert_many(models).on_conflict(keep);
                insert.exec_without_returning(&db).await.map(drop)
            })
            .await?;
        }
        Ok(())
    }

    /// Up to `limit` entries of the audit with their row ids, newest first, only those that fit, and before `before_id`
    /// where it is given.
    pub async fn list_audit(
        &self,
        limit: u64,
        before_id: Option<i64>,
        filter: AuditFilter,
    ) -> Result<Vec<(i64, AuditEntry)>, StoreError> {
        self.run(0, move |db| async move {
            let mut page = audit_entries::Entity::find()
                .order_by_desc(audit_entries::Column::Id)
                .limit(limit);
            if let Some(before_id) = before_id {
                page = page.filter(audit_entries::Column::Id.lt(before_id));
            }
            for (column, wanted) in [
                (audit_entries::Column::Actor, filter.actor),
                (audit_entries::Column::Action, filter.action),
                (audit_entries::Column::Target, filter.target),
            ] {
                if let Some(wanted) = wanted {
                    page = page.filter(column.eq(fit(&wanted, 255)));
                }
            }
            let rows = page.all(&db).await?;
            Ok(rows
                .into_iter()
                .map(|row| (row.id, AuditEntry::from(row)))
                .collect())
        })
        .await
    }

    /// How long a call may take to find out that the database is away.
    pub(super) fn patience(&self) -> std::time::Duration {
        self.connector.patience()
    }

    async fn migrate(&self, direction: Migrate) -> Result<Vec<String>, StoreError> {
        let connector = Arc::clone(&self.connector);
        let work = async move { connector.migrate(direction).await };
        self.runtime.run(work).await
    }

    /// Runs statements that carry `bytes`, on the store's threads and within a time limit.
    pub(super) async fn run<T, F>(
        &self,
        bytes: usize,
        work: impl FnOnce(DatabaseConnection) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DbErr>> + Send,
    {
        let connector = Arc::clone(&self.connector);
        let work = async move {
            let connection = connector.ready().await?;
            connector.check_packet(bytes)?;
            let done = connector.limited(bytes, work(connection)).await;
            done.inspect_err(|error| connector.noticed(error))
        };
        self.runtime.run(work).await
    }
}

fn audit_model(entry: &AuditEntry) -> audit_entries::ActiveModel {
    audit_entries::ActiveModel {
        id: NotSet,
        uid: Set(fit(&entry.uid, 36)),
        at_ms: Set(entry.at_ms),
        actor: Set(fit(&entry.actor, 128)),
        role: Set(fit(&entry.role, 16)),
        action: Set(fit(&entry.action, 64)),
        target: Set(fit(&entry.target, 255)),
        reason: Set(entry
            .reason
            .as_ref()
            .map(|reason| fit(reason, REASON_CHARS_MAX))),
        result: Set(fit(&entry.result, 255)),
    }
}

/// Text that every database takes: no longer than its column, and without NUL, which PostgreSQL refuses. A refused entry
/// would be tried again for ever and hold up the ones behind it.
pub(super) fn fit(text: &str, chars_max: usize) -> String {
    let chars = text.chars().take(chars_max);
    chars
        .map(|c| if c == '\0' { '\u{fffd}' } else { c })
        .collect()
}

/// SQL knows signed numbers only; no count of ours comes near the end.
pub(super) fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_column(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

impl From<source_inputs::Model> for PackedInput {
    fn from(row: source_inputs::Model) -> Self {
        Self {
            source: row.source,
            digest: row.digest,
            accepted_at_ms: row.accepted_at_ms,
            body: Bytes::from(row.body),
        }
    }
}

impl From<source_states::Model> for StoredState {
    fn from(row: source_states::Model) -> Self {
        Self {
            source: row.source,
            updated_at_ms: row.updated_at_ms,
            body: row.body,
        }
    }
}

impl From<audit_entries::Model> for AuditEntry {
    fn from(row: audit_entries::Model) -> Self {
        Self {
            uid: row.uid,
            at_ms: row.at_ms,
            actor: row.actor,
            role: row.role,
            action: row.action,
            target: row.target,
            reason: row.reason,
            result: row.result,
        }
    }
}
