//! `stitchd migrate`: the database schema.

use std::process::ExitCode;

use clap::Subcommand;

use super::output::line;
use crate::{
    settings::Settings,
    store::{MigrationState, Store, StoreError},
};

/// What to do with the schema.
#[derive(Debug, Subcommand)]
pub enum Direction {
    /// Apply what is pending
    Up,
    /// Take every migration back; all data is lost
    Down,
    /// List migrations; exits 1 when any is pending
    Status,
}

pub(super) fn run(settings: &Settings, direction: &Direction) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = Store::new(&settings.database, &settings.backup)?;
        let code = migrate(&store, direction)
            .await
            .map_err(|error| anyhow::anyhow!(error.explain()))?;
        store
            .close()
            .await
            .map_err(|error| anyhow::anyhow!(error.explain()))?;
        Ok(code)
    })
}

async fn migrate(store: &Store, direction: &Direction) -> Result<ExitCode, StoreError> {
    let database = store.database();
    let done = match direction {
        Direction::Up => ("applied", database.migrate_up().await?),
        Direction::Down => ("took back", database.migrate_down().await?),
        Direction::Status => {
            let migrations = database.migrations().await?;
            for (name, state) in &migrations {
                line(&format!("{name}  {}", state.as_str()));
            }
            let is_pending = migrations
                .iter()
                .any(|(_, state)| *state == MigrationState::Pending);
            return Ok(ExitCode::from(u8::from(is_pending)));
        }
    };
    let (verb, names) = done;
    for name in &names {
        line(&format!("{verb} {name}"));
    }
    if names.is_empty() {
        line("nothing to do");
    }
    Ok(ExitCode::SUCCESS)
}
