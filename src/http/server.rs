//! Starts the two HTTP servers on listeners that are already bound.
//!
//! Binding is the caller's, so that a port that is taken stops the start before anything runs, and so that the data
//! port can open after the stored state is there. Signals are the caller's too: the order of a stop is
//! [`Shared::begin_stop`], [`Shared::end_streams`], then `ServerHandle::stop(true)` of each server.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{App, HttpServer, dev::Server, rt, web};

use super::{HttpState, Shared, admin_app, cors, data_app};

/// Connections the admin plane holds at once: people, probes and scrapers.
const ADMIN_CONNECTIONS_MAX: usize = 1024;

/// The data plane: `server.workers` threads, each with its own snapshot reader.
pub fn data_server(shared: &Arc<Shared>, listener: TcpListener) -> io::Result<Server> {
    limit_blocking(&listener, shared.server.blocked_limit)?;
    let settings = shared.server.clone();
    let for_workers = Arc::clone(shared);
    let make_app = move || {
        let state = web::Data::new(HttpState::new(Arc::clone(&for_workers)));
        for cell in for_workers.handles.board.environments() {
            rt::spawn(Arc::clone(&state.clone().into_inner()).follow(cell.name.to_string()));
        }
        App::new()
            .wrap(cors(&for_workers))
            .configure(data_app(state))
    };
    let mut server = HttpServer::new(make_app)
        .keep_alive(settings.keep_alive)
        .client_request_timeout(settings.request_timeout)
        .max_connections(settings.max_connections)
        .shutdown_timeout(grace_seconds(settings.shutdown_grace))
        .disable_signals();
    if settings.workers > 0 {
        server = server.workers(settings.workers);
    }
    Ok(server.listen(listener)?.run())
}

/// The admin plane: one worker thread, so that no load on it takes cores from readers.
pub fn admin_server(shared: &Arc<Shared>, listener: TcpListener) -> io::Result<Server> {
    limit_blocking(&listener, shared.server.blocked_limit)?;
    let settings = shared.server.clone();
    let for_workers = Arc::clone(shared);
    let make_app = move || {
        let state = web::Data::new(HttpState::new(Arc::clone(&for_workers)));
        App::new().configure(admin_app(state))
    };
    let server = HttpServer::new(make_app)
        .workers(1)
        .keep_alive(settings.keep_alive)
        .client_request_timeout(settings.request_timeout)
        .max_connections(ADMIN_CONNECTIONS_MAX)
        .shutdown_timeout(grace_seconds(settings.shutdown_grace))
        .disable_signals();
    Ok(server.listen(listener)?.run())
}

/// Whole seconds, rounded up: actix-web takes no others, and 0 would cut off requests in flight.
fn grace_seconds(grace: Duration) -> u64 {
    (grace.as_secs() + u64::from(grace.subsec_nanos() > 0)).max(1)
}

/// Has the kernel reset connections whose peer takes no data for so long, keep-alives of streams included; accepted sockets inherit it from the listener.
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
