//! What is answered where there is nothing to answer with yet, and to those who ask too often.

use serde_json::json;
use stitchd::cli::demo::upstream::{CLIENT_KEY, Fault, Route};

use crate::{
    stand::{all, bed, one, start},
    support::eventually,
};

#[tokio::test]
async fn before_the_first_load_it_is_503_and_then_it_works() {
    let bed = bed();
    bed.upstream.set_fault(Route::Features, Fault::Status(500));
    let app = bed.start().await;
    let (_, secret) = app.token(&json!({"kind": "client"})).await;
    for secret in [&secret, CLIENT_KEY] {
        for ask in [all(), one("on"), all().having("*")] {
            let seen = ask.by(secret).of(&app).await;
            assert_eq!(seen.status, 503);
            assert_eq!(seen.json()["code"], "not_loaded");
        }
    }
    assert_eq!(all().of(&app).await.status, 401);
    bed.upstream.clear_fault(Route::Features);
    eventually("it is loaded", async || {
        app.poll().await;
        let seen = all().by(&secret).of(&app).await;
        (seen.status == 200).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_token_that_asks_more_often_than_its_class_allows_is_429_by_itself() {
    let mut bed = bed();
    bed.extra = "[rate_limit]\nclasses = [{name = \"slow\", requests_per_second = 1}]".to_owned();
    let (app, free) = start(&bed).await;
    let spec = json!({"kind": "client", "rate_class": "slow"});
    let (_, slow) = app.token(&spec).await;
    let (_, other) = app.token(&spec).await;
    assert_eq!(all().by(&slow).of(&app).await.status, 200);
    for ask in [all(), one("on")] {
        let seen = eventually("the limit is reached", async || {
            let seen = ask.clone().by(&slow).of(&app).await;
            (seen.status == 429).then_some(seen)
        })
        .await;
        assert_eq!(seen.header("retry-after"), Some("1"));
    }
    // Its class is not its limit: each token has its own.
    assert_eq!(all().by(&other).of(&app).await.status, 200);
    assert_eq!(all().by(&free).of(&app).await.status, 200);
    eventually("there is room again", async || {
        let seen = all().by(&slow).of(&app).await;
        (seen.status == 200).then_some(())
    })
    .await;
    app.stop().await;
}
