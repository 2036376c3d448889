//! The disk half of the store: what is needed to serve when there is no database.
//!
//! ```text
//! <dir>/snapshots/<environment>/<revision, 20 digits>.snapshot    a packed candidate
//! <dir>/inputs/<source>/<generation, 20 digits>.input             a packed input
//! <dir>/states/<source>/<generation, 20 digits>.state             JSON
//! <dir>/environments/<environment>/<generation, 20 digits>.environment    JSON
//! <dir>/tokens/all/<generation, 20 digits>.token                  JSON
//! <dir>/audit.jsonl                                           see `audit_file`
//! ```
//!
//! Each folder holds the newest `backup.generations` files, and the revisions that the database lacks. What harms one of them, be it a disk or a person, costs that
//! generation: the next older one is taken and a note says so. A number is known from the file's name alone, so a harmed
//! snapshot still keeps its revision from being used again. The files' own format is in `generations`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};

use super::{
    AuditEntry, PackedInput, Registers, RevisionInfo, RevisionRow, StoreError, StoreRuntime,
    StoredInput, StoredRevision, StoredState, audit_file,
    folder::{
        ALL_TOKENS, ENVIRONMENT, Folder, INPUT, SNAPSHOT, STATE, TOKEN, decode_input, decode_state,
        newest_readable,
    },
    generations::{self, Label},
    packed,
};
use crate::settings;

/// How long a write may take. A disk that takes longer counts as failed, so that nobody waits for one that hangs.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to read one thing.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to read all of a kind, as a start does.
const LOAD_LIMIT: Duration = Duration::from_secs(30);
/// Reads at the same time. With the one write fewer than the store has threads: what is packed needs some, whatever the
/// disk does.
const READS_MAX: usize = 4;

/// What was found on disk, and what had to be passed over to find it.
#[derive(Clone, Debug, Default)]
pub struct Found<T> {
    /// The newest that can be read.
    pub value: T,
    /// One line for each file passed over, for the log.
    pub notes: Vec<String>,
}

/// An environment's part of the backup.
#[derive(Clone, Debug, Default)]
pub struct FoundSnapshot {
    /// The newest revision that can be read.
    pub revision: Option<StoredRevision>,
    /// The highest number in use, readable or not.
    pub highest: Option<u64>,
    /// All of them, oldest first, readable or not.
    pub generations: Vec<Generation>,
}

/// A revision's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its number.
    pub revision: u64,
    /// Its size.
    pub bytes: u64,
}

/// The disk backup.
#[derive(Clone, Debug)]
pub struct Backup {
    runtime: StoreRuntime,
    folder: Arc<Folder>,
    /// Held while writing: a generation's number follows from the files that are there, and a disk that hangs must not
    /// take more than one of the store's threads with it.
    one_write: Arc<Mutex<()>>,
    few_reads: Arc<Semaphore>,
}

impl Backup {
    /// Touches nothing yet; folders are made when there is something to write.
    pub fn new(settings: &settings::Backup, runtime: StoreRuntime) -> Self {
        Self {
            runtime,
            folder: Arc::new(Folder {
                dir: settings.dir.clone(),
                generations: settings.generations.max(1),
            }),
            one_write: Arc::default(),
            few_reads: Arc::new(Semaphore::new(READS_MAX)),
        }
    }

    /// How many generations are kept of each thing.
    pub fn generations(&self) -> usize {
        self.folder.generations
    }

    /// Writes a revision; when this returns, it survives a power cut. Older generations go.
    pub async fn write_snapshot(&self, row: &RevisionRow) -> Result<(), StoreError> {
        self.write_snapshot_beside(row, BTreeSet::new).await
    }

    /// The same; of the older generations those stay whose numbers `kept` says. It is asked when they are about to go.
    pub async fn write_snapshot_beside(
        &self,
        row: &RevisionRow,
        kept: impl Fn() -> BTreeSet<u64> + Send + 'static,
    ) -> Result<(), StoreError> {
        let label = Label {
            kind: SNAPSHOT.to_owned(),
            name: row.environment.clone(),
            number: row.revision,
            at_ms: row.published_at_ms,
            digest: row.hash.clone(),
        };
        let body = row.body.clone();
        self.writing(move |folder| folder.write(&label, &body, &kept))
            .await
    }

    /// Reads one revision; fails when there is none or it is harmed.
    pub async fn read_snapshot(
        &self,
        environment: &str,
        revision: u64,
    ) -> Result<RevisionRow, StoreError> {
        let stored = self.read_revision(environment, revision).await?;
        Ok(RevisionRow::new(&stored.candidate, revision, stored.packed))
    }

    /// The same, unpacked.
    pub async fn read_revision(
        &self,
        environment: &str,
        revision: u64,
    ) -> Result<StoredRevision, StoreError> {
        let environment = environment.to_owned();
        self.reading(READ_LIMIT, move |folder| {
            let (label, packed) = folder.read_snapshot(&environment, revision)?;
            Ok(StoredRevision {
                revision,
                candidate: packed::unpack_candidate(&label.name, &packed)?,
                packed,
            })
        })
        .await
    }

    /// What is known about one revision beside its bytes; fails when there is none or its file is harmed.
    pub async fn read_info(
        &self,
        environment: &str,
        revision: u64,
    ) -> Result<RevisionInfo, StoreError> {
        let environment = environment.to_owned();
        self.reading(READ_LIMIT, move |folder| {
            let (_, packed) = folder.read_snapshot(&environment, revision)?;
            RevisionInfo::of_packed(revision, &packed)
        })
        .await
    }

    /// Numbers of the revisions that are here, readable or not.
    pub async fn revisions(&self, environment: &str) -> Result<BTreeSet<u64>, StoreError> {
        let environment = environment.to_owned();
        self.reading(READ_LIMIT, move |folder| {
            let files = generations::list(&folder.path(SNAPSHOT, &environment)?, SNAPSHOT)?;
            Ok(files.into_iter().map(|(number, _)| number).collect())
        })
        .await
    }

    /// The newest revision of an environment that can be read, and the highest number in use.
    pub async fn load_snapshot(
        &self,
        environment: &str,
    ) -> Result<Found<FoundSnapshot>, StoreError> {
        let environment = environment.to_owned();
        self.reading(LOAD_LIMIT, move |folder| folder.load_snapshot(&environment))
            .await
    }

    /// The highest number in use, whether that revision can be read or not.
    pub async fn highest_revision(&self, environment: &str) -> Result<Option<u64>, StoreError> {
        let environment = environment.to_owned();
        self.reading(LOAD_LIMIT, move |folder| {
            let path = folder.path(SNAPSHOT, &environment)?;
            let newest = generations::list(&path, SNAPSHOT)?.into_iter().next();
            Ok(newest.map(|(number, _)| number))
        })
        .await
    }

    /// Every environment that has a folder, sorted.
    pub async fn environments(&self) -> Result<Vec<String>, StoreError> {
        self.reading(LOAD_LIMIT, |folder| folder.names(SNAPSHOT))
            .await
    }

    /// Writes a source's last accepted input.
    pub async fn write_input(&self, input: &PackedInput) -> Result<(), StoreError> {
        let input = input.clone();
        self.writing(move |folder| {
            let stamp = (input.accepted_at_ms, input.digest);
            folder.write_next(INPUT, &input.source, stamp, &input.body)
        })
        .await
    }

    /// The last accepted input of every source, packed and unpacked.
    pub async fn load_inputs(
        &self,
    ) -> Result<Found<BTreeMap<String, (PackedInput, StoredInput)>>, StoreError> {
        self.reading(LOAD_LIMIT, |folder| folder.load_all(INPUT, decode_input))
            .await
    }

    /// Writes what is remembered about a source.
    pub async fn write_state(&self, state: &StoredState) -> Result<(), StoreError> {
        let state = state.clone();
        self.writing(move |folder| {
            let stamp = (state.updated_at_ms, String::new());
            folder.write_next(STATE, &state.source, stamp, state.body.as_bytes())
        })
        .await
    }

    /// What is remembered about every source.
    pub async fn load_states(&self) -> Result<Found<BTreeMap<String, StoredState>>, StoreError> {
        self.reading(LOAD_LIMIT, |folder| folder.load_all(STATE, decode_state))
            .await
    }

    /// Writes what operators decided about an environment.
    pub async fn write_registers(
        &self,
        environment: &str,
        registers: &Registers,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (environment, body) = (environment.to_owned(), registers.to_json());
        self.writing(move |folder| {
            let stamp = (now_ms, String::new());
            folder.write_next(ENVIRONMENT, &environment, stamp, body.as_bytes())
        })
        .await
    }

    /// What operators decided about every environment: all that can be read, merged.
    pub async fn load_registers(&self) -> Result<Found<BTreeMap<String, Registers>>, StoreError> {
        self.reading(LOAD_LIMIT, Folder::load_registers).await
    }

    /// Writes the file of all tokens; `encode` makes its bytes on the store's threads.
    pub(super) async fn write_token_file(
        &self,
        encode: impl FnOnce() -> Vec<u8> + Send + 'static,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.writing(move |folder| {
            let stamp = (now_ms, String::new());
            folder.write_next(TOKEN, ALL_TOKENS, stamp, &encode())
        })
        .await
    }

    /// Reads the newest file of all tokens that can be read; `decode` is told when it was written.
    pub(super) async fn read_token_file<T: Send + 'static>(
        &self,
        decode: impl Fn(i64, &[u8]) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Found<Option<T>>, StoreError> {
        self.reading(LOAD_LIMIT, move |folder| {
            let files = generations::list(&folder.path(TOKEN, ALL_TOKENS)?, TOKEN)?;
            let decode = |label: Label, body: Bytes| decode(label.at_ms, &body);
            Ok(newest_readable(files, TOKEN, ALL_TOKENS, decode))
        })
        .await
    }

    /// Keeps entries of the audit that the database does not have yet.
    pub async fn append_audit(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError> {
        self.writing(move |folder| audit_file::append(&folder.dir, &entries))
            .await
    }

    /// The entries that are kept here, each once, the oldest first.
    pub async fn load_audit(&self) -> Result<Found<Vec<AuditEntry>>, StoreError> {
        self.reading(READ_LIMIT, |folder| audit_file::load(&folder.dir))
            .await
    }

    /// Gives them up: the database has them all.
    pub async fn remove_audit(&self) -> Result<(), StoreError> {
        self.writing(|folder| audit_file::remove(&folder.dir)).await
    }

    /// Fails unless a small file can be written.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.writing(Folder::probe).await
    }

    /// Waits for a write, within the limit. One that has begun by then goes on.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.one_write).lock_owned();
        self.within(WRITE_LIMIT, "write to", turn, work).await
    }

    /// Waits for what reads, within a limit.
    async fn reading<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.few_reads).acquire_owned();
        self.within(limit, "read from", turn, work).await
    }

    /// Works on the disk once it is its turn, which lasts until the work is done, waited for or not.
    async fn within<T: Send + 'static, Turn: Send + 'static>(
        &self,
        limit: Duration,
        what: &'static str,
        turn: impl Future<Output = Turn>,
        work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = async {
            let turn = turn.await;
            let folder = Arc::clone(&self.folder);
            let work = move || {
                let done = work(&folder);
                drop(turn);
                done
            };
            self.runtime.run_blocking(work).await
        };
        match timeout(limit, done).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::slow_disk(what, &self.folder.dir, limit)),
        }
    }
}
