//! The disk backup and the ways in which files get harmed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use stitchd::store::{Backup, Found, FoundSnapshot, StoreError, StoreRuntime};

use crate::{backup_settings, input, row, state};

fn open(dir: &Path) -> Backup {
    Backup::new(&backup_settings(dir), StoreRuntime::new().unwrap())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn snapshots(dir: &Path) -> PathBuf {
    dir.join("snapshots/production")
}

fn revision(found: &Found<FoundSnapshot>) -> Option<u64> {
    found.value.revision.as_ref().map(|stored| stored.revision)
}

#[tokio::test]
async fn an_empty_backup_has_nothing_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let backup = open(&dir.path().join("backup"));
    let found = backup.load_snapshot("production").await.unwrap();
    assert!(found.value.revision.is_none() && found.notes.is_empty());
    assert_eq!(backup.highest_revision("production").await.unwrap(), None);
    assert!(backup.environments().await.unwrap().is_empty());
    assert!(backup.load_inputs().await.unwrap().value.is_empty());
    assert!(files(dir.path()).is_empty());
}

#[tokio::test]
async fn a_snapshot_comes_back_and_old_generations_go() {
    let dir = tempfile::tempdir().unwrap();
    let backup = open(dir.path());
    for revision in 8..=12 {
        let row = row(revision, &revision.to_string());
        backup.write_snapshot(&row).await.unwrap();
    }
    let found = backup.load_snapshot("production").await.unwrap();
    assert!(found.notes.is_empty());
    assert_eq!(found.value.highest, Some(12));
    let stored = found.value.revision.unwrap();
    assert_eq!(stored.revision, 12);
    assert_eq!(stored.packed, row(12, "12").body);
    assert_eq!(stored.candidate.hash, crate::candidate("12").hash);
    assert_eq!(files(&snapshots(dir.path())).len(), 3);
    assert_eq!(backup.environments().await.unwrap(), ["production"]);

    backup.write_snapshot(&row(12, "12")).await.unwrap();
    assert_eq!(files(&snapshots(dir.path())).len(), 3);
}

#[tokio::test]
async fn a_harmed_snapshot_falls_back_to_an_older_one() {
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 6] = [
        ("empty", Vec::clear),
        ("truncated", |bytes| bytes.truncate(bytes.len() - 1)),
        ("longer", |bytes| bytes.push(0)),
        ("one bit of the body", |bytes| {
            *bytes.last_mut().unwrap() ^= 1;
        }),
        ("another number in the header", |bytes| {
            replace(bytes, "\"number\":2", "\"number\":9");
        }),
        ("another time in the header", |bytes| {
            replace(bytes, "\"at_ms\":1", "\"at_ms\":2");
        }),
    ];
    for (harm, apply) in harms {
        let dir = tempfile::tempdir().unwrap();
        let backup = open(dir.path());
        backup.write_snapshot(&row(1, "a")).await.unwrap();
        backup.write_snapshot(&row(2, "b")).await.unwrap();
        let newest = files(&snapshots(dir.path())).pop().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        apply(&mut bytes);
        fs::write(&newest, bytes).unwrap();

        let found = backup.load_snapshot("production").await.unwrap();
        assert_eq!(revision(&found), Some(1), "{harm}");
        assert_eq!(found.value.highest, Some(2), "{harm}");
        assert_eq!(found.notes.len(), 1, "{harm}");
        assert!(found.notes[0].contains(newest.to_str().unwrap()));
        assert_eq!(
            backup.highest_revision("production").await.unwrap(),
            Some(2)
        );
        // Written again, the harmed one is whole.
        backup.write_snapshot(&row(2, "b")).await.unwrap();
        let found = backup.load_snapshot("production").await.unwrap();
        assert_eq!(revision(&found), Some(2), "{harm}");
    }
}

fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let at = bytes.windows(from.len()).position(|part| part == from);
    let at = at.unwrap();
    bytes.splice(at..at + from.len(), to.iter().copied());
}

#[tokio::test]
async fn an_older_snapshot_written_beside_harmed_newer_ones_stays() {
    let dir = tempfile::tempdir().unwrap();
    let backup = open(dir.path());
    for revision in 7..=9 {
        backup.write_snapshot(&row(revision, "a")).await.unwrap();
    }
    for file in files(&snapshots(dir.path())) {
        fs::write(file, "rubbish").unwrap();
    }
    backup.write_snapshot(&row(6, "b")).await.unwrap();
    let found = backup.load_snapshot("production").await.unwrap();
    assert_eq!(revision(&found), Some(6));
    assert_eq!(found.value.highest, Some(9));
}

#[tokio::test]
async fn a_file_moved_to_another_place_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let backup = open(dir.path());
    backup.write_snapshot(&row(1, "a")).await.unwrap();
    let staging = dir.path().join("snapshots/staging");
    fs::rename(snapshots(dir.path()), &staging).unwrap();
    let found = backup.load_snapshot("staging").await.unwrap();
    assert!(found.value.revision.is_none());
    assert_eq!(found.value.highest, Some(1));
    assert_eq!(found.notes.len(), 1);
}

#[tokio::test]
async fn unfinished_files_are_ignored_and_cleared_away_once_old() {
    let dir = tempfile::tempdir().unwrap();
    let backup = open(dir.path());
    backup.write_snapshot(&row(1, "a")).await.unwrap();
    let old = snapshots(dir.path()).join(".unfinished-old");
    let young = snapshots(dir.path()).join(".unfinished-young");
    let stray = snapshots(dir.path()).join("99.snapshot");
    for path in [&old, &young, &stray] {
        fs::write(path, "half").unwrap();
    }
    let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
    let file = fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(an_hour_ago).unwrap();

    let found = backup.load_snapshot("production").await.unwrap();
    assert_eq!(revision(&found), Some(1));
    assert_eq!(found.value.highest, Some(1));
    backup.write_snapshot(&row(2, "b")).await.unwrap();
    assert!(!old.exists());
    assert!(young.exists() && stray.exists());
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_an_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let backup = open(&file.join("backup"));
    let error = backup.write_snapshot(&row(1, "a")).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }));
    assert!(error.is_retryable());
    let text = error.explain();
    assert!(text.contains(file.to_str().unwrap()), "{text}");
    assert!(text.contains("os error"), "{text}");
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let backup = open(dir.path());
    for name in ["..", "", "a/b", ".hidden"] {
        let mut row = row(1, "a");
        row.environment = name.to_owned();
        let error = backup.write_snapshot(&row).await.unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{name}");
    }
    assert!(files(dir.path()).is_empty());
}

#[tokio::test]
async fn revisions_that_are_wanted_stay_beside_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let backup = open(dir.path());
    for revision in 1..=6 {
        let row = row(revision, &revision.to_string());
        let wanted = || BTreeSet::from([2, 99]);
        backup.write_snapshot_beside(&row, wanted).await.unwrap();
    }
    let found = backup.load_snapshot("production").await.unwrap().value;
    let numbers: Vec<u64> = found.generations.iter().map(|g| g.revision).collect();
    assert_eq!(numbers, [2, 4, 5, 6]);
    assert!(found.generations.iter().all(|g| g.bytes > 0));
    let read = backup.read_snapshot("production", 2).await.unwrap();
    assert_eq!(read, row(2, "2"));
    let error = backup.read_snapshot("production", 3).await.unwrap_err();
    assert!(error.is_lasting(), "{}", error.explain());

    backup.write_snapshot(&row(7, "7")).await.unwrap();
    let found = backup.load_snapshot("production").await.unwrap().value;
    let numbers: Vec<u64> = found.generations.iter().map(|g| g.revision).collect();
    assert_eq!(numbers, [5, 6, 7]);
}

#[tokio::test]
async fn what_is_there_already_is_not_written_again_unless_it_is_harmed() {
    let dir = tempfile::tempdir().unwrap();
    let backup = open(dir.path());
    let input = input("main", 1, "text").pack();
    let row = row(7, "seven");
    let write = async || {
        backup.write_input(&input).await.unwrap();
        backup.write_snapshot(&row).await.unwrap();
    };
    write().await;
    let inputs = dir.path().join("inputs/main");
    let written = [files(&inputs), files(&snapshots(dir.path()))].concat();
    let inode = |path: &PathBuf| fs::metadata(path).unwrap().ino();
    let before: Vec<_> = written.iter().map(inode).collect();
    write().await;
    assert_eq!(written.iter().map(inode).collect::<Vec<_>>(), before);
    assert_eq!(files(&inputs).len(), 1);

    for path in &written {
        let mut harmed = fs::read(path).unwrap();
        *harmed.last_mut().unwrap() ^= 1;
        fs::write(path, harmed).unwrap();
    }
    write().await;
    assert_eq!(files(&inputs).len(), 2);
    let found = backup.load_snapshot("production").await.unwrap();
    assert_eq!((revision(&found), found.notes.len()), (Some(7), 0));
}

#[tokio::test]
async fn inputs_and_states_come_back_and_fall_back() {
    let dir = tempfile::tempdir().unwrap();
    let backup = open(dir.path());
    for n in 1..=5 {
        // The clock may go backwards; the order of writing counts.
        let text = format!("text {n}");
        let input = input("main", 10 - n, &text).pack();
        backup.write_input(&input).await.unwrap();
        let state = state("main", 10 - n, &text);
        backup.write_state(&state).await.unwrap();
    }
    let inputs = backup.load_inputs().await.unwrap().value;
    assert_eq!(inputs["main"].1, input("main", 5, "text 5"));
    let states = backup.load_states().await.unwrap().value;
    assert_eq!(states["main"], state("main", 5, "text 5"));

    for folder in ["inputs/main", "states/main"] {
        let mut files = files(&dir.path().join(folder));
        assert_eq!(files.len(), 3);
        fs::write(files.pop().unwrap(), "rubbish").unwrap();
    }
    let inputs = backup.load_inputs().await.unwrap();
    assert_eq!(inputs.value["main"].1, input("main", 6, "text 4"));
    assert_eq!(inputs.notes.len(), 1);
    let states = backup.load_states().await.unwrap();
    assert_eq!(states.value["main"], state("main", 6, "text 4"));
    assert_eq!(states.notes.len(), 1);
}
