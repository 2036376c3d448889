//! Files that are written whole or not at all, several generations of each, and read back only when they are unharmed.
//!
//! A file is one line of JSON and the bytes it describes:
//!
//! ```text
//! {"stitchd_backup":1,"kind":"snapshot","name":"production","number":7,"at_ms":…,"digest":"…","length":…,"sha256":"…"}\n
//! <length bytes>
//! ```
//!
//! The SHA-256 covers the other members and the bytes. A folder holds the generations of one thing, named by a number that
//! only rises. Everything here blocks.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::StoreError;
use crate::{clock, model::snapshot::hex};

/// Version of the format.
const FORMAT: u32 = 1;

/// More than the line of JSON has at the beginning of a file.
const HEAD_BYTES_MAX: u64 = 4096;

/// How the name of a file that is still being written begins.
const UNFINISHED: &str = ".unfinished-";

/// Age from which on an unfinished file has no writer any more. A write takes seconds; during a rollout another process may
/// be in the middle of one.
const UNFINISHED_AGE_MS: u128 = 60_000;

/// What one file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    /// `snapshot`, `input` or `state`; also the file's extension.
    pub(super) kind: String,
    /// Environment or source.
    pub(super) name: String,
    /// Number of the generation.
    pub(super) number: u64,
    /// Unix milliseconds, as the writer means it.
    pub(super) at_ms: i64,
    /// Hash of the content, as the writer means it.
    pub(super) digest: String,
}

#[derive(Serialize, Deserialize)]
struct Head {
    stitchd_backup: u32,
    #[serde(flatten)]
    label: Label,
    length: usize,
    sha256: String,
}

impl Label {
    fn checksum(&self, body: &[u8]) -> String {
        let mut sha256 = Sha256::new();
        for text in [&self.kind, &self.name, &self.digest] {
            sha256.update(text);
            sha256.update([0]);
        }
        sha256.update(self.number.to_le_bytes());
        sha256.update(self.at_ms.to_le_bytes());
        sha256.update(body);
        hex(&sha256.finalize())
    }
}

/// Where a generation is, if it is there.
pub(super) fn file(folder: &Path, kind: &str, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.{kind}"))
}

/// Generations in a folder, newest first, whether they can be read or not. A missing folder has none.
pub(super) fn list(folder: &Path, kind: &str) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut files = Vec::new();
    for path in children(folder)? {
        if let Some(number) = number_of(&path, kind) {
            files.push((number, path));
        }
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    Ok(files)
}

/// Paths in a folder, in no order. A missing folder has none.
pub(super) fn children(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| io_error("list", folder, source);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}

/// Writes a generation durably: when this returns, it survives a power cut.
pub(super) fn write(folder: &Path, label: &Label, body: &[u8]) -> Result<(), StoreError> {
    make_folder(folder)?;
    let head = Head {
        stitchd_backup: FORMAT,
        label: label.clone(),
        length: body.len(),
        sha256: label.checksum(body),
    };
    let mut head = serde_json::to_vec(&head).expect("strings and numbers always serialise");
    head.push(b'\n');
    let unfinished = folder.join(format!("{UNFINISHED}{}", Uuid::new_v4()));
    let done = write_file(&unfinished, &[&head, body])
        .map_err(|source| io_error("write", &unfinished, source))
        .and_then(|()| {
            let path = file(folder, &label.kind, label.number);
            fs::rename(&unfinished, &path).map_err(|source| io_error("write", &path, source))?;
            sync_folder(folder)
        });
    if done.is_err() && unfinished.exists() {
        remove(&unfinished);
    }
    done
}

/// Whether a generation is there already, unharmed and the same.
pub(super) fn holds(folder: &Path, label: &Label, body: &[u8]) -> bool {
    let path = file(folder, &label.kind, label.number);
    // Of another length it is something else. Only what looks the same is read, and only what is the same is hashed.
    let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
    let head = length.checked_sub(body.len() as u64);
    if head.is_none_or(|head| head == 0 || head > HEAD_BYTES_MAX) {
        return false;
    }
    let is_alike = fs::read(&path).is_ok_and(|content| content.ends_with(body));
    is_alike
        && read(&path, &label.kind, &label.name)
            .is_ok_and(|(found, bytes)| found == *label && bytes == body)
}

/// Writes a file durably and deletes it again; fails when that cannot be done.
pub(super) fn probe(folder: &Path) -> Result<(), StoreError> {
    make_folder(folder)?;
    let path = folder.join(format!("{UNFINISHED}{}", Uuid::new_v4()));
    let done = write_file(&path, &[b"probe"]).map_err(|source| io_error("write", &path, source));
    if path.exists() {
        remove(&path);
    }
    done
}

/// Deletes all but the newest `keep` generations and those of `kept`, and what a killed writer left unfinished.
///
/// Failing to delete is logged and no more: what had to be kept is kept.
pub(super) fn prune(folder: &Path, kind: &str, keep: usize, kept: &BTreeSet<u64>) {
    match list(folder, kind) {
        Ok(files) => {
            let surplus = files.iter().skip(keep);
            for (_, path) in surplus.filter(|(number, _)| !kept.contains(number)) {
                remove(path);
            }
        }
        Err(error) => tracing::warn!("backup not pruned: {}", error.explain()),
    }
    for path in children(folder).unwrap_or_default() {
        if is_unfinished(&path) {
            remove(&path);
        }
    }
}

/// Reads a generation; fails when it is not what was written.
pub(super) fn read(path: &Path, kind: &str, name: &str) -> Result<(Label, Bytes), StoreError> {
    let corrupt = |problem: &str| StoreError::corrupt(path.display().to_string(), problem);
    let content = fs::read(path).map_err(|source| io_error("read", path, source))?;
    let end = content.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| corrupt("it has no header"))?;
    let head: Head = serde_json::from_slice(&content[..end])
        .map_err(|error| corrupt(&format!("its header cannot be read: {error}")))?;
    let body = Bytes::from(content).slice(end + 1..);
    if head.stitchd_backup != FORMAT {
        return Err(corrupt("it has an unknown format"));
    }
    let label = head.label;
    if label.kind != kind || label.name != name || Some(label.number) != number_of(path, kind) {
        return Err(corrupt("it belongs to another place"));
    }
    if head.length != body.len() {
        let problem = format!("it holds {} of {} bytes", body.len(), head.length);
        return Err(corrupt(&problem));
    }
    if label.checksum(&body) != head.sha256 {
        return Err(corrupt("its checksum does not match"));
    }
    Ok((label, body))
}

fn number_of(path: &Path, kind: &str) -> Option<u64> {
    let (number, extension) = path.file_name()?.to_str()?.split_once('.')?;
    let is_ours = extension == kind && number.len() == 20;
    number.parse().ok().filter(|_| is_ours)
}

fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    if !name.is_some_and(|name| name.starts_with(UNFINISHED)) {
        return false;
    }
    let Ok(modified) = fs::metadata(path).and_then(|metadata| metadata.modified()) else {
        return false;
    };
    let modified_ms = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u128::try_from(clock::now_ms()).unwrap_or_default();
    now_ms.saturating_sub(modified_ms.as_millis()) > UNFINISHED_AGE_MS
}

fn write_file(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Makes a folder and those above it, each entered durably into its parent.
pub(super) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(io_error("make the folder", folder, error))
        }
        _ => sync_folder(parent.unwrap_or(Path::new("."))),
    }
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| io_error("sync the folder", folder, source))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("failed to delete `{}`: {error}", path.display());
    }
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
