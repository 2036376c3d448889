//! What operators decided: on every database and on disk.

use serde_json::json;
use stitchd::store::{Registers, Side};

use crate::{databases::backends, store};

fn said(name: &str, value: i64, at_ms: i64) -> Registers {
    let mut registers = Registers::default();
    registers.set(name, Some(json!(value)), at_ms);
    registers
}

#[tokio::test]
async fn of_two_writers_the_slower_one_is_told_and_can_merge() {
    for backend in backends() {
        let store = store(&backend.url, "/nonexistent".as_ref());
        let database = store.database();
        let (one, other) = (said("pin", 7, 10), said("override", 1, 20));
        let save = async |seen, registers: &Registers| {
            let saved = database.save_registers("production", seen, registers, 1);
            saved
                .await
                .unwrap_or_else(|error| panic!("{}: {}", backend.name, error.explain()))
        };
        assert!(save(0, &one).await);
        assert!(!save(0, &other).await, "{}: the row is there", backend.name);
        let mut found = database.load_registers("production").await.unwrap();
        assert_eq!((found.version, &found.registers), (1, &one));
        found.registers.merge(other);
        assert!(save(1, &found.registers).await);
        assert!(!save(1, &one).await, "{}: version 1 is gone", backend.name);
        let versions = database.registers_versions().await.unwrap();
        assert_eq!(
            versions.into_iter().collect::<Vec<_>>(),
            [("production".to_owned(), 2)]
        );
        let found = database.load_registers("production").await.unwrap();
        assert_eq!(found.registers.values().len(), 2);
        let none = database.load_registers("elsewhere").await.unwrap();
        assert!(none.version == 0 && none.registers.is_empty());
    }
}

#[tokio::test]
async fn a_start_merges_what_both_sides_say() {
    for backend in backends() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&backend.url, dir.path());
        let (in_database, on_disk) = (said("pin", 7, 10), said("override", 1, 20));
        let saved = store
            .database()
            .save_registers("production", 0, &in_database, 1);
        assert!(saved.await.unwrap());
        let backup = store.backup();
        // Written in the wrong order: the older one has the higher generation.
        let mut newer = on_disk.clone();
        newer.set("override", None, 30);
        backup
            .write_registers("production", &newer, 30)
            .await
            .unwrap();
        backup
            .write_registers("production", &on_disk, 20)
            .await
            .unwrap();
        let loaded = store.load(&["production".to_owned()]).await.unwrap();
        let found = &loaded.registers["production"];
        assert_eq!(found.state.version, 1);
        let values = found.state.registers.values();
        assert_eq!(
            values.into_iter().collect::<Vec<_>>(),
            [("pin".to_owned(), json!(7))]
        );
        assert_eq!(
            (found.database, found.backup),
            (Side::Behind, Side::Behind),
            "{}",
            backend.name
        );
    }
}
