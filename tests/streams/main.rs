//! Event streams whose readers are slow, or take nothing at all.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its doc is its name"
)]

#[path = "../support/mod.rs"]
mod support;

mod blocked;
mod many;

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
};

use crate::support::ENVIRONMENT;

/// Smallest buffer that the kernel gives a receiving socket, more or less.
const NARROW: u32 = 4096;

/// Opens a stream with a small buffer on the receiving side, and reads nothing.
async fn open_narrow(host: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(NARROW)?;
    let mut stream = socket.connect(host.parse().unwrap()).await?;
    let request = format!("GET /v1/stream/{ENVIRONMENT} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// The value of a metric in a scrape; `None` while it has none.
fn value(scrape: &str, metric: &str) -> Option<u64> {
    let line = scrape.lines().find(|line| line.starts_with(metric))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// Asks again and again until the condition holds, as long as a crowded machine may need.
async fn within<F, T>(limit: Duration, mut check: F) -> Option<T>
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(found) = check().await {
            return Some(found);
        }
        if tokio::time::Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
