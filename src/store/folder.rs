//! The backup's folders: what is written into them and found in them. Everything here blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    Found, FoundSnapshot, Generation, PackedInput, Registers, StoreError, StoredInput,
    StoredRevision, StoredState,
    generations::{self, Label},
    packed,
};

pub(super) const SNAPSHOT: &str = "snapshot";
pub(super) const INPUT: &str = "input";
pub(super) const STATE: &str = "state";
pub(super) const ENVIRONMENT: &str = "environment";
pub(super) const TOKEN: &str = "token";
/// Tokens are in one file together.
pub(super) const ALL_TOKENS: &str = "all";

#[derive(Debug)]
pub(super) struct Folder {
    pub(super) dir: PathBuf,
    pub(super) generations: usize,
}

impl Folder {
    /// Fails unless a small file can be written durably.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        generations::probe(&self.dir)
    }

    pub(super) fn path(&self, kind: &str, name: &str) -> Result<PathBuf, StoreError> {
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

    pub(super) fn write(
        &self,
        label: &Label,
        body: &[u8],
        kept: &dyn Fn() -> BTreeSet<u64>,
    ) -> Result<(), StoreError> {
        let path = self.path(&label.kind, &label.name)?;
        // A write may have ended after its caller had given it up. On a slow disk it would never end a second time.
        if generations::holds(&path, label, body) {
            generations::sync_folder(&path)?;
        } else {
            generations::write(&path, label, body)?;
        }
        self.prune(&path, label, kept());
        Ok(())
    }

    /// Writes the next generation of something that has no number of its own.
    pub(super) fn write_next(
        &self,
        kind: &str,
        name: &str,
        (at_ms, digest): (i64, String),
        body: &[u8],
    ) -> Result<(), StoreError> {
        let path = self.path(kind, name)?;
        let newest = generations::list(&path, kind)?.into_iter().next();
        let newest = newest.map_or(0, |(number, _)| number);
        let mut label = Label {
            kind: kind.to_owned(),
            name: name.to_owned(),
            number: newest,
            at_ms,
            digest,
        };
        if generations::holds(&path, &label, body) {
            generations::sync_folder(&path)?;
        } else {
            label.number = newest.saturating_add(1);
            generations::write(&path, &label, body)?;
        }
        self.prune(&path, &label, BTreeSet::new());
        Ok(())
    }

    fn prune(&self, path: &Path, written: &Label, mut kept: BTreeSet<u64>) {
        kept.insert(written.number);
        generations::prune(path, &written.kind, self.generations, &kept);
    }

    pub(super) fn read_snapshot(
        &self,
        environment: &str,
        revision: u64,
    ) -> Result<(Label, Bytes), StoreError> {
        let path = self.path(SNAPSHOT, environment)?;
        let path = generations::file(&path, SNAPSHOT, revision);
        generations::read(&path, SNAPSHOT, environment)
    }

    pub(super) fn load_snapshot(
        &self,
        environment: &str,
    ) -> Result<Found<FoundSnapshot>, StoreError> {
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

    pub(super) fn load_all<T>(
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

    pub(super) fn load_registers(&self) -> Result<Found<BTreeMap<String, Registers>>, StoreError> {
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

    pub(super) fn names(&self, kind: &str) -> Result<Vec<String>, StoreError> {
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

pub(super) fn newest_readable<T>(
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

pub(super) fn decode_input(
    label: Label,
    body: Bytes,
) -> Result<(PackedInput, StoredInput), StoreError> {
    let packed = PackedInput {
        source: label.name,
        digest: label.digest,
        accepted_at_ms: label.at_ms,
        body,
    };
    let input = packed.unpack()?;
    Ok((packed, input))
}

pub(super) fn decode_state(label: Label, body: Bytes) -> Result<StoredState, StoreError> {
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
