//! Resident memory of the real program, in a process of its own.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::{Value, json};
use stitchd::cli::demo::upstream::{CLIENT_KEY, SECRET_KEY, Upstream, many_experiments};
use tokio::time::{Instant, sleep};

use super::{
    report::{Report, median},
    stitch::{NAME, delivered, ms},
};

/// Resident memory that 10,000 features may take.
const RSS_BAR_MIB: f64 = 150.0;
/// Polls with 10,000 features before the memory is looked at: each has two generations of everything in memory at once.
const LARGE_POLLS: usize = 20;
const POLLS: usize = 1000;
/// How much more memory the last polls may take than the early ones.
const FLAT_BAR: f64 = 1.10;
/// Features of the payloads that 1,000 polls alternate between: with 10,000 that takes more than five minutes.
const FLAT_FEATURES: usize = 1_000;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    block_on(async {
        large(report).await?;
        flat(report, "rss_flat_1000_polls", FLAT_FEATURES).await
    })
}

/// The same with 10,000 features; by name only.
pub(crate) fn run_flat_with_10_000(report: &mut Report) -> anyhow::Result<()> {
    block_on(flat(report, "rss_flat_1000_polls_of_10000", 10_000))
}

pub(crate) fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    stitchd::sources::install_tls_provider();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all();
    runtime.build()?.block_on(work)
}

async fn large(report: &mut Report) -> anyhow::Result<()> {
    let payloads = two_payloads(10_000)?;
    let upstream = upstream(&payloads)?;
    let folder = tempfile::tempdir()?;
    let service = Service::start(&upstream, folder.path()).await?;
    let loaded = service.rss_mib()?;
    let (mut resident, mut visible) = (Vec::new(), Vec::new());
    for poll in 1..=LARGE_POLLS {
        upstream.set_payload(CLIENT_KEY, payloads[poll % 2].clone());
        visible.push(ms(service.poll().await?));
        service.until_compressed().await?;
        resident.push(service.rss_mib()?);
    }
    let most = resident.iter().copied().fold(loaded, f64::max);
    report.at_most("rss_10000_features", most / RSS_BAR_MIB, 1.0);
    report.note(&format!(
        "10,000 features: {loaded:.0} MiB when loaded, median {:.0} MiB and at most {most:.0} MiB after each of {LARGE_POLLS} polls, peak {:.0} MiB; forced poll to visible {:.0} ms",
        median(resident),
        service.peak_mib()?,
        median(visible)
    ));
    let (live, first) = (service.live_ms, service.loaded_ms);
    let again = service.restart(&upstream, folder.path()).await?;
    report.note(&format!(
        "cold start to /livez {live:.0} ms, to the first snapshot {first:.0} ms; started again without upstream: to the snapshot {again:.0} ms"
    ));
    Ok(())
}

async fn flat(report: &mut Report, name: &str, features: usize) -> anyhow::Result<()> {
    let payloads = two_payloads(features)?;
    let upstream = upstream(&payloads)?;
    let folder = tempfile::tempdir()?;
    let service = Service::start(&upstream, folder.path()).await?;
    let started = Instant::now();
    let mut resident = Vec::with_capacity(POLLS);
    for poll in 1..=POLLS {
        upstream.set_payload(CLIENT_KEY, payloads[poll % 2].clone());
        service.poll().await?;
        resident.push(service.rss_mib()?);
    }
    let part = |from: usize| median(resident[from..from + POLLS / 10].to_vec());
    let (early, late) = (part(POLLS / 10), part(POLLS - POLLS / 10));
    report.at_most(name, late / early, FLAT_BAR);
    report.note(&format!(
        "{features} features: {early:.1} MiB after {} polls, {late:.1} MiB after {POLLS}, peak {:.0} MiB; {:.0} ms per poll",
        POLLS / 10,
        service.peak_mib()?,
        ms(started.elapsed()) / 1000.0
    ));
    Ok(())
}

/// Two payloads that differ in one rule of every feature, as after a change of a common condition.
pub(crate) fn two_payloads(features: usize) -> anyhow::Result<[Bytes; 2]> {
    let one = delivered(features).payload;
    let other = std::str::from_utf8(&one)?.replace("\"DE\"", "\"AT\"");
    Ok([one, other.into()])
}

pub(crate) fn upstream(payloads: &[Bytes; 2]) -> anyhow::Result<Upstream> {
    let upstream = Upstream::start(0)?;
    upstream.set_payload(CLIENT_KEY, payloads[0].clone());
    upstream.set_experiments(many_experiments(250));
    upstream.set_rate_limit(u32::MAX, Duration::from_mins(1));
    Ok(upstream)
}

/// The program, killed when dropped.
pub(crate) struct Service {
    process: Child,
    log: PathBuf,
    client: reqwest::Client,
    data: String,
    admin: String,
    live_ms: f64,
    /// From the start of the process to the first snapshot.
    pub(crate) loaded_ms: f64,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Service {
    /// Returns when the first snapshot is served, compressed bodies included.
    pub(crate) async fn start(upstream: &Upstream, folder: &Path) -> anyhow::Result<Self> {
        let database = format!("sqlite://{}/bench.db?mode=rwc", folder.display());
        Self::start_with(upstream, folder, &database).await
    }

    /// The same with this database.
    pub(crate) async fn start_with(
        upstream: &Upstream,
        folder: &Path,
        database: &str,
    ) -> anyhow::Result<Self> {
        let (data, admin) = (free_address()?, free_address()?);
        let settings = settings(upstream, folder, database, [data, admin]);
        std::fs::write(folder.join("default.toml"), settings)?;
        let log = folder.join("log");
        let started = Instant::now();
        let process = Command::new(env!("CARGO_BIN_EXE_stitchd"))
            .args(["--settings".as_ref(), folder.as_os_str()])
            .env("STITCHD_ENV", "test")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        let mut service = Self {
            process,
            log,
            client: plain_client()?,
            data: format!("http://{data}"),
            admin: format!("http://{admin}"),
            live_ms: 0.0,
            loaded_ms: 0.0,
        };
        let url = format!("{}/livez", service.data);
        service.until(&url, "", |_| true).await?;
        service.live_ms = ms(started.elapsed());
        service
            .until(&service.snapshot(), "identity", |_| true)
            .await?;
        service.loaded_ms = ms(started.elapsed());
        service.until_compressed().await?;
        Ok(service)
    }

    /// Stops the upstream and the program, starts the program again; milliseconds until it serves.
    async fn restart(self, upstream: &Upstream, folder: &Path) -> anyhow::Result<f64> {
        upstream.go_down().await?;
        drop(self);
        Ok(Self::start(upstream, folder).await?.loaded_ms)
    }

    fn snapshot(&self) -> String {
        format!("{}/v1/snapshot/{NAME}", self.data)
    }

    /// Waits for the compressed bodies, which are made after publishing.
    async fn until_compressed(&self) -> anyhow::Result<()> {
        let is_compressed =
            |answer: &reqwest::Response| answer.headers().contains_key("content-encoding");
        self.until(&self.snapshot(), "br", is_compressed).await
    }

    async fn until(
        &self,
        url: &str,
        accept_encoding: &str,
        is_good: impl Fn(&reqwest::Response) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            // HEAD: a look must not cost what is looked at.
            let request = self
                .client
                .head(url)
                .header("accept-encoding", accept_encoding);
            if let Ok(answer) = request.send().await
                && answer.status().is_success()
                && is_good(&answer)
            {
                return Ok(());
            }
            sleep(Duration::from_millis(2)).await;
        }
        let log = std::fs::read_to_string(&self.log)?;
        bail!("{url} was not served in time; the program said:\n{log}")
    }

    /// Tag and bytes of the snapshot that is served.
    pub(crate) async fn served(&self) -> anyhow::Result<(String, Bytes)> {
        let answer = self.client.get(self.snapshot()).send().await?;
        let tag = answer
            .headers()
            .get("etag")
            .context("a snapshot has a tag")?;
        Ok((tag.to_str()?.to_owned(), answer.bytes().await?))
    }

    /// Waits until database and backup have everything.
    pub(crate) async fn until_written(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            let status = self.client.get(format!("{}/admin/status", self.admin));
            let status: Value = serde_json::from_slice(&status.send().await?.bytes().await?)?;
            if status["queues"]["store_pending"] == 0 {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("something is left to write")
    }

    /// Forces a poll that must publish; how long until its revision is served.
    pub(crate) async fn poll(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let request = self
            .client
            .post(format!("{}/admin/sources/{NAME}/poll", self.admin));
        let answer = request.send().await?;
        let report: Value = serde_json::from_slice(&answer.bytes().await?)?;
        if report["outcome"] != "published" {
            bail!("a poll did not publish: {report}");
        }
        self.until_served(&report["revision"]).await?;
        Ok(started.elapsed())
    }

    /// Forces the value of a feature; how long until that is served.
    pub(crate) async fn force(&self, key: &str, value: &Value) -> anyhow::Result<Duration> {
        let body = json!({"kind": "feature", "key": key, "value": value, "reason": "measured"});
        let started = Instant::now();
        let request = self.client.post(format!(
            "{}/admin/environments/{NAME}/overrides",
            self.admin
        ));
        let answer = request.body(body.to_string()).send().await?;
        let forced: Value = serde_json::from_slice(&answer.bytes().await?)?;
        self.until_served(&forced["revision"])
            .await
            .with_context(|| format!("an override was answered with {forced}"))?;
        Ok(started.elapsed())
    }

    async fn until_served(&self, revision: &Value) -> anyhow::Result<()> {
        let revision = revision.to_string();
        self.until(&self.snapshot(), "identity", |answer| {
            let served = answer.headers().get("x-config-revision");
            served.is_some_and(|served| served.as_bytes() == revision.as_bytes())
        })
        .await
    }

    /// Waits until so many tokens are known and stored.
    pub(crate) async fn until_tokens(&self, number: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_mins(2);
        let line = format!("stitchd_tokens {number}\n");
        while Instant::now() < deadline {
            let metrics = self.client.get(format!("{}/metrics", self.admin)).send();
            let text = metrics.await?.text().await?;
            if text.contains(&line) && text.contains("stitchd_tokens_unwritten 0\n") {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("the tokens were not read in time")
    }

    pub(crate) fn rss_mib(&self) -> anyhow::Result<f64> {
        self.mib("VmRSS:")
    }

    fn peak_mib(&self) -> anyhow::Result<f64> {
        self.mib("VmHWM:")
    }

    fn mib(&self, name: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: f64 = kib
            .context("Linux tells a process's memory")?
            .trim()
            .parse()?;
        Ok(kib / 1024.0)
    }
}

/// A client that asks for no encoding by itself and hides none.
pub(crate) fn plain_client() -> anyhow::Result<reqwest::Client> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd();
    Ok(client.timeout(Duration::from_mins(1)).build()?)
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn settings(
    upstream: &Upstream,
    folder: &Path,
    database: &str,
    [data, admin]: [SocketAddr; 2],
) -> String {
    let (base, folder) = (upstream.base_url(), folder.display());
    format!(
        r#"
        [server]
        data_bind = "{data}"
        admin_bind = "{admin}"
        [database]
        url = "{database}"
        [backup]
        dir = "{folder}/backup"
        [[sources]]
        id = "{NAME}"
        environment = "{NAME}"
        api_host = "{base}"
        client_key = "{CLIENT_KEY}"
        rest_host = "{base}"
        secret_key = "{SECRET_KEY}"
        poll.interval = "1h"
        poll.streaming = false
        "#
    )
}
