//! The disk half of the store: what is needed to serve when there is no database.
//!
//! ```text
//! <dir>/snapshots/<environment>/<revision, 20 digits>.snapshot    a packed candidate
//! <dir>/inputs/<source>/<generation, 20 digits>.input             a packed input
//! <dir>/states/<source>/<generation, 20 digits>.state             JSON
//! <dir>/environments/<environment>/<generation, 20 digits>.environment    JSON
//! <dir>/tokens/all/<generation, 20 digits>.token                  JSON
//! ```
//!
//! Each folder holds the newest `backup.generations` files, and the revisions that the database lacks. What harms one of them, be it a disk or a person, costs that
//! generation: the next older one is taken and a note says so. A number is known from the file's name alone, so a harmed
//! snapshot still keeps its revision from being used again. The files' own format is in `generations`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    PackedInput, Registers, RevisionInfo, RevisionRow, StoreError, StoreRuntime, StoredInput,
    StoredRevision, StoredState,
    generations::{self, Label},
    packed,
};
use crate::settings;

const SNAPSHOT: &str = "snapshot";
const INPUT: &str = "input";
const STATE: &str = "state";
const ENVIRONMENT: &str = "environment";
const TOKEN: &str = "token";
/// Tokens are in one file together.
const ALL_TOKENS: &str = "all";

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
}

#[derive(Debug)]
struct Folder {
    dir: PathBuf,
    generations: usize,
    /// Held while writing: a generation's number follows from the files that are there.
    writing: Mutex<()>,
}

impl Backup {
    /// Touches nothing yet; folders are made when there is something to write.
    pub fn new(settings: &settings::Backup, runtime: StoreRuntime) -> Self {
        Self {
            runtime,
            folder: Arc::new(Folder {
                dir: settings.dir.clone(),
                generations: settings.generations.max(1),
                writing: Mutex::new(()),
            }),
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
        self.blocking(move |folder| folder.write(&label, &body, &kept))
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
        self.blocking(move |folder| {
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
        self.blocking(move |folder| {
            let (_, packed) = folder.read_snapshot(&environment, revision)?;
            RevisionInfo::of_packed(revision, &packed)
        })
        .await
    }

    /// Numbers of the revisions that are here, readable or not.
    pub async fn revisions(&self, environment: &str) -> Result<BTreeSet<u64>, StoreError> {
        let environment = environment.to_owned();
        self.blocking(move |folder| {
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
        self.blocking(move |folder| folder.load_snapshot(&environment))
            .await
    }

    /// The highest number in use, whether that revision can be read or not.
    pub async fn highest_revision(&self, environment: &str) -> Result<Option<u64>, StoreError> {
        let environment = environment.to_owned();
        self.blocking(move |folder| {
            let path = folder.path(SNAPSHOT, &environment)?;
            let newest = generations::list(&path, SNAPSHOT)?.into_iter().next();
            Ok(newest.map(|(number, _)| number))
        })
        .await
    }

    /// Every environment that has a folder, sorted.
    pub async fn environments(&self) -> Result<Vec<String>, StoreError> {
        self.blocking(|folder| folder.names(SNAPSHOT)).await
    }

    /// Writes a source's last accepted input.
    pub async fn write_input(&self, input: &PackedInput) -> Result<(), StoreError> {
        let input = input.clone();
        self.blocking(move |folder| {
            let stamp = (input.accepted_at_ms, input.digest);
            folder.write_next(INPUT, &input.source, stamp, &input.body)
        })
        .await
    }

    /// The last accepted input of every source, packed and unpacked.
    pub async fn load_inputs(
        &self,
    ) -> Result<Found<BTreeMap<String, (PackedInput, StoredInput)>>, StoreError> {
        self.blocking(|folder| folder.load_all(INPUT, decode_input))
            .await
    }

    /// Writes what is remembered about a source.
    pub async fn write_state(&self, state: &StoredState) -> Result<(), StoreError> {
        let state = state.clone();
        self.blocking(move |folder| {
            let stamp = (state.updated_at_ms, String::new());
            folder.write_next(STATE, &state.source, stamp, state.body.as_bytes())
        })
        .await
    }

    /// What is remembered about every source.
    pub async fn load_states(&self) -> Result<Found<BTreeMap<String, StoredState>>, StoreError> {
        self.blocking(|folder| folder.load_all(STATE, decode_state))
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
        self.blocking(move |folder| {
            let stamp = (now_ms, String::new());
            folder.write_next(ENVIRONMENT, &environment, stamp, body.as_bytes())
        })
        .await
    }

    /// What operators decided about every environment: all that can be read, merged.
    pub async fn load_registers(&self) -> Result<Found<BTreeMap<String, Registers>>, StoreError> {
        self.blocking(Folder::load_registers).await
    }

    /// Writes the file of all tokens; `encode` makes its bytes on the store's threads.
    pub(super) async fn write_token_file(
        &self,
        encode: impl FnOnce() -> Vec<u8> + Send + 'static,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.blocking(move |folder| {
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
        self.blocking(move |folder| {
            let files = generations::list(&folder.path(TOKEN, ALL_TOKENS)?, TOKEN)?;
            let decode = |label: Label, body: Bytes| decode(label.at_ms, &body);
            Ok(newest_readable(files, TOKEN, ALL_TOKENS, decode))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = Arc::clone(&self.folder);
        self.runtime.run_blocking(move || work(&folder)).await
    }
}

impl Folder {
    fn path(&self, kind: &str, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.dir.join(format!("{kind}s"));
        // The settings allow only such names; a path made of anything else could lead out of the folder.
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(StoreError::Io {
                action: "use as a file name in",
                path,
                source: io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}`")),
            });
        }
        Ok(path.join(name))
    }

    fn write(
        &self,
        label: &Label,
        body: &[u8],
        kept: &dyn Fn() -> BTreeSet<u64>,
    ) -> Result<(), StoreError> {
        let path = self.path(&label.kind, &label.name)?;
        let _writing = self.writing.lock();
        self.write_and_prune(&path, label, body, kept)
    }

    /// Writes the next generation of something that has no number of its own.
    fn write_next(
        &self,
        kind: &str,
        name: &str,
        (at_ms, digest): (i64, String),
        body: &[u8],
    ) -> Result<(), StoreError> {
        let path = self.path(kind, name)?;
        let _writing = self.writing.lock();
        let newest = generations::list(&path, kind)?.into_iter().next();
        let label = Label {
            kind: kind.to_owned(),
            name: name.to_owned(),
            number: newest.map_or(1, |(number, _)| number.saturating_add(1)),
            at_ms,
            digest,
        };
        self.write_and_prune(&path, &label, body, &BTreeSet::new)
    }

    fn write_and_prune(
        &self,
        path: &Path,
        label: &Label,
        body: &[u8],
        kept: &dyn Fn() -> BTreeSet<u64>,
    ) -> Result<(), StoreError> {
        generations::write(path, label, body)?;
        let mut kept = kept();
        kept.insert(label.number);
        generations::prune(path, &label.kind, self.generations, &kept);
        Ok(())
    }

    fn read_snapshot(
        &self,
        environment: &str,
        revision: u64,
    ) -> Result<(Label, Bytes), StoreError> {
        let path = self.path(SNAPSHOT, environment)?;
        let path = generations::file(&path, SNAPSHOT, revision);
        generations::read(&path, SNAPSHOT, environment)
    }

    fn load_snapshot(&self, environment: &str) -> Result<Found<FoundSnapshot>, StoreError> {
        let files = generations::list(&self.path(SNAPSHOT, environment)?, SNAPSHOT)?;
        let highest = files.first().map(|(number, _)| *number);
        let generations = files.iter().rev().map(|(revision, path)| Generation {
            revision: *revision,
            bytes: path.metadata().map_or(0, |metadata| metadata.len()),
        });
        let generations = generations.collect();
        let found = newest_readable(files, SNAPSHOT, environment, |label, packed| {
            let candidate = packed::unpack_candidate(&label.name, &packed)?;
            Ok(StoredRevision {
                revision: label.number,
                candidate,
                packed,
            })
        });
        Ok(Found {
            value: FoundSnapshot {
                revision: found.value,
                highest,
                generations,
            },
            notes: found.notes,
        })
    }

    fn load_all<T>(
        &self,
        kind: &str,
        decode: fn(Label, Bytes) -> Result<T, StoreError>,
    ) -> Result<Found<BTreeMap<String, T>>, StoreError> {
        let mut all = Found {
            value: BTreeMap::new(),
            notes: Vec::new(),
        };
        for name in self.names(kind)? {
            let files = generations::list(&self.path(kind, &name)?, kind)?;
            let found = newest_readable(files, kind, &name, decode);
            all.notes.extend(found.notes);
            if let Some(value) = found.value {
                all.value.insert(name, value);
            }
        }
        Ok(all)
    }

    fn load_registers(&self) -> Result<Found<BTreeMap<String, Registers>>, StoreError> {
        let mut all = Found::<BTreeMap<String, Registers>>::default();
        for name in self.names(ENVIRONMENT)? {
            // Two writes may have ended in the other order than they began: each is looked at.
            for file in generations::list(&self.path(ENVIRONMENT, &name)?, ENVIRONMENT)? {
                let found = newest_readable(vec![file], ENVIRONMENT, &name, |label, body| {
                    decode_registers(&label, &body)
                });
                all.notes.extend(found.notes);
                if let Some(registers) = found.value {
                    all.value.entry(name.clone()).or_default().merge(registers);
                }
            }
        }
        Ok(all)
    }

    fn names(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        let paths = generations::children(&self.dir.join(format!("{kind}s")))?;
        let folders = paths.iter().filter(|path| path.is_dir());
        let mut names: Vec<String> = folders
            .filter_map(|path| path.file_name()?.to_str())
            .filter(|name| !name.starts_with('.'))
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

fn newest_readable<T>(
    files: Vec<(u64, PathBuf)>,
    kind: &str,
    name: &str,
    decode: impl Fn(Label, Bytes) -> Result<T, StoreError>,
) -> Found<Option<T>> {
    let mut notes = Vec::new();
    for (_, path) in files {
        let read = generations::read(&path, kind, name);
        match read.and_then(|(label, body)| decode(label, body)) {
            Ok(value) => {
                return Found {
                    value: Some(value),
                    notes,
                };
            }
            Err(error) => notes.push(format!(
                "passed over backup file `{}`: {}",
                path.display(),
                error.explain()
            )),
        }
    }
    Found { value: None, notes }
}

fn decode_input(label: Label, body: Bytes) -> Result<(PackedInput, StoredInput), StoreError> {
    let packed = PackedInput {
        source: label.name,
        digest: label.digest,
        accepted_at_ms: label.at_ms,
        body,
    };
    let input = packed.unpack()?;
    Ok((packed, input))
}

fn decode_state(label: Label, body: Bytes) -> Result<StoredState, StoreError> {
    let body = String::from_utf8(body.into()).map_err(|error| {
        StoreError::corrupt(format!("state of `{}`", label.name), error.to_string())
    })?;
    Ok(StoredState {
        source: label.name,
        updated_at_ms: label.at_ms,
        body,
    })
}

fn decode_registers(label: &Label, body: &Bytes) -> Result<Registers, StoreError> {
    serde_json::from_slice(body).map_err(|error| {
        StoreError::corrupt(format!("state of `{}`", label.name), error.to_string())
    })
}
