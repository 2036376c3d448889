//! Redirects: within the origin they are followed, elsewhere the bytes are somebody else's.

use serde_json::json;
use stitchd::cli::demo::upstream::{Connection, Fault, Route, Upstream, experiment};

use crate::{
    stand::{self, DISCOVER, assert_report, assert_unmoved, has_feature},
    support::Bed,
};

#[tokio::test]
async fn within_the_origin_they_are_followed() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[DISCOVER]).await;
    let base = bed.upstream.base_url();
    for (route, to) in [
        (Route::Features, "/api/features/sdk-demo".to_owned()),
        (Route::Features, format!("{base}/api/features/sdk-demo")),
        (
            Route::Experiments,
            format!("{base}/api/v1/experiments?limit=100&offset=0"),
        ),
        (
            Route::Connections,
            "/api/v1/sdk-connections?limit=100".to_owned(),
        ),
    ] {
        let news = format!("news-{}", app.revision());
        bed.upstream.set_feature(&news, json!({"defaultValue": 1}));
        bed.upstream.upsert_experiment(experiment(&news));
        bed.upstream.clear_requests();
        bed.upstream.set_fault_times(route, Fault::Redirect(to), 1);
        assert_report(&app.poll().await, "published", &[], "");
        assert_eq!(bed.upstream.request_count(route), 2, "{route:?}");
        assert!(has_feature(&app, &news).await);
        assert!(stand::experiments(&app).await.contains(&news));
    }
    app.stop().await;
}

/// The other host speaks the same language, knows the same keys, and would be believed.
#[tokio::test]
async fn elsewhere_they_are_not_and_nobody_there_is_asked() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[DISCOVER]).await;
    let before = app.served().await;
    let elsewhere = Upstream::start(0).unwrap();
    elsewhere.add_connection(Connection::new("sdk-demo"));
    elsewhere.set_feature("planted", json!({"defaultValue": 1}));
    elsewhere.set_experiments(vec![experiment("planted-there")]);
    let (base, port) = (elsewhere.base_url(), elsewhere.addr().port());
    for (route, part, path) in [
        (Route::Features, "payload", "/api/features/sdk-demo"),
        (Route::Experiments, "experiments", "/api/v1/experiments"),
        (Route::Connections, "connections", "/api/v1/sdk-connections"),
    ] {
        let targets = [
            format!("{base}{path}"),
            // Without a scheme of its own, and by another name of the same machine.
            format!("//127.0.0.1:{port}{path}"),
            format!("http://localhost:{}{path}", bed.upstream.addr().port()),
        ];
        for to in targets {
            bed.upstream.set_fault(route, Fault::Redirect(to.clone()));
            let report = app.poll().await;
            assert_report(
                &report,
                "unchanged",
                &[part],
                &format!("{part}: redirect: "),
            );
            assert_unmoved(&to, &before, &app.served().await);
        }
        bed.upstream.clear_all();
    }
    assert!(
        elsewhere.requests().is_empty(),
        "{:?}",
        elsewhere.requests()
    );
    assert_report(&app.poll().await, "unchanged", &[], "");
    app.stop().await;
}

#[tokio::test]
async fn in_a_circle_they_are_given_up() {
    let bed = Bed::new();
    let app = stand::start(&bed, &[]).await;
    let before = app.served().await;
    bed.upstream.set_feature("news", json!({"defaultValue": 1}));
    bed.upstream.set_fault(
        Route::Features,
        Fault::Redirect("/api/features/sdk-demo".to_owned()),
    );
    bed.upstream.clear_requests();
    assert_report(
        &app.poll().await,
        "unchanged",
        &["payload"],
        "payload: redirect: ",
    );
    assert!(bed.upstream.request_count(Route::Features) <= 7);
    assert_unmoved("circle", &before, &app.served().await);
    app.stop().await;
}
