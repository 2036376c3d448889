//! Starts the two HTTP servers on listeners that are already bound.
//!
//! Binding is the caller's, so that a port that is taken stops the start before anything runs, and so that the data
//! port can open after the stored state is there. Signals are the caller's too: the order of a stop is
//! [`Shared::begin_stop`], [`Shared::end_streams`], [`Door::shut`](super::Door::shut), then `ServerHandle::stop(true)`
//! of each server.

use std::{fmt, io, net::TcpListener, sync::Arc, time::Duration};

use actix_http::{HttpService, Request, Response, body::MessageBody, error::DispatchError};
use actix_server::ServerBuilder;
use actix_service::{
    IntoServiceFactory, Service as _, ServiceFactory, ServiceFactoryExt as _, map_config,
};
use actix_web::{
    App, Error,
    dev::{AppConfig, Server},
    rt, web,
};

use super::{HttpState, Plane, Shared, admin_app, cors, data_app, tidy_path};

/// Connections the admin plane holds at once: people, probes and scrapers.
const ADMIN_CONNECTIONS_MAX: usize = 1024;
/// How long a connection that is being closed may take to take its last bytes.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(1);

/// The data plane: `server.workers` threads, each with its own snapshot reader.
pub fn data_server(shared: &Arc<Shared>, listener: TcpListener) -> io::Result<Server> {
    let settings = &shared.server;
    let for_workers = Arc::clone(shared);
    let make_app = move || {
        let state = web::Data::new(HttpState::new(Arc::clone(&for_workers)));
        for cell in for_workers.handles.board.environments() {
            rt::spawn(Arc::clone(&state.clone().into_inner()).follow(cell.name.to_string()));
        }
        App::new()
            .wrap_fn(|mut request, service| {
                tidy_path(&mut request);
                service.call(request)
            })
            .wrap(cors(&for_workers))
            .configure(data_app(state))
    };
    let mut builder = builder(shared).max_concurrent_connections(settings.max_connections);
    if settings.workers > 0 {
        builder = builder.workers(settings.workers);
    }
    Ok(listen(builder, Plane::Data, shared, listener, make_app)?.run())
}

/// The admin plane: one worker thread, so that no load on it takes cores from readers.
pub fn admin_server(shared: &Arc<Shared>, listener: TcpListener) -> io::Result<Server> {
    let for_workers = Arc::clone(shared);
    let make_app = move || {
        let state = web::Data::new(HttpState::new(Arc::clone(&for_workers)));
        App::new().configure(admin_app(state))
    };
    let builder = builder(shared)
        .workers(1)
        .max_concurrent_connections(ADMIN_CONNECTIONS_MAX);
    Ok(listen(builder, Plane::Admin, shared, listener, make_app)?.run())
}

fn builder(shared: &Shared) -> ServerBuilder {
    Server::build()
        .shutdown_timeout(grace_seconds(shared.server.shutdown_grace))
        .disable_signals()
}

/// Whole seconds, rounded up: actix-web takes no others, and 0 would cut off requests in flight.
fn grace_seconds(grace: Duration) -> u64 {
    (grace.as_secs() + u64::from(grace.subsec_nanos() > 0)).max(1)
}

/// What `actix_web::HttpServer` does with a listener, and sees how each connection ended besides.
fn listen<F, I, S, B>(
    builder: ServerBuilder,
    plane: Plane,
    shared: &Arc<Shared>,
    listener: TcpListener,
    make_app: F,
) -> io::Result<ServerBuilder>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    limit_blocking(&listener, shared.server.blocked_limit)?;
    let address = listener.local_addr()?;
    let stopping = builder.graceful_shutdown_signal();
    let shared = Arc::clone(shared);
    builder.listen(plane.as_str(), listener, move || {
        let (stopping, metrics) = (stopping.clone(), Arc::clone(&shared.metrics));
        let app = make_app()
            .into_factory()
            .map_err(|error| error.into().error_response());
        HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(shared.server.keep_alive)
            .client_request_timeout(shared.server.request_timeout)
            .client_disconnect_timeout(DISCONNECT_LIMIT)
            .h1_allow_half_closed(true)
            .local_addr(address)
            .finish(map_config(app, |()| AppConfig::default()))
            .tcp()
            .map_err(move |error| {
                if is_blocked(&error) {
                    metrics.connection_blocked(plane.as_str());
                }
            })
    })
}

/// Whether the kernel ended a connection because its peer took no data; see [`limit_blocking`].
fn is_blocked(error: &DispatchError) -> bool {
    matches!(error, DispatchError::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Has the kernel end connections whose peer takes no data for so long, keep-alive comments of streams included;
/// accepted sockets inherit it from the listener.
///
/// actix-web has no limit on a blocked write. Elsewhere than on Linux a blocked reader keeps its connection, and with
/// it at most one event and one write buffer.
fn limit_blocking(listener: &TcpListener, limit: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(listener).set_tcp_user_timeout(Some(limit))?;
    #[cfg(not(target_os = "linux"))]
    tracing::debug!(?listener, "no limit on writes blocked for {limit:?}");
    Ok(())
}
