//! Thousands of idle streams, and requests beside them.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use stitchd::cli::demo::upstream::CLIENT_KEY;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    stand::{features, metric, start},
    support::{Bed, TestApp, eventually},
};

const STREAMS: u64 = 5_000;
/// Open files beside the streams: databases, sockets, the other tests of this process.
const OTHER_FILES: u64 = 1_000;
/// Streams opened at the same time.
const AT_ONCE: usize = 64;
/// How long everything together may take on a slow and busy machine.
const LIMIT: Duration = Duration::from_mins(8);
/// How long one request may take beside it; it takes milliseconds, and a stall would take until the last stream is told.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// Raises the limit on open files as far as it goes; gives how many streams, both their ends here, fit below it.
fn streams_possible() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = 2 * STREAMS + OTHER_FILES;
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < allowed) {
        limit.current = Some(allowed);
        setrlimit(Resource::Nofile, limit).expect("up to the hard limit anybody may go");
    }
    let possible = (allowed.saturating_sub(OTHER_FILES) / 2).min(STREAMS);
    if possible < STREAMS {
        let line = format!(
            "many streams: {possible} instead of {STREAMS}, the limit on open files is {allowed}\n"
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    assert!(possible >= 10, "the limit on open files is {allowed}");
    possible
}

/// Opens a stream and reads its first lines.
async fn open(app: &TestApp) -> TcpStream {
    let host = app.data.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /sub/{CLIENT_KEY} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "retry: 10000\n\n").await;
    stream
}

/// Reads until a text has come; chunk frames are in between and do not matter.
async fn read_until(stream: &mut TcpStream, text: &str) {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&read).contains(text) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(
            count > 0,
            "the stream ended: {}",
            String::from_utf8_lossy(&read)
        );
        read.extend_from_slice(&buffer[..count]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_thousands_of_idle_streams_and_requests_go_on_meanwhile() {
    let count = streams_possible();
    let bed = Bed::new();
    let app = start(&bed, &[]).await;
    let work = async {
        let streams: Vec<_> = stream::iter(0..count)
            .map(|_| open(&app))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        assert_eq!(metric(&app, "stitchd_streams").await, count);

        let told = std::sync::Arc::new(AtomicUsize::new(0));
        let mut readers = JoinSet::new();
        for mut stream in streams {
            let told = std::sync::Arc::clone(&told);
            readers.spawn(async move {
                read_until(&mut stream, "\"latest-news\"").await;
                told.fetch_add(1, Ordering::Relaxed);
                stream
            });
        }
        let is_over = AtomicBool::new(false);
        let change = async {
            bed.upstream
                .set_feature("latest-news", json!({"defaultValue": 1}));
            assert_eq!(app.poll().await["outcome"], "published");
            let mut streams = Vec::new();
            while let Some(stream) = readers.join_next().await {
                streams.push(stream.unwrap());
            }
            is_over.store(true, Ordering::Relaxed);
            streams
        };
        let requests = async {
            let (mut slowest, mut number) = (Duration::ZERO, 0);
            while !is_over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                features(&app).await;
                slowest = slowest.max(asked.elapsed());
                number += 1;
            }
            (slowest, number)
        };
        let (streams, (slowest, number)) = tokio::join!(change, requests);
        assert_eq!(told.load(Ordering::Relaxed) as u64, count);
        assert!(
            number > 0 && slowest < REQUEST_LIMIT,
            "{number} requests, slowest {slowest:?}"
        );
        drop(streams);
        eventually("every place is given back", async || {
            (metric(&app, "stitchd_streams").await == 0).then_some(())
        })
        .await;
    };
    timeout(LIMIT, work).await.expect("in time");
    app.stop().await;
}
