//! What a start finds, whichever side is ahead, harmed or away.

use std::path::Path;

use stitchd::store::{Inserted, LoadedEnvironment, Side, Store};

use crate::{
    databases::{Backend, backends, execute, sqlite},
    input, row, state, store,
};

const ASKED: [&str; 1] = ["production"];

async fn environment(store: &Store) -> LoadedEnvironment {
    let asked = ASKED.map(str::to_owned);
    let mut loaded = store.load(&asked).await.unwrap();
    assert!(loaded.database_failure.is_none());
    assert!(loaded.backup_failure.is_none());
    loaded.environments.remove("production").unwrap()
}

fn current(environment: &LoadedEnvironment) -> Option<(u64, &str)> {
    let stored = environment.current.as_ref()?;
    Some((stored.revision, &stored.candidate.hash))
}

fn hash(text: &str) -> String {
    crate::candidate(text).hash
}

/// A store whose database is migrated, so that a load is not kept waiting for that.
async fn open(backend: &Backend, dir: &Path) -> Store {
    let store = store(&backend.url, dir);
    store.database().ping().await.unwrap();
    store
}

async fn insert(store: &Store, revision: u64, text: &str) {
    let row = row(revision, text);
    let inserted = store.database().insert_revision(&row).await.unwrap();
    assert_eq!(inserted, Inserted::New);
}

async fn write(store: &Store, revision: u64, text: &str) {
    let row = row(revision, text);
    store.backup().write_snapshot(&row).await.unwrap();
}

#[tokio::test]
async fn a_first_start_finds_nothing() {
    for backend in backends() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&backend.url, dir.path());
        let found = environment(&store).await;
        assert!(found.current.is_none(), "{}", backend.name);
        assert_eq!(found.highest, 0);
        assert_eq!((found.database, found.backup), (Side::InStep, Side::InStep));
    }
}

#[tokio::test]
async fn the_higher_side_wins_and_the_other_is_named() {
    for backend in backends() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&backend, dir.path()).await;
        insert(&store, 1, "a").await;
        let found = environment(&store).await;
        assert_eq!(current(&found), Some((1, hash("a").as_str())));
        assert_eq!((found.database, found.backup), (Side::InStep, Side::Behind));

        write(&store, 1, "a").await;
        write(&store, 2, "b").await;
        let found = environment(&store).await;
        assert_eq!(current(&found), Some((2, hash("b").as_str())));
        assert_eq!(found.highest, 2);
        assert_eq!((found.database, found.backup), (Side::Behind, Side::InStep));

        insert(&store, 2, "b").await;
        let found = environment(&store).await;
        assert_eq!((found.database, found.backup), (Side::InStep, Side::InStep));
        assert!(!found.is_diverged);
    }
}

#[tokio::test]
async fn the_same_number_with_other_content_is_told() {
    let (backend, dir) = (sqlite(), tempfile::tempdir().unwrap());
    let store = open(&backend, dir.path()).await;
    insert(&store, 5, "database").await;
    write(&store, 5, "backup").await;
    let found = environment(&store).await;
    assert_eq!(current(&found), Some((5, hash("database").as_str())));
    assert!(found.is_diverged);
    assert_eq!(found.backup, Side::Behind);
}

#[tokio::test]
async fn a_harmed_row_falls_back_to_the_backup_then_to_an_older_row() {
    for backend in backends() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&backend, dir.path()).await;
        for revision in 1..=3 {
            insert(&store, revision, &revision.to_string()).await;
        }
        let literal = if backend.name == "postgres" {
            "'\\x00'"
        } else {
            "x'00'"
        };
        let harm = format!("UPDATE revisions SET body = {literal} WHERE revision = 3");
        execute(backend.url.clone(), harm).await.unwrap();

        let found = environment(&store).await;
        assert_eq!(current(&found), Some((2, hash("2").as_str())));
        assert_eq!(found.highest, 3, "{}", backend.name);

        write(&store, 3, "3").await;
        let found = environment(&store).await;
        assert_eq!(current(&found), Some((3, hash("3").as_str())));
        assert_eq!((found.database, found.backup), (Side::InStep, Side::InStep));
    }
}

#[tokio::test]
async fn numbers_known_by_their_file_names_count() {
    let (backend, dir) = (sqlite(), tempfile::tempdir().unwrap());
    let store = open(&backend, dir.path()).await;
    insert(&store, 1, "a").await;
    write(&store, 7, "b").await;
    let file = "snapshots/production/00000000000000000007.snapshot";
    std::fs::write(dir.path().join(file), "rubbish").unwrap();
    let asked = ASKED.map(str::to_owned);
    let loaded = store.load(&asked).await.unwrap();
    assert_eq!(loaded.notes.len(), 1);
    let found = &loaded.environments["production"];
    assert_eq!(current(found), Some((1, hash("a").as_str())));
    assert_eq!(found.highest, 7);
}

#[tokio::test]
async fn the_newer_input_and_state_win() {
    for backend in backends() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&backend, dir.path()).await;
        let (database, backup) = (store.database(), store.backup());
        for (source, in_database, on_disk) in [("a", 1, 2), ("b", 2, 1), ("c", 3, 3)] {
            let text = |at: i64| format!("{source} {at}");
            let newer = input(source, in_database, &text(in_database)).pack();
            database.upsert_input(&newer).await.unwrap();
            let older = input(source, on_disk, &text(on_disk)).pack();
            backup.write_input(&older).await.unwrap();
            let newer = state(source, in_database, &text(in_database));
            database.upsert_state(&newer).await.unwrap();
            let older = state(source, on_disk, &text(on_disk));
            backup.write_state(&older).await.unwrap();
        }
        let loaded = store.load(&[]).await.unwrap();
        let behind = |source: &str| {
            let (input, state) = (&loaded.inputs[source], &loaded.states[source]);
            assert_eq!(input.packed.unpack().unwrap(), input.input);
            assert_eq!(
                (input.database, input.backup),
                (state.database, state.backup)
            );
            assert_eq!(input.input.accepted_at_ms, state.state.updated_at_ms);
            (input.input.accepted_at_ms, input.database, input.backup)
        };
        assert_eq!(behind("a"), (2, Side::Behind, Side::InStep));
        assert_eq!(behind("b"), (2, Side::InStep, Side::Behind));
        assert_eq!(behind("c"), (3, Side::InStep, Side::InStep));
    }
}

#[tokio::test]
async fn a_backup_that_cannot_be_read_does_not_hold_up_the_database() {
    let (backend, dir) = (sqlite(), tempfile::tempdir().unwrap());
    let file = dir.path().join("snapshots");
    std::fs::write(file, "not a folder").unwrap();
    let store = open(&backend, dir.path()).await;
    insert(&store, 1, "a").await;
    let asked = ASKED.map(str::to_owned);
    let loaded = store.load(&asked).await.unwrap();
    assert!(loaded.backup_failure.is_some());
    let found = &loaded.environments["production"];
    assert_eq!(current(found), Some((1, hash("a").as_str())));
    assert_eq!(found.backup, Side::Unknown);
}
