//! The SQL half of the store: history, inputs, states and the audit.
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
    QueryOrder as _, QuerySelect as _, SqlErr,
    sea_query::OnConflict,
};

use super::{
    AuditEntry, PackedInput, RevisionRow, StoreError, StoreRuntime, StoredState,
    connection::{Connector, Migrate},
    entity::{audit_entries, revisions, source_inputs, source_states},
};
use crate::settings;

/// Entries of the audit in one statement.
const AUDIT_ENTRIES_MAX: usize = 50;

/// Characters kept of a reason, which comes from outside.
const REASON_CHARS_MAX: usize = 10_000;

/// Most that a statement with entries of the audit can carry, at 4 bytes a character; fits into every usual packet.
const AUDIT_BYTES: usize =
    AUDIT_ENTRIES_MAX * 4 * (36 + 128 + 16 + 64 + 255 + 255 + REASON_CHARS_MAX);

/// What became of a revision that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It was written.
    New,
    /// The same content is there under the same number: an earlier attempt got through.
    AlreadyThere,
    /// Other content has this number, and the highest number has this content: another replica was here first.
    Elsewhere {
        /// The highest number in use, to be shared with that replica.
        highest: u64,
    },
    /// Other content has this number, and the highest number has neither.
    Taken {
        /// The highest number in use; the next one is free as far as the database knows.
        highest: u64,
    },
}

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

    /// Keeps a revision under its number, unless that number is taken.
    pub async fn insert_revision(&self, row: &RevisionRow) -> Result<Inserted, StoreError> {
        let environment = row.environment.clone();
        let (revision, hash) = (to_column(row.revision), row.hash.clone());
        let model = revisions::ActiveModel {
            id: NotSet,
            environment: Set(row.environment.clone()),
            revision: Set(revision),
            hash: Set(row.hash.clone()),
            cause: Set(fit(&row.cause, 255)),
            features: Set(to_column(row.features)),
            experiments: Set(to_column(row.experiments)),
            size_bytes: Set(to_column(row.size_bytes)),
            published_at_ms: Set(row.published_at_ms),
            body: Set(row.body.to_vec()),
        };
        self.run(row.body.len(), move |db| async move {
            let insert = revisions::Entity::insert(model).exec_without_returning(&db);
            match insert.await {
                Ok(_) => Ok(Inserted::New),
                Err(error) if is_duplicate(&error) => {
                    who_has(&db, &environment, revision, &hash).await
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The newest revision of an environment.
    pub async fn latest_revision(
        &self,
        environment: &str,
    ) -> Result<Option<RevisionRow>, StoreError> {
        self.revision_up_to(environment, u64::MAX).await
    }

    /// The newest revision whose number is at most `bound`.
    pub async fn revision_up_to(
        &self,
        environment: &str,
        bound: u64,
    ) -> Result<Option<RevisionRow>, StoreError> {
        let environment = environment.to_owned();
        self.run(0, move |db| async move {
            let newest = revisions::Entity::find()
                .filter(revisions::Column::Environment.eq(environment))
                .filter(revisions::Column::Revision.lte(to_column(bound)))
                .order_by_desc(revisions::Column::Revision);
            Ok(newest.one(&db).await?.map(RevisionRow::from))
        })
        .await
    }

    /// The highest number in use.
    pub async fn highest_revision(&self, environment: &str) -> Result<Option<u64>, StoreError> {
        let environment = environment.to_owned();
        self.run(0, move |db| async move {
            let highest = nth_highest(&db, &environment, 0).await?;
            Ok(highest.map(from_column))
        })
        .await
    }

    /// Whether a number is free in the history, and no older than the `keep` newest, which alone are kept.
    pub async fn lacks_revision(
        &self,
        environment: &str,
        revision: u64,
        keep: u64,
    ) -> Result<bool, StoreError> {
        let environment = environment.to_owned();
        self.run(0, move |db| async move {
            let revision = to_column(revision);
            let oldest_kept = nth_highest(&db, &environment, keep.max(1) - 1).await?;
            let is_kept = oldest_kept.is_none_or(|oldest| oldest <= revision);
            Ok(is_kept && hash_of(&db, &environment, revision).await?.is_none())
        })
        .await
    }

    /// Every environment that has a revision, sorted.
    pub async fn environments(&self) -> Result<Vec<String>, StoreError> {
        self.run(0, |db| async move {
            revisions::Entity::find()
                .select_only()
                .column(revisions::Column::Environment)
                .distinct()
                .order_by_asc(revisions::Column::Environment)
                .into_tuple()
                .all(&db)
                .await
        })
        .await
    }

    /// Deletes all but the `keep` newest revisions and returns how many went. Never deletes the newest.
    pub async fn prune_revisions(&self, environment: &str, keep: u64) -> Result<u64, StoreError> {
        let environment = environment.to_owned();
        self.run(0, move |db| async move {
            let oldest_kept = nth_highest(&db, &environment, keep.max(1) - 1).await?;
            let Some(oldest_kept) = oldest_kept else {
                return Ok(0);
            };
            let surplus = revisions::Entity::delete_many()
                .filter(revisions::Column::Environment.eq(environment))
                .filter(revisions::Column::Revision.lt(oldest_kept));
            Ok(surplus.exec(&db).await?.rows_affected)
        })
        .await
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

    /// Up to `limit` entries of the audit with their row ids, newest first, only those before `before_id` where it is given.
    pub async fn list_audit(
        &self,
        limit: u64,
        before_id: Option<i64>,
    ) -> Result<Vec<(i64, AuditEntry)>, StoreError> {
        self.run(0, move |db| async move {
            let mut page = audit_entries::Entity::find()
                .order_by_desc(audit_entries::Column::Id)
                .limit(limit);
            if let Some(before_id) = before_id {
                page = page.filter(audit_entries::Column::Id.lt(before_id));
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

fn is_duplicate(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

async fn who_has(
    db: &DatabaseConnection,
    environment: &str,
    revision: i64,
    hash: &str,
) -> Result<Inserted, DbErr> {
    let holder = hash_of(db, environment, revision).await?;
    if holder.as_deref() == Some(hash) {
        return Ok(Inserted::AlreadyThere);
    }
    let highest: Option<(i64, String)> = revisions::Entity::find()
        .select_only()
        .columns([revisions::Column::Revision, revisions::Column::Hash])
        .filter(revisions::Column::Environment.eq(environment))
        .order_by_desc(revisions::Column::Revision)
        .limit(1)
        .into_tuple()
        .one(db)
        .await?;
    let (highest, holds_ours) = match highest {
        Some((highest, theirs)) => (from_column(highest), theirs == hash),
        None => (from_column(revision), false),
    };
    Ok(if holds_ours {
        Inserted::Elsewhere { highest }
    } else {
        Inserted::Taken { highest }
    })
}

async fn hash_of(
    db: &DatabaseConnection,
    environment: &str,
    revision: i64,
) -> Result<Option<String>, DbErr> {
    revisions::Entity::find()
        .select_only()
        .column(revisions::Column::Hash)
        .filter(revisions::Column::Environment.eq(environment))
        .filter(revisions::Column::Revision.eq(revision))
        .into_tuple()
        .one(db)
        .await
}

async fn nth_highest(
    db: &DatabaseConnection,
    environment: &str,
    skip: u64,
) -> Result<Option<i64>, DbErr> {
    revisions::Entity::find()
        .select_only()
        .column(revisions::Column::Revision)
        .filter(revisions::Column::Environment.eq(environment))
        .order_by_desc(revisions::Column::Revision)
        .offset(skip)
        .limit(1)
        .into_tuple()
        .one(db)
        .await
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
fn fit(text: &str, chars_max: usize) -> String {
    let chars = text.chars().take(chars_max);
    chars
        .map(|c| if c == '\0' { '\u{fffd}' } else { c })
        .collect()
}

/// SQL knows signed numbers only; no count of ours comes near the end.
fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_column(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

impl From<revisions::Model> for RevisionRow {
    fn from(row: revisions::Model) -> Self {
        Self {
            environment: row.environment,
            revision: from_column(row.revision),
            hash: row.hash,
            cause: row.cause,
            features: from_column(row.features),
            experiments: from_column(row.experiments),
            size_bytes: from_column(row.size_bytes),
            published_at_ms: row.published_at_ms,
            body: Bytes::from(row.body),
        }
    }
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
