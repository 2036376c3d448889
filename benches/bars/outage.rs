//! How long it takes until readers are right: after a start with nobody to ask, after a poll, after a kill switch.
//!
//! Each start is a process of its own; what counts is the time from its creation to the first answer, which must be the bytes
//! and the tag of before. The database is one that takes connections and says nothing, which is worse than none.

use std::net::TcpListener;

use serde_json::json;
use stitchd::cli::demo::upstream::CLIENT_KEY;

use super::{
    memory::{Service, block_on, two_payloads, upstream},
    report::{Report, median},
    stitch::ms,
};

const STARTS: usize = 20;
const POLLS: usize = 20;
const FEATURES: usize = 1_000;
/// A feature of the upstream's, true or false.
const KILLED: &str = "feature-00000";
/// How often a feature is forced, to another value each time.
const KILLS: usize = 20;
/// Limit of a kill switch.
const KILL_BAR_MS: f64 = 1000.0;
/// Limit of a start from the backup alone.
const START_BAR_MS: f64 = 1000.0;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    block_on(measure(report))
}

async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let payloads = two_payloads(FEATURES)?;
    let upstream = upstream(&payloads)?;
    let folder = tempfile::tempdir()?;
    let service = Service::start(&upstream, folder.path()).await?;
    let mut visible = Vec::new();
    for poll in 1..=POLLS {
        upstream.set_payload(CLIENT_KEY, payloads[poll % 2].clone());
        visible.push(ms(service.poll().await?));
    }
    let most = visible.iter().copied().fold(0.0, f64::max);
    let middle = median(visible);
    report.unjudged("poll_to_visible", middle / 1000.0);
    report.note(&format!(
        "forced poll to visible answer, {FEATURES} features: median {middle:.0} ms, at most {most:.0} ms of {POLLS}"
    ));

    kill_switch(report, &service).await?;
    service.until_written().await?;
    let served = service.served().await?;
    drop(service);
    upstream.go_down().await?;
    // Its backlog takes connections; nobody ever answers them.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let silent = (
        format!("postgres://nobody@{}/none", silent.local_addr()?),
        Some(silent),
    );
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let refused = (format!("postgres://nobody@{closed}/none"), None);
    for (name, (database, _listener)) in [
        ("cold_start_silent", silent),
        ("cold_start_refused", refused),
    ] {
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            let service = Service::start_with(&upstream, folder.path(), &database).await?;
            anyhow::ensure!(
                service.served().await? == served,
                "other bytes after a start"
            );
            starts.push(service.loaded_ms);
        }
        let most = starts.iter().copied().fold(0.0, f64::max);
        let middle = median(starts);
        report.at_most(name, middle / START_BAR_MS, 1.0);
        report.note(&format!(
            "{name}: start without database and upstream to the first answer, median {middle:.0} ms, at most {most:.0} ms of {STARTS}"
        ));
    }
    Ok(())
}

async fn kill_switch(report: &mut Report, service: &Service) -> anyhow::Result<()> {
    let mut visible = Vec::new();
    for kill in 0..KILLS {
        let value = json!(kill % 2 == 0);
        visible.push(ms(service.force(KILLED, &value).await?));
    }
    let most = visible.iter().copied().fold(0.0, f64::max);
    let middle = median(visible);
    report.at_most("kill_switch", most / KILL_BAR_MS, 1.0);
    report.note(&format!(
        "kill switch to visible answer, {FEATURES} features: median {middle:.0} ms, at most {most:.0} ms of {KILLS}"
    ));
    Ok(())
}
