//! What tokens cost the database: one question a second, and nothing per request, per token or per revision.

use std::time::Duration;

use serde_json::json;
use stitchd::{
    model::{
        Projects, Scope, Token, TokenId, TokenKind,
        token::{secret, verifier},
    },
    store::TOKENS_PER_WRITE,
};
use tokio::time::Instant;

use crate::{
    status,
    support::{Bed, ENVIRONMENT, TestApp, databases::on_each, eventually, store},
};

const TOKENS: u32 = 3_000;

/// Puts tokens into the database as another replica would; gives the secret of the last.
async fn fill(bed: &Bed, number: u32) -> String {
    let scope = std::sync::Arc::new(Scope {
        environment: ENVIRONMENT.into(),
        projects: Projects::All,
    });
    let mut last = String::new();
    let mut tokens = Vec::new();
    for number in 0..number {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let id = TokenId::new(id);
        last = secret(TokenKind::Frontend, &scope, id, &[7; 32]);
        tokens.push(Token {
            id,
            kind: TokenKind::Frontend,
            scope: std::sync::Arc::clone(&scope),
            dialect: None,
            rate_class: None,
            created_by: "ops".into(),
            created_at_ms: 0,
            changed_at_ms: 0,
            expires_at_ms: None,
            revoked_at_ms: None,
            verifier: verifier(&last),
            former: None,
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let store = store(&bed.database_url, folder.path());
    for tokens in tokens.chunks(TOKENS_PER_WRITE) {
        let saved = store.database().save_tokens(tokens.to_vec()).await.unwrap();
        assert_eq!(saved.unwrap().len(), tokens.len());
    }
    last
}

/// Questions to the database so far.
async fn reads(app: &TestApp, what: &str) -> u64 {
    let metrics = app.admin_get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let line = format!("stitchd_database_reads_total{{what=\"{what}\"}} ");
    let found = text.lines().find_map(|found| found.strip_prefix(&line));
    found.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_revision_is_at_most_one_read_on_every_replica_whatever_the_number_of_tokens() {
    const REVISIONS: u64 = 5;
    on_each(async |backend| {
        let bed = Bed::on(&backend);
        let secret = fill(&bed, TOKENS).await;
        let first = bed.start_loaded().await;
        let dir = tempfile::tempdir().unwrap();
        let own = format!("{}/backup", bed.dir.path().display());
        let path = format!("{}/backup", dir.path().display());
        let text = bed.toml().replacen(&own, &path, 1);
        let settings = stitchd::settings::from_toml(&text, stitchd::settings::Profile::Test);
        let second = TestApp::spawn(settings.unwrap()).await;
        second.until_revision(1).await;
        let replicas = [&first, &second];
        for app in replicas {
            eventually("all tokens are known", async || {
                (app.handles.board.tokens().len() == TOKENS as usize).then_some(())
            })
            .await;
        }
        let before = (
            reads(&first, "revisions").await,
            reads(&second, "revisions").await,
        );
        let asked = (
            reads(&first, "tokens").await,
            reads(&second, "tokens").await,
        );
        let since = Instant::now();
        for number in 0..REVISIONS {
            bed.upstream
                .set_feature("news", json!({ "defaultValue": number }));
            for app in replicas {
                app.poll().await;
                for _ in 0..50 {
                    assert_eq!(status(app, &secret).await, 200, "{}", backend.name);
                }
            }
        }
        let after = (
            reads(&first, "revisions").await,
            reads(&second, "revisions").await,
        );
        assert!(
            after.0 - before.0 <= REVISIONS && after.1 - before.1 <= REVISIONS,
            "{before:?} {after:?}"
        );
        assert_eq!(first.revision(), second.revision());
        // Whether there is news of tokens is asked once a second, and by nobody else.
        let ticks = since.elapsed().as_secs() + 2;
        let now = (
            reads(&first, "tokens").await,
            reads(&second, "tokens").await,
        );
        assert!(
            now.0 - asked.0 <= ticks && now.1 - asked.1 <= ticks,
            "{asked:?} {now:?} in {ticks} s"
        );
        first.stop().await;
        second.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_nobody_knows_costs_one_look_however_often_it_is_shown() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    let unknown = format!("srv-{}_{}", TokenId::new([3; 16]), "A".repeat(43));
    let before = reads(&app, "tokens").await;
    let since = Instant::now();
    for _ in 0..200 {
        assert_eq!(status(&app, &unknown).await, 401);
    }
    let looks = reads(&app, "tokens").await - before;
    assert!(looks <= since.elapsed().as_secs() + 3, "{looks} looks");
    assert!(since.elapsed() < Duration::from_secs(30));
    app.stop().await;
}
