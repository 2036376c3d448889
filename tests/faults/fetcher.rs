//! The program that writes a consumer's document to a file on an edge host, as its contract has it: what it must never be
//! given, and what it must.
//!
//! Once a minute it asks without a validator, takes a 200 of exactly one content type whose whole body fits its schema, and
//! rewrites its file when the text differs. It asks the service directly, and through Varnish where there is one.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use jsonschema::Validator;
use stitchd::cli::demo::upstream::{Fault, Route, Upstream, experiment, many_experiments};
use tempfile::TempDir;

use crate::{
    cache::{Behind, Origin, Varnish, varnishd},
    matrix::{self, Case},
    schemas::varnish_schema,
    stand::{self, Change, SMALL_BODIES, TIMEOUT},
    support::{self, Bed, SOURCE, TestApp, eventually, trouble},
};

/// What one run of the fetcher did.
#[derive(Debug, PartialEq, Eq)]
enum Run {
    /// The file has another text now.
    Rewritten,
    /// The text was that of the file.
    Same,
    /// The answer was none to be taken; the file is as it was.
    Refused(String),
}

struct Fetcher {
    base: String,
    file: PathBuf,
    http: reqwest::Client,
    schema: Validator,
    rewrites: usize,
}

impl Fetcher {
    fn new(file: PathBuf) -> Self {
        Self {
            base: String::new(),
            file,
            http: support::client(),
            schema: jsonschema::draft4::new(&varnish_schema()).unwrap(),
            rewrites: 0,
        }
    }

    async fn run(&mut self) -> Run {
        match self.fetch().await {
            Ok(text) => self.keep(&text),
            Err(why) => Run::Refused(why),
        }
    }

    async fn fetch(&self) -> Result<String, String> {
        let path = "/api/v1/experiments?authority=varnish&format=config";
        let request = self
            .http
            .get(format!("{}{path}", self.base))
            .header("user-agent", "experiment_fetcher/0.0.2")
            .header("x-experiment-config-poller", "edge1.example.org")
            .timeout(Duration::from_secs(10));
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        if status != 200 {
            return Err(format!("status {status}"));
        }
        let kind = answer.headers().get("content-type");
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind != "application/json; charset=utf-8" {
            return Err(format!("content type {kind}"));
        }
        let text = answer.text().await.map_err(|error| error.to_string())?;
        let document = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match self.schema.validate(&document) {
            Ok(()) => Ok(text),
            Err(fault) => Err(fault.to_string()),
        }
    }

    fn keep(&mut self, text: &str) -> Run {
        if fs::read(&self.file).is_ok_and(|known| known == text.as_bytes()) {
            return Run::Same;
        }
        let new = self.file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o640)).unwrap();
        fs::rename(&new, &self.file).unwrap();
        self.rewrites += 1;
        Run::Rewritten
    }
}

/// An edge host: one fetcher that asks the service, one that asks Varnish in front of it.
struct Edge {
    direct: Fetcher,
    through: Option<(Fetcher, Origin, Varnish)>,
    folder: TempDir,
}

impl Edge {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let direct = Fetcher::new(folder.path().join("direct.json"));
        let mut through = None;
        if let Some(varnishd) = varnishd() {
            let origin = Origin::start(Behind::Nobody).await;
            let varnish = Varnish::start(&varnishd, &origin, &[]).await;
            let mut fetcher = Fetcher::new(folder.path().join("through.json"));
            fetcher.base.clone_from(&varnish.url);
            through = Some((fetcher, origin, varnish));
        }
        Self {
            direct,
            through,
            folder,
        }
    }

    /// Settings of a service that purges this Varnish.
    fn publish(&self) -> String {
        let urls = self.through.iter().map(|(.., varnish)| &varnish.url);
        let urls: Vec<&String> = urls.collect();
        format!("[http]\ns_maxage = \"1s\"\n[publish]\npurge_targets = {urls:?}\n")
    }

    /// Puts a service behind both; `is_ready`: Varnish finds it healthy.
    async fn put(&mut self, app: &TestApp, is_ready: bool) {
        self.direct.base.clone_from(&app.data);
        if let Some((_, origin, varnish)) = &self.through {
            let address = app.data.trim_start_matches("http://").parse().unwrap();
            origin.set(Behind::Service(address));
            varnish.until_origin_is(is_ready).await;
        }
    }

    /// Nobody is behind Varnish any more.
    async fn take_away(&self) {
        if let Some((_, origin, varnish)) = &self.through {
            origin.set(Behind::Nobody);
            varnish.until_origin_is(false).await;
        }
    }

    /// Both files are rewritten, each once, and then left alone.
    async fn assert_rewritten(&mut self, what: &str) {
        assert_eq!(self.direct.run().await, Run::Rewritten, "{what}");
        if let Some((fetcher, ..)) = &mut self.through {
            eventually(&format!("{what}: through Varnish"), async || {
                (fetcher.run().await == Run::Rewritten).then_some(())
            })
            .await;
        }
        self.assert_same(what).await;
        let files = fs::read_dir(self.folder.path()).unwrap();
        let texts: Vec<_> = files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(texts.windows(2).all(|two| two[0] == two[1]), "{what}");
    }

    /// Both get the text that they have.
    async fn assert_same(&mut self, what: &str) {
        assert_eq!(self.direct.run().await, Run::Same, "{what}");
        self.assert_same_through(what).await;
    }

    async fn assert_same_through(&mut self, what: &str) {
        if let Some((fetcher, ..)) = &mut self.through {
            assert_eq!(fetcher.run().await, Run::Same, "{what}, through Varnish");
        }
    }

    fn assert_rewrites(&self, number: usize) {
        assert_eq!(self.direct.rewrites, number);
        if let Some((fetcher, ..)) = &self.through {
            assert_eq!(fetcher.rewrites, number, "through Varnish");
        }
    }
}

fn change(upstream: &Upstream, number: usize) {
    upstream.upsert_experiment(experiment(&format!("news-of-2026-{number}")));
}

async fn publish(bed: &Bed, app: &TestApp, number: usize) {
    change(&bed.upstream, number);
    assert_eq!(app.poll().await["outcome"], "published");
}

/// A service with two pages of experiments, and an edge that has its document.
async fn start(changes: &[Change<'_>]) -> (Bed, TestApp, Edge) {
    let mut edge = Edge::new().await;
    let mut bed = Bed::new();
    bed.extra = edge.publish();
    bed.upstream.set_experiments(many_experiments(120));
    let app = stand::start(&bed, changes).await;
    edge.put(&app, true).await;
    edge.assert_rewritten("the first load").await;
    (bed, app, edge)
}

/// Each fault while there is news of experiments: the file stays until the fault is over, then it is rewritten once.
async fn check_all(cases: &[Case]) {
    let (bed, app, mut edge) = start(&[TIMEOUT, SMALL_BODIES]).await;
    for (number, case) in cases.iter().enumerate() {
        let name = case.name;
        change(&bed.upstream, number);
        bed.upstream
            .set_fault(Route::Experiments, case.fault.clone());
        let report = app.poll().await;
        assert_ne!(report["outcome"], "published", "{name}: {report}");
        edge.assert_same(name).await;
        bed.upstream.clear_fault(Route::Experiments);
        // Some faults ask for quiet.
        eventually(&format!("{name}: the news arrive"), async || {
            (app.poll().await["outcome"] == "published").then_some(())
        })
        .await;
        edge.assert_rewritten(name).await;
    }
    edge.assert_rewrites(cases.len() + 1);
    app.stop().await;
}

#[tokio::test]
async fn a_file_outlives_every_fault_of_the_experiments() {
    let elsewhere = Upstream::start(0).unwrap();
    let empty = matrix::held("empty list", Fault::EmptyList, "empty_experiments");
    let cases = [matrix::everywhere(&elsewhere), matrix::of_lists(empty)].concat();
    check_all(&cases).await;
}

/// Whatever happens to the payload of SDKs, the document does not depend on it, and the file is not touched.
#[tokio::test]
async fn a_file_is_not_touched_by_faults_and_news_of_the_payload() {
    let elsewhere = Upstream::start(0).unwrap();
    let cases = [matrix::everywhere(&elsewhere), matrix::of_payloads()].concat();
    let (bed, app, mut edge) = start(&[TIMEOUT, SMALL_BODIES]).await;
    for (number, case) in cases.iter().enumerate() {
        let name = case.name;
        let feature = serde_json::json!({"defaultValue": number});
        bed.upstream.set_feature("news", feature);
        bed.upstream.set_fault(Route::Features, case.fault.clone());
        app.poll().await;
        edge.assert_same(name).await;
        bed.upstream.clear_fault(Route::Features);
        app.poll().await;
        edge.assert_same(name).await;
    }
    edge.assert_rewrites(1);
    app.stop().await;
}

#[tokio::test]
async fn a_file_outlives_a_stop_a_restart_a_pause_and_a_service_that_never_loaded() {
    let (bed, app, mut edge) = start(&[]).await;
    let pause = format!("/admin/sources/{SOURCE}/pause");
    assert_eq!(app.admin_post(&pause, "").await.status, 200);
    change(&bed.upstream, 1);
    edge.assert_same("paused").await;
    let resume = format!("/admin/sources/{SOURCE}/resume");
    assert_eq!(app.admin_post(&resume, "").await.status, 200);
    app.until_revision(2).await;
    edge.assert_rewritten("resumed").await;

    app.stop().await;
    edge.take_away().await;
    assert!(matches!(edge.direct.run().await, Run::Refused(_)));
    edge.assert_same_through("stopped").await;

    // Another service in its place, with nothing to serve: it says so, and Varnish keeps to what it has.
    let fresh = Bed::new();
    fresh.upstream.go_down().await.unwrap();
    let empty = fresh.start().await;
    edge.put(&empty, false).await;
    let run = edge.direct.run().await;
    assert!(
        matches!(&run, Run::Refused(why) if why.contains("503")),
        "{run:?}"
    );
    edge.assert_same_through("never loaded").await;
    let mut other = Edge::new().await;
    other.put(&empty, false).await;
    if let Some((fetcher, ..)) = &mut other.through {
        let run = fetcher.run().await;
        assert!(
            matches!(&run, Run::Refused(why) if why.contains("503")),
            "{run:?}"
        );
    }
    empty.stop().await;

    // Back without its upstream, and then with it.
    bed.upstream.go_down().await.unwrap();
    let app = bed.start().await;
    edge.put(&app, true).await;
    edge.assert_same("restarted").await;
    app.poll().await;
    edge.assert_same("restarted without upstream").await;
    bed.upstream.come_back().unwrap();
    publish(&bed, &app, 2).await;
    edge.assert_rewritten("everything is well").await;
    edge.assert_rewrites(3);
    app.stop().await;
}

/// While the database is of no use, and while the backup is: what is new is served, and what is not stays.
#[tokio::test]
async fn a_file_follows_the_news_while_storage_is_away() {
    for mut case in trouble::cases().await {
        let name = case.name.clone();
        let mut edge = Edge::new().await;
        case.bed.extra = edge.publish();
        let app = stand::start(&case.bed, &[]).await;
        edge.put(&app, true).await;
        edge.assert_rewritten(&name).await;
        case.trouble.begin().await;
        edge.assert_same(&name).await;
        publish(&case.bed, &app, 1).await;
        edge.assert_rewritten(&name).await;
        case.trouble.end().await;
        let backup = case.bed.dir.path().join("backup");
        let aside = case.bed.dir.path().join("aside");
        fs::rename(&backup, &aside).unwrap();
        fs::write(&backup, "no folder").unwrap();
        publish(&case.bed, &app, 2).await;
        edge.assert_rewritten(&name).await;
        fs::remove_file(&backup).unwrap();
        fs::rename(&aside, &backup).unwrap();
        edge.assert_same(&name).await;
        edge.assert_rewrites(3);
        app.stop().await;
    }
}
