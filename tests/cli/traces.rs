//! Traces reach an OTLP collector, and a collector that is away holds nothing up.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use crate::{
    Folder,
    support::{Bed, client, process::Process},
};

/// Reads one HTTP request to its end and answers 200; gives what came.
fn take_request(mut connection: TcpStream) -> Vec<u8> {
    connection
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = connection.read(&mut buffer) {
        request.extend_from_slice(&buffer[..read]);
        if is_whole(&request) {
            break;
        }
    }
    connection
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .ok();
    request
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some(head) = text.find("\r\n\r\n") else {
        return false;
    };
    let length = text[..head]
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    request.len() >= head + 4 + length
}

/// A collector on a thread; each request that it gets comes out of the channel.
fn collector() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            if sender.send(take_request(connection)).is_err() {
                return;
            }
        }
    });
    (url, received)
}

async fn serve_one_read(endpoint: &str) {
    let mut bed = Bed::new();
    bed.extra = format!("[telemetry]\notlp_endpoint = \"{endpoint}\"");
    let folder = Folder::with(&bed.toml());
    let mut process = Process::serve(folder.path());
    let data = process.data().await;
    process.logged("published revision 1 of production").await;
    let url = format!("{data}/v1/snapshot/production");
    assert_eq!(client().get(url).send().await.unwrap().status(), 200);
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_collector_gets_the_spans_of_a_read_and_of_a_refresh() {
    let (endpoint, received) = collector();
    serve_one_read(&endpoint).await;
    let mut all = Vec::new();
    while let Ok(request) = received.recv_timeout(Duration::from_secs(2)) {
        assert!(request.starts_with(b"POST /v1/traces "), "{request:?}");
        all.extend(request);
    }
    let all = String::from_utf8_lossy(&all);
    for span in [
        "request",
        "fetch",
        "ingest",
        "publish",
        "/v1/snapshot/{environment}",
    ] {
        assert!(all.contains(span), "no `{span}` among the spans");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    serve_one_read(&endpoint).await;
}
