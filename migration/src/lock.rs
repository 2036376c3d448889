//! One migration at a time, however many replicas start at once.
//!
//! PostgreSQL and MariaDB hold a named lock for the session; `SQLite` has its one write transaction. Behind `PgBouncer` in
//! transaction mode session locks do not hold: migrate by `stitchd migrate up` on a direct connection there.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{
        DatabaseConnection, DbBackend, DbErr, SqliteTransactionMode, Statement, TransactionOptions,
        TransactionTrait as _,
    },
};

use crate::{Migrator, State, named, states};

/// How long another replica's migration is waited for.
const LOCK_TIMEOUT_SECS: u32 = 30;

/// Key of PostgreSQL's advisory lock, which belongs to one database: `stitchd` in ASCII.
const POSTGRES_KEY: i64 = 0x0073_7469_7463_6864;

/// Name of MariaDB's lock. Those belong to the whole server, so the database's name is part of it.
const MYSQL_NAME: &str = "CONCAT('stitchd:', MD5(DATABASE()))";

/// Which way to go.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// Apply everything.
    Up,
    /// Take everything back.
    Down,
}

/// Makes the change while nobody else can, and returns the names of the migrations it ran.
pub(crate) async fn locked(
    connection: &DatabaseConnection,
    change: Change,
) -> Result<Vec<String>, DbErr> {
    match connection.get_database_backend() {
        DbBackend::Postgres => {
            let timeout = format!("SET lock_timeout = '{LOCK_TIMEOUT_SECS}s'");
            let lock = format!("SELECT pg_advisory_lock({POSTGRES_KEY})");
            connection.execute_unprepared(&timeout).await?;
            connection.execute_unprepared(&lock).await?;
            let done = change.run(connection).await;
            let unlock = format!("SELECT pg_advisory_unlock({POSTGRES_KEY})");
            connection.execute_unprepared(&unlock).await?;
            done
        }
        DbBackend::MySql => {
            take_mysql_lock(connection).await?;
            let done = change.run(connection).await;
            let unlock = format!("DO RELEASE_LOCK({MYSQL_NAME})");
            connection.execute_unprepared(&unlock).await?;
            done
        }
        _ => {
            // Immediate: a deferred transaction that turns into a writer is refused at once instead of waiting.
            let options = TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            };
            let transaction = connection.begin_with_options(options).await?;
            let done = change.run(&transaction).await?;
            transaction.commit().await?;
            Ok(done)
        }
    }
}

async fn take_mysql_lock(connection: &DatabaseConnection) -> Result<(), DbErr> {
    // NULL, where the server could not even try, counts as not taken.
    let question =
        format!("SELECT CAST(COALESCE(GET_LOCK({MYSQL_NAME}, {LOCK_TIMEOUT_SECS}), 0) AS SIGNED)");
    let question = Statement::from_string(DbBackend::MySql, question);
    let answer = connection.query_one_raw(question).await?;
    let is_taken = match answer {
        Some(row) => row.try_get_by_index::<i64>(0)? == 1,
        None => false,
    };
    if is_taken {
        Ok(())
    } else {
        Err(DbErr::Migration(format!(
            "another process has been migrating for over {LOCK_TIMEOUT_SECS} s"
        )))
    }
}

impl Change {
    /// Looks again at what there is to do: whoever held the lock before may have done it.
    async fn run<'c, C>(self, on: C) -> Result<Vec<String>, DbErr>
    where
        C: IntoSchemaManagerConnection<'c> + Copy,
    {
        let before = states(&SchemaManager::new(on)).await?;
        match self {
            Self::Up => {
                let pending = named(before, State::Pending);
                if !pending.is_empty() {
                    Migrator::up(on, None).await?;
                }
                Ok(pending)
            }
            Self::Down => {
                let mut applied = named(before, State::Applied);
                if !applied.is_empty() {
                    Migrator::down(on, None).await?;
                }
                applied.reverse();
                Ok(applied)
            }
        }
    }
}
