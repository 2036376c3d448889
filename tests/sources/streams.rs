//! Event streams.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use stitchd::sources::{Driver, PartId, Validators};
use tokio::time::timeout;

use crate::{
    helpers::{fetch, source},
    upstream::{KEY, PAYLOAD, Reply, Upstream, reply},
};

#[tokio::test]
async fn an_offered_event_stream_reports_changes_and_comes_back() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 10000\n\n";
    let upstream = Upstream::start(move |seen, number| match seen.path.as_str() {
        path if path.starts_with("/sub/") && number == 1 => Reply::Bytes(
            format!(
                "{head}data: \n\nid: 2 \nevent: features\ndata: {}\n\n",
                "x".repeat(300_000)
            )
            .into_bytes(),
        ),
        path if path.starts_with("/sub/") => Reply::Stay(head.as_bytes().to_vec()),
        _ => reply(200, "x-sse-support: enabled\r\n", PAYLOAD),
    })
    .await;
    let driver = Driver::new(&source(&upstream)).unwrap();
    let fetched = driver.fetch(&Validators::new()).await;
    assert_eq!(fetched.streams.len(), 1);
    assert!(!format!("{fetched:?}").contains(KEY));
    let changes = AtomicUsize::new(0);
    let follow = driver.follow(&fetched.streams, || {
        changes.fetch_add(1, Ordering::Relaxed);
    });
    let both_seen = async {
        while changes.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    };
    // One for the event, one for the gap before the second connection.
    tokio::select! {
        () = follow => panic!("it ended"),
        seen = timeout(Duration::from_secs(10), both_seen) => seen.unwrap(),
    }
    assert_eq!(changes.load(Ordering::Relaxed), 2);
    let last = upstream.seen.lock().last().unwrap().clone();
    assert_eq!(last.path, format!("/sub/{KEY}"));
    assert_eq!(last.header("accept"), Some("text/event-stream"));

    let mut without = source(&upstream);
    without.poll.streaming = false;
    assert!(fetch(&without).await.streams.is_empty());
}

#[tokio::test]
async fn an_offer_holds_until_a_payload_comes_without_it() {
    let upstream = Upstream::start(|_, number| match number {
        0 => reply(200, "x-sse-support: enabled\r\n", PAYLOAD),
        1 => reply(500, "", ""),
        2 => reply(304, "", ""),
        _ => reply(200, "", PAYLOAD),
    })
    .await;
    let driver = Driver::new(&source(&upstream)).unwrap();
    let known: Validators = [(PartId::Payload(KEY.to_owned()), "\"1\"".to_owned())].into();
    let mut offered = Vec::new();
    for _ in 0..4 {
        offered.push(driver.fetch(&known).await.streams.len());
    }
    assert_eq!(offered, [1, 1, 1, 0]);
}
