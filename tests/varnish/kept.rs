//! What an origin may do while Varnish has a copy, and what becomes of the copy: each row of the table by which the VCL is
//! made. Whatever it is, a good copy is served for as long as `stale-if-error` says.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Setup, Stand, address,
    cache::{Behind, Origin, Varnish, varnishd},
    header, json, snapshot,
    support::{Bed, client, eventually, process::Process},
};

/// How long everybody gets an old copy while it is fetched anew (`req.grace`), in seconds.
const GRACE: u64 = 10;

impl Stand {
    /// Age of the copy in seconds; fails unless it is served, and good.
    async fn age(&self, what: &str) -> u64 {
        let answer = self.get(&snapshot()).await;
        assert_eq!(answer.status(), 200, "{what}");
        let age = header(answer.headers(), "age").parse().unwrap();
        let text = answer.text().await.unwrap();
        assert!(
            text.contains("\"counter\":{\"defaultValue\":1"),
            "{what}: {text}"
        );
        age
    }

    /// Asks all the time until the copy is so old; fails when any answer is another.
    async fn until_aged(&self, seconds: u64, what: &str) {
        eventually(&format!("{what}: a copy of {seconds} s"), async || {
            (self.age(what).await > seconds).then_some(())
        })
        .await;
    }
}

/// With the probe content: each request goes through to the origin, first within the grace and then past it.
#[tokio::test]
async fn a_503_that_the_probe_does_not_see_replaces_nothing_within_the_grace_and_after() {
    let Some(stand) = Stand::new("1s").await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    stand.origin.set(Behind::Unsound(503));
    stand.until_aged(2, "within the grace").await;
    let asked = stand.origin.refused();
    assert!(asked > 0, "it was asked");
    stand.until_aged(GRACE + 2, "past the grace").await;
    assert!(stand.origin.refused() > asked, "it was asked again");
    stand.origin.set(Behind::Service(address(&stand.app)));
    stand.publish(2).await;
    eventually("the news arrive", async || {
        (stand.counter().await == 2).then_some(())
    })
    .await;
    stand.app.stop().await;
}

#[tokio::test]
async fn a_connection_refused_loses_nothing_within_the_grace_and_after() {
    let Some(mut stand) = Stand::new("1s").await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    stand.origin.stop_listening();
    stand.until_aged(2, "within the grace").await;
    // A purge that finds nobody loses nothing either.
    assert_eq!(stand.purge().await.status(), 200);
    stand.until_aged(GRACE + 2, "past the grace").await;
    stand.publish(2).await;
    let service = Behind::Service(address(&stand.app));
    stand.origin.listen(service).await;
    eventually("the news arrive", async || {
        (stand.counter().await == 2).then_some(())
    })
    .await;
    stand.app.stop().await;
}

#[tokio::test]
async fn a_sick_probe_costs_no_fetch_and_no_time() {
    let Some(stand) = Stand::new("1s").await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    stand.origin.set(Behind::Status(503));
    stand.varnish.until_origin_is(false).await;
    let asked = stand.origin.refused();
    stand.until_aged(GRACE + 2, "sick").await;
    assert_eq!(stand.origin.refused(), asked, "it was not asked");
    let since = Instant::now();
    stand.age("sick").await;
    assert!(since.elapsed() < Duration::from_secs(1));
    stand.origin.set(Behind::Service(address(&stand.app)));
    stand.app.stop().await;
}

/// An authoritative "there is no such thing" is taken at its word; the way back is short.
#[tokio::test]
async fn a_404_replaces_the_copy_and_a_purge_brings_it_back() {
    let Some(stand) = Stand::new("1s").await else {
        return;
    };
    stand.publish(1).await;
    assert_eq!(stand.counter().await, 1);
    stand.origin.set(Behind::Unsound(404));
    eventually("the 404 arrives", async || {
        (stand.get(&snapshot()).await.status() == 404).then_some(())
    })
    .await;
    stand.origin.set(Behind::Service(address(&stand.app)));
    stand.purge().await;
    assert_eq!(stand.counter().await, 1);
    stand.app.stop().await;
}

/// Once even `stale-if-error` is over, a copy serves to ask whether it is still good, and for nothing else.
#[tokio::test]
async fn what_is_only_kept_is_not_served_but_revalidated() {
    let setup = Setup {
        s_maxage: "1s",
        stale_if_error: Some("2s"),
        ..Setup::default()
    };
    let Some(mut stand) = Stand::with(setup).await else {
        return;
    };
    let first = stand.get(&snapshot()).await;
    let etag = header(first.headers(), "etag").to_owned();
    stand.origin.stop_listening();
    let refusal = eventually("the copy is too old", async || {
        let answer = stand.get(&snapshot()).await;
        (answer.status() != 200).then_some(answer)
    })
    .await;
    // A refusal that nobody takes for a configuration.
    assert_eq!(refusal.status(), 503);
    assert_eq!(header(refusal.headers(), "retry-after"), "5");
    assert_eq!(header(refusal.headers(), "cache-control"), "no-store");
    let kind = header(refusal.headers(), "content-type");
    assert_eq!(kind, "application/problem+json");
    let body: serde_json::Value = json(refusal).await;
    assert_eq!(body["code"], "no_copy");

    let service = Behind::Service(address(&stand.app));
    stand.origin.listen(service).await;
    stand.varnish.until_origin_is(true).await;
    let again = stand.get(&snapshot()).await;
    assert_eq!(again.status(), 200);
    assert_eq!(header(again.headers(), "etag"), etag);
    let metrics = stand.app.admin_get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let is_304 = |line: &str| {
        line.contains("/v1/snapshot/{environment}") && line.contains("status=\"3xx\"} 1")
    };
    assert!(metrics.lines().any(is_304), "{metrics}");
    stand.app.stop().await;
}

/// The real program, ended as a power cut would.
#[tokio::test]
async fn what_was_served_goes_on_after_a_kill_and_is_renewed_after_the_restart() {
    let Some(varnishd) = varnishd() else {
        return;
    };
    let origin = Origin::start(Behind::Nobody).await;
    let varnish = Varnish::start(&varnishd, &origin, &[]).await;
    let mut bed = Bed::new();
    bed.extra = format!(
        "[http]\ns_maxage = \"1h\"\n[publish]\npurge_targets = [\"{}\"]",
        varnish.url
    );
    let folder = bed.dir.path().join("settings");
    std::fs::create_dir_all(&folder).unwrap();
    let text = bed
        .toml()
        .replacen("poll.interval = \"1h\"", "poll.interval = \"300ms\"", 1);
    std::fs::write(folder.join("default.toml"), text).unwrap();
    let http = client();
    let url = format!("{}{}", varnish.url, snapshot());
    let read = async || {
        let answer = http.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap()
    };

    let mut process = Process::serve(&folder);
    process.logged("published revision 1 ").await;
    let at = |data: String| Behind::Service(data.trim_start_matches("http://").parse().unwrap());
    origin.set(at(process.data().await));
    varnish.until_origin_is(true).await;
    let before = read().await;
    process.kill();
    origin.set(Behind::Nobody);
    varnish.until_origin_is(false).await;
    for _ in 0..20 {
        assert_eq!(read().await, before);
    }

    bed.upstream
        .set_feature("counter", serde_json::json!({"defaultValue": 1}));
    let mut process = Process::serve(&folder);
    origin.set(at(process.data().await));
    varnish.until_origin_is(true).await;
    // The copy has most of its hour left: it is the purge that renews it.
    bed.upstream
        .set_feature("counter", serde_json::json!({"defaultValue": 2}));
    eventually("the news arrive", async || {
        let text = String::from_utf8(read().await.to_vec()).unwrap();
        text.contains("\"counter\":{\"defaultValue\":2")
            .then_some(())
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
}
