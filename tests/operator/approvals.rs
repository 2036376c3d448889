//! An order about a held input that is asked again, because its answer was lost with the actor that had it.

use std::time::Duration;

use serde_json::json;
use stitchd::actors::config_service::{DecideHeld, Fate, HeldError};

use crate::{
    stand::{loaded, snapshot},
    support::{ENVIRONMENT, SOURCE},
};

#[tokio::test]
async fn an_approval_that_comes_again_is_answered_as_done_and_another_one_is_not() {
    let (bed, app) = loaded().await;
    bed.upstream.set_features(json!({}));
    assert_eq!(app.poll().await["outcome"], "held");
    let order = |id: &str| DecideHeld {
        id: id.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        source: SOURCE.to_owned(),
        fate: Fate::Approve,
        digest: None,
        by: "otto".to_owned(),
        reason: "it is meant".to_owned(),
    };
    let ask = async |id: &str| {
        let asked = app
            .handles
            .config
            .ask_again(order(id), Duration::from_secs(10));
        asked.await.unwrap()
    };
    let done = ask("one").await.unwrap();
    assert_eq!(done.outcome, "published");
    assert_eq!(ask("one").await.unwrap(), done);
    assert!(matches!(ask("two").await, Err(HeldError::NotHeld { .. })));
    assert_eq!(snapshot(&app).await["features"], json!({}));
    app.stop().await;
}
