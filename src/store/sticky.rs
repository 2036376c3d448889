//! Sticky buckets at rest: one document per unit, in the SQL database or in Redis.
//!
//! Keys and documents are opaque texts here. In Redis they are what GrowthBook Proxy's own store writes and reads: the
//! key `<attribute>||<value>` and the document as JSON, so that both may share a server. The last writer wins; hashing
//! is deterministic, so what a lost write remembered is mostly given again.

use std::{sync::Arc, time::Duration};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, sea_query::OnConflict,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use super::{
    Database, StoreError, StoreRuntime,
    entity::sticky_buckets::{ActiveModel, Column, Entity},
};
use crate::{
    clock,
    model::snapshot::hex,
    settings::{self, StickyEngine},
};

/// Longest time that one command may take, whatever the caller's patience: beyond it the connection counts as lost.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// Why sticky buckets could not be read or written. Holds no URL.
#[derive(Debug, thiserror::Error)]
pub enum StickyError {
    /// The database said so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis said so, or nothing in time.
    #[error("redis failed")]
    Redis(#[source] redis::RedisError),
    /// `sticky_buckets.redis_url` cannot be used at all: stop the start.
    #[error(
        "`sticky_buckets.redis_url` cannot be used; use redis://[user:password@]host[:port][/number]"
    )]
    Url(#[source] redis::RedisError),
}

impl StickyError {
    /// The error with its cause, for a log line.
    pub fn explain(&self) -> String {
        match self {
            Self::Store(error) => error.explain(),
            Self::Redis(error) => format!("redis: {error}"),
            Self::Url(_) => self.to_string(),
        }
    }
}

/// A unit's key and its document.
pub type KeyedDocument = (String, String);

/// Where sticky buckets are kept; clones share it.
#[derive(Clone)]
pub struct StickyStore {
    runtime: StoreRuntime,
    engine: Engine,
    /// Zero: for ever.
    ttl: Duration,
}

#[derive(Clone)]
enum Engine {
    Database(Database),
    Redis(Arc<Redis>),
}

struct Redis {
    client: redis::Client,
    prefix: String,
    manager: OnceCell<ConnectionManager>,
}

impl StickyStore {
    /// Connects to nothing yet; `None` where the settings want no store. Fails on a URL that can never work.
    pub fn new(
        settings: &settings::StickyBuckets,
        database: &Database,
        runtime: &StoreRuntime,
    ) -> Result<Option<Self>, StickyError> {
        let engine = match settings.engine {
            StickyEngine::None => return Ok(None),
            StickyEngine::Database => Engine::Database(database.clone()),
            StickyEngine::Redis => Engine::Redis(Arc::new(Redis {
                client: redis::Client::open(settings.redis_url()).map_err(StickyError::Url)?,
                prefix: settings.key_prefix.clone(),
                manager: OnceCell::new(),
            })),
        };
        Ok(Some(Self {
            runtime: runtime.clone(),
            engine,
            ttl: settings.ttl,
        }))
    }

    /// The documents of these units, in any order; units without one are left out.
    pub async fn read(&self, keys: Vec<String>) -> Result<Vec<String>, StickyError> {
        match &self.engine {
            Engine::Database(database) => {
                let oldest = self.oldest_ms();
                Ok(database.sticky_documents(&keys, oldest).await?)
            }
            Engine::Redis(redis) => {
                let redis = Arc::clone(redis);
                self.on_runtime(async move { redis.read(keys).await }).await
            }
        }
    }

    /// Keeps documents in the place of what these units had.
    pub async fn write(&self, documents: Vec<KeyedDocument>) -> Result<(), StickyError> {
        match &self.engine {
            Engine::Database(database) => Ok(database
                .save_sticky_documents(documents, clock::now_ms())
                .await?),
            Engine::Redis(redis) => {
                let (redis, ttl) = (Arc::clone(redis), self.ttl);
                self.on_runtime(async move { redis.write(documents, ttl).await })
                    .await
            }
        }
    }

    /// Deletes what is older than the settings allow; Redis does that by itself. Gives the number of documents.
    pub async fn expire(&self) -> Result<u64, StickyError> {
        match &self.engine {
            Engine::Database(database) if !self.ttl.is_zero() => {
                Ok(database.expire_sticky_documents(self.oldest_ms()).await?)
            }
            _ => Ok(0),
        }
    }

    /// Unix milliseconds; documents written before are too old.
    fn oldest_ms(&self) -> i64 {
        if self.ttl.is_zero() {
            return i64::MIN;
        }
        let ttl = i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX);
        clock::now_ms().saturating_sub(ttl)
    }

    async fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, redis::RedisError>> + Send + 'static,
    ) -> Result<T, StickyError> {
        let done = self.runtime.run(async move { Ok(work.await) }).await?;
        done.map_err(StickyError::Redis)
    }
}

impl Redis {
    /// The connection, which belongs to the runtime that asks first.
    async fn connection(&self) -> Result<ConnectionManager, redis::RedisError> {
        let connect = || async {
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(COMMAND_TIMEOUT))
                .set_response_timeout(Some(COMMAND_TIMEOUT))
                // Callers try again by themselves, and must not wait for many attempts.
                .set_number_of_retries(1);
            self.client.get_connection_manager_lazy(config)
        };
        self.manager.get_or_try_init(connect).await.cloned()
    }

    async fn read(&self, keys: Vec<String>) -> Result<Vec<String>, redis::RedisError> {
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(format!("{}{key}", self.prefix));
        }
        let mut connection = self.connection().await?;
        let documents: Vec<Option<String>> = command.query_async(&mut connection).await?;
        Ok(documents.into_iter().flatten().collect())
    }

    async fn write(
        &self,
        documents: Vec<KeyedDocument>,
        ttl: Duration,
    ) -> Result<(), redis::RedisError> {
        let mut pipe = redis::pipe();
        for (key, document) in documents {
            let command = pipe.cmd("SET");
            command.arg(format!("{}{key}", self.prefix)).arg(document);
            if !ttl.is_zero() {
                command.arg("EX").arg(ttl.as_secs());
            }
            command.ignore();
        }
        let mut connection = self.connection().await?;
        pipe.query_async(&mut connection).await
    }
}

fn id(key: &str) -> String {
    hex(&Sha256::digest(key.as_bytes()))
}

impl Database {
    async fn sticky_documents(
        &self,
        keys: &[String],
        oldest_ms: i64,
    ) -> Result<Vec<String>, StoreError> {
        let ids: Vec<String> = keys.iter().map(|key| id(key)).collect();
        self.run(0, move |db| async move {
            let rows = Entity::find()
                .filter(Column::Id.is_in(ids))
                .filter(Column::UpdatedAtMs.gte(oldest_ms));
            let rows = rows.all(&db).await?;
            Ok(rows.into_iter().map(|row| row.document).collect())
        })
        .await
    }

    async fn save_sticky_documents(
        &self,
        documents: Vec<KeyedDocument>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        if documents.is_empty() {
            return Ok(());
        }
        let bytes = documents.iter().map(|(_, document)| document.len()).sum();
        let rows = documents.into_iter().map(|(key, document)| ActiveModel {
            id: Set(id(&key)),
            updated_at_ms: Set(now_ms),
            document: Set(document),
        });
        let rows: Vec<ActiveModel> = rows.collect();
        let mut replace = OnConflict::column(Column::Id);
        replace.update_columns([Column::UpdatedAtMs, Column::Document]);
        self.run(bytes, move |db| async move {
            let insert = Entity::insert_many(rows).on_conflict(replace);
            insert.exec_without_returning(&db).await.map(drop)
        })
        .await
    }

    async fn expire_sticky_documents(&self, oldest_ms: i64) -> Result<u64, StoreError> {
        self.run(0, move |db| async move {
            let delete = Entity::delete_many().filter(Column::UpdatedAtMs.lt(oldest_ms));
            Ok(delete.exec(&db).await?.rows_affected)
        })
        .await
    }
}
