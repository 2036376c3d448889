//! The history in SQL: one row per revision of an environment.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, DatabaseConnection, DbErr, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, SqlErr,
};

use super::{
    Database, RevisionInfo, RevisionRow, StoreError,
    database::{REASON_CHARS_MAX, fit, from_column, to_column},
    entity::revisions,
};
use crate::model::{IssueSummary, SnapshotMeta, SourceVersion};

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
        let (meta, issues) = (&row.meta, row.meta.issues.as_ref());
        let reason = meta.reason.as_ref();
        let reason = reason.map(|reason| fit(reason, REASON_CHARS_MAX));
        let sources = sources_column(meta);
        let bytes = row.body.len() + sources.len() + reason.as_ref().map_or(0, String::len);
        let model = revisions::ActiveModel {
            id: NotSet,
            environment: Set(row.environment.clone()),
            revision: Set(revision),
            hash: Set(row.hash.clone()),
            cause: Set(fit(&meta.cause, 255)),
            features: Set(to_column(meta.features as u64)),
            experiments: Set(to_column(meta.experiments as u64)),
            size_bytes: Set(to_column(row.size_bytes)),
            published_at_ms: Set(row.published_at_ms),
            body: Set(row.body.to_vec()),
            author: Set(meta.author.as_ref().map(|author| fit(author, 128))),
            reason: Set(reason),
            pinned_from: Set(meta.pinned_from.map(to_column)),
            errors: Set(issues.map(|issues| to_column(issues.errors as u64))),
            warnings: Set(issues.map(|issues| to_column(issues.warnings as u64))),
            sources: Set(Some(sources)),
        };
        self.run(bytes, move |db| async move {
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

    /// Deletes all but the `keep` newest revisions and those of `protected`, and returns how many went. Never deletes the
    /// newest.
    pub async fn prune_revisions(
        &self,
        environment: &str,
        keep: u64,
        protected: &BTreeSet<u64>,
    ) -> Result<u64, StoreError> {
        let environment = environment.to_owned();
        let protected: Vec<i64> = protected.iter().copied().map(to_column).collect();
        self.run(0, move |db| async move {
            let oldest_kept = nth_highest(&db, &environment, keep.max(1) - 1).await?;
            let Some(oldest_kept) = oldest_kept else {
                return Ok(0);
            };
            let surplus = revisions::Entity::delete_many()
                .filter(revisions::Column::Environment.eq(environment))
                .filter(revisions::Column::Revision.lt(oldest_kept))
                .filter(revisions::Column::Revision.is_not_in(protected));
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
    author: Option<String>,
    reason: Option<String>,
    pinned_from: Option<i64>,
    errors: Option<i64>,
    warnings: Option<i64>,
    sources: Option<String>,
}

impl Listed {
    const COLUMNS: [revisions::Column; 13] = [
        revisions::Column::Revision,
        revisions::Column::Hash,
        revisions::Column::Cause,
        revisions::Column::Features,
        revisions::Column::Experiments,
        revisions::Column::SizeBytes,
        revisions::Column::PublishedAtMs,
        revisions::Column::Author,
        revisions::Column::Reason,
        revisions::Column::PinnedFrom,
        revisions::Column::Errors,
        revisions::Column::Warnings,
        revisions::Column::Sources,
    ];

    fn meta(self) -> SnapshotMeta {
        let (sources, versions) = self
            .sources
            .as_deref()
            .map(read_sources)
            .unwrap_or_default();
        let issues = self.errors.zip(self.warnings);
        SnapshotMeta {
            sources,
            features: count(self.features),
            experiments: count(self.experiments),
            cause: self.cause,
            author: self.author,
            reason: self.reason,
            pinned_from: self.pinned_from.map(from_column),
            versions,
            issues: issues.map(|(errors, warnings)| IssueSummary {
                errors: count(errors),
                warnings: count(warnings),
                first: Vec::new(),
            }),
        }
    }
}

impl From<Listed> for RevisionInfo {
    fn from(row: Listed) -> Self {
        Self {
            revision: from_column(row.revision),
            hash: row.hash.clone(),
            published_at_ms: row.published_at_ms,
            size_bytes: from_column(row.size_bytes),
            meta: row.meta(),
        }
    }
}

impl From<revisions::Model> for RevisionRow {
    fn from(row: revisions::Model) -> Self {
        let listed = Listed {
            revision: row.revision,
            hash: row.hash,
            cause: row.cause,
            features: row.features,
            experiments: row.experiments,
            size_bytes: row.size_bytes,
            published_at_ms: row.published_at_ms,
            author: row.author,
            reason: row.reason,
            pinned_from: row.pinned_from,
            errors: row.errors,
            warnings: row.warnings,
            sources: row.sources,
        };
        let info = RevisionInfo::from(listed);
        Self {
            environment: row.environment,
            revision: info.revision,
            hash: info.hash,
            meta: info.meta,
            size_bytes: info.size_bytes,
            published_at_ms: info.published_at_ms,
            body: Bytes::from(row.body),
        }
    }
}

fn count(column: i64) -> usize {
    usize::try_from(column).unwrap_or_default()
}

/// An input's digest and when it was accepted, as it stands in a column.
type Version = (String, i64);

/// Each source with the version of its input, or null.
fn sources_column(meta: &SnapshotMeta) -> String {
    let version = |id: &String| -> Option<Version> {
        let version = meta.versions.get(id)?;
        Some((version.digest.clone(), version.accepted_at_ms))
    };
    let sources = meta.sources.iter().map(|id| (id, version(id)));
    let sources: Vec<(&String, Option<Version>)> = sources.collect();
    serde_json::to_string(&sources).expect("strings and numbers always serialise")
}

/// What [`sources_column`] wrote; nothing of what cannot be read.
fn read_sources(column: &str) -> (Vec<String>, BTreeMap<String, SourceVersion>) {
    let read: Vec<(String, Option<Version>)> = serde_json::from_str(column).unwrap_or_default();
    let version = |(id, version): &(String, Option<Version>)| {
        let (digest, accepted_at_ms) = version.clone()?;
        let version = SourceVersion {
            digest,
            accepted_at_ms,
        };
        Some((id.clone(), version))
    };
    let versions = read.iter().filter_map(version).collect();
    (read.into_iter().map(|(id, _)| id).collect(), versions)
}
