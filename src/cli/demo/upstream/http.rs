//! HTTP/1.1 on a socket, as far as this upstream needs it.
//!
//! Requests are read whole; bodies only with a `Content-Length`. Answers carry one too, so that a cut body is seen as cut.

use std::{io, time::Duration};

use actix_web::web::Query;
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest request line with headers, bytes. Node's own default is 16 KiB.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Longest request body, bytes (GrowthBook's own limit, 2 MB).
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path_and_query: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Request {
    /// The path without the query.
    pub(super) fn path(&self) -> &str {
        let target = &self.path_and_query;
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// The query's pairs, decoded; unreadable queries count as empty.
    pub(super) fn query(&self) -> Vec<(String, String)> {
        let query = self.path_and_query.split_once('?').map_or("", |(_, q)| q);
        Query::from_query(query).map_or_else(|_| Vec::new(), Query::into_inner)
    }

    /// The first header of that name (lower case).
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the caller keeps the connection open after the answer.
    pub(super) fn keeps_alive(&self) -> bool {
        !self
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// An answer before it is written.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    /// Validator of the body, where it is known already.
    pub(super) etag: Option<String>,
}

impl Answer {
    /// An answer with a body of a content type.
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", content_type.to_owned())],
            body: body.into(),
            etag: None,
        }
    }

    /// A JSON answer, with the content type as Express spells it.
    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, JSON, body.to_string())
    }

    /// The same with one more header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Replaces a header, or adds it.
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
    }

    /// Replaces the body and with it the validator.
    pub(super) fn replace_body(&mut self, body: impl Into<Bytes>) {
        self.body = body.into();
        self.etag = None;
    }

    /// Status line and headers, `Content-Length` included.
    pub(super) fn head(&self, keeps_alive: bool) -> String {
        let mut lines = vec![format!("HTTP/1.1 {} {}", self.status, reason(self.status))];
        lines.extend(
            self.headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}")),
        );
        if !matches!(self.status, 204 | 304) {
            lines.push(format!("Content-Length: {}", self.body.len()));
        }
        let connection = if keeps_alive { "keep-alive" } else { "close" };
        lines.push(format!("Connection: {connection}\r\n\r\n"));
        lines.join("\r\n")
    }
}

/// Content type of every JSON answer.
pub(super) const JSON: &str = "application/json; charset=utf-8";

/// How a body is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// At once.
    Whole,
    /// So many bytes at a time.
    Slow { bytes: usize, tick: Duration },
    /// The first half, then the end of the connection.
    Half,
}

/// One TCP connection with what has been read ahead.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    ahead: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            ahead: BytesMut::new(),
        }
    }

    /// Reads the next request; `None` at the orderly end of the connection.
    pub(super) async fn read_request(&mut self) -> io::Result<Option<Request>> {
        let head_length = loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                break at;
            }
            if self.ahead.len() > HEAD_BYTES_MAX {
                return Err(invalid("the head is too long"));
            }
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return Ok(None);
            }
        };
        let head = self.ahead.split_to(head_length);
        self.ahead.advance(4);
        let mut request = parse_head(&head)?;
        let length = match request.header("content-length") {
            Some(text) => text.parse().map_err(io::Error::other)?,
            None => 0,
        };
        if length > BODY_BYTES_MAX || request.header("transfer-encoding").is_some() {
            return Err(invalid("the body is too long or chunked"));
        }
        while self.ahead.len() < length {
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        request.body = self.ahead.split_to(length).freeze();
        Ok(Some(request))
    }

    /// Writes an answer; with `Pace::Half` the connection is over afterwards.
    pub(super) async fn write(
        &mut self,
        answer: &Answer,
        keeps_alive: bool,
        pace: Pace,
    ) -> io::Result<()> {
        let has_body = !matches!(answer.status, 204 | 304);
        let body = if has_body { &answer.body[..] } else { &[] };
        self.write_all(answer.head(keeps_alive).as_bytes()).await?;
        match pace {
            Pace::Whole => self.write_all(body).await?,
            Pace::Half => {
                self.write_all(&body[..body.len() / 2]).await?;
                self.stream.shutdown().await?;
            }
            Pace::Slow { bytes, tick } => {
                for piece in body.chunks(bytes.max(1)) {
                    self.write_all(piece).await?;
                    self.stream.flush().await?;
                    tokio::time::sleep(tick).await;
                }
            }
        }
        self.stream.flush().await
    }

    /// Writes raw bytes.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits until the caller has closed the connection; whatever it sends is thrown away.
    pub(super) async fn closed(&mut self) {
        loop {
            self.ahead.clear();
            match self.stream.read_buf(&mut self.ahead).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Ends the connection with a reset instead of an orderly close.
    pub(super) fn reset(self) -> io::Result<()> {
        self.stream.set_zero_linger()
    }
}

fn parse_head(head: &[u8]) -> io::Result<Request> {
    let head = std::str::from_utf8(head).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or("").split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0")) =
        (words.next(), words.next(), words.next())
    else {
        return Err(invalid("no request line"));
    };
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Request {
        method: method.to_owned(),
        path_and_query: target.to_owned(),
        headers,
        body: Bytes::new(),
    })
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|part| part == needle)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}
