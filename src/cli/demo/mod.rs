//! `stitchd demo`: the service with everything embedded, its upstream included.
//!
//! [`upstream`] answers as GrowthBook does, and lies on request; tests use it too. [`content`] is what the demo's upstream
//! holds and [`script`] changes it every few seconds.

pub mod content;
pub mod script;
pub mod upstream;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use self::upstream::{CLIENT_KEY, Connection, REMOTE_EVAL_KEY, SECRET_KEY, Upstream};
use super::{output::line, serve};
use crate::{
    app::App,
    settings::{self, Profile, Settings},
    telemetry,
};

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
        print_examples(&app).await;
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
        rest_host = "{base}"
        secret_key = "{SECRET_KEY}"
        poll.interval = "10s"

        [[sources.connections]]
        key = "{CLIENT_KEY}"

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

/// One ready-to-paste example per line; the last line is `ready`.
async fn print_examples(app: &App) {
    let environment = content::ENVIRONMENT;
    if let (Some(data), Some(cell)) = (
        app.data_address().await,
        app.handles().board.environment(environment),
    ) {
        let mut revision = cell.subscribe();
        // What is printed must work when it is pasted: wait for the first revision, however slow the machine.
        drop(
            tokio::time::timeout(
                Duration::from_secs(30),
                revision.wait_for(|revision| *revision > 0),
            )
            .await,
        );
        for path in crate::http::ROUTES
            .iter()
            .flat_map(|route| (route.probes)(environment, CLIENT_KEY))
        {
            line(&format!("curl -s 'http://{data}{path}'"));
        }
        line(&format!(
            "curl -s -X POST -d '{{\"attributes\":{{\"id\":\"user-1\"}}}}' 'http://{data}/api/eval/{REMOTE_EVAL_KEY}'"
        ));
        line(&format!(
            "curl -s -N 'http://{data}/v1/stream/{environment}?events=2'"
        ));
    }
    if let Some(data) = app.data_address().await {
        let batch = r#"{"units":[{"user_key":"u-6"},{"user_key":"u-7"}]}"#;
        for question in [
            "/v1/decide?user_key=u-6",
            "/v1/decide?user_key=u-6&explain=true",
            "/v1/evaluate/dark-mode?type=boolean&user_key=u-6",
        ] {
            line(&format!("curl -s 'http://{data}{question}'"));
        }
        line(&format!(
            "curl -s 'http://{data}/v1/decide/batch' -d '{batch}'"
        ));
    }
    let admin = app.admin_address();
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/admin/status",
        "/admin/audit",
    ] {
        line(&format!("curl -s 'http://{admin}{path}'"));
    }
    line(&format!(
        "curl -s 'http://{admin}/admin/environments/{environment}/issues'"
    ));
    for action in ["pause", "poll", "resume"] {
        line(&format!(
            "curl -s -X POST 'http://{admin}/admin/sources/demo/{action}'"
        ));
    }
    line("ready");
}
