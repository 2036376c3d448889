//! Reads of the real service against fixed bytes behind the same middleware, in alternating rounds.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{HttpServer, dev::ServerHandle, web};
use anyhow::Context as _;
use stitchd::{
    actors::Handles,
    app::App,
    cli::demo::upstream::{CLIENT_KEY, SECRET_KEY, Upstream, many_experiments, many_features},
    http::{HttpState, Route, Shared, baseline_app, cors},
    metrics::Metrics,
    settings::{Profile, Settings, from_toml},
};

use super::{
    fixed::{self, FEATURES, Fixed, SNAPSHOT, headers_of},
    load::{Requests, requests_per_second},
    memory::plain_client,
    report::{Report, median},
    stitch::NAME,
};

/// Rounds of each measure; odd, so that there is a middle one.
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 64;
/// What a read may lose against fixed bytes.
const BAR: f64 = 0.85;

/// What is measured: the documents' own paths, so that routing costs the same.
static BASELINE: [Route; 2] = [
    Route::baseline("/v1/snapshot/{environment}", || {
        web::route().to(fixed::document::<SNAPSHOT>)
    }),
    Route::baseline("/api/features/{client_key}", || {
        web::route().to(fixed::document::<FEATURES>)
    }),
];
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    actix_web::rt::System::new().block_on(measure(report))
}

async fn measure(report: &mut Report) -> anyhow::Result<()> {
    stitchd::sources::install_tls_provider();
    let upstream = Upstream::start(0)?;
    upstream.set_features(many_features(17, 3));
    upstream.set_experiments(many_experiments(5));
    let folder = tempfile::tempdir()?;
    let settings = settings(&upstream, folder.path())?;
    let (service, address) = started(&settings).await?;
    let snapshot = format!("/v1/snapshot/{NAME}");
    let (etag, snapshot_bytes) = remember(address, &snapshot, SNAPSHOT).await?;
    let features = format!("/api/features/{CLIENT_KEY}");
    let (_, features_bytes) = remember(address, &features, FEATURES).await?;
    let (baseline, fixed_address) =
        baseline(&settings, service.handles(), service.metrics(), &BASELINE)?;

    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench\r\n");
    let revalidate = format!("{}If-None-Match: {etag}\r\n\r\n", get(&snapshot));
    let snapshot = format!("{}\r\n", get(&snapshot));
    let features = format!("{}\r\n", get(&features));
    let addresses = [address, fixed_address];
    let of = |name, bytes, status| Measure {
        name,
        bytes,
        status,
    };
    let measure = of("snapshot_get", snapshot_bytes, 200);
    compare(report, measure, addresses, snapshot).await?;
    let measure = of("snapshot_304", snapshot_bytes, 304);
    compare(report, measure, addresses, revalidate).await?;
    let measure = of("features_get", features_bytes, 200);
    compare(report, measure, addresses, features).await?;
    baseline.stop(false).await;
    service.stop().await;
    upstream.stop().await;
    Ok(())
}

/// The service and where its data is, once it has a revision.
pub(crate) async fn started(settings: &Settings) -> anyhow::Result<(App, SocketAddr)> {
    let service = App::start(settings.clone()).await?;
    let address = service.data_address().await;
    let address = address.context("the data port opens")?;
    let board = &service.handles().board;
    let cell = board.environment(NAME).context("it has a source")?;
    let mut revision = cell.subscribe();
    revision.wait_for(|revision| *revision > 0).await?;
    Ok((service, address))
}

pub(crate) fn settings(upstream: &Upstream, folder: &std::path::Path) -> anyhow::Result<Settings> {
    let (base, folder) = (upstream.base_url(), folder.display());
    let text = format!(
        r#"
        server.data_bind = "127.0.0.1:0"
        server.admin_bind = "127.0.0.1:0"
        server.shutdown_grace = "1s"
        database.url = "sqlite://{folder}/bench.db?mode=rwc"
        backup.dir = "{folder}/backup"
        [[sources]]
        id = "{NAME}"
        environment = "{NAME}"
        api_host = "{base}"
        client_key = "{CLIENT_KEY}"
        rest_host = "{base}"
        secret_key = "{SECRET_KEY}"
        poll.interval = "1h"
        poll.streaming = false
        "#
    );
    Ok(from_toml(&text, Profile::Test)?)
}

/// Has the fixed handler answer what the service answers; gives the entity tag, and the bytes of the body.
async fn remember(
    address: SocketAddr,
    path: &str,
    which: usize,
) -> anyhow::Result<(String, usize)> {
    let client = plain_client()?;
    let url = format!("http://{address}{path}");
    let found = client.get(&url).send().await?;
    let etag = found
        .headers()
        .get("etag")
        .context("a document has a tag")?;
    let etag = etag.to_str()?.to_owned();
    let conditional = client.get(&url).header("if-none-match", &etag);
    let not_modified = conditional.send().await?;
    let fixed = Fixed {
        found: headers_of(&found)?,
        not_modified: headers_of(&not_modified)?,
        body: found.bytes().await?,
    };
    Ok((etag, fixed::set(which, fixed)))
}

/// A server with the settings of the real one and one route, which answers fixed bytes.
pub(crate) fn baseline(
    settings: &Settings,
    handles: &Handles,
    metrics: &Arc<Metrics>,
    routes: &'static [Route],
) -> anyhow::Result<(ServerHandle, SocketAddr)> {
    let shared = Shared::new(settings, handles.clone(), Arc::clone(metrics));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let make_app = move || {
        let state = web::Data::new(HttpState::new(Arc::clone(&shared)));
        actix_web::App::new()
            .wrap(cors(&shared))
            .configure(baseline_app(state, routes))
    };
    let server = HttpServer::new(make_app)
        .keep_alive(settings.server.keep_alive)
        .client_request_timeout(settings.server.request_timeout)
        .max_connections(settings.server.max_connections)
        .disable_signals()
        .listen(listener)?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok((handle, address))
}

/// One line of the report.
#[derive(Clone, Copy)]
struct Measure {
    name: &'static str,
    /// Of the document.
    bytes: usize,
    /// Status of every answer.
    status: u16,
}

/// Compares the service with the fixed bytes.
async fn compare(
    report: &mut Report,
    measure: Measure,
    addresses: [SocketAddr; 2],
    request: String,
) -> anyhow::Result<()> {
    let Measure {
        name,
        bytes,
        status,
    } = measure;
    let requests = Requests::Same(request.into_bytes());
    let what = format!("document of {bytes} bytes");
    let found = alternate(addresses, requests, status).await?;
    judge(report, (name, BAR), &found, &what);
    Ok(())
}

/// Requests per second of the service and of the fixed bytes, round by round, each first in every other one.
pub(crate) async fn alternate(
    addresses: [SocketAddr; 2],
    requests: Requests,
    status: u16,
) -> anyhow::Result<[Vec<f64>; 2]> {
    let rounds = move || -> anyhow::Result<[Vec<f64>; 2]> {
        let mut found = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            for which in [round % 2, 1 - round % 2] {
                let address = addresses[which];
                let rate = requests_per_second(address, &requests, status, CONNECTIONS, ROUND)?;
                found[which].push(rate);
            }
        }
        Ok(found)
    };
    actix_web::rt::task::spawn_blocking(rounds).await?
}

/// Reports the median ratio of the rounds against a bar, and the rates.
pub(crate) fn judge(
    report: &mut Report,
    (name, bar): (&str, f64),
    [real, fixed]: &[Vec<f64>; 2],
    what: &str,
) {
    let ratios = real.iter().zip(fixed).map(|(real, fixed)| real / fixed);
    report.at_least(name, median(ratios.collect()), bar);
    report.note(&format!(
        "{name}: {:.0} requests per second against {:.0} (medians of {ROUNDS} rounds), {what}",
        median(real.clone()),
        median(fixed.clone())
    ));
}
