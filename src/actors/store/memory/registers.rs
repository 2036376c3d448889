//! What operators decided about environments, and which copies of it are still to be written.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Half, StoreMemory, TwoCopies};
use crate::{
    clock,
    store::{EnvironmentState, Registers},
};

/// An environment's registers with a copy to be written.
pub(in crate::actors::store) struct UnwrittenRegisters {
    pub(in crate::actors::store) environment: Arc<str>,
    /// With the version of the database's row as last seen.
    pub(in crate::actors::store) state: EnvironmentState,
    pub(in crate::actors::store) in_database: bool,
    pub(in crate::actors::store) in_backup: bool,
}

impl StoreMemory {
    /// Takes in what was read from the store; `true` when there was news in it.
    ///
    /// The flags say of each half whether it holds exactly this; the version counts as the database's if it does.
    pub(in crate::actors::store) fn restore_registers(
        &self,
        environment: &Arc<str>,
        found: EnvironmentState,
        in_database: bool,
        in_backup: bool,
    ) -> bool {
        let mut inner = self.inner.lock();
        let empty = || TwoCopies::unwritten(EnvironmentState::default());
        let known = inner.registers.entry(Arc::clone(environment));
        let known = known.or_insert_with(empty);
        let theirs = found.registers.clone();
        let is_news = known.value.registers.merge(found.registers);
        known.value.version = if in_database {
            // Lower than before, or none, where the database was lost and made anew: a write names what is there.
            found.version
        } else {
            known.value.version.max(found.version)
        };
        let is_same = known.value.registers == theirs;
        known.in_database = is_same && in_database;
        // Nothing was said of the backup where only the database was asked: what is news is not in it.
        known.in_backup = (is_same && in_backup) || (known.in_backup && !is_news);
        is_news
    }

    /// Says values, or takes them back; ends those with these ids.
    pub(in crate::actors::store) fn set_registers(
        &self,
        environment: &Arc<str>,
        changes: &[(String, Option<Value>)],
        ended: &[(String, String)],
    ) {
        let now_ms = clock::now_ms();
        let mut inner = self.inner.lock();
        let empty = || TwoCopies::unwritten(EnvironmentState::default());
        let known = inner.registers.entry(Arc::clone(environment));
        let known = known.or_insert_with(empty);
        for (name, value) in changes {
            known.value.registers.set(name, value.clone(), now_ms);
        }
        for (name, id) in ended {
            known.value.registers.end(name, id);
        }
        (known.in_database, known.in_backup) = (false, false);
    }

    /// What is said of an environment, by name.
    pub fn registers(&self, environment: &str) -> BTreeMap<String, Value> {
        let inner = self.inner.lock();
        let known = inner.registers.get(environment);
        known.map_or_else(BTreeMap::new, |known| known.value.registers.values())
    }

    /// The version of the database's row as last seen; 0: none.
    pub(in crate::actors::store) fn registers_version(&self, environment: &str) -> i64 {
        let inner = self.inner.lock();
        let known = inner.registers.get(environment);
        known.map_or(0, |known| known.value.version)
    }

    pub(in crate::actors::store) fn unwritten_registers(&self) -> Vec<UnwrittenRegisters> {
        let inner = self.inner.lock();
        let unwritten = inner
            .registers
            .iter()
            .filter(|(_, known)| known.missing() > 0);
        unwritten
            .map(|(environment, known)| UnwrittenRegisters {
                environment: Arc::clone(environment),
                state: known.value.clone(),
                in_database: known.in_database,
                in_backup: known.in_backup,
            })
            .collect()
    }

    /// Notes that a half has these registers; `version` is that of the database's row.
    pub(in crate::actors::store) fn registers_written(
        &self,
        environment: &str,
        written: &Registers,
        half: Half,
        version: i64,
    ) {
        let mut inner = self.inner.lock();
        let Some(known) = inner.registers.get_mut(environment) else {
            return;
        };
        known.value.version = known.value.version.max(version);
        if known.value.registers == *written {
            match half {
                Half::Database => known.in_database = true,
                Half::Backup => known.in_backup = true,
            }
        }
    }
}
