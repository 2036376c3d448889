//! A small upstream that speaks as GrowthBook does, on loopback, and misbehaves on request.
//!
//! It serves the SDK payload, the management API's lists and the event stream on one port, by hand over TCP, because a fake that
//! sits on an HTTP library cannot cut a body short or reset a connection. What it holds is changed through [`State`], which an
//! [`Upstream`] dereferences to; how it misbehaves is a [`Fault`] per [`Route`].
//!
//! `payload` renders SDK payloads, `rest` the lists, `connection` owns one TCP connection, `faults` what goes wrong.

mod build;
mod coding;
mod connection;
mod faults;
mod http;
mod journal;
mod payload;
mod rest;
mod routes;
mod state;
mod streams;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    build::{
        ExperimentExt, condition_feature, experiment, experiment_rule, feature, many_experiments,
        many_features, rollout_feature,
    },
    coding::Encoding,
    faults::{Fault, Shift},
    journal::{RequestLog, Route},
    state::{Connection, State},
};

/// Client key of the connection that every upstream starts with.
pub const CLIENT_KEY: &str = "sdk-demo";

/// Client key of the demo's connection whose SDKs have features evaluated remotely.
pub const REMOTE_EVAL_KEY: &str = "sdk-demo-remote";

/// Secret of the management API until [`State::set_secret`] changes it.
pub const SECRET_KEY: &str = "secret_demo";

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How often, and after which wait each, a port that somebody else holds is tried again.
const BIND_TRIES: u32 = 100;
const BIND_WAIT: Duration = Duration::from_millis(20);

/// A running upstream; dropping it stops it.
///
/// It lives in the tokio runtime in which it was started.
#[derive(Debug)]
pub struct Upstream {
    state: Arc<State>,
    address: SocketAddr,
    listening: Mutex<Listening>,
    stopped: CancellationToken,
}

#[derive(Debug)]
enum Listening {
    Up {
        task: JoinHandle<()>,
        down: CancellationToken,
    },
    /// The port is kept bound, so that nobody else gets it and callers are refused.
    Down(TcpSocket),
    /// Between the two, or stopped.
    Neither,
}

impl Upstream {
    /// Starts on 127.0.0.1; port 0 takes a free one.
    ///
    /// Holds nothing but one plain connection, [`CLIENT_KEY`]. Must be called within a tokio runtime.
    pub fn start(port: u16) -> io::Result<Self> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let address = socket.local_addr()?;
        let state = Arc::new(State::new());
        state.add_connection(Connection::new(CLIENT_KEY));
        let stopped = CancellationToken::new();
        let listening = listen(socket, &state, &stopped)?;
        Ok(Self {
            state,
            address,
            listening: Mutex::new(listening),
            stopped,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What belongs into `api_host` and `rest_host`: `http://127.0.0.1:port`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The state by itself, for what has to outlive a borrow; it does not keep the upstream running.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Cancelled when the upstream stops for good.
    pub fn stopped(&self) -> CancellationToken {
        self.stopped.clone()
    }

    /// Closes the port and every open connection; until [`Self::come_back`], callers are refused.
    pub async fn go_down(&self) -> io::Result<()> {
        let before = std::mem::replace(&mut *self.listening.lock(), Listening::Neither);
        if let Listening::Up { task, down } = before {
            down.cancel();
            // A panic of the accept loop has closed the port just as well.
            drop(task.await);
        }
        // Somebody's outgoing connection may have been given the port in the moment between.
        let mut tries = 0;
        let kept = loop {
            match bind(self.address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                    tries += 1;
                    tokio::time::sleep(BIND_WAIT).await;
                }
                bound => break bound?,
            }
        };
        *self.listening.lock() = Listening::Down(kept);
        Ok(())
    }

    /// Opens the same port again; does nothing while it is open.
    pub fn come_back(&self) -> io::Result<()> {
        let mut listening = self.listening.lock();
        *listening = match std::mem::replace(&mut *listening, Listening::Neither) {
            up @ Listening::Up { .. } => up,
            Listening::Down(socket) => listen(socket, &self.state, &self.stopped)?,
            Listening::Neither => listen(bind(self.address)?, &self.state, &self.stopped)?,
        };
        Ok(())
    }

    /// Stops, and returns when the port is closed.
    pub async fn stop(self) {
        self.stopped.cancel();
        let before = std::mem::replace(&mut *self.listening.lock(), Listening::Neither);
        if let Listening::Up { task, .. } = before {
            drop(task.await);
        }
    }
}

impl Deref for Upstream {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the time before still linger on the port when it is opened again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen(
    socket: TcpSocket,
    state: &Arc<State>,
    stopped: &CancellationToken,
) -> io::Result<Listening> {
    let listener = socket.listen(BACKLOG)?;
    let down = stopped.child_token();
    let task = tokio::spawn(accept(listener, Arc::clone(state), down.clone()));
    Ok(Listening::Up { task, down })
}

/// Accepts until told to stop; then closes the port and all connections.
async fn accept(listener: TcpListener, state: Arc<State>, down: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = down.cancelled() => break,
            accepted = listener.accept() => {
                // An error belongs to the one caller that went away before being accepted.
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection::serve(stream, Arc::clone(&state)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}
