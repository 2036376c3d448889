//! What the demo prints: one ready-to-paste example per line; the last line is `ready`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    super::output::line,
    content,
    upstream::{CLIENT_KEY, REMOTE_EVAL_KEY},
};
use crate::{
    actors::tokens::{MakeToken, TokenSpec},
    app::App,
    http::ROUTES,
    model::{Projects, Scope, TokenKind},
};

/// How long the first revision is waited for: what is printed must work when it is pasted, however slow the machine.
const FIRST_REVISION_LIMIT: Duration = Duration::from_secs(30);
/// How long a token may take to be made.
const TOKEN_LIMIT: Duration = Duration::from_secs(10);

/// Prints all examples.
pub(super) async fn print(app: &App) -> anyhow::Result<()> {
    let environment = content::ENVIRONMENT;
    if let Some(data) = app.data_address().await {
        if let Some(cell) = app.handles().board.environment(environment) {
            let mut revision = cell.subscribe();
            let first = revision.wait_for(|revision| *revision > 0);
            drop(tokio::time::timeout(FIRST_REVISION_LIMIT, first).await);
        }
        reads(data);
        decisions(data);
        flags(app, data).await?;
    }
    operators(app.admin_address());
    line("ready");
    Ok(())
}

fn reads(data: SocketAddr) {
    let environment = content::ENVIRONMENT;
    let probes = ROUTES.iter();
    for path in probes.flat_map(|route| (route.probes)(environment, CLIENT_KEY)) {
        line(&format!("curl -s 'http://{data}{path}'"));
    }
    line(&format!(
        "curl -s -X POST -d '{{\"attributes\":{{\"id\":\"user-1\"}}}}' 'http://{data}/api/eval/{REMOTE_EVAL_KEY}'"
    ));
    line(&format!(
        "curl -s -N 'http://{data}/v1/stream/{environment}?events=2'"
    ));
    line(&format!(
        "curl -s -N 'http://{data}/sub/{CLIENT_KEY}?events=1'"
    ));
    line(&format!("curl -s 'http://{data}/healthcheck'"));
}

fn decisions(data: SocketAddr) {
    for question in [
        "/v1/decide?user_key=u-6",
        "/v1/decide?user_key=u-6&explain=true",
        "/v1/evaluate/dark-mode?type=boolean&user_key=u-6",
    ] {
        line(&format!("curl -s 'http://{data}{question}'"));
    }
    let batch = r#"{"units":[{"user_key":"u-6"},{"user_key":"u-7"}]}"#;
    line(&format!(
        "curl -s 'http://{data}/v1/decide/batch' -d '{batch}'"
    ));
}

/// What OpenFeature's and Unleash's clients ask, with tokens that are ready to use.
async fn flags(app: &App, data: SocketAddr) -> anyhow::Result<()> {
    let client = token(app, TokenKind::Client).await?;
    let frontend = token(app, TokenKind::Frontend).await?;
    let context = r#"{"context":{"targetingKey":"u-6","country":"DE"}}"#;
    for path in ["flags", "flags/dark-mode"] {
        line(&format!(
            "curl -s 'http://{data}/ofrep/v1/evaluate/{path}' -H 'Authorization: Bearer {client}' -d '{context}'"
        ));
    }
    line(&format!(
        "curl -s -N 'http://{data}/ofrep/v1/events?events=1' -H 'Authorization: Bearer {client}'"
    ));
    line(&format!("curl -s 'http://{data}/api/features/{client}'"));
    let authorized = format!("-H 'Authorization: {frontend}'");
    line(&format!(
        "curl -s 'http://{data}/api/frontend?userId=u-6&properties%5Bcountry%5D=DE' {authorized}"
    ));
    let usage = r#"{"appName":"demo","bucket":{"toggles":{"dark-mode":{"yes":1,"no":0}}}}"#;
    line(&format!(
        "curl -s 'http://{data}/api/frontend/client/metrics' {authorized} -d '{usage}'"
    ));
    Ok(())
}

async fn token(app: &App, kind: TokenKind) -> anyhow::Result<String> {
    let spec = TokenSpec {
        kind,
        scope: Scope {
            environment: content::ENVIRONMENT.into(),
            projects: Projects::All,
        },
        dialect: None,
        rate_class: None,
        life: None,
        by: Arc::from("demo"),
    };
    let made = app.handles().tokens.ask(MakeToken(spec), TOKEN_LIMIT);
    Ok(made.await??.secret.unwrap_or_default())
}

fn operators(admin: SocketAddr) {
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/admin/status",
        "/admin/audit",
        "/admin/tokens",
    ] {
        line(&format!("curl -s 'http://{admin}{path}'"));
    }
    let environment = content::ENVIRONMENT;
    line(&format!(
        "curl -s 'http://{admin}/admin/environments/{environment}/issues'"
    ));
    line(&format!(
        "curl -s 'http://{admin}/admin/tokens' -d '{{\"kind\":\"server\",\"environment\":\"{environment}\"}}'"
    ));
    for action in ["pause", "poll", "resume"] {
        line(&format!(
            "curl -s -X POST 'http://{admin}/admin/sources/demo/{action}'"
        ));
    }
}
