//! An upstream on a raw socket that does what a script says, so that bodies can be cut short.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

pub(crate) const KEY: &str = "sdk-test1234567";
pub(crate) const PAYLOAD: &str = r#"{"status":200,"features":{"a":{"defaultValue":1.0}}}"#;

/// One request as the upstream saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    head: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn offset(&self) -> usize {
        let (_, rest) = self.path.split_once("offset=").unwrap();
        rest.split('&').next().unwrap().parse().unwrap()
    }
}

/// What the upstream does with a request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Sends these bytes and keeps the connection open.
    Stay(Vec<u8>),
    /// Waits, then does the rest.
    Late(Duration, Box<Reply>),
}

/// A complete answer.
pub(crate) fn reply(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let mut bytes = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

pub(crate) fn json(body: impl AsRef<[u8]>) -> Reply {
    reply(200, "content-type: application/json\r\n", body)
}

pub(crate) struct Upstream {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// `script` answers the request of that number, counted from 0.
    pub(crate) async fn start(
        script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), seen.clone());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(socket, script.clone(), log.clone()));
            }
        });
        Self { url, seen }
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().len()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen.lock().iter().map(|s| s.path.clone()).collect()
    }
}

async fn answer(
    mut socket: TcpStream,
    script: Arc<impl Fn(&Seen, usize) -> Reply>,
    log: Arc<Mutex<Vec<Seen>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = socket.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let seen = Seen { path, head };
    let number = {
        let mut log = log.lock();
        log.push(seen.clone());
        log.len() - 1
    };
    let mut reply = script(&seen, number);
    let (bytes, stay) = loop {
        match reply {
            Reply::Bytes(bytes) => break (bytes, false),
            Reply::Stay(bytes) => break (bytes, true),
            Reply::Late(wait, next) => {
                sleep(wait).await;
                reply = *next;
            }
        }
    };
    // The client may hang up in the middle, as with a bomb.
    if socket.write_all(&bytes).await.is_ok() && stay {
        sleep(Duration::from_mins(1)).await;
    }
}

/// A page of experiments numbered from `offset`.
pub(crate) fn page(offset: usize, total: usize) -> Reply {
    page_of(offset..total.min(offset + 100), total)
}

pub(crate) fn page_of(numbers: std::ops::Range<usize>, total: usize) -> Reply {
    let more = numbers.end < total;
    let items: Vec<String> = numbers
        .map(|n| format!(r#"{{"id":"exp_{n}","w":1.0}}"#))
        .collect();
    let items = items.join(",");
    let body = format!(
        r#"{{"experiments":[{items}],"limit":100,"count":1,"total":{total},"hasMore":{more},"nextOffset":null}}"#
    );
    reply(200, "ratelimit-limit: 60\r\n", body)
}

pub(crate) fn payload_or(seen: &Seen, other: impl FnOnce() -> Reply) -> Reply {
    if seen.path.starts_with("/api/features/") {
        return json(PAYLOAD);
    }
    other()
}

pub(crate) fn gzip(mut plain: impl std::io::Read) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut plain, &mut encoder).unwrap();
    encoder.finish().unwrap()
}
