//! A wire in front of a server, a database or the service itself, that a test can cut or let go silent.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

use super::databases::Backend;

/// What the wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Passes everything on.
    Pass,
    /// Resets open connections and closes new ones at once.
    Cut,
    /// Takes everything and answers nothing, on open connections too.
    Blackhole,
    /// Passes on so few bytes at a time, with a wait before each.
    Slow {
        /// Bytes at a time.
        bytes: usize,
        /// The wait.
        wait: Duration,
    },
    /// Passes everything on but a request of more bytes than this: within it the connection is cut.
    CutWithin(usize),
}

impl Wire {
    /// Whether open connections go on.
    fn is_open(self) -> bool {
        !matches!(self, Self::Cut | Self::Blackhole)
    }
}

/// Passes bytes on between its own address and a server's, as long as the test wants it to.
pub struct Proxy {
    pub address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    wire: watch::Sender<Wire>,
    accepting: AbortHandle,
}

impl Proxy {
    /// In front of a database server; gives the URL that leads through it.
    pub async fn in_front_of(backend: &Backend) -> (Self, String) {
        let (_, rest) = backend.url.split_once("://").unwrap();
        let (authority, _) = rest.split_once('/').unwrap();
        let server = authority.rsplit('@').next().unwrap();
        let mut found = tokio::net::lookup_host(server).await.unwrap();
        let proxy = Self::start(found.next().unwrap()).await;
        let url = backend.url.replace(server, &proxy.address.to_string());
        (proxy, url)
    }

    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = watch::Sender::new(Wire::Pass);
        let changes = wire.subscribe();
        let server = Arc::new(Mutex::new(server));
        let now = Arc::clone(&server);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = *now.lock();
                tokio::spawn(link(client, server, changes.clone()));
            }
        });
        Self {
            address,
            server,
            wire,
            accepting: accepting.abort_handle(),
        }
    }

    /// Leads new connections to another address: a server that was started again.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.server.lock() = server;
    }

    /// From now on; connections of the time before do not survive the end of a silence.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wire.send_replace(Wire::Cut);
        self.accepting.abort();
    }
}

async fn link(mut client: TcpStream, server: SocketAddr, mut wire: watch::Receiver<Wire>) {
    let now = *wire.borrow_and_update();
    if now.is_open() {
        let Ok(mut server) = TcpStream::connect(server).await else {
            return;
        };
        {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let requests = pass(from_client, to_server, wire.clone(), true);
            let answers = pass(from_server, to_client, wire.clone(), false);
            tokio::select! {
                _ = requests => return,
                _ = answers => return,
                _ = wire.wait_for(|wire| !wire.is_open()) => {}
            }
        }
        silence(&mut wire).await;
        // Both ends are dropped together: neither may see the other's end before that.
        drop((client, server));
    } else {
        silence(&mut wire).await;
    }
}

/// Passes one direction on until it ends or is cut.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    wire: watch::Receiver<Wire>,
    is_request: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    // Of the request that is under way; it has ended when nothing more is there at once.
    let mut passed = 0;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let now = *wire.borrow();
        match now {
            Wire::Slow { bytes, wait } => {
                for piece in buffer[..read].chunks(bytes) {
                    tokio::time::sleep(wait).await;
                    to.write_all(piece).await?;
                }
            }
            Wire::CutWithin(limit) if is_request && passed + read > limit => {
                to.write_all(&buffer[..limit.saturating_sub(passed).min(read)])
                    .await?;
                return Ok(());
            }
            _ => to.write_all(&buffer[..read]).await?,
        }
        passed = if read == buffer.len() {
            passed + read
        } else {
            0
        };
    }
}

/// Holds on while the wire is silent.
async fn silence(wire: &mut watch::Receiver<Wire>) {
    // An error means that the proxy is gone, which ends the connection as well.
    drop(wire.wait_for(|wire| *wire != Wire::Blackhole).await);
}
