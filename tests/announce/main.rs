//! Who is told of a new revision: caches are purged, receivers of webhooks get a signed one, and nobody waits for either.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod caches;
mod trouble;
mod webhooks;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stitchd::cli::demo::upstream::experiment;

use crate::support::{Bed, ENVIRONMENT, SOURCE, TestApp, eventually, receiver::Receiver};

/// The key behind it is `0123456789abcdef0123456789abcdef`.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Paths that a change of one feature changes.
const OF_A_FEATURE: [&str; 2] = ["/api/features/sdk-demo", "/v1/snapshot/production"];

/// Every path of the bed's environment, which is the default one.
const ALL: [&str; 10] = [
    "/api/features/sdk-demo",
    "/api/v1/experiments",
    "/api/v1/experiments?authority=mediawiki&format=config",
    "/api/v1/experiments?authority=mediawiki&format=config&environment=production",
    "/api/v1/experiments?authority=varnish&format=config",
    "/api/v1/experiments?authority=varnish&format=config&environment=production",
    "/api/v1/experiments?environment=production",
    "/api/v1/experiments?format=analytics",
    "/api/v1/experiments?format=analytics&environment=production",
    "/v1/snapshot/production",
];

/// The service, a cache and a receiver of webhooks.
struct Stand {
    bed: Bed,
    app: TestApp,
    cache: Receiver,
    hook: Receiver,
}

impl Stand {
    /// Started, and everything told of the first revision.
    async fn new() -> Self {
        let (cache, hook) = (Receiver::start().await, Receiver::start().await);
        let mut bed = Bed::new();
        bed.extra = publish(&[&cache.url()], &[&format!("{}/hook", hook.url())]);
        let app = bed.start_loaded().await;
        let stand = Self {
            bed,
            app,
            cache,
            hook,
        };
        stand.until_told(&ALL, 1).await;
        stand.cache.take();
        stand.hook.take();
        stand
    }

    /// Waits until the cache was asked for exactly these paths and the receiver got so many webhooks.
    async fn until_told(&self, paths: &[&str], webhooks: usize) {
        self.cache.until(paths.len()).await;
        assert_purged(&self.cache, paths);
        assert_eq!(self.hook.until(webhooks).await.len(), webhooks);
        self.until_idle().await;
    }

    /// Waits until nothing is left to be told.
    async fn until_idle(&self) {
        eventually("nothing waits", async || {
            let targets = targets(&self.app).await;
            let is_idle = |target: &Value| target["queued"] == 0;
            targets.iter().all(is_idle).then_some(())
        })
        .await;
    }

    /// Publishes another value of a feature; gives the report of the poll.
    async fn publish(&self, value: u64) -> Value {
        publish_value(&self.bed, &self.app, value).await
    }

    async fn publish_experiment(&self, name: &str) {
        self.bed.upstream.upsert_experiment(experiment(name));
        assert_eq!(self.app.poll().await["outcome"], "published");
    }
}

async fn publish_value(bed: &Bed, app: &TestApp, value: u64) -> Value {
    let feature = json!({"defaultValue": value});
    bed.upstream.set_feature("counter", feature);
    let report = app.poll().await;
    assert_eq!(report["outcome"], "published", "{report}");
    report
}

/// The section of the settings.
fn publish(caches: &[&str], hooks: &[&str]) -> String {
    let hooks: Vec<String> = hooks
        .iter()
        .map(|url| format!("{{url = \"{url}\", secret = \"{SECRET}\"}}"))
        .collect();
    format!(
        "[publish]\npurge_targets = {caches:?}\nwebhooks = [{}]",
        hooks.join(", ")
    )
}

/// Fails unless a cache was asked for each of these paths once, and for nothing else.
#[track_caller]
fn assert_purged(cache: &Receiver, paths: &[&str]) {
    let expected: Vec<String> = paths.iter().map(|path| format!("PURGE {path}")).collect();
    assert_eq!(cache.asked(), expected);
}

/// Who is told, as the status page has it.
async fn targets(app: &TestApp) -> Vec<Value> {
    let status = app.status().await;
    status["publish"]["targets"].as_array().unwrap().clone()
}

/// Waits until the status of a target is as it should be.
async fn until_target(app: &TestApp, position: usize, what: &str, is: impl Fn(&Value) -> bool) {
    eventually(what, async || {
        is(&targets(app).await[position]).then_some(())
    })
    .await;
}

/// The value of a metric whose line begins so.
async fn metric(app: &TestApp, begins: &str) -> Option<u64> {
    let metrics = app.admin_get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let line = text.lines().find(|line| line.starts_with(begins))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// A settings folder for the real program.
fn folder(bed: &Bed) -> std::path::PathBuf {
    let folder = bed.dir.path().join("settings");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("default.toml"), bed.toml()).unwrap();
    folder
}

#[test]
fn every_spelling_of_the_readme_is_purged() {
    let readme = include_str!("../../README.md");
    let after_host = readme.split("127.0.0.1:8080/api/v1/experiments").skip(1);
    let queries: BTreeSet<&str> = after_host
        .map(|rest| rest.split(['\'', '`', '\n', ' ']).next().unwrap())
        .collect();
    assert!(queries.len() > 2, "{queries:?}");
    for query in queries {
        let path = format!("/api/v1/experiments{query}");
        assert!(ALL.contains(&path.as_str()), "{path} is not purged");
    }
    for (authority, format) in [("varnish", "config"), ("mediawiki", "config")] {
        assert!(readme.contains(&format!("`authority={authority}&format={format}`")));
    }
}

#[tokio::test]
async fn without_targets_nobody_is_told_and_no_actor_runs() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    let status = app.status().await;
    assert_eq!(status["publish"], json!({"targets": []}));
    assert!(status["actors"]["announcer"].is_null(), "{status}");
    assert_eq!(status["sources"][SOURCE]["environment"], ENVIRONMENT);
    app.stop().await;
}
