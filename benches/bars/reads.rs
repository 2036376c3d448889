//! Reads of the real service against fixed bytes behind the same middleware, in alternating rounds.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue, IF_NONE_MATCH},
    },
    web,
};
use anyhow::Context as _;
use bytes::Bytes;
use stitchd::{
    actors::Handles,
    cli::demo::upstream::{CLIENT_KEY, SECRET_KEY, Upstream, many_experiments, many_features},
    http::{HttpState, Route, Shared, baseline_app, cors},
    metrics::Metrics,
    settings::{Profile, Settings, from_toml},
};

use super::{
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

/// The snapshot's own path, so that routing costs the same.
static BASELINE: [Route; 1] = [Route::baseline("/v1/snapshot/{environment}", || {
    web::route().to(fixed)
})];

/// What the fixed handler answers.
#[derive(Default)]
struct Fixed {
    body: Bytes,
    found: Vec<(HeaderName, HeaderValue)>,
    not_modified: Vec<(HeaderName, HeaderValue)>,
}

impl Fixed {
    fn deep_copy(&self) -> Self {
        Self {
            body: Bytes::copy_from_slice(&self.body),
            found: deep_copy(&self.found),
            not_modified: deep_copy(&self.not_modified),
        }
    }
}

fn deep_copy(headers: &[(HeaderName, HeaderValue)]) -> Vec<(HeaderName, HeaderValue)> {
    let copy = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
    let headers = headers.iter();
    headers
        .filter_map(|(name, value)| Some((name.clone(), copy(value)?)))
        .collect()
}

static FIXED: OnceLock<Fixed> = OnceLock::new();

thread_local! {
    /// Each worker's own copy: reference counts that workers share cost more than the rest of the handler.
    static OF_WORKER: Fixed = FIXED.get().map(Fixed::deep_copy).unwrap_or_default();
}

async fn fixed(request: HttpRequest) -> HttpResponse {
    OF_WORKER.with(|fixed| answer(&request, fixed))
}

fn answer(request: &HttpRequest, fixed: &Fixed) -> HttpResponse {
    let (mut response, headers) = if request.headers().contains_key(IF_NONE_MATCH) {
        (
            HttpResponse::new(StatusCode::NOT_MODIFIED),
            &fixed.not_modified,
        )
    } else {
        let found = HttpResponse::new(StatusCode::OK).set_body(fixed.body.clone());
        (found.map_into_boxed_body(), &fixed.found)
    };
    for (name, value) in headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

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
    let service = stitchd::app::App::start(settings.clone()).await?;
    let address = service
        .data_address()
        .await
        .context("the data port opens")?;
    let board = &service.handles().board;
    let mut revision = board
        .environment(NAME)
        .context("it has a source")?
        .subscribe();
    revision.wait_for(|revision| *revision > 0).await?;
    let etag = remember(address).await?;
    let (baseline, fixed_address) =
        baseline(&settings, service.handles(), service.metrics(), &BASELINE)?;

    let get =
        format!("GET /v1/snapshot/{NAME} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench\r\n");
    let revalidate = format!("{get}If-None-Match: {etag}\r\n\r\n");
    let get = format!("{get}\r\n");
    let addresses = [address, fixed_address];
    compare(report, "snapshot_get", addresses, get, 200).await?;
    compare(report, "snapshot_304", addresses, revalidate, 304).await?;
    baseline.stop(false).await;
    service.stop().await;
    upstream.stop().await;
    Ok(())
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

/// Has the fixed handler answer what the service answers; gives the entity tag.
async fn remember(address: SocketAddr) -> anyhow::Result<String> {
    let client = plain_client()?;
    let url = format!("http://{address}/v1/snapshot/{NAME}");
    let found = client.get(&url).send().await?;
    let etag = found
        .headers()
        .get("etag")
        .context("a snapshot has a tag")?;
    let etag = etag.to_str()?.to_owned();
    let conditional = client.get(&url).header("if-none-match", &etag);
    let not_modified = conditional.send().await?;
    let fixed = Fixed {
        found: headers_of(&found)?,
        not_modified: headers_of(&not_modified)?,
        body: found.bytes().await?,
    };
    FIXED.get_or_init(|| fixed);
    Ok(etag)
}

/// The headers that the handler made; the others are made by middleware and server again.
pub(crate) fn headers_of(
    answer: &reqwest::Response,
) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    let by_others = ["date", "content-length", "x-request-id"];
    let headers = answer.headers().iter();
    let by_handler = headers.filter(|(name, _)| !by_others.contains(&name.as_str()));
    by_handler
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_str().as_bytes())?;
            Ok((name, HeaderValue::from_bytes(value.as_bytes())?))
        })
        .collect()
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
        App::new()
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

/// Compares the service with the fixed bytes.
async fn compare(
    report: &mut Report,
    name: &str,
    addresses: [SocketAddr; 2],
    request: String,
    status: u16,
) -> anyhow::Result<()> {
    let requests = Requests::Same(request.into_bytes());
    let bytes = FIXED.get().map_or(0, |fixed| fixed.body.len());
    let what = format!("snapshot of {bytes} bytes");
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
