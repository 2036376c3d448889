//! What only a real connection shows: HEAD, a panic, streams, the blocking limit.

use std::{net::TcpListener, time::Duration};

use actix_web::{App, HttpServer, rt, web};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::Rig;
use crate::http::{Plane, Route, configure, open, server};

const PANICS: &[Route] = &[
    open(Plane::Data, "/panics", "always", || {
        web::route().to(async || -> &'static str { panic!("the handler gave up") })
    }),
    open(
        Plane::Data,
        "/panics/early",
        "before there is a future",
        || {
            web::route()
                .to(|| -> std::future::Ready<&'static str> { panic!("the handler gave up") })
        },
    ),
    open(Plane::Data, "/fine", "never", || {
        web::route().to(async || "fine")
    }),
];

fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Sends `request` and reads until `end` has come.
async fn exchange(connection: &mut TcpStream, request: &str, end: &str) -> String {
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        let read = timeout(Duration::from_secs(20), connection.read(&mut buffer));
        let length = read
            .await
            .unwrap_or_else(|_| panic!("no {end:?} in {text:?}"))
            .unwrap();
        assert!(length > 0, "the connection was closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    text
}

#[rt::test]
async fn a_panic_is_a_500_on_a_connection_that_stays_open() {
    let rig = Rig::loaded();
    let (listener, address) = listener();
    let shared = std::sync::Arc::clone(&rig.shared);
    let make_app = move || {
        let state = web::Data::new(crate::http::HttpState::new(std::sync::Arc::clone(&shared)));
        App::new().configure(|config| configure(config, Plane::Data, state, PANICS))
    };
    let running = HttpServer::new(make_app)
        .workers(1)
        .disable_signals()
        .listen(listener)
        .unwrap()
        .run();
    let handle = running.handle();
    rt::spawn(running);
    let mut connection = TcpStream::connect(address).await.unwrap();
    for path in ["/panics", "/panics/early"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: p1\r\n\r\n");
        let text = exchange(&mut connection, &request, "\"p1\"}").await;
        assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
        assert!(
            text.contains("application/problem+json") && text.contains("\"code\":\"internal\""),
            "{text}"
        );
        assert!(!text.contains("gave up"), "{text}");
    }
    let text = exchange(
        &mut connection,
        "GET /fine HTTP/1.1\r\nhost: x\r\n\r\n",
        "fine",
    )
    .await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(
        rig.shared
            .metrics
            .encode()
            .contains("stitchd_http_panics_total 2")
    );
    handle.stop(false).await;
}

#[rt::test]
async fn head_has_the_length_and_no_body() {
    let rig = Rig::loaded();
    let (listener, address) = listener();
    let running = server::data_server(&rig.shared, listener).unwrap();
    let handle = running.handle();
    rt::spawn(running);
    let mut connection = TcpStream::connect(address).await.unwrap();
    // Nobody runs the store, so this is the 503 of a read; its body is left out all the same.
    let head = "HEAD /v1/snapshot/production HTTP/1.1\r\nhost: x\r\n\r\n";
    let text = exchange(&mut connection, head, "\r\n\r\n").await;
    assert!(
        text.starts_with("HTTP/1.1 503 ") && text.ends_with("\r\n\r\n"),
        "{text}"
    );
    assert!(
        text.contains("content-length: ") && !text.contains("content-length: 0\r\n"),
        "{text}"
    );
    let text = exchange(
        &mut connection,
        "HEAD /livez HTTP/1.1\r\nhost: x\r\n\r\n",
        "\r\n\r\n",
    )
    .await;
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.contains("content-length: 18\r\n"),
        "{text}"
    );
    assert!(text.ends_with("\r\n\r\n"), "{text}");
    rig.shared.end_streams();
    handle.stop(true).await;
}

#[rt::test]
async fn open_streams_do_not_hold_up_a_stop() {
    let rig = Rig::loaded();
    let (listener, address) = listener();
    let running = server::data_server(&rig.shared, listener).unwrap();
    let handle = running.handle();
    let ended = rt::spawn(running);
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = "GET /v1/stream/production HTTP/1.1\r\nhost: x\r\n\r\n";
    let text = exchange(&mut connection, request, ": keep-alive").await;
    assert!(
        text.contains("content-type: text/event-stream") && text.contains("retry: 3000"),
        "{text}"
    );
    assert_eq!(rig.shared.streams.open(), 1);
    rig.shared.begin_stop();
    rig.shared.end_streams();
    let rest = exchange(&mut connection, "", "0\r\n\r\n").await;
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    timeout(Duration::from_secs(20), handle.stop(true))
        .await
        .unwrap();
    timeout(Duration::from_secs(20), ended)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[cfg(target_os = "linux")]
#[rt::test]
async fn accepted_connections_inherit_the_blocking_limit() {
    let (listener, address) = listener();
    let copy = listener.try_clone().unwrap();
    let rig = Rig::never_loaded();
    let running = server::admin_server(&rig.shared, listener).unwrap();
    let client = std::net::TcpStream::connect(address).unwrap();
    // The server is not polled, so this copy of its listener takes the connection.
    copy.set_nonblocking(false).unwrap();
    let (accepted, _) = copy.accept().unwrap();
    let limit = socket2::SockRef::from(&accepted)
        .tcp_user_timeout()
        .unwrap();
    assert_eq!(limit, Some(Duration::from_mins(1)));
    drop((client, running));
}
