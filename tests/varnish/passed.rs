//! What no cache may keep: decisions, evaluations, answers to a token, event streams; and errors that are not ours to hide.

use reqwest::{Method, Response};
use serde_json::{Value, json as object};
use stitchd::cli::demo::upstream::CLIENT_KEY;

use crate::{Stand, address, cache::Behind, header, json, snapshot, support};

impl Stand {
    async fn post(&self, path: &str, body: &Value) -> Response {
        let url = format!("{}{path}", self.varnish.url);
        let request = self.app.http.post(url).body(body.to_string());
        request.send().await.unwrap()
    }
}

#[tokio::test]
async fn answers_for_one_user_are_never_kept() {
    let Some(stand) = Stand::new("1h").await else {
        return;
    };
    for round in 0..2 {
        for unit in ["a", "b"] {
            let answer = stand.post("/v1/decide", &object!({"user_key": unit})).await;
            assert_eq!(answer.status(), 200, "{round}");
            assert_eq!(header(answer.headers(), "x-cache"), "miss");
            let body: Value = json(answer).await;
            assert_eq!(body["user_key"], unit);
            let path = format!("/v1/decide?user_key={unit}");
            let answer = stand.get(&path).await;
            assert_eq!(header(answer.headers(), "x-cache"), "miss");
            let body: Value = json(answer).await;
            assert_eq!(body["user_key"], unit);
        }
        // Not a connection for remote evaluation; the refusal is stitchd's own and comes each time.
        let path = format!("/api/eval/{CLIENT_KEY}");
        let answer = stand.post(&path, &object!({"attributes": {}})).await;
        assert_eq!(answer.status(), 400);
        assert_eq!(header(answer.headers(), "x-cache"), "miss");
        let body: Value = json(answer).await;
        assert_eq!(body["status"], 400);
    }
    stand.app.stop().await;
}

#[tokio::test]
async fn what_a_token_is_answered_is_not_kept_and_cookies_do_not_count() {
    let Some(stand) = Stand::new("1h").await else {
        return;
    };
    let answer = |header: (&'static str, &'static str)| {
        let stand = &stand;
        async move { stand.ask(Method::GET, &snapshot(), &[header]).await }
    };
    for _ in 0..2 {
        let passed = answer(("authorization", "Bearer srv-1")).await;
        assert_eq!(header(passed.headers(), "x-cache"), "miss");
    }
    let first = answer(("cookie", "session=1")).await;
    assert_eq!(header(first.headers(), "x-cache"), "miss");
    let second = answer(("cookie", "session=2")).await;
    assert_eq!(header(second.headers(), "x-cache"), "hit");
    stand.app.stop().await;
}

/// Where there is no copy to lose, stitchd's own words arrive.
#[tokio::test]
async fn errors_arrive_as_stitchd_says_them_where_no_copy_suffers() {
    let Some(stand) = Stand::new("1s").await else {
        return;
    };
    let missing = stand.get("/v1/snapshot/nowhere").await;
    assert_eq!(missing.status(), 404);
    let body: Value = json(missing).await;
    assert_eq!(body["code"], "unknown_environment");
    stand.origin.set(Behind::Unsound(503));
    for _ in 0..2 {
        let decided = stand.post("/v1/decide", &object!({"user_key": "a"})).await;
        assert_eq!(decided.status(), 503);
        assert_eq!(decided.text().await.unwrap(), "none");
        let never_seen = stand.get(&snapshot()).await;
        assert_eq!(never_seen.status(), 503);
        assert_eq!(never_seen.text().await.unwrap(), "none");
    }
    // None of it was kept.
    stand.origin.set(Behind::Service(address(&stand.app)));
    assert_eq!(stand.get(&snapshot()).await.status(), 200);
    stand.app.stop().await;
}

#[tokio::test]
async fn the_stream_of_a_connection_passes_through() {
    let Some(stand) = Stand::purging().await else {
        return;
    };
    let mut stream = stand.get(&format!("/sub/{CLIENT_KEY}")).await;
    let headers = stream.headers();
    assert_eq!(header(headers, "content-type"), "text/event-stream");
    assert_eq!(header(headers, "x-cache"), "", "it is piped");
    stand.publish(7).await;
    let mut seen = String::new();
    while !seen.contains("\"counter\":{\"defaultValue\":7}") {
        let chunk = tokio::time::timeout(support::PATIENCE, stream.chunk()).await;
        let chunk = chunk.expect("an event in time").unwrap();
        seen += &String::from_utf8_lossy(&chunk.expect("the stream goes on"));
    }
    drop(stream);
    stand.app.stop().await;
}
