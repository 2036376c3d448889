//! The database schema of stitchd, as migrations that run alike on `SQLite`, PostgreSQL and MariaDB/MySQL.
//!
//! [`up`], [`down`] and [`status`] are the whole interface. Several replicas may call [`up`] at once: the one that gets the
//! lock migrates, the others wait and find nothing left to do. The rule for changing the schema is in `README.md`.

mod columns;
mod lock;
mod m20261120_000001_create_revisions;
mod m20261120_000002_create_source_inputs;
mod m20261120_000003_create_source_states;
mod m20261120_000004_create_audit_entries;
mod m20261121_000011_create_sticky_buckets;
mod m20261122_000012_alter_revisions;
mod m20261122_000013_create_environment_states;
mod m20261130_000014_create_tokens;

use std::collections::BTreeSet;

use sea_orm_migration::{
    prelude::*,
    sea_orm::{DatabaseConnection, DbErr, EntityTrait as _},
    seaql_migrations,
};

/// sea-orm's table of applied migrations.
const BOOKKEEPING: &str = "seaql_migrations";

/// The list of migrations, in the order in which they apply.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261120_000001_create_revisions::Migration),
            Box::new(m20261120_000002_create_source_inputs::Migration),
            Box::new(m20261120_000003_create_source_states::Migration),
            Box::new(m20261120_000004_create_audit_entries::Migration),
            Box::new(m20261121_000011_create_sticky_buckets::Migration),
            Box::new(m20261122_000012_alter_revisions::Migration),
            Box::new(m20261122_000013_create_environment_states::Migration),
            Box::new(m20261130_000014_create_tokens::Migration),
        ]
    }
}

/// Where one migration stands in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Known here, not yet applied.
    Pending,
    /// Known here and applied.
    Applied,
    /// Applied by a newer release, unknown here; harmless by the expand/contract rule.
    Newer,
}

impl State {
    /// The word shown to operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::Newer => "applied by a newer release",
        }
    }
}

/// Applies what is pending, under a lock, and returns the names of the migrations it applied.
///
/// `connection` must be a pool of exactly one connection: the lock belongs to a session.
pub async fn up(connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    if pending(connection).await?.is_empty() {
        return Ok(Vec::new());
    }
    lock::locked(connection, lock::Change::Up).await
}

/// Takes every migration back, under a lock, and returns their names. All data is lost.
///
/// `connection` must be a pool of exactly one connection.
pub async fn down(connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    lock::locked(connection, lock::Change::Down).await
}

/// Every migration with its state, oldest first. Only reads.
pub async fn status(connection: &DatabaseConnection) -> Result<Vec<(String, State)>, DbErr> {
    states(&SchemaManager::new(connection)).await
}

/// Names of the migrations that [`up`] would apply. Only reads.
pub async fn pending(connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let states = status(connection).await?;
    Ok(named(states, State::Pending))
}

/// What sea-orm's own status would say, but without failing where a newer release has migrated: by the expand/contract rule
/// this release runs on that schema, and a replica that restarts in the middle of a rollout must.
async fn states(manager: &SchemaManager<'_>) -> Result<Vec<(String, State)>, DbErr> {
    let mut applied = BTreeSet::new();
    if manager.has_table(BOOKKEEPING).await? {
        let rows = seaql_migrations::Entity::find();
        let rows = rows.all(manager.get_connection()).await?;
        applied.extend(rows.into_iter().map(|row| row.version));
    }
    let mut states: Vec<(String, State)> = Migrator::migrations()
        .iter()
        .map(|migration| {
            let is_applied = applied.remove(migration.name());
            let state = if is_applied {
                State::Applied
            } else {
                State::Pending
            };
            (migration.name().to_owned(), state)
        })
        .collect();
    states.extend(applied.into_iter().map(|name| (name, State::Newer)));
    Ok(states)
}

fn named(states: Vec<(String, State)>, wanted: State) -> Vec<String> {
    let matching = states.into_iter().filter(|(_, state)| *state == wanted);
    matching.map(|(name, _)| name).collect()
}
