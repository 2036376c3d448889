//! The part of the audit that the database does not have yet: `audit.jsonl` in the backup, an entry a line.
//!
//! Lines are added and made durable, never changed; the file goes when the database has them all. A line that was cut short
//! by a power cut is passed over: nobody was told that it is kept. An entry may be there twice, its id tells. Everything
//! here blocks.

use std::{
    collections::HashSet,
    fs::{self, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{
    AuditEntry, Found, StoreError,
    database::{REASON_CHARS_MAX, fit},
    generations::{io_error, make_folder, sync_folder},
};

/// Name of the file in the backup's folder.
const NAME: &str = "audit.jsonl";

/// Where the file ends growing. Some ten thousand entries wait at most, and few are of any size.
const BYTES_MAX: u64 = 128 << 20;

/// An entry as a line has it.
#[derive(Serialize, Deserialize)]
struct Line {
    uid: String,
    at_ms: i64,
    actor: String,
    role: String,
    action: String,
    target: String,
    reason: Option<String>,
    result: String,
}

/// Adds entries; when this returns, they survive a power cut.
pub(super) fn append(folder: &Path, entries: &[AuditEntry]) -> Result<(), StoreError> {
    make_folder(folder)?;
    let path = folder.join(NAME);
    let is_new = !path.exists();
    append_lines(&path, entries).map_err(|source| io_error("write", &path, source))?;
    if is_new {
        sync_folder(folder)?;
    }
    Ok(())
}

fn append_lines(path: &Path, entries: &[AuditEntry]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).open(path)?;
    let mut text = Vec::new();
    let length = file.metadata()?.len();
    if length > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is full"));
    }
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            // What was cut short stays a line of its own.
            text.push(b'\n');
        }
    }
    for entry in entries {
        let line = serde_json::to_vec(&Line::from(entry)).expect("texts and numbers serialise");
        text.extend_from_slice(&line);
        text.push(b'\n');
    }
    file.write_all(&text)?;
    file.sync_all()
}

/// Every entry once, in their order.
pub(super) fn load(folder: &Path) -> Result<Found<Vec<AuditEntry>>, StoreError> {
    let path = folder.join(NAME);
    let mut found = Found::<Vec<AuditEntry>>::default();
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(io_error("read", &path, error)),
    };
    let mut seen = HashSet::new();
    for (number, line) in content.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice::<Line>(line) {
            Ok(line) if seen.insert(line.uid.clone()) => found.value.push(line.into()),
            Ok(_) => {}
            Err(error) => found.notes.push(format!(
                "passed over line {} of `{}`: {error}",
                number + 1,
                path.display()
            )),
        }
    }
    Ok(found)
}

/// Removes the file; there may be none.
pub(super) fn remove(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("delete", &path, error))
        }
        _ => Ok(()),
    }
}

impl From<&AuditEntry> for Line {
    fn from(entry: &AuditEntry) -> Self {
        let reason = entry.reason.as_deref();
        Self {
            uid: entry.uid.clone(),
            at_ms: entry.at_ms,
            actor: entry.actor.clone(),
            role: entry.role.clone(),
            action: entry.action.clone(),
            target: entry.target.clone(),
            // The database cuts it, too; so a line has a bound.
            reason: reason.map(|reason| fit(reason, REASON_CHARS_MAX)),
            result: entry.result.clone(),
        }
    }
}

impl From<Line> for AuditEntry {
    fn from(line: Line) -> Self {
        Self {
            uid: line.uid,
            at_ms: line.at_ms,
            actor: line.actor,
            role: line.role,
            action: line.action,
            target: line.target,
            reason: line.reason,
            result: line.result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uid: &str) -> AuditEntry {
        AuditEntry {
            uid: uid.to_owned(),
            at_ms: 1,
            actor: "otto".to_owned(),
            role: "operator".to_owned(),
            action: "source.pause".to_owned(),
            target: "gb".to_owned(),
            reason: Some("line one\nline two".to_owned()),
            result: "ok".to_owned(),
        }
    }

    #[test]
    fn entries_come_back_once_and_whole_until_the_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        assert!(load(&path).unwrap().value.is_empty());
        remove(&path).unwrap();
        append(&path, &[entry("1"), entry("2")]).unwrap();
        append(&path, &[entry("2"), entry("3")]).unwrap();
        let found = load(&path).unwrap();
        assert_eq!(found.value, [entry("1"), entry("2"), entry("3")]);
        assert!(found.notes.is_empty());
        remove(&path).unwrap();
        assert!(load(&path).unwrap().value.is_empty());
    }

    #[test]
    fn a_line_that_was_cut_short_costs_that_line_alone() {
        let folder = tempfile::tempdir().unwrap();
        append(folder.path(), &[entry("1"), entry("2")]).unwrap();
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let found = load(folder.path()).unwrap();
        assert_eq!(found.value, [entry("1")]);
        assert_eq!(found.notes.len(), 1);
        append(folder.path(), &[entry("3")]).unwrap();
        let found = load(folder.path()).unwrap();
        assert_eq!(found.value, [entry("1"), entry("3")]);
        assert_eq!(found.notes.len(), 1);
    }
}
