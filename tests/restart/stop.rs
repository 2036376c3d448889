//! A stop in order, under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::{
    folder, folder_with, say,
    support::{Bed, ENVIRONMENT, client, eventually, process::Process},
};

/// A snapshot too large for the sockets' buffers, which hold up to 4 MB on the sending side.
fn set_large(bed: &Bed) {
    for number in 0..4 {
        let feature = json!({"defaultValue": "x".repeat(1_900_000)});
        bed.upstream
            .set_feature(&format!("large-{number}"), feature);
    }
}

/// Connects with a small buffer on the receiving side.
async fn connect_narrow(host: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(host.parse().unwrap()).await.unwrap()
}

fn host(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

/// Where a stop has got to, as far as clients can know.
#[derive(Default)]
struct Stop {
    /// It may have begun.
    is_coming: AtomicBool,
    /// Readiness has told it.
    is_told: AtomicBool,
}

/// Asks for the snapshot, over and over, until connections are refused; gives the number of whole answers.
///
/// An answer cut short fails, and so does a new connection that ends without an answer. A connection that was used may
/// end at any time between two answers (RFC 9112 §9.3.1): a request may cross with that. Once the stop is known every
/// answer says that it is the last on its connection.
async fn keep_asking(host: String, stop: Arc<Stop>, count: Arc<AtomicUsize>) {
    loop {
        let Ok(mut stream) = TcpStream::connect(&host).await else {
            let is_coming = stop.is_coming.load(Ordering::SeqCst);
            assert!(is_coming, "refused before the stop");
            return;
        };
        let mut is_new = true;
        loop {
            let is_told = stop.is_told.load(Ordering::SeqCst);
            let request =
                format!("GET /v1/snapshot/{ENVIRONMENT} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let read = match stream.write_all(request.as_bytes()).await {
                Ok(()) => read_answer(&mut stream).await,
                Err(_) => Read::Nothing,
            };
            match read {
                Read::Whole { is_last } => {
                    count.fetch_add(1, Ordering::Relaxed);
                    assert!(is_last || !is_told, "asked to stay during a stop");
                    if is_last {
                        break;
                    }
                }
                Read::Nothing => {
                    assert!(!is_new, "a new connection ended without an answer");
                    let is_coming = stop.is_coming.load(Ordering::SeqCst);
                    assert!(is_coming, "closed before the stop");
                    break;
                }
            }
            is_new = false;
        }
    }
}

enum Read {
    Whole {
        is_last: bool,
    },
    /// Closed before the first byte.
    Nothing,
}

async fn read_answer(stream: &mut TcpStream) -> Read {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        let number = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) if bytes.is_empty() => return Read::Nothing,
            Ok(0) => panic!("cut after {} bytes", bytes.len()),
            Err(error) => panic!("cut after {} bytes: {error}", bytes.len()),
            Ok(number) => number,
        };
        bytes.extend_from_slice(&buffer[..number]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec())
            .unwrap()
            .to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        if bytes.len() >= end + 4 + length.parse::<usize>().unwrap() {
            return Read::Whole {
                is_last: head.contains("connection: close"),
            };
        }
    }
}

/// Four clients that ask all the time.
async fn put_load(data: &str, stop: &Arc<Stop>, count: &Arc<AtomicUsize>) -> JoinSet<()> {
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let (stop, count) = (Arc::clone(stop), Arc::clone(count));
        readers.spawn(keep_asking(host(data).to_owned(), stop, count));
    }
    eventually("there is load", async || {
        (count.load(Ordering::Relaxed) > 20).then_some(())
    })
    .await;
    readers
}

/// The order of a stop, and nothing to complain about.
fn check_log(log: &[String]) {
    let line = |text: &str| {
        let found = log.iter().position(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("`{text}` was not logged: {log:#?}"))
    };
    let order = ["data on http", "received SIGTERM", "stopping", "stopped"].map(line);
    assert!(order.is_sorted(), "{log:#?}");
    assert!(
        !log.iter()
            .any(|line| (line.contains("ERROR") || line.contains("WARN"))
                && !line.contains("without a durable copy")),
        "{log:#?}"
    );
}

#[tokio::test]
async fn a_stop_under_load_cuts_nothing_and_a_second_start_is_fine() {
    let bed = Bed::new();
    set_large(&bed);
    // An eighth of it, three seconds, is for clients to see that they have to go.
    let grace = ("shutdown_grace = \"2s\"", "shutdown_grace = \"24s\"");
    let folder = folder_with(&bed, &bed.toml().replacen(grace.0, grace.1, 1));
    let mut process = Process::serve(&folder);
    let (data, admin) = (process.data().await, process.admin().await);
    process.logged("published revision 1").await;
    let http = client();
    let url = format!("{data}/v1/snapshot/{ENVIRONMENT}");
    let before = http.get(&url).send().await.unwrap();
    assert_eq!(before.status(), 200);
    let (tag, body) = (
        before.headers()["etag"].clone(),
        before.bytes().await.unwrap(),
    );
    assert!(body.len() > 7_000_000, "{}", body.len());

    let mut stream = http
        .get(format!("{data}/v1/stream/{ENVIRONMENT}"))
        .send()
        .await
        .unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    // Takes the head of its answer and then waits: a request in flight for as long as the test likes.
    let mut slow = connect_narrow(host(&data)).await;
    let request =
        format!("GET /v1/snapshot/{ENVIRONMENT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![0; 4096];
    let taken = slow.read(&mut head).await.unwrap();
    let (stop, count) = (Arc::<Stop>::default(), Arc::default());
    let mut readers = put_load(&data, &stop, &count).await;

    stop.is_coming.store(true, Ordering::SeqCst);
    let stopping = Instant::now();
    process.signal("TERM");
    while stream.chunk().await.unwrap().is_some() {}
    say(&format!(
        "stop: streams ended after {:?}",
        stopping.elapsed()
    ));
    let ready = http.get(format!("{admin}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503, "readiness goes first");
    assert_eq!(ready.headers()["connection"], "close");
    let answers = count.load(Ordering::Relaxed);
    stop.is_told.store(true, Ordering::SeqCst);
    eventually("readers are still answered", async || {
        (count.load(Ordering::Relaxed) > answers + 4).then_some(())
    })
    .await;
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    head.truncate(taken);
    head.extend(rest);
    assert!(head.starts_with(b"HTTP/1.1 200"));
    assert!(
        head.ends_with(&body),
        "the slow reader got {} bytes",
        head.len()
    );
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    let status = process.ended().await;
    let took = stopping.elapsed();
    say(&format!(
        "stop: {took:?} after {} whole answers",
        count.load(Ordering::Relaxed)
    ));
    assert_eq!(status.code(), Some(0));
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(
        took < Duration::from_secs(24),
        "{took:?}: the rest of the grace is not needed"
    );
    check_log(&process.log());

    bed.upstream.go_down().await.unwrap();
    let mut process = Process::serve(&folder);
    let url = format!("{}/v1/snapshot/{ENVIRONMENT}", process.data().await);
    let after = http.get(&url).send().await.unwrap();
    assert_eq!(after.headers()["etag"], tag);
    assert_eq!(after.bytes().await.unwrap(), body);
    process.signal("INT");
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_up_a_stop_no_longer_than_the_grace() {
    let bed = Bed::new();
    set_large(&bed);
    let folder = folder(&bed);
    let mut process = Process::serve(&folder);
    let data = process.data().await;
    process.logged("published revision 1").await;
    let mut stuck = connect_narrow(host(&data)).await;
    let request = format!("GET /v1/snapshot/{ENVIRONMENT} HTTP/1.1\r\nHost: x\r\n\r\n");
    stuck.write_all(request.as_bytes()).await.unwrap();
    assert!(stuck.read(&mut [0; 1024]).await.unwrap() > 0);
    let stopping = Instant::now();
    process.signal("TERM");
    let status = process.ended().await;
    let took = stopping.elapsed();
    say(&format!("stop with a stuck reader: {took:?}"));
    assert_eq!(status.code(), Some(0));
    // `shutdown_grace` is 2 s.
    assert!(took >= Duration::from_secs(2), "{took:?}: it was not stuck");
    assert!(took < Duration::from_secs(6), "{took:?}");
}
