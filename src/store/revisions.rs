//! The history in SQL: one row per revision of an environment.

use bytes::Bytes;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, DatabaseConnection, DbErr, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, SqlErr,
};

use super::{
    Database, RevisionInfo, RevisionRow, StoreError,
    database::{fit, from_column, to_column},
    entity::revisions,
};
use crate::model::SnapshotMeta;

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

impl Database {
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

    /// One revision.
    pub async fn revision(
        &self,
        environment: &str,
        revision: u64,
    ) -> Result<Option<RevisionRow>, StoreError> {
        let environment = environment.to_owned();
        self.run(0, move |db| async move {
            let row = revisions::Entity::find()
                .filter(revisions::Column::Environment.eq(environment))
                .filter(revisions::Column::Revision.eq(to_column(revision)));
            Ok(row.one(&db).await?.map(RevisionRow::from))
        })
        .await
    }

    /// Up to `limit` revisions without their bytes, newest first, only those below `before` where it is given.
    pub async fn list_revisions(
        &self,
        environment: &str,
        limit: u64,
        before: Option<u64>,
    ) -> Result<Vec<RevisionInfo>, StoreError> {
        let environment = environment.to_owned();
        self.run(0, move |db| async move {
            let mut page = revisions::Entity::find()
                .select_only()
                .columns(Listed::COLUMNS)
                .filter(revisions::Column::Environment.eq(environment))
                .order_by_desc(revisions::Column::Revision)
                .limit(limit);
            if let Some(before) = before {
                page = page.filter(revisions::Column::Revision.lt(to_column(before)));
            }
            let rows = page.into_model::<Listed>().all(&db).await?;
            Ok(rows.into_iter().map(RevisionInfo::from).collect())
        })
        .await
    }

    /// The lowest and the highest number in the history; `None`: it is empty.
    pub async fn revision_range(
        &self,
        environment: &str,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let environment = environment.to_owned();
        self.run(0, move |db| async move {
            let range: Option<(Option<i64>, Option<i64>)> = revisions::Entity::find()
                .select_only()
                .column_as(revisions::Column::Revision.min(), "lowest")
                .column_as(revisions::Column::Revision.max(), "highest")
                .filter(revisions::Column::Environment.eq(environment))
                .into_tuple()
                .one(&db)
                .await?;
            Ok(match range {
                Some((Some(lowest), Some(highest))) => {
                    Some((from_column(lowest), from_column(highest)))
                }
                _ => None,
            })
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
}

pub(super) fn is_duplicate(error: &DbErr) -> bool {
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

/// A row without its bytes.
#[derive(FromQueryResult)]
struct Listed {
    revision: i64,
    hash: String,
    cause: String,
    features: i64,
    experiments: i64,
    size_bytes: i64,
    published_at_ms: i64,
}

impl Listed {
    const COLUMNS: [revisions::Column; 7] = [
        revisions::Column::Revision,
        revisions::Column::Hash,
        revisions::Column::Cause,
        revisions::Column::Features,
        revisions::Column::Experiments,
        revisions::Column::SizeBytes,
        revisions::Column::PublishedAtMs,
    ];
}

impl From<Listed> for RevisionInfo {
    fn from(row: Listed) -> Self {
        Self {
            revision: from_column(row.revision),
            hash: row.hash,
            published_at_ms: row.published_at_ms,
            size_bytes: from_column(row.size_bytes),
            meta: SnapshotMeta {
                features: count(row.features),
                experiments: count(row.experiments),
                cause: row.cause,
                ..SnapshotMeta::default()
            },
        }
    }
}

fn count(column: i64) -> usize {
    usize::try_from(column).unwrap_or_default()
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
