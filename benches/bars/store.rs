//! What follows on a stitch: packing, compressing, keeping in database and backup. Not judged.

use std::hint::black_box;

use anyhow::Context as _;
use stitchd::{
    settings::{Profile, from_toml},
    store::{RevisionRow, Store, StoredInput, packed},
    views::encodings,
};

use super::{
    report::{Report, median},
    stitch::{BUDGET_MS, NAME, candidate, delivered, input, ms, timed},
};

const ROUNDS: usize = 5;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let input = input(&delivered(10_000))?;
    let candidate = candidate(&input);
    let snapshot = candidate.at_revision(1);
    let body = &snapshot
        .document("snapshot")
        .context("it is always there")?
        .body;
    let stored = StoredInput {
        source: NAME.to_owned(),
        digest: String::new(),
        accepted_at_ms: 0,
        body: input.to_bytes(),
    };
    let mut measure = |name: &str, work: &dyn Fn() -> usize| {
        let times = (0..ROUNDS).map(|_| timed(|| black_box(work())).0).collect();
        let time = median(times);
        report.unjudged(name, time / BUDGET_MS);
        report.note(&format!("{name}: {time:.0} ms, {} kB", work() / 1000));
    };
    measure("packing_snapshot", &|| {
        packed::pack_candidate(&candidate).len()
    });
    measure("packing_input", &|| stored.pack().body.len());
    measure("encoding_gzip", &|| encodings::gzip(body).len());
    measure("encoding_br", &|| encodings::brotli(body).len());
    measure("encoding_zstd", &|| encodings::zstd(body).len());
    let packed = packed::pack_candidate(&candidate);
    let row = |revision| RevisionRow::new(&candidate, revision, packed.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(persist(report, &row))
}

async fn persist(report: &mut Report, row: &dyn Fn(u64) -> RevisionRow) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let at = folder.path().display();
    let settings = from_toml(
        &format!(
            "database.url = \"sqlite://{at}/bench.db?mode=rwc\"\nbackup.dir = \"{at}/backup\""
        ),
        Profile::Test,
    )?;
    let store = Store::new(&settings.database, &settings.backup)?;
    store.database().migrate_up().await?;
    let (mut to_database, mut to_backup) = (Vec::new(), Vec::new());
    for revision in 1..=ROUNDS as u64 * 4 {
        let row = row(revision);
        let started = tokio::time::Instant::now();
        store.database().insert_revision(&row).await?;
        to_database.push(ms(started.elapsed()));
        let started = tokio::time::Instant::now();
        store.backup().write_snapshot(&row).await?;
        to_backup.push(ms(started.elapsed()));
    }
    store.close().await?;
    report.unjudged("persist_sqlite", median(to_database) / BUDGET_MS);
    report.unjudged("persist_backup", median(to_backup) / BUDGET_MS);
    Ok(())
}
