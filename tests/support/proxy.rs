//! A wire between the service and a database server that a test can cut or let go silent.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
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
}

/// Passes bytes on between its own address and a server's, as long as the test wants it to.
pub struct Proxy {
    pub address: SocketAddr,
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
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(link(client, server, changes.clone()));
            }
        });
        Self {
            address,
            wire,
            accepting: accepting.abort_handle(),
        }
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
    if now == Wire::Pass {
        let Ok(mut server) = TcpStream::connect(server).await else {
            return;
        };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = wire.wait_for(|wire| *wire != Wire::Pass) => {}
        }
        silence(&mut wire).await;
        // Both ends are dropped together: neither may see the other's end before that.
        drop((client, server));
    } else {
        silence(&mut wire).await;
    }
}

/// Holds on while the wire is silent.
async fn silence(wire: &mut watch::Receiver<Wire>) {
    // An error means that the proxy is gone, which ends the connection as well.
    drop(wire.wait_for(|wire| *wire != Wire::Blackhole).await);
}
