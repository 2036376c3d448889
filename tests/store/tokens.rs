//! Tokens at rest, on every database and in the backup.

use std::sync::Arc;

use stitchd::{
    model::{
        Projects, Scope, Token, TokenId, TokenKind,
        token::{Former, verifier},
    },
    store::{Database, StoredToken, TOKENS_PER_WRITE},
};

use crate::{databases::backends, store};

/// Nobody writes to it.
const NO_BACKUP: &str = "/nonexistent";

fn token(number: u16) -> Token {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Token {
        id: TokenId::new(id),
        kind: TokenKind::Frontend,
        scope: Arc::new(Scope {
            environment: "production".into(),
            projects: Projects::from_names(["shop", "blog"]).unwrap(),
        }),
        dialect: Some(stitchd::eval::Dialect::Legacy),
        rate_class: Some("slow".into()),
        created_by: "ops".into(),
        created_at_ms: 1,
        changed_at_ms: 1,
        expires_at_ms: Some(1_000),
        revoked_at_ms: None,
        verifier: verifier(&number.to_string()),
        former: Some(Box::new(Former {
            verifier: verifier("old"),
            until_ms: 7,
        })),
    }
}

/// Writes tokens as their keeper does: again where somebody else was faster.
async fn save(database: &Database, tokens: &[Token]) -> Vec<StoredToken> {
    loop {
        if let Some(saved) = database.save_tokens(tokens.to_vec()).await.unwrap() {
            return saved;
        }
    }
}

async fn all(database: &Database) -> Vec<StoredToken> {
    let (mut found, mut version) = (Vec::new(), 0);
    loop {
        let page = database.tokens_after(version).await.unwrap();
        assert!(page.notes.is_empty(), "{:?}", page.notes);
        found.extend(page.tokens);
        version = page.version;
        if !page.has_more {
            return found;
        }
    }
}

#[tokio::test]
async fn a_token_comes_back_as_it_was_and_changes_have_higher_versions() {
    for backend in backends() {
        let store = store(&backend.url, NO_BACKUP.as_ref());
        let database = store.database();
        assert_eq!(database.tokens_version().await.unwrap(), 0);
        let plain = Token {
            dialect: None,
            rate_class: None,
            expires_at_ms: None,
            former: None,
            ..token(2)
        };
        let saved = save(database, &[token(1), plain.clone()]).await;
        assert_eq!(all(database).await, saved, "{}", backend.name);
        assert_eq!(saved[0].token, token(1));
        assert_eq!(saved[1].token, plain);
        let revoked = Token {
            revoked_at_ms: Some(9),
            changed_at_ms: 9,
            ..token(1)
        };
        let saved = save(database, std::slice::from_ref(&revoked)).await;
        assert_eq!((saved[0].version, &saved[0].token), (3, &revoked));
        let page = database.tokens_after(2).await.unwrap();
        assert_eq!(page.tokens, saved, "{}", backend.name);
        assert_eq!(database.tokens_version().await.unwrap(), 3);
    }
}

#[tokio::test]
async fn an_older_copy_never_takes_a_revocation_back() {
    for backend in backends() {
        let store = store(&backend.url, NO_BACKUP.as_ref());
        let database = store.database();
        let revoked = Token {
            revoked_at_ms: Some(5),
            changed_at_ms: 5,
            ..token(1)
        };
        save(database, &[revoked]).await;
        let rotated = Token {
            changed_at_ms: 8,
            verifier: verifier("new"),
            ..token(1)
        };
        let saved = save(database, &[token(1)]).await;
        assert_eq!(saved[0].token.revoked_at_ms, Some(5), "{}", backend.name);
        let saved = save(database, &[rotated]).await;
        let found = &saved[0].token;
        assert_eq!(
            (found.revoked_at_ms, found.verifier),
            (Some(5), verifier("new"))
        );
    }
}

/// No reader may see a version while a lower one is still to come: it would never look for that.
#[tokio::test]
async fn writers_at_once_leave_no_gap_for_a_reader_to_fall_into() {
    const WRITERS: u16 = 4;
    const EACH: u16 = 15;
    for backend in backends() {
        let stores: Vec<_> = (0..WRITERS)
            .map(|_| store(&backend.url, NO_BACKUP.as_ref()))
            .collect();
        stores[0].database().ping().await.unwrap();
        let writes = (0..).zip(&stores).map(|(writer, store)| async move {
            for number in 0..EACH {
                save(store.database(), &[token(writer * EACH + number)]).await;
            }
        });
        let reads = async {
            let (mut seen, mut version) = (Vec::new(), 0);
            while seen.len() < usize::from(WRITERS * EACH) {
                let page = stores[0].database().tokens_after(version).await.unwrap();
                seen.extend(page.tokens.iter().map(|stored| stored.version));
                version = page.version;
            }
            seen
        };
        let (_, seen) = tokio::join!(futures_util::future::join_all(writes), reads);
        let expected: Vec<i64> = (1..=i64::from(WRITERS * EACH)).collect();
        assert_eq!(seen, expected, "{}", backend.name);
    }
}

#[tokio::test]
async fn thousands_are_written_and_read_in_pages_and_ended_ones_deleted() {
    for backend in backends() {
        let store = store(&backend.url, NO_BACKUP.as_ref());
        let database = store.database();
        let tokens: Vec<Token> = (0..4_500).map(token).collect();
        for tokens in tokens.chunks(TOKENS_PER_WRITE) {
            save(database, tokens).await;
        }
        let found = all(database).await;
        assert_eq!(found.len(), tokens.len(), "{}", backend.name);
        assert_eq!(database.delete_tokens(1_000).await.unwrap(), 0);
        assert_eq!(database.delete_tokens(1_001).await.unwrap(), 4_499);
        // The highest version stays known.
        assert_eq!(all(database).await.last(), found.last());
        assert_eq!(database.tokens_version().await.unwrap(), 4_500);
    }
}

#[tokio::test]
async fn the_backup_brings_all_tokens_back_from_the_newest_file_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("backup");
    let store = store("sqlite::memory:", &dir);
    let backup = store.backup();
    assert_eq!(backup.load_tokens().await.unwrap().value, None);
    let stored = |number, version| StoredToken {
        token: token(number),
        version,
    };
    let first = vec![stored(1, 1), stored(2, 0)];
    backup.write_tokens(first.clone(), 1).await.unwrap();
    backup.write_tokens(vec![stored(3, 1)], 2).await.unwrap();
    let found = backup.load_tokens().await.unwrap().value.unwrap();
    assert_eq!((found.tokens, found.written_at_ms), (vec![stored(3, 1)], 2));
    let newest = dir.join("tokens/all/00000000000000000002.token");
    std::fs::write(newest, "harmed").unwrap();
    let found = backup.load_tokens().await.unwrap();
    assert_eq!(found.value.unwrap().tokens, first);
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
}
