//! A load generator: one thread, keep-alive connections, one request at a time on each.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

/// What is asked.
#[derive(Clone)]
pub(crate) enum Requests {
    /// The same every time; so are the lengths of the answers.
    Same(Vec<u8>),
    /// Another one every time.
    Each(fn() -> Vec<u8>),
}

impl Requests {
    fn next(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Same(request) => request.into(),
            Self::Each(make) => make().into(),
        }
    }
}

/// Requests per second over `time`, on so many connections, after a moment of warming up.
///
/// Fails when an answer has not the expected status.
pub(crate) fn requests_per_second(
    address: SocketAddr,
    requests: &Requests,
    status: u16,
    connections: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let warm = Instant::now() + time / 5;
        let end = warm + time;
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(ask(address, requests.clone(), status, warm, end));
        }
        let mut answers = 0_u32;
        while let Some(answered) = tasks.join_next().await {
            answers += answered??;
        }
        Ok(f64::from(answers) / time.as_secs_f64())
    })
}

/// Asks until `end`; answers before `warm` do not count.
async fn ask(
    address: SocketAddr,
    requests: Requests,
    status: u16,
    warm: Instant,
    end: Instant,
) -> anyhow::Result<u32> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = Answer::new(status, matches!(requests, Requests::Same(_)));
    let mut answers = 0;
    loop {
        stream.write_all(&requests.next()).await?;
        answer.read(&mut stream).await?;
        let now = Instant::now();
        if now >= end {
            return Ok(answers);
        }
        answers += u32::from(now >= warm);
    }
}

/// Reads one answer after the other into the same memory.
struct Answer {
    start_line: String,
    buffer: Vec<u8>,
    /// Bytes of the body, once it is known to be the same in every answer.
    body: Option<usize>,
    is_same: bool,
}

impl Answer {
    fn new(status: u16, is_same: bool) -> Self {
        Self {
            start_line: format!("HTTP/1.1 {status} "),
            buffer: vec![0; 64 * 1024],
            body: None,
            is_same,
        }
    }

    async fn read(&mut self, stream: &mut TcpStream) -> anyhow::Result<()> {
        let mut filled = 0;
        let mut whole = None;
        while whole.is_none_or(|whole| filled < whole) {
            let read = stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                bail!("the connection was closed, or an answer is larger than expected");
            }
            filled += read;
            if whole.is_none() {
                whole = self.length(filled)?;
            }
        }
        Ok(())
    }

    /// Bytes of the whole answer, once its head is there.
    fn length(&mut self, filled: usize) -> anyhow::Result<Option<usize>> {
        let text = &self.buffer[..filled];
        let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        if !text.starts_with(self.start_line.as_bytes()) {
            bail!(
                "unexpected answer: {}",
                String::from_utf8_lossy(&text[..end])
            );
        }
        let body = if let Some(body) = self.body {
            body
        } else {
            let body = content_length(&text[..end])?;
            self.body = self.is_same.then_some(body);
            body
        };
        Ok(Some(end + 4 + body))
    }
}

/// A head's `Content-Length`; none is no body, as in a 304.
fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    line.map_or(Ok(0), |value| {
        value.trim().parse().context("a length is a number")
    })
}
