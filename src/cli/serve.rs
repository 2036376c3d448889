//! `stitchd serve`: the service until a signal ends it.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::{app::App, settings::Settings, telemetry};

pub(super) fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    // Before the runtime, and dropped after it: see `telemetry`.
    let _telemetry = telemetry::start(&settings.telemetry)?;
    #[cfg(feature = "failpoints")]
    super::failpoints::listen();
    let system = actix_rt::System::new();
    system.block_on(async {
        let app = App::start(settings).await?;
        ended().await?;
        app.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Returns at the first SIGTERM or SIGINT.
pub(super) async fn ended() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    info!("received {name}");
    Ok(())
}
