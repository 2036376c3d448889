//! `stitchd healthcheck`: asks the local `/readyz`, for images without a shell.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use super::output::line;
use crate::settings::Settings;

/// An answer later than this is as good as none to whoever runs health checks.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    crate::sources::install_tls_provider();
    let url = format!("http://{}/readyz", reachable(settings.server.admin_bind));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder()
            .timeout(LIMIT)
            .no_proxy()
            .build()?;
        match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => {
                line("ready");
                Ok(ExitCode::SUCCESS)
            }
            Ok(answer) => {
                line(&format!("not ready: {}", answer.status()));
                Ok(ExitCode::from(1))
            }
            Err(error) => {
                line(&format!(
                    "not ready: {url} does not answer: {}",
                    error.without_url()
                ));
                Ok(ExitCode::from(1))
            }
        }
    })
}

/// Where a listener on all addresses can be reached from this machine.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}
