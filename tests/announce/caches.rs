//! What a cache is asked for, and when.

use std::time::Duration;

use stitchd::cli::demo::upstream::Connection;

use crate::{
    ALL, OF_A_FEATURE, Stand, assert_purged, metric, publish, publish_value,
    support::{
        Bed, TestApp,
        receiver::{Manner, Receiver},
    },
    targets, until_target,
};

#[tokio::test]
async fn only_routes_whose_bytes_have_changed_are_purged() {
    let stand = Stand::new().await;
    stand.publish(1).await;
    stand.until_told(&OF_A_FEATURE, 1).await;
    stand.cache.take();
    stand.hook.take();

    // The payload of the SDKs has nothing of an experiment that the management API alone has.
    stand.publish_experiment("another-2026").await;
    let of_experiments: Vec<&str> = ALL[1..].to_vec();
    stand.until_told(&of_experiments, 1).await;
    stand.cache.take();
    stand.hook.take();

    // A poll that brings nothing, and then one that does: nothing was sent in between.
    assert_eq!(stand.app.poll().await["outcome"], "unchanged");
    stand.publish(2).await;
    stand.until_told(&OF_A_FEATURE, 1).await;
    let request = stand.cache.take().pop().unwrap();
    assert!(request.header("user-agent").starts_with("stitchd/"));
    assert!(request.body.is_empty());
    stand.app.stop().await;
}

#[tokio::test]
async fn a_connection_that_comes_or_goes_is_purged() {
    let cache = Receiver::start().await;
    let mut bed = Bed::new();
    bed.upstream.add_connection(Connection::new("sdk-other"));
    let base = format!("{}/below/", cache.url());
    bed.extra = publish(&[&base], &[]);
    let discover = ("client_key = \"sdk-demo\"", "connections = \"discover\"");
    let text = bed.toml().replacen(discover.0, discover.1, 1);
    let settings = stitchd::settings::from_toml(&text, stitchd::settings::Profile::Test);
    let app = TestApp::spawn(settings.unwrap()).await;
    app.until_revision(1).await;
    cache.until(ALL.len() + 1).await;
    for (is_there, other) in [(false, "sdk-other"), (true, "sdk-new")] {
        cache.take();
        if is_there {
            bed.upstream.add_connection(Connection::new(other));
        } else {
            bed.upstream.remove_connection(other);
        }
        assert_eq!(app.poll().await["outcome"], "published");
        cache.until(2).await;
        let path = format!("/below/api/features/{other}");
        assert_purged(&cache, &[path.as_str(), "/below/v1/snapshot/production"]);
    }
    app.stop().await;
}

#[tokio::test]
async fn after_a_restart_the_first_change_purges_everything_and_no_change_nothing() {
    let stand = Stand::new().await;
    let Stand {
        bed,
        app,
        cache,
        hook,
        ..
    } = stand;
    app.stop().await;
    let app = bed.start().await;
    assert_eq!(app.poll().await["outcome"], "unchanged");
    // Had the start sent anything, it would be here too.
    publish_value(&bed, &app, 1).await;
    cache.until(ALL.len()).await;
    assert_purged(&cache, &ALL);
    assert_eq!(hook.until(1).await.len(), 1);
    cache.take();
    publish_value(&bed, &app, 2).await;
    cache.until(2).await;
    assert_purged(&cache, &OF_A_FEATURE);
    app.stop().await;
}

#[tokio::test]
async fn a_cache_that_was_away_is_asked_for_each_path_once() {
    let mut stand = Stand::new().await;
    stand.cache.go_away();
    for value in 1..=5 {
        stand.publish(value).await;
    }
    stand.publish_experiment("another-2026").await;
    until_target(&stand.app, 0, "the cache is given up", |target| {
        target["queued"] == ALL.len() && target["last_error"].is_string()
    })
    .await;
    let up = format!(
        "stitchd_publish_target_up{{target=\"{}/\"}}",
        stand.cache.url()
    );
    assert_eq!(metric(&stand.app, &up).await, Some(0));
    stand.cache.come_back().await;
    stand.publish(6).await;
    stand.cache.until(ALL.len()).await;
    assert_purged(&stand.cache, &ALL);
    stand.until_idle().await;
    until_target(&stand.app, 0, "the cache is well", |target| {
        target["last_error"].is_null() && target["last_success"].is_string()
    })
    .await;
    assert_eq!(metric(&stand.app, &up).await, Some(1));
    stand.app.stop().await;
}

/// A cache may be well and slow with one path alone, which it fetches at once for instance.
#[tokio::test]
async fn a_path_that_is_not_answered_keeps_no_other_from_being_purged() {
    let stand = Stand::new().await;
    stand.cache.set_each(&[Manner::Hang, Manner::Status(200)]);
    stand.publish(1).await;
    stand.cache.until(1).await;
    stand.until_idle().await;
    let requests = stand.cache.requests();
    let asked: Vec<&str> = requests.iter().map(|one| one.target.as_str()).collect();
    let [snapshot, features] = ["/v1/snapshot/production", "/api/features/sdk-demo"];
    assert_eq!(asked, [features, snapshot, features]);
    stand.app.stop().await;
}

#[tokio::test]
async fn what_passes_is_tried_again_and_a_refusal_is_not() {
    let stand = Stand::new().await;
    let [ok, down] = [Manner::Status(200), Manner::Status(503)];
    stand
        .cache
        .set_each(&[down.clone(), Manner::Close, down, ok]);
    stand.publish(1).await;
    stand.cache.until(2).await;
    stand.until_idle().await;
    let mut asked = stand.cache.asked();
    assert!(asked.len() > 4, "{asked:?}");
    asked.dedup();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(targets(&stand.app).await[0]["last_error"].is_null());

    let elsewhere = Receiver::start().await;
    let redirect = Manner::With(302, format!("location: {}/", elsewhere.url()));
    for (manner, says) in [
        (Manner::Status(403), "answered 403"),
        (Manner::Status(405), "answered 405"),
        (redirect, "answered 302; redirects are not followed"),
    ] {
        stand.cache.take();
        stand.cache.set(manner);
        let value = stand.app.revision();
        stand.publish(value).await;
        until_target(&stand.app, 0, says, |target| target["last_error"] == says).await;
        stand.until_idle().await;
        assert_purged(&stand.cache, &OF_A_FEATURE);
    }
    assert!(elsewhere.requests().is_empty());
    // What a cache does not have it need not forget.
    stand.cache.set(Manner::Status(404));
    stand.publish(1000).await;
    until_target(&stand.app, 0, "404 is well", |target| {
        target["last_error"].is_null()
    })
    .await;
    stand.app.stop().await;
}

#[tokio::test]
async fn what_is_under_way_at_the_end_still_arrives() {
    let stand = Stand::new().await;
    stand.cache.set(Manner::Slow(Duration::from_millis(200)));
    stand.hook.set(Manner::Slow(Duration::from_millis(200)));
    stand.publish(1).await;
    let Stand {
        app, cache, hook, ..
    } = stand;
    app.stop().await;
    assert_purged(&cache, &OF_A_FEATURE);
    assert_eq!(hook.requests().len(), 1);
}
