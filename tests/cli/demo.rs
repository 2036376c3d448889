//! `stitchd demo`: every line that it prints works when it is pasted.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{
    command,
    support::{
        blocks::Blocks,
        client, eventually,
        process::{Ended, Process, run},
        skipped,
    },
};

async fn start(change_every: &str) -> Process {
    let mut process = Process::start(command().args([
        "demo",
        "--data-bind",
        "127.0.0.1:0",
        "--admin-bind",
        "127.0.0.1:0",
        "--change-every",
        change_every,
    ]));
    process.said("ready").await;
    process
}

/// Runs a line in a shell, as somebody who pastes it does.
fn paste(line: &str) -> Ended {
    run(Command::new("sh").arg("-c").arg(line))
}

fn has_curl() -> bool {
    let asked = Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

/// What the answer to a line must look like.
fn check(line: &str, text: &str) {
    let json = || -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    };
    if line.contains("/v1/snapshot/") {
        assert!(json()["features"]["dark-mode"].is_object(), "{line}");
        assert!(
            !json()["experiments"].as_array().unwrap().is_empty(),
            "{line}"
        );
    } else if line.contains("authority=varnish") {
        assert!(!json().as_object().unwrap().is_empty(), "{line}");
    } else if line.contains("/api/v1/experiments") {
        assert!(!json().as_array().unwrap().is_empty(), "{line}");
    } else if line.contains("/v1/stream/") {
        assert_eq!(text.matches("event: revision").count(), 2, "{line}: {text}");
    } else if line.contains("/sub/") {
        assert_eq!(
            text.matches("event: features\n").count(),
            1,
            "{line}: {text}"
        );
    } else if line.contains("/ofrep/v1/events") {
        assert_eq!(text.matches("refetchEvaluation").count(), 1, "{text}");
    } else if line.contains("/client/metrics") {
        assert!(text.is_empty(), "{text}");
    } else if line.contains("/api/frontend") {
        assert_eq!(json()["toggles"][0]["enabled"], true, "{text}");
    } else if line.contains("/metrics") {
        assert!(
            text.contains("stitchd_snapshot_loaded{environment=\"demo\"} 1"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    } else if line.contains("/admin/sources/demo/poll") {
        let outcome = json()["outcome"].as_str().unwrap().to_owned();
        assert!(["published", "unchanged"].contains(&&*outcome), "{text}");
    } else if line.contains("/admin/sources/demo/pause") {
        assert_eq!(json()["state"], "paused", "{text}");
    } else if line.contains("/admin/sources/demo/resume") {
        assert_eq!(json()["state"], "running", "{text}");
    } else if line.contains("/admin/status") {
        assert_eq!(json()["sources"]["demo"]["state"], "running", "{text}");
    } else {
        assert!(json().is_object(), "{line}: {text}");
    }
}

#[tokio::test]
async fn every_line_works_when_it_is_pasted() {
    if !has_curl() {
        skipped("the lines of the demo", "there is no curl");
        return;
    }
    let mut process = start("200ms").await;
    let lines = process.out();
    let (last, examples) = lines.split_last().unwrap();
    assert_eq!(last, "ready");
    assert!(examples.len() > 12, "{examples:#?}");
    for line in examples {
        assert!(line.starts_with("curl "), "{line}");
        let to_paste = line.clone();
        let ended = tokio::task::spawn_blocking(move || paste(&to_paste))
            .await
            .unwrap();
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        check(line, &ended.stdout);
    }
    process.signal("INT");
    assert_eq!(process.ended().await.code(), Some(0));
    let log = process.log();
    assert!(
        !log.iter()
            .any(|line| line.contains("ERROR") || line.contains("WARN")),
        "{log:#?}"
    );
}

/// The event stream of the demo, event by event.
struct Events(Blocks);

impl Events {
    async fn open(data: &str) -> Self {
        let request = client().get(format!("{data}/v1/stream/demo"));
        Self(Blocks::open(request, None).await)
    }

    /// The revision that the next event names.
    async fn next(&mut self) -> u64 {
        loop {
            let event = self.0.next().await.expect("the stream goes on");
            let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else {
                continue;
            };
            assert!(event.contains("event: revision"), "{event}");
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["environment"], "demo");
            return data["revision"].as_u64().unwrap();
        }
    }
}

#[tokio::test]
async fn a_watcher_of_the_stream_sees_pause_poll_and_resume() {
    let mut process = start("50ms").await;
    let (data, admin) = (process.data().await, process.admin().await);
    let http = client();
    let order = async |action: &str| -> Value {
        let url = format!("{admin}/admin/sources/demo/{action}");
        let answer = http.post(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    };
    let mut events = Events::open(&data).await;
    let first = events.next().await;
    let second = events.next().await;
    assert!(second > first, "it changes by itself");

    assert_eq!(order("pause").await["state"], "paused");
    // A poll that was in the funnel already may still publish; after it nothing moves.
    let revision = async || -> u64 {
        let answer = http
            .get(format!("{data}/v1/snapshot/demo"))
            .send()
            .await
            .unwrap();
        answer.headers()["x-config-revision"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    let paused_at = eventually("the revision stands still", async || {
        let before = revision().await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        (revision().await == before).then_some(before)
    })
    .await;
    let mut told = second;
    while told < paused_at {
        told = events.next().await;
    }
    let report = order("poll").await;
    assert_eq!(report["outcome"], "published", "{report}");
    let polled = report["revision"].as_u64().unwrap();
    assert_eq!(polled, paused_at + 1);
    assert_eq!(events.next().await, polled);
    let status = http
        .get(format!("{admin}/admin/status"))
        .send()
        .await
        .unwrap();
    let status: Value = serde_json::from_slice(&status.bytes().await.unwrap()).unwrap();
    assert_eq!(status["sources"]["demo"]["state"], "paused");

    assert_eq!(order("resume").await["state"], "running");
    let resumed = events.next().await;
    assert!(resumed > polled);
    assert!(events.next().await > resumed, "the schedule runs again");
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
}
