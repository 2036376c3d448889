//! Each fault, as a caller sees it.

use super::*;

const PATH: &str = "/api/features/sdk-demo";

async fn lie(upstream: &Upstream, fault: Fault) -> Response {
    upstream.set_fault(Route::Features, fault);
    payload(upstream).await
}

#[tokio::test]
async fn error_statuses_have_their_bodies() {
    let upstream = upstream();
    for status in [400, 401, 403, 404, 429, 500, 502, 503] {
        let response = lie(&upstream, Fault::Status(status)).await;
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "x-unrecoverable"), "");
        let waits = matches!(status, 429 | 503);
        assert_eq!(header(&response, "retry-after") == "60", waits);
        upstream.set_fault(Route::Experiments, Fault::Status(status));
        let response = rest(&upstream, "experiments").await;
        assert_eq!(response.status(), status);
        assert_ne!(header(&response, "ratelimit-remaining"), "");
        if status != 502 {
            let body: Value = response.value().await;
            assert!(body["message"].is_string());
        }
    }
    let revoked = lie(&upstream, Fault::Unrecoverable).await;
    assert_eq!(revoked.status(), 400);
    assert_eq!(header(&revoked, "x-unrecoverable"), "1");
    let value = "7".to_owned();
    let busy = lie(&upstream, Fault::RetryAfter { status: 429, value }).await;
    assert_eq!(header(&busy, "retry-after"), "7");
    let moved = lie(&upstream, Fault::Redirect("http://example.org/".to_owned())).await;
    assert_eq!(moved.status(), 302);
    assert_eq!(header(&moved, "location"), "http://example.org/");
    upstream.clear_all();
    assert_eq!(payload(&upstream).await.status(), 200);
}

#[tokio::test]
async fn bodies_are_replaced_and_validated_as_if_they_were_good() {
    let upstream = upstream();
    let good = payload(&upstream).await.text().await.unwrap();
    let half = &good[..good.len() / 2];
    for (fault, body) in [
        (Fault::TruncatedJson, half),
        (Fault::EmptyObject, "{}"),
        (Fault::EmptyArray, "[]"),
        (
            Fault::EmptyFeatures,
            "{\"status\":200,\"features\":{},\"experiments\":[],",
        ),
        (Fault::Html, "<!DOCTYPE html>"),
    ] {
        let response = lie(&upstream, fault.clone()).await;
        assert_eq!(response.status(), 200, "{fault:?}");
        let is_html = header(&response, "content-type").starts_with("text/html");
        assert_eq!(is_html, matches!(fault, Fault::Html));
        let etag = header(&response, "etag").to_owned();
        assert!(
            response.text().await.unwrap().starts_with(body),
            "{fault:?}"
        );
        let url = format!("{}{PATH}", upstream.base_url());
        let again = client().get(url).header("if-none-match", etag).send();
        assert_eq!(again.await.unwrap().status(), 304, "{fault:?}");
    }
    upstream.set_experiments(many_experiments(3));
    upstream.set_fault(Route::Experiments, Fault::EmptyList);
    let page: Value = rest(&upstream, "experiments").await.value().await;
    assert_eq!(page["total"], 0);
    assert_eq!(page["hasMore"], false);
    let any = Fault::Body {
        status: 203,
        content_type: "text/plain".to_owned(),
        bytes: "anything".into(),
    };
    let response = lie(&upstream, any).await;
    assert_eq!(response.status(), 203);
    assert_eq!(response.text().await.unwrap(), "anything");
}

#[tokio::test]
async fn validators_lie_too() {
    let upstream = upstream();
    assert_eq!(lie(&upstream, Fault::Always304).await.status(), 304);
    let fixed = Fault::BadEtag("not a tag".to_owned());
    let response = lie(&upstream, fixed).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "etag"), "not a tag");
    upstream.set_feature("new", feature(1));
    let url = format!("{}{PATH}", upstream.base_url());
    let again = client()
        .get(url)
        .header("if-none-match", "not a tag")
        .send();
    assert_eq!(again.await.unwrap().status(), 304);
}

#[tokio::test]
async fn sizes_are_out_of_bounds() {
    let upstream = upstream();
    let good: Value = payload(&upstream).await.value().await;
    let response = lie(&upstream, Fault::Oversized(3_000_000)).await;
    assert_eq!(header(&response, "content-length"), "3000000");
    assert_eq!(response.value().await, good);
    upstream.set_fault(Route::Features, Fault::GzipBomb);
    let wire = raw(&upstream, PATH, "").await.unwrap();
    assert!(wire.len() < 500_000, "{}", wire.len());
    let mut bomb = payload(&upstream).await;
    let mut length = 0;
    let mut last = None;
    while let Some(piece) = bomb.chunk().await.unwrap() {
        length += piece.len();
        last = Some(piece);
    }
    assert!(length > 200_000_000);
    assert!(last.unwrap().ends_with(b"}}"));
}

#[tokio::test]
async fn the_wire_is_cut_slow_or_silent() {
    let upstream = upstream();
    let good = payload(&upstream).await.text().await.unwrap();
    upstream.set_fault(Route::Features, Fault::HalfSent);
    let answer = raw(&upstream, PATH, "").await.unwrap();
    let text = String::from_utf8(answer).unwrap();
    assert!(text.contains(&format!("Content-Length: {}", good.len())));
    assert!(text.ends_with(&good[..good.len() / 2]));
    assert!(payload(&upstream).await.text().await.is_err());

    upstream.set_fault(Route::Features, Fault::Reset);
    let error = raw(&upstream, PATH, "").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    upstream.set_fault(Route::Features, Fault::Hang);
    let hung = timeout(Duration::from_millis(100), raw(&upstream, PATH, "")).await;
    assert!(hung.is_err());

    let began = tokio::time::Instant::now();
    let tick = Duration::from_millis(20);
    let slow = Fault::SlowBody {
        bytes_per_tick: good.len() / 4,
        tick,
    };
    let response = lie(&upstream, slow).await;
    assert_eq!(response.text().await.unwrap(), good);
    assert!(began.elapsed() >= tick * 3);
}

#[tokio::test]
async fn a_delayed_answer_is_as_old_as_its_request() {
    let upstream = upstream();
    upstream.set_fault_times(Route::Features, Fault::Delay(Duration::from_millis(200)), 1);
    let (late, ()) = tokio::join!(payload(&upstream), async {
        upstream.until_requests(Route::Features, 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        upstream.set_feature("later", feature(1));
    });
    assert!(!late.text().await.unwrap().contains("later"));
    assert!(
        payload(&upstream)
            .await
            .text()
            .await
            .unwrap()
            .contains("later")
    );
}

#[tokio::test]
async fn faults_may_be_counted_out() {
    let upstream = upstream();
    upstream.set_fault_after(Route::Features, 1, Fault::Status(500), 2);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(payload(&upstream).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 500, 500, 200, 200]);
    upstream.set_fault(Route::Features, Fault::Status(500));
    upstream.clear_fault(Route::Features);
    assert_eq!(payload(&upstream).await.status(), 200);
}

#[tokio::test]
async fn a_closed_port_refuses_and_opens_again() {
    let upstream = upstream();
    let kept = client();
    let url = format!("{}{PATH}", upstream.base_url());
    assert_eq!(kept.get(&url).send().await.unwrap().status(), 200);
    for _ in 0..3 {
        upstream.go_down().await.unwrap();
        upstream.go_down().await.unwrap();
        let error = raw(&upstream, PATH, "").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(kept.get(&url).send().await.unwrap_err().is_connect());
        upstream.come_back().unwrap();
        upstream.come_back().unwrap();
        assert_eq!(kept.get(&url).send().await.unwrap().status(), 200);
    }
    let address = upstream.addr();
    upstream.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}
