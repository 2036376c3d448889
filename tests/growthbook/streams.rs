//! The event streams of connections.

use serde_json::json;
use stitchd::cli::demo::upstream::{CLIENT_KEY, Connection, experiment};
use tokio::{io::AsyncWriteExt as _, net::TcpSocket, time::timeout};

use crate::{
    stand::{ENCRYPTION_KEY, features, metric, start},
    support::{Bed, PATIENCE, TestApp, blocks::Blocks, eventually},
};

/// One event as it was sent.
#[derive(Debug, Default, PartialEq)]
struct Event {
    id: String,
    name: String,
    data: String,
}

/// A stream that is read event by event.
struct Stream(Blocks);

impl Stream {
    async fn open(app: &TestApp, key: &str, last_id: Option<&str>) -> Self {
        let request = app.http.get(format!("{}/sub/{key}", app.data));
        let mut blocks = Blocks::open(request, last_id).await;
        assert_eq!(blocks.response.headers()["x-sse-support"], "enabled");
        assert_eq!(blocks.next().await.as_deref(), Some("retry: 10000"));
        Self(blocks)
    }

    /// The next event; keep-alives are passed over.
    async fn event(&mut self) -> Event {
        loop {
            let block = self.0.next().await.expect("the stream goes on");
            let mut event = Event::default();
            for line in block.lines() {
                let (field, value) = line.split_once(':').unwrap();
                let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
                match field {
                    "id" => event.id = value,
                    "event" => event.name = value,
                    "data" => event.data = value,
                    _ => panic!("{block:?}"),
                }
            }
            if !event.name.is_empty() {
                return event;
            }
            assert_eq!(event, Event::default(), "a keep-alive is empty");
        }
    }
}

async fn change(bed: &Bed, app: &TestApp, number: usize) {
    bed.upstream
        .set_feature("news", json!({"defaultValue": number}));
    assert_eq!(app.poll().await["outcome"], "published");
}

#[tokio::test]
async fn a_change_of_the_document_is_one_event_and_other_revisions_are_none() {
    let bed = Bed::new();
    let app = start(&bed, &[]).await;
    let mut stream = Stream::open(&app, CLIENT_KEY, None).await;
    bed.upstream.upsert_experiment(experiment("another-2026"));
    assert_eq!(app.poll().await["outcome"], "published");
    change(&bed, &app, 1).await;
    let event = stream.event().await;
    let served = features(&app).await;
    assert_eq!(
        (event.name.as_str(), event.data.as_bytes()),
        ("features", &served.body[..])
    );
    assert_eq!(Some(format!("\"{}\"", event.id)), served.etag);

    change(&bed, &app, 2).await;
    let second = stream.event().await;
    assert_eq!(second.data.as_bytes(), &features(&app).await.body[..]);
    assert_ne!(second.id, event.id);

    // One that comes back gets what it missed, and nothing when it missed nothing.
    let mut missed = Stream::open(&app, CLIENT_KEY, Some(&event.id)).await;
    assert_eq!(missed.event().await, second);
    let mut current = Stream::open(&app, CLIENT_KEY, Some(&second.id)).await;
    change(&bed, &app, 3).await;
    let third = current.event().await;
    assert!(third.id != second.id);
    assert_eq!(stream.event().await, third);
    drop((stream, missed, current));
    app.stop().await;
}

#[tokio::test]
async fn each_kind_of_connection_has_its_kind_of_event() {
    let bed = Bed::new();
    bed.upstream.add_connection(Connection {
        encryption_key: Some(ENCRYPTION_KEY.to_owned()),
        ..Connection::new("sdk-encrypted")
    });
    bed.upstream.add_connection(Connection {
        remote_eval: true,
        ..Connection::new("sdk-remote")
    });
    let discover = ("client_key = \"sdk-demo\"", "connections = \"discover\"");
    let app = start(&bed, &[discover]).await;
    let mut encrypted = Stream::open(&app, "sdk-encrypted", None).await;
    let mut remote = Stream::open(&app, "sdk-remote", None).await;
    change(&bed, &app, 1).await;
    let event = encrypted.event().await;
    let served = app.get("/api/features/sdk-encrypted").await;
    assert_eq!(event.data.as_bytes(), &served.body[..]);
    assert!(served.json()["encryptedFeatures"].is_string());
    let event = remote.event().await;
    assert_eq!(
        (event.name.as_str(), event.data.as_str()),
        ("features-updated", "")
    );
    assert!(!event.id.is_empty());

    // A connection that is removed ends its streams.
    bed.upstream.remove_connection("sdk-remote");
    assert_eq!(app.poll().await["outcome"], "published");
    while let Some(block) = remote.0.next().await {
        assert_eq!(block, "data: ", "nothing but keep-alives");
    }
    drop(encrypted);
    app.stop().await;
}

#[tokio::test]
async fn a_payload_of_many_lines_is_one_line_of_data() {
    let bed = Bed::new();
    let app = start(&bed, &[]).await;
    let mut stream = Stream::open(&app, CLIENT_KEY, None).await;
    let body = "{\r\n  \"features\": {\n    \"a\": {\"defaultValue\": \"x\\ny\"}\n  }\n}\n";
    bed.upstream.set_payload(CLIENT_KEY, body.to_owned());
    assert_eq!(app.poll().await["outcome"], "published");
    let event = stream.event().await;
    assert_eq!(
        event.data,
        "{  \"features\": {    \"a\": {\"defaultValue\": \"x\\ny\"}  }}"
    );
    assert_eq!(features(&app).await.body, body);
    drop(stream);
    app.stop().await;
}

#[tokio::test]
async fn idle_streams_are_kept_open_and_end_at_the_stop() {
    let bed = Bed {
        extra: "[http]\nstream_keepalive = \"50ms\"".to_owned(),
        ..Bed::new()
    };
    let app = start(&bed, &[]).await;
    let mut stream = Stream::open(&app, CLIENT_KEY, None).await;
    for _ in 0..3 {
        assert_eq!(stream.0.next().await.as_deref(), Some("data: "));
    }
    let limited = app
        .http
        .get(format!("{}/sub/{CLIENT_KEY}?events=0", app.data));
    assert_eq!(limited.send().await.unwrap().status(), 400);
    let stopped = tokio::spawn(app.stop());
    while let Some(block) = stream.0.next().await {
        assert_eq!(block, "data: ");
    }
    timeout(PATIENCE, stopped)
        .await
        .expect("a stream holds no stop up")
        .unwrap();
}

#[tokio::test]
async fn streams_are_bounded_in_number() {
    let bed = Bed::new();
    let change = ("workers = 2", "workers = 2\nmax_streams = 2");
    let app = start(&bed, &[change]).await;
    let streams = [
        Stream::open(&app, CLIENT_KEY, None).await,
        Stream::open(&app, CLIENT_KEY, None).await,
    ];
    let refused = app.get(&format!("/sub/{CLIENT_KEY}")).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (503, &json!("too_many_streams"))
    );
    assert_eq!(metric(&app, "stitchd_streams_refused_total").await, 1);
    drop(streams);
    eventually("the places are given back", async || {
        (app.get(&format!("/sub/{CLIENT_KEY}?events=0")).await.status == 400).then_some(())
    })
    .await;
    app.stop().await;
}

/// A reader that takes nothing is cut off and counted; one beside it gets every event meanwhile.
#[tokio::test]
async fn a_reader_that_stands_still_is_dropped_and_slows_nobody() {
    let bed = Bed::new();
    let changes = [
        ("workers = 2", "workers = 1"),
        (
            "poll.max_body_bytes = 8000000",
            "poll.max_body_bytes = 30000000",
        ),
        ("poll.timeout = \"1s\"", "poll.timeout = \"20s\""),
    ];
    let mut settings = crate::stand::settings(&bed, &changes);
    settings.server.blocked_limit = std::time::Duration::from_secs(1);
    let app = TestApp::spawn(settings).await;
    app.until_revision(1).await;
    // More than the sockets' buffers hold, which have up to 4 MB on the sending side.
    for number in 0..4 {
        let feature = json!({"defaultValue": "x".repeat(1_900_000)});
        bed.upstream
            .set_feature(&format!("large-{number}"), feature);
    }
    let host = app.data.strip_prefix("http://").unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stuck = socket.connect(host.parse().unwrap()).await.unwrap();
    let request = format!("GET /sub/{CLIENT_KEY} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stuck.write_all(request.as_bytes()).await.unwrap();
    eventually("its stream is open", async || {
        (metric(&app, "stitchd_streams").await == 1).then_some(())
    })
    .await;
    let mut reader = Stream::open(&app, CLIENT_KEY, None).await;
    for number in 0..2 {
        change(&bed, &app, number).await;
        let event = reader.event().await;
        assert_eq!(event.data.len(), features(&app).await.body.len());
    }
    eventually("the one that stands still is counted", async || {
        (metric(&app, "stitchd_connections_blocked_total{plane=\"data\"}").await == 1).then_some(())
    })
    .await;
    assert_eq!(
        metric(&app, "stitchd_streams").await,
        1,
        "the other goes on"
    );
    drop((stuck, reader));
    app.stop().await;
}
