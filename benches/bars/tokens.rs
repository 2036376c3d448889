//! What tokens cost: memory of the real program, time of a revision, time of a lookup.

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use stitchd::{
    cli::demo::upstream::CLIENT_KEY,
    clock,
    model::{
        Projects, Scope, Token, TokenId, TokenKind,
        token::{secret, verifier},
    },
    settings,
    store::{Store, TOKENS_PER_WRITE},
};
use tokio::time::{Instant, sleep};

use super::{
    memory::{Service, block_on, two_payloads, upstream},
    reads::settings as in_process,
    report::{Report, median},
    stitch::{NAME, ms},
};

const MANY: usize = 100_000;
const FEW: usize = 10;
/// Environments that the tokens are spread over.
const ENVIRONMENTS: [&str; 4] = [NAME, "staging", "testing", "elsewhere"];
/// What many tokens may take more than few, in mebibytes.
const MEMORY_BAR_MIB: f64 = 40.0;
/// How much longer a revision may take with many tokens than with few.
const REVISION_BAR: f64 = 1.2;
/// Microseconds that a lookup may take.
const LOOKUP_BAR_US: f64 = 1.0;
/// Features of the payloads that the revisions alternate between.
const FEATURES: usize = 1_000;
/// Revisions of each; odd, so that there is a middle one.
const ROUNDS: usize = 41;
/// How long memory is given to settle: freed pages go back after 0.2 s, the tokens' backup is written within 10 s.
const SETTLE: Duration = Duration::from_secs(15);

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    block_on(services(report))?;
    actix_web::rt::System::new().block_on(lookups(report))
}

/// A token with a secret that follows from its number.
fn token(number: usize) -> (Token, String) {
    let mut id = [0; 16];
    // Spread like random ones.
    id.copy_from_slice(&verifier(&number.to_string())[..16]);
    let id = TokenId::new(id);
    let scope = Arc::new(Scope {
        environment: ENVIRONMENTS[number % ENVIRONMENTS.len()].into(),
        projects: Projects::All,
    });
    let secret = secret(
        TokenKind::Frontend,
        &scope,
        id,
        &verifier(&format!("s{number}")),
    );
    let token = Token {
        id,
        kind: TokenKind::Frontend,
        scope,
        dialect: None,
        rate_class: None,
        created_by: "bench".into(),
        created_at_ms: 0,
        changed_at_ms: 0,
        expires_at_ms: None,
        revoked_at_ms: None,
        verifier: verifier(&secret),
        former: None,
    };
    (token, secret)
}

/// Puts tokens where a service in this folder finds them.
async fn fill(folder: &Path, number: usize) -> anyhow::Result<()> {
    let database = settings::Database {
        url: Some(format!("sqlite://{}/bench.db?mode=rwc", folder.display()).into()),
        ..settings::Database::default()
    };
    let backup = settings::Backup {
        dir: folder.join("unused"),
        generations: 1,
    };
    let store = Store::new(&database, &backup)?;
    let tokens: Vec<Token> = (0..number).map(|number| token(number).0).collect();
    for tokens in tokens.chunks(TOKENS_PER_WRITE) {
        let saved = store.database().save_tokens(tokens.to_vec()).await?;
        saved.context("nobody else writes")?;
    }
    store.close().await?;
    Ok(())
}

async fn services(report: &mut Report) -> anyhow::Result<()> {
    let payloads = two_payloads(FEATURES)?;
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let (mut upstreams, mut services) = (Vec::new(), Vec::new());
    for (folder, number) in folders.iter().zip([FEW, MANY]) {
        fill(folder.path(), number).await?;
        let upstream = upstream(&payloads)?;
        let service = Service::start(&upstream, folder.path()).await?;
        service.until_tokens(number).await?;
        upstreams.push(upstream);
        services.push(service);
    }
    sleep(SETTLE).await;
    let [few, many] = [services[0].rss_mib()?, services[1].rss_mib()?];
    let name = "tokens_memory_100000";
    report.at_most(name, (many - few) / MEMORY_BAR_MIB, 1.0);
    report.note(&format!(
        "{name}: {many:.1} MiB with {MANY} tokens over {} environments, {few:.1} MiB with {FEW}",
        ENVIRONMENTS.len()
    ));
    let mut took = [Vec::new(), Vec::new()];
    for round in 1..=ROUNDS {
        for which in [round % 2, 1 - round % 2] {
            upstreams[which].set_payload(CLIENT_KEY, payloads[round % 2].clone());
            took[which].push(ms(services[which].poll().await?));
        }
    }
    let ratios = took[1].iter().zip(&took[0]).map(|(many, few)| many / few);
    report.at_most(
        "tokens_revision_100000",
        median(ratios.collect()),
        REVISION_BAR,
    );
    let [few, many] = took.map(median);
    report.note(&format!(
        "tokens_revision_100000: {many:.1} ms with {MANY} tokens, {few:.1} ms with {FEW} (medians of {ROUNDS} rounds), {FEATURES} features, from the forced poll to the served revision"
    ));
    Ok(())
}

async fn lookups(report: &mut Report) -> anyhow::Result<()> {
    let upstream = upstream(&two_payloads(10)?)?;
    let folder = tempfile::tempdir()?;
    fill(folder.path(), MANY).await?;
    let service = stitchd::app::App::start(in_process(&upstream, folder.path())?).await?;
    let tokens = service.handles().board.tokens();
    let deadline = Instant::now() + Duration::from_mins(1);
    while tokens.len() < MANY {
        anyhow::ensure!(
            Instant::now() < deadline,
            "the tokens were not read in time"
        );
        sleep(Duration::from_millis(20)).await;
    }
    let secrets: Vec<String> = (0..MANY).map(|number| token(number).1).collect();
    let now_ms = clock::now_ms();
    let mut rounds = Vec::new();
    for _ in 0..11 {
        let started = Instant::now();
        for secret in &secrets {
            let found = tokens.find(black_box(secret), now_ms);
            anyhow::ensure!(found.is_ok(), "a token is not known");
        }
        rounds.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(MANY)?));
    }
    let us = median(rounds);
    report.at_most("token_lookup", us / LOOKUP_BAR_US, 1.0);
    report.note(&format!(
        "token_lookup: {us:.3} µs for one of {MANY} tokens, its secret's hash included"
    ));
    service.stop().await;
    upstream.stop().await;
    Ok(())
}
