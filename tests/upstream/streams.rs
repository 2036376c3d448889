//! The event stream.

use super::*;

/// Reads until the text has come that ends the expectation.
async fn read_until(response: &mut Response, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let piece = timeout(SOON, response.chunk()).await.unwrap().unwrap();
        read.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    read
}

async fn open(upstream: &Upstream, last_event_id: Option<u64>) -> Response {
    let url = format!("{}/sub/{CLIENT_KEY}", upstream.base_url());
    let mut request = client().get(url);
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_change_is_told_with_the_whole_payload() {
    let upstream = upstream();
    upstream.enable_streaming();
    assert_eq!(
        header(&payload(&upstream).await, "x-sse-support"),
        "enabled"
    );
    let mut stream = open(&upstream, None).await;
    assert_eq!(header(&stream, "content-type"), "text/event-stream");
    assert_eq!(read_until(&mut stream, "\n\n").await, "retry: 10000\n\n");
    assert_eq!(upstream.open_streams(), 1);
    upstream.set_feature("dark-mode", feature(true));
    let event = read_until(&mut stream, "}\n\n").await;
    let (head, data) = event.split_once("data: ").unwrap();
    assert!(head.starts_with("id: ") && head.ends_with(" \nevent: features\n"));
    assert_eq!(
        data.trim_end(),
        payload(&upstream).await.text().await.unwrap()
    );
    let mut resumed = open(&upstream, Some(0)).await;
    assert!(read_until(&mut resumed, "}\n\n").await.contains(data));
}

#[tokio::test]
async fn a_remote_evaluation_stream_only_beckons() {
    let upstream = upstream();
    upstream.add_connection(Connection {
        streaming: true,
        remote_eval: true,
        ..Connection::new(CLIENT_KEY)
    });
    let mut stream = open(&upstream, None).await;
    read_until(&mut stream, "retry").await;
    upstream.set_feature("dark-mode", feature(true));
    let event = read_until(&mut stream, "data: \n\n").await;
    assert!(event.contains("event: features-updated\n"));
}

#[tokio::test]
async fn streams_ping_send_anything_and_end() {
    let upstream = upstream();
    upstream.enable_streaming();
    upstream.set_stream_times(Duration::from_millis(20), SOON);
    let mut stream = open(&upstream, None).await;
    read_until(&mut stream, "data: \n\n").await;
    upstream.send_to_streams(CLIENT_KEY, "event: features\ndata: {\n\n");
    read_until(&mut stream, "data: {\n\n").await;
    upstream.close_streams();
    while let Some(_rest) = timeout(SOON, stream.chunk()).await.unwrap().unwrap() {}
    upstream.set_stream_times(SOON, Duration::from_millis(20));
    let text = timeout(SOON, open(&upstream, None).await.text()).await;
    assert_eq!(text.unwrap().unwrap(), "retry: 10000\n\n");
}

#[tokio::test]
async fn a_stream_is_refused_where_there_is_none() {
    let upstream = upstream();
    assert_eq!(open(&upstream, None).await.status(), 404);
    upstream.remove_connection(CLIENT_KEY);
    let refused = open(&upstream, None).await;
    assert_eq!(refused.status(), 400);
    let body: Value = refused.value().await;
    assert_eq!(body["message"], "No channel found");
    upstream.enable_streaming();
    upstream.set_fault_times(Route::Stream, Fault::Status(503), 1);
    assert_eq!(open(&upstream, None).await.status(), 503);
    assert_eq!(open(&upstream, None).await.status(), 200);
}
