//! `stitchd demo`: the service with everything embedded, its upstream included.
//!
//! [`upstream`] answers as GrowthBook does, and lies on request; tests use it too. [`content`] is what the demo's upstream
//! holds and [`script`] changes it every few seconds.

pub mod content;
mod examples;
pub mod script;
pub mod upstream;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use self::upstream::{CLIENT_KEY, Connection, REMOTE_EVAL_KEY, SECRET_KEY, Upstream};
use super::serve;
use crate::{
    app::App,
    settings::{self, Profile, Settings},
    telemetry,
};

/// With which a push to the demo is signed.
const PUSH_SIGNING_KEY: &str = "push-demo";
/// With which a webhook to the demo is signed.
const WEBHOOK_SECRET: &str = "wk_demo";

/// Options of the demo.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Data address; without it 127.0.0.1:8080, or any free port when that one is taken
    #[arg(long, value_name = "ADDRESS")]
    data_bind: Option<SocketAddr>,
    /// Admin address; without it 127.0.0.1:8081, or any free port when that one is taken
    #[arg(long, value_name = "ADDRESS")]
    admin_bind: Option<SocketAddr>,
    /// Time between two changes of the upstream
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = humantime::parse_duration)]
    change_every: Duration,
}

pub(super) fn run(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("stitchd-demo-").tempdir()?;
    let _telemetry = telemetry::start(&settings::Telemetry::default())?;
    let system = actix_rt::System::new();
    system.block_on(async {
        let upstream = Upstream::start(0)?;
        content::fill(&upstream);
        upstream.add_connection(Connection {
            remote_eval: true,
            ..Connection::new(REMOTE_EVAL_KEY)
        });
        let script = script::spawn_script(&upstream, arguments.change_every);
        let app = App::start(settings(arguments, &upstream, folder.path())?).await?;
        examples::print(&app).await?;
        serve::ended().await?;
        script.abort();
        app.stop().await;
        upstream.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn settings(
    arguments: &DemoArguments,
    upstream: &Upstream,
    folder: &std::path::Path,
) -> anyhow::Result<Settings> {
    let base = upstream.base_url();
    let text = format!(
        r#"
        [server]
        data_bind = "{data}"
        admin_bind = "{admin}"
        default_environment = "{environment}"

        [database]
        url = "sqlite://{folder}/demo.db?mode=rwc"

        [backup]
        dir = "{folder}/backup"

        [[sources]]
        id = "demo"
        environment = "{environment}"
        api_host = "{base}"
        webhook_secret = "{WEBHOOK_SECRET}"
        rest_host = "{base}"
        secret_key = "{SECRET_KEY}"
        poll.interval = "10s"

        [[sources.connections]]
        key = "{CLIENT_KEY}"
        push_signing_key = "{PUSH_SIGNING_KEY}"

        [[sources.connections]]
        key = "{REMOTE_EVAL_KEY}"
        remote_eval = true
        "#,
        data = address(arguments.data_bind, 8080),
        admin = address(arguments.admin_bind, 8081),
        environment = content::ENVIRONMENT,
        folder = folder.display(),
    );
    Ok(settings::from_toml(&text, Profile::Development)?)
}

/// The address asked for, else the usual port, else any free one.
fn address(wanted: Option<SocketAddr>, usual_port: u16) -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, usual_port));
    let is_free = || TcpListener::bind(usual).is_ok();
    wanted.unwrap_or_else(|| {
        if is_free() {
            usual
        } else {
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
        }
    })
}
