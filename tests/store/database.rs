//! The same behaviour on `SQLite`, PostgreSQL and MariaDB.

use std::collections::BTreeSet;

use bytes::Bytes;
use stitchd::store::{
    AuditEntry, AuditFilter, Inserted, MigrationState, RevisionInfo, Store, StoreError,
};

use crate::{
    database_settings,
    databases::{Backend, backends, execute, on_server, sqlite},
    input, row, state, store,
};

/// A store on this database; its backup is never written to.
fn open(backend: &Backend) -> Store {
    store(&backend.url, "/nonexistent".as_ref())
}

#[tokio::test]
async fn migrations_go_up_down_and_up_again() {
    for backend in backends() {
        let store = open(&backend);
        let database = store.database();
        let states = database.migrations().await.unwrap();
        let all = states.len();
        assert!(all >= 4, "{}", backend.name);
        assert!(
            states.iter().all(|(_, s)| *s == MigrationState::Pending),
            "{}: looking applies nothing",
            backend.name
        );

        assert_eq!(database.migrate_up().await.unwrap().len(), all);
        assert_eq!(database.migrate_up().await.unwrap().len(), 0);
        let states = database.migrations().await.unwrap();
        assert!(states.iter().all(|(_, s)| *s == MigrationState::Applied));

        let back: Vec<String> = database.migrate_down().await.unwrap();
        let forth: Vec<String> = states.into_iter().map(|(name, _)| name).rev().collect();
        assert_eq!(back, forth, "{}", backend.name);

        assert_eq!(database.migrate_up().await.unwrap().len(), all);
        database.insert_revision(&row(1, "a")).await.unwrap();
    }
}

#[tokio::test]
async fn replicas_that_start_together_migrate_once() {
    for backend in backends() {
        let replicas: Vec<Store> = (0..4).map(|_| open(&backend)).collect();
        let pings = replicas.iter().map(|replica| replica.database().ping());
        for ping in futures_util::future::join_all(pings).await {
            ping.unwrap_or_else(|error| panic!("{}: {}", backend.name, error.explain()));
        }
    }
}

#[tokio::test]
async fn a_schema_of_a_newer_release_is_used_as_it_is() {
    for backend in backends() {
        open(&backend).database().migrate_up().await.unwrap();
        let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m99990101_000001_alter_x', 0)";
        execute(backend.url.clone(), newer.to_owned())
            .await
            .unwrap();
        let store = open(&backend);
        store.database().ping().await.unwrap();
        let states = store.database().migrations().await.unwrap();
        assert_eq!(states.last().unwrap().1, MigrationState::Newer);
    }
}

#[tokio::test]
async fn without_migrate_on_start_an_empty_database_is_named_as_such() {
    for backend in backends() {
        let mut settings = database_settings(&backend.url);
        settings.migrate_on_start = false;
        let backup = crate::backup_settings("/nonexistent".as_ref());
        let store = Store::new(&settings, &backup).unwrap();
        let error = store.database().ping().await.unwrap_err();
        assert!(matches!(error, StoreError::SchemaBehind { pending } if pending >= 4));
        assert!(error.explain().contains("stitchd migrate up"));
        store.database().migrate_up().await.unwrap();
        store.database().ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_number_is_given_once() {
    for backend in backends() {
        let store = open(&backend);
        let database = store.database();
        assert_eq!(database.highest_revision("production").await.unwrap(), None);
        let insert = async |revision, text| {
            let row = row(revision, text);
            database.insert_revision(&row).await.unwrap()
        };
        assert_eq!(insert(1, "a").await, Inserted::New);
        assert_eq!(insert(1, "a").await, Inserted::AlreadyThere);
        assert_eq!(insert(2, "b").await, Inserted::New);
        assert_eq!(insert(1, "b").await, Inserted::Elsewhere { highest: 2 });
        assert_eq!(insert(1, "c").await, Inserted::Taken { highest: 2 });

        let latest = database.latest_revision("production").await.unwrap();
        assert_eq!(latest, Some(row(2, "b")), "{}", backend.name);
        let first = database.revision_up_to("production", 1).await.unwrap();
        assert_eq!(first, Some(row(1, "a")));
        assert_eq!(
            database.highest_revision("production").await.unwrap(),
            Some(2)
        );
        assert_eq!(database.environments().await.unwrap(), ["production"]);
    }
}

#[tokio::test]
async fn environments_that_differ_in_case_are_two() {
    for backend in backends() {
        let store = open(&backend);
        for environment in ["production", "Production"] {
            let mut row = row(1, environment);
            row.environment = environment.to_owned();
            let inserted = store.database().insert_revision(&row).await.unwrap();
            assert_eq!(inserted, Inserted::New, "{}", backend.name);
        }
    }
}

#[tokio::test]
async fn of_two_writers_one_gets_the_number() {
    for backend in backends() {
        let (here, there) = (open(&backend), open(&backend));
        here.database().ping().await.unwrap();
        there.database().ping().await.unwrap();
        for revision in 1..=10 {
            let (a, b) = (row(revision, "here"), row(revision, "there"));
            let (a, b) = tokio::join!(
                here.database().insert_revision(&a),
                there.database().insert_revision(&b)
            );
            let taken = Inserted::Taken { highest: revision };
            let mut outcome = [a.unwrap(), b.unwrap()];
            outcome.sort_by_key(|inserted| *inserted != Inserted::New);
            assert_eq!(outcome, [Inserted::New, taken], "{}", backend.name);
        }
    }
}

#[tokio::test]
async fn a_call_whose_caller_goes_away_is_finished() {
    for backend in backends() {
        let store = open(&backend);
        let database = store.database();
        database.ping().await.unwrap();
        let row = row(1, "a");
        let mut insert = Box::pin(database.insert_revision(&row));
        // Begun, and on a quiet machine not done yet.
        drop(futures_util::poll!(&mut insert));
        drop(insert);
        let seen = async {
            while database.highest_revision("production").await.unwrap() != Some(1) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), seen)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn pruning_keeps_the_newest() {
    for backend in backends() {
        let store = open(&backend);
        let database = store.database();
        for revision in 1..=5 {
            database.insert_revision(&row(revision, "a")).await.unwrap();
        }
        let none = BTreeSet::new();
        let prune = async |keep| {
            let pruned = database.prune_revisions("production", keep, &none).await;
            pruned.unwrap()
        };
        let lacks = async |revision, keep| {
            let asked = database.lacks_revision("production", revision, keep);
            asked.await.unwrap()
        };
        assert!(!lacks(3, 9).await && lacks(6, 9).await && lacks(6, 2).await);
        assert_eq!(prune(9).await, 0);
        assert_eq!(prune(2).await, 3, "{}", backend.name);
        let third = database.revision_up_to("production", 3).await.unwrap();
        assert_eq!(third, None);
        // What was deleted on purpose is not missed, unless more are to be kept now.
        assert!(!lacks(3, 2).await && lacks(3, 3).await, "{}", backend.name);
        assert_eq!(prune(0).await, 1, "the newest always stays");
        assert_eq!(
            database.highest_revision("production").await.unwrap(),
            Some(5)
        );
        let other = database.prune_revisions("other", 1, &none).await;
        assert_eq!(other.unwrap(), 0);
    }
}

#[tokio::test]
async fn pruning_leaves_what_is_protected() {
    for backend in backends() {
        let store = open(&backend);
        let database = store.database();
        for revision in 1..=6 {
            database.insert_revision(&row(revision, "a")).await.unwrap();
        }
        let protected = BTreeSet::from([2, 4, 6]);
        let pruned = database.prune_revisions("production", 2, &protected).await;
        assert_eq!(pruned.unwrap(), 2, "{}", backend.name);
        let left = database.list_revisions("production", 10, None).await;
        let left: Vec<u64> = left.unwrap().iter().map(|info| info.revision).collect();
        assert_eq!(left, [6, 5, 4, 2], "{}", backend.name);
    }
}

#[tokio::test]
async fn revisions_are_listed_without_their_bytes() {
    for backend in backends() {
        let store = open(&backend);
        let database = store.database();
        for revision in 1..=4 {
            let row = row(revision, &revision.to_string());
            database.insert_revision(&row).await.unwrap();
        }
        // As a release before wrote it.
        let older = "INSERT INTO revisions (environment, revision, hash, cause, features, experiments, size_bytes, published_at_ms, body) SELECT environment, 5, hash, cause, features, experiments, size_bytes, published_at_ms, body FROM revisions WHERE revision = 4";
        execute(backend.url.clone(), older.to_owned())
            .await
            .unwrap();

        let name = backend.name;
        let list = async |limit, before| {
            let listed = database.list_revisions("production", limit, before).await;
            listed.unwrap()
        };
        let newest = list(3, None).await;
        let numbers: Vec<u64> = newest.iter().map(|info| info.revision).collect();
        assert_eq!(numbers, [5, 4, 3], "{name}");
        let expected = RevisionInfo::from(&row(3, "3"));
        assert_eq!(list(1, Some(4)).await, [expected], "{name}");
        assert_eq!(newest[0].meta.issues, None, "{name}");
        assert_eq!(newest[0].meta.features, 1, "{name}");
        assert!(newest[0].meta.versions.is_empty(), "{name}");
        assert_eq!(list(9, Some(1)).await, [], "{name}");
        let range = database.revision_range("production").await.unwrap();
        assert_eq!(range, Some((1, 5)), "{name}");
        assert_eq!(database.revision_range("other").await.unwrap(), None);
        let third = database.revision("production", 3).await.unwrap();
        assert_eq!(third, Some(row(3, "3")), "{name}");
        assert_eq!(database.revision("production", 6).await.unwrap(), None);
    }
}

#[tokio::test]
async fn inputs_and_states_are_replaced() {
    for backend in backends() {
        let store = open(&backend);
        let database = store.database();
        for (at_ms, text) in [(1, "old"), (2, "new €")] {
            let packed = store.pack_input(input("main", at_ms, text)).await.unwrap();
            database.upsert_input(&packed).await.unwrap();
            let state = state("main", at_ms, &format!("{{\"text\":\"{text}\"}}"));
            database.upsert_state(&state).await.unwrap();
        }
        let other = input("other", 1, "x").pack();
        database.upsert_input(&other).await.unwrap();

        let mut inputs: Vec<_> = database.load_inputs().await.unwrap();
        inputs.sort_by(|a, b| a.source.cmp(&b.source));
        let inputs: Vec<_> = inputs.iter().map(|input| input.unpack().unwrap()).collect();
        let expected = [input("main", 2, "new €"), input("other", 1, "x")];
        assert_eq!(inputs, expected, "{}", backend.name);
        let states = database.load_states().await.unwrap();
        assert_eq!(states, [state("main", 2, "{\"text\":\"new €\"}")]);
    }
}

#[tokio::test]
async fn large_bodies_come_back_as_they_were() {
    for backend in backends() {
        let store = open(&backend);
        let mut row = row(1, "a");
        row.body = noise(3 << 20);
        store.database().insert_revision(&row).await.unwrap();
        let latest = store.database().latest_revision("production").await;
        assert!(latest.unwrap().unwrap() == row, "{}", backend.name);
        let large = state("main", 1, &"x".repeat(200_000));
        store.database().upsert_state(&large).await.unwrap();
        assert_eq!(store.database().load_states().await.unwrap(), [large]);
    }
}

#[tokio::test]
async fn a_body_over_the_servers_packet_is_a_named_error() {
    let Some(backend) = on_server("mariadb", "STITCHD_TEST_MARIADB") else {
        return;
    };
    let store = open(&backend);
    let mut row = row(1, "a");
    // Servers ship with 16 MiB (MariaDB) or 64 MiB (MySQL).
    row.body = noise(65 << 20);
    let error = store.database().insert_revision(&row).await.unwrap_err();
    assert!(matches!(
        error,
        StoreError::PacketTooLarge { size_bytes, limit_bytes }
            if size_bytes > 65 << 20 && limit_bytes >= 1 << 20
    ));
    assert!(error.explain().contains("max_allowed_packet"));
    assert!(!error.is_retryable());
    store.database().ping().await.unwrap();
}

#[tokio::test]
async fn a_closed_database_is_whole_in_its_file_and_opens_again() {
    let backend = sqlite();
    let store = open(&backend);
    store
        .database()
        .insert_revision(&row(1, "a"))
        .await
        .unwrap();
    let file = backend.url.trim_start_matches("sqlite://");
    let log = file.replace("?mode=rwc", "-wal");
    assert!(std::fs::exists(&log).unwrap());
    store.close().await.unwrap();
    assert!(!std::fs::exists(&log).unwrap());
    let highest = store.database().highest_revision("production").await;
    assert_eq!(highest.unwrap(), Some(1));
}

fn entry(uid: &str, action: &str) -> AuditEntry {
    AuditEntry {
        uid: format!("{uid:0>36}"),
        at_ms: 1_700_000_000_000,
        actor: "alice".to_owned(),
        role: "operator".to_owned(),
        action: action.to_owned(),
        target: "growthbook-prod".to_owned(),
        reason: None,
        result: "ok".to_owned(),
    }
}

#[tokio::test]
async fn an_audit_entry_written_twice_is_kept_once() {
    for backend in backends() {
        let store = open(&backend);
        let database = store.database();
        let entries: Vec<_> = (0..120).map(|n| entry(&n.to_string(), "pause")).collect();
        database.append_audit(&entries[..60]).await.unwrap();
        database.append_audit(&entries).await.unwrap();
        let changed = entry("0", "something else");
        database.append_audit(&[changed]).await.unwrap();
        database.append_audit(&[]).await.unwrap();

        let newest = database
            .list_audit(100, None, AuditFilter::default())
            .await
            .unwrap();
        let oldest_id = newest.last().unwrap().0;
        let rest = database
            .list_audit(100, Some(oldest_id), AuditFilter::default())
            .await
            .unwrap();
        let all = newest.into_iter().chain(rest).map(|(_, entry)| entry);
        let oldest_first: Vec<_> = all.collect::<Vec<_>>().into_iter().rev().collect();
        assert_eq!(oldest_first, entries, "{}", backend.name);
    }
}

#[tokio::test]
async fn the_audit_is_listed_by_who_did_what_to_what() {
    for backend in backends() {
        let store = open(&backend);
        let database = store.database();
        let mut entries = vec![entry("1", "source.pause"), entry("2", "source.poll")];
        entries.push(AuditEntry {
            actor: "bob".to_owned(),
            target: "other".to_owned(),
            ..entry("3", "source.poll")
        });
        database.append_audit(&entries).await.unwrap();
        let check = async |[actor, action, target]: [Option<&str>; 3], expected: &[usize]| {
            let filter = AuditFilter {
                actor: actor.map(str::to_owned),
                action: action.map(str::to_owned),
                target: target.map(str::to_owned),
            };
            let listed = database.list_audit(10, None, filter).await.unwrap();
            let listed: Vec<_> = listed.into_iter().map(|(_, entry)| entry).collect();
            let expected: Vec<_> = expected.iter().map(|at| entries[*at].clone()).collect();
            assert_eq!(listed, expected, "{}", backend.name);
        };
        check([None, None, None], &[2, 1, 0]).await;
        check([Some("alice"), None, None], &[1, 0]).await;
        check([None, Some("source.poll"), None], &[2, 1]).await;
        check([Some("alice"), Some("source.poll"), None], &[1]).await;
        check([None, None, Some("other")], &[2]).await;
        check([Some("ALICE"), None, None], &[]).await;
        check([Some("nul \0"), None, None], &[]).await;
    }
}

#[tokio::test]
async fn an_audit_entry_of_any_text_is_kept() {
    for backend in backends() {
        let store = open(&backend);
        let mut odd = entry("1", &"ä".repeat(100));
        odd.reason = Some("nul \0 and 🎈".to_owned());
        odd.target = "t".repeat(5000);
        store.database().append_audit(&[odd]).await.unwrap();
        let kept = store
            .database()
            .list_audit(1, None, AuditFilter::default())
            .await
            .unwrap();
        let kept = &kept[0].1;
        assert_eq!(kept.action, "ä".repeat(64), "{}", backend.name);
        assert_eq!(kept.reason.as_deref(), Some("nul \u{fffd} and 🎈"));
        assert_eq!(kept.target.len(), 255);
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    Bytes::from(bytes)
}
