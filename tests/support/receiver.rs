//! A small HTTP server that writes down what it is sent, and answers as a test wants it to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::eventually;

/// How it answers.
#[derive(Clone, Debug)]
pub enum Manner {
    /// This status at once.
    Status(u16),
    /// 200 after a while.
    Slow(Duration),
    /// This status and one more header line.
    With(u16, String),
    /// Never.
    Hang,
    /// The connection is closed instead.
    Close,
}

/// One request, read to its end.
#[derive(Clone, Debug)]
pub struct Received {
    pub at: Instant,
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    /// A header that must be there.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        let (_, value) = found.unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value
    }
}

#[derive(Default)]
struct Book {
    requests: Vec<Received>,
    manners: Vec<Manner>,
}

/// The server; gone when dropped.
pub struct Receiver {
    pub address: SocketAddr,
    book: Arc<Mutex<Book>>,
    serving: Option<AbortHandle>,
}

impl Receiver {
    /// Answers 200.
    pub async fn start() -> Self {
        let mut receiver = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            book: Arc::default(),
            serving: None,
        };
        receiver.come_back().await;
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the next request on.
    pub fn set(&self, manner: Manner) {
        self.book.lock().manners = vec![manner];
    }

    /// For one request each, the last for all that follow.
    pub fn set_each(&self, manners: &[Manner]) {
        self.book.lock().manners = manners.to_vec();
    }

    /// Nobody listens any more, and open connections are closed.
    pub fn go_away(&mut self) {
        self.serving.take().unwrap().abort();
    }

    /// Listens, on the port that it had.
    pub async fn come_back(&mut self) {
        let address = self.address;
        // The port is free as soon as the task before has been dropped.
        let listener = eventually("the port is free", async || {
            TcpListener::bind(address).await.ok()
        })
        .await;
        self.address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, Arc::clone(&self.book)));
        self.serving = Some(serving.abort_handle());
    }

    /// Everything received so far.
    pub fn requests(&self) -> Vec<Received> {
        self.book.lock().requests.clone()
    }

    /// Methods and targets of everything received so far, sorted.
    pub fn asked(&self) -> Vec<String> {
        let requests = self.requests().into_iter();
        let mut asked: Vec<String> = requests
            .map(|request| format!("{} {}", request.method, request.target))
            .collect();
        asked.sort();
        asked
    }

    /// Everything received so far; forgets it.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.book.lock().requests)
    }

    /// Waits until so many requests have come since they were last taken.
    pub async fn until(&self, number: usize) -> Vec<Received> {
        let what = format!("{number} requests come");
        eventually(&what, async || {
            let requests = self.requests();
            (requests.len() >= number).then_some(requests)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

async fn serve(listener: TcpListener, book: Arc<Mutex<Book>>) {
    // Ended together with this task.
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        connections.spawn(converse(connection, Arc::clone(&book)));
    }
}

/// Answers requests on one connection until either side ends it.
async fn converse(mut connection: TcpStream, book: Arc<Mutex<Book>>) -> Option<()> {
    loop {
        let request = read(&mut connection).await?;
        let manner = {
            let mut book = book.lock();
            book.requests.push(request);
            match book.manners.len() {
                0 => Manner::Status(200),
                1 => book.manners[0].clone(),
                _ => book.manners.remove(0),
            }
        };
        let (status, line) = match manner {
            Manner::Status(status) => (status, String::new()),
            Manner::With(status, line) => (status, format!("{line}\r\n")),
            Manner::Slow(time) => {
                tokio::time::sleep(time).await;
                (200, String::new())
            }
            Manner::Hang => std::future::pending().await,
            Manner::Close => return None,
        };
        let answer = format!("HTTP/1.1 {status} X\r\n{line}content-length: 2\r\n\r\nok");
        connection.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn read(connection: &mut TcpStream) -> Option<Received> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    let at = Instant::now();
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    connection.read_exact(&mut body).await.ok()?;
    Some(Received {
        at,
        method: first.next().unwrap().to_owned(),
        target: first.next().unwrap().to_owned(),
        headers,
        body,
    })
}
