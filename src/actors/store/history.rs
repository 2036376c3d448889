//! What was served before: one revision, or a list of them, from wherever it can be had.
//!
//! While the database answers, its word counts, because all replicas share it; what it lacks yet is added from memory and
//! backup. While it does not, those two alone are asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use actix::{Context, Handler, Message, ResponseFuture};
use tokio::time::timeout;
use tracing::debug;

use super::{StoreActor, StoreContext, memory::Half};
use crate::{
    model::Snapshot,
    store::{RevisionInfo, RevisionRow, StoreError},
};

/// How long the database may take to give or list revisions.
const DATABASE_LIMIT: Duration = Duration::from_secs(2);

/// Asks for a revision, current or not. Sent by the control plane, and by the `ConfigServiceActor` for pins. `None`: there
/// is none of this number.
#[derive(Clone, Message)]
#[rtype(result = "Result<Option<Arc<Snapshot>>, HistoryError>")]
pub struct GetRevision {
    /// Which environment.
    pub environment: Arc<str>,
    /// Which of its revisions.
    pub revision: u64,
}

/// Why nobody can say what a revision was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The database may have it and does not answer.
    #[error("the database does not answer, and memory and backup do not have it: {0}")]
    Unavailable(String),
    /// What is stored is not what was once written.
    #[error("it is stored and cannot be read: {0}")]
    Harmed(String),
}

/// Asks for revisions of an environment, newest first. Sent by the control plane.
#[derive(Clone, Message)]
#[rtype(result = "RevisionPage")]
pub struct ListRevisions {
    /// Which environment.
    pub environment: Arc<str>,
    /// At most so many.
    pub limit: usize,
    /// Only those with a smaller number.
    pub before: Option<u64>,
}

/// A page of revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionPage {
    /// Newest first.
    pub revisions: Vec<RevisionInfo>,
    /// Whether there are older ones.
    pub has_more: bool,
    /// The lowest and the highest number that are known to be there, on this page or not.
    pub range: Option<(u64, u64)>,
    /// Why some may be missing.
    pub error: Option<String>,
}

/// What memory knows of an environment's revisions.
#[derive(Default)]
pub(super) struct Remembered {
    /// The current one, and those that no half of the store has.
    pub(super) revisions: BTreeMap<u64, RevisionInfo>,
    /// Those that only the backup has.
    pub(super) on_disk: BTreeSet<u64>,
}

impl StoreContext {
    /// One revision.
    async fn revision(
        &self,
        environment: &Arc<str>,
        number: u64,
    ) -> Result<Option<Arc<Snapshot>>, HistoryError> {
        let current = self.memory.current(environment);
        if let Some(current) = current.filter(|current| current.revision == number) {
            return Ok(Some(current));
        }
        if let Some(row) = self.memory.waiting_row(environment, number) {
            return self.unpacked(row).await.map(Some);
        }
        // While it is known to be away, what is here is not to wait for it.
        let is_well = self.memory.is_well(Half::Database);
        if !is_well && let Some(found) = self.in_backup(environment, number).await? {
            return Ok(Some(found));
        }
        self.metrics.database_read("revisions");
        let asked = self.store.database().revision(environment, number);
        let failure = match in_time(asked).await {
            Ok(Some(row)) => match self.unpacked(row).await {
                Ok(found) => return Ok(Some(found)),
                Err(failure) => failure,
            },
            Ok(None) => return self.in_backup(environment, number).await,
            Err(reason) => HistoryError::Unavailable(reason),
        };
        match self.in_backup(environment, number).await? {
            Some(found) => Ok(Some(found)),
            None => Err(failure),
        }
    }

    /// A revision's file; `None`: there is none.
    async fn in_backup(
        &self,
        environment: &str,
        number: u64,
    ) -> Result<Option<Arc<Snapshot>>, HistoryError> {
        match self.store.backup().read_snapshot(environment, number).await {
            Ok(row) => self.unpacked(row).await.map(Some),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(HistoryError::Harmed(failure.explain())),
        }
    }

    async fn unpacked(&self, row: RevisionRow) -> Result<Arc<Snapshot>, HistoryError> {
        let unpacked = self.store.unpack_revision(row).await;
        let unpacked = unpacked.map_err(|failure| HistoryError::Harmed(failure.explain()));
        unpacked.map(Arc::new)
    }

    /// A page of revisions.
    async fn revisions(&self, question: &ListRevisions) -> RevisionPage {
        let (environment, limit) = (&question.environment, question.limit);
        let is_wanted = |number: &u64| question.before.is_none_or(|before| *number < before);
        let mut known = self.memory.remembered(environment);
        let mut range = Range::default();
        known.revisions.keys().for_each(|number| range.add(*number));
        let mut errors = Vec::new();
        match self.in_database(question).await {
            Ok((listed, in_database)) => {
                if let Some((lowest, highest)) = in_database {
                    range.add(lowest);
                    range.add(highest);
                }
                for info in listed {
                    known.revisions.entry(info.revision).or_insert(info);
                }
            }
            Err(reason) => {
                errors.push(format!(
                    "only what memory and backup have is listed: {reason}"
                ));
                match self.store.backup().revisions(environment).await {
                    Ok(numbers) => known.on_disk.extend(numbers),
                    Err(failure) => errors.push(failure.explain()),
                }
            }
        }
        known.on_disk.iter().for_each(|number| range.add(*number));
        let numbers = known.revisions.keys().chain(&known.on_disk).copied();
        let numbers: BTreeSet<u64> = numbers.filter(is_wanted).collect();
        let mut revisions = Vec::with_capacity(limit.min(numbers.len()));
        for number in numbers.iter().rev().take(limit) {
            let info = match known.revisions.remove(number) {
                Some(info) => Ok(info),
                None => self.store.backup().read_info(environment, *number).await,
            };
            match info {
                Ok(info) => revisions.push(info),
                Err(failure) => errors.push(failure.explain()),
            }
        }
        RevisionPage {
            revisions,
            has_more: numbers.len() > limit,
            range: range.0,
            error: (!errors.is_empty()).then(|| errors.join("; ")),
        }
    }

    /// One revision more than is asked for, to see whether there are more; and the ends of the whole history.
    async fn in_database(
        &self,
        question: &ListRevisions,
    ) -> Result<(Vec<RevisionInfo>, Option<(u64, u64)>), String> {
        self.metrics.database_read("revisions");
        let (database, environment) = (self.store.database(), &question.environment);
        let limit = question.limit as u64 + 1;
        in_time(async {
            let listed = database.list_revisions(environment, limit, question.before);
            Ok((listed.await?, database.revision_range(environment).await?))
        })
        .await
    }
}

/// The ends of what is there.
#[derive(Default)]
struct Range(Option<(u64, u64)>);

impl Range {
    fn add(&mut self, number: u64) {
        let (lowest, highest) = self.0.unwrap_or((number, number));
        self.0 = Some((lowest.min(number), highest.max(number)));
    }
}

/// Waits for the database, and gives its failure in words.
async fn in_time<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match timeout(DATABASE_LIMIT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(failure)) => Err(failure.explain()),
        Err(_) => Err(format!(
            "the database did not answer within {DATABASE_LIMIT:?}"
        )),
    }
}

impl Handler<GetRevision> for StoreActor {
    // Waits for database and disk beside other messages.
    type Result = ResponseFuture<Result<Option<Arc<Snapshot>>, HistoryError>>;

    fn handle(&mut self, message: GetRevision, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.GetRevision");
        let context = Arc::clone(&self.context);
        Box::pin(async move {
            fail::fail_point!("store.get_revision_future");
            let (name, number) = (&message.environment, message.revision);
            let found = context.revision(name, number).await;
            found.inspect_err(|error| debug!("revision {number} of {name}: {error}"))
        })
    }
}

impl Handler<ListRevisions> for StoreActor {
    // Waits for database and disk beside other messages.
    type Result = ResponseFuture<RevisionPage>;

    fn handle(&mut self, message: ListRevisions, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("store.ListRevisions");
        let context = Arc::clone(&self.context);
        Box::pin(async move {
            fail::fail_point!("store.list_revisions_future");
            context.revisions(&message).await
        })
    }
}
