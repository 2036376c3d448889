//! What operators decided about environments: kept in both halves, shared with the replicas through the database.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{
    ActorFutureExt as _, Context, Handler, Message, MessageResult, ResponseActFuture,
    fut::wrap_future,
};
use futures_util::future::{self, FutureExt as _};
use serde_json::Value;
use tokio::time::timeout;
use tracing::debug;

use super::{
    StoreActor, StoreContext,
    memory::{Half, UnwrittenRegisters},
};
use crate::{
    clock,
    store::{EnvironmentState, StoreError},
};

/// How long a decision waits for its first durable copy before it takes effect without one.
const DURABLE_LIMIT: Duration = Duration::from_millis(250);

/// How often a write is tried when other replicas are faster each time; the next flush goes on.
const ATTEMPTS_MAX: usize = 5;

/// Says values of an environment that operators decide on, or takes them back. Sent by the `ConfigServiceActor`; may be
/// sent twice. Answered when one copy is durable or a moment has passed: whether one is.
#[derive(Clone, Message)]
#[rtype(result = "bool")]
pub struct SaveRegisters {
    /// Which environment.
    pub environment: Arc<str>,
    /// By name; `None` takes it back.
    pub changes: Vec<(String, Option<Value>)>,
    /// Names and ids: takes back a value that has this `id`, and none that replaced it, here or elsewhere.
    pub ended: Vec<(String, String)>,
}

/// Asks for what operators, here or at another replica, decided about an environment. Sent by the `ConfigServiceActor`.
#[derive(Clone, Message)]
#[rtype(result = "BTreeMap<String, Value>")]
pub struct LoadRegisters {
    /// Which environment.
    pub environment: Arc<str>,
}

impl StoreContext {
    /// Says values of an environment, or takes them back; `true` when that is in one of the halves.
    pub(super) async fn set_registers(
        &self,
        environment: &Arc<str>,
        changes: &[(String, Option<Value>)],
        ended: &[(String, String)],
    ) -> bool {
        self.memory.set_registers(environment, changes, ended);
        let unwritten = self.memory.unwritten_registers().into_iter();
        let Some(unwritten) = unwritten
            .into_iter()
            .find(|u| u.environment == *environment)
        else {
            return true;
        };
        let to_backup = async {
            let written = self.registers_to_backup(&unwritten).await;
            written.map_err(|failure| self.report(Half::Backup, Err(&failure)))
        };
        let to_database = async {
            if !self.memory.is_well(Half::Database) {
                return Err(());
            }
            let written = self.registers_to_database(&unwritten.environment).await;
            written.map_err(|failure| self.report(Half::Database, Err(&failure)))
        };
        let either = future::select_ok([to_backup.boxed_local(), to_database.boxed_local()]);
        matches!(timeout(DURABLE_LIMIT, either).await, Ok(Ok(_)))
    }

    /// Writes what the database lacks, merged with what other replicas wrote there.
    pub(super) async fn flush_registers_to_database(&self) -> Result<(), StoreError> {
        for unwritten in self.memory.unwritten_registers() {
            if !unwritten.in_database {
                self.registers_to_database(&unwritten.environment).await?;
            }
        }
        Ok(())
    }

    /// Takes in what other replicas wrote. One cheap question where there is no news.
    pub(super) async fn look_for_registers(&self) {
        // Whether it is back, and what it has then, is the flush's to find out.
        if !self.memory.is_well(Half::Database) || self.memory.is_database_unread() {
            return;
        }
        if let Err(failure) = self.take_in_registers().await {
            self.report(Half::Database, Err(&failure));
        }
    }

    async fn take_in_registers(&self) -> Result<(), StoreError> {
        self.metrics.database_read("decisions");
        let database = self.store.database();
        for (name, version) in database.registers_versions().await? {
            if version != self.memory.registers_version(&name) {
                let found = database.load_registers(&name).await?;
                self.take_in(&name.into(), found);
            }
        }
        Ok(())
    }

    fn take_in(&self, environment: &Arc<str>, found: EnvironmentState) {
        let is_news = self
            .memory
            .restore_registers(environment, found, true, false);
        if is_news && let Some(cell) = self.board.environment(environment) {
            cell.note_decision();
        }
    }

    pub(super) async fn registers_to_backup(
        &self,
        unwritten: &UnwrittenRegisters,
    ) -> Result<(), StoreError> {
        let (name, registers) = (&unwritten.environment, &unwritten.state.registers);
        let backup = self.store.backup();
        backup
            .write_registers(name, registers, clock::now_ms())
            .await?;
        self.memory
            .registers_written(name, registers, Half::Backup, 0);
        Ok(())
    }

    async fn registers_to_database(&self, environment: &Arc<str>) -> Result<(), StoreError> {
        let database = self.store.database();
        for _ in 0..ATTEMPTS_MAX {
            let unwritten = self.memory.unwritten_registers().into_iter();
            let unwritten = unwritten
                .filter(|unwritten| !unwritten.in_database)
                .find(|unwritten| unwritten.environment == *environment);
            let Some(UnwrittenRegisters { state, .. }) = unwritten else {
                return Ok(());
            };
            let saved = database.save_registers(
                environment,
                state.version,
                &state.registers,
                clock::now_ms(),
            );
            if saved.await? {
                let version = state.version + 1;
                let memory = &self.memory;
                memory.registers_written(environment, &state.registers, Half::Database, version);
                continue;
            }
            // Another replica was faster: what it wrote is taken in, and written again together with ours.
            let found = database.load_registers(environment).await?;
            self.take_in(environment, found);
        }
        debug!("the decisions about {environment} are still to be written");
        Ok(())
    }
}

impl Handler<SaveRegisters> for StoreActor {
    // The answer waits for one durable copy, beside other messages; the flush writes the other.
    type Result = ResponseActFuture<Self, bool>;

    fn handle(&mut self, message: SaveRegisters, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.SaveRegisters");
        let context = Arc::clone(&self.context);
        let save = async move {
            fail::fail_point!("store.save_registers_future");
            let SaveRegisters {
                environment,
                changes,
                ended,
            } = message;
            context.set_registers(&environment, &changes, &ended).await
        };
        Box::pin(wrap_future::<_, Self>(save).map(|is_durable, this, ctx| {
            this.flush(ctx);
            is_durable
        }))
    }
}

impl Handler<LoadRegisters> for StoreActor {
    type Result = MessageResult<LoadRegisters>;

    fn handle(&mut self, message: LoadRegisters, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.LoadRegisters");
        MessageResult(self.context.memory.registers(&message.environment))
    }
}
