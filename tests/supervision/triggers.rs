//! How each fail point is reached, and what must be so again afterwards.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use stitchd::{
    actors::{
        config_service::{
            GetPin, ListOverrides, OrderError, Pin, RemoveOverride, RemovePin, SetOverride, SetPin,
        },
        poller::{PollSoon, PushReport, TakePush},
        store::{GetRevision, ListRevisions, LoadRegisters, SaveRegisters},
        supervisor::Policy,
    },
    cli::demo::upstream::CLIENT_KEY,
    model::{CanonicalJson, Forced, Override},
    settings::{Connection, Profile, Settings, from_toml},
};
use tokio::time::Instant;

use crate::{
    points::Point,
    support::{Bed, ENVIRONMENT, PATIENCE, SOURCE, TestApp, eventually, receiver::Receiver},
    tokens,
};

/// How long an order may take whose actor dies of it; far below the limits that a forgotten caller would wait for.
const PROMPT: Duration = Duration::from_secs(10);

/// What brings the service to a fail point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Time alone: a watchdog, a timer, a schedule.
    Wait,
    /// A change upstream and a forced poll.
    Poll,
    /// Pause and resume.
    Pause,
    /// A change that the event stream tells of.
    Stream,
    /// A payload that is pushed, and word of a change.
    Push,
    /// `GET /admin/status`.
    Status,
    /// `GET /admin/environments/…/issues`.
    Issues,
    /// A look at what is held, and a decision about it.
    Held,
    /// `GET /admin/audit`.
    Audit,
    /// A look at the history: a list, and a revision that is not served any more.
    History,
    /// An operator's decision, kept and looked at.
    Decide,
    /// A remote evaluation's sticky buckets, read and written.
    Sticky,
    /// A token, made and taken back.
    Token,
    /// The end of an actor, after which its supervision goes round.
    Death,
    /// The end of the service.
    Stop,
}

impl Trigger {
    /// Fails for a point that nobody has thought about.
    pub(crate) fn of(point: &Point) -> Self {
        let (actor, place) = point.name.split_once('.').unwrap();
        match (actor, place) {
            (_, "Ping" | "timer") | ("supervisor", "start_missing") | ("store", "look_future") => {
                Self::Wait
            }
            (_, "Quit" | "quit_future") => Self::Stop,
            ("supervisor", "loop") => Self::Death,
            ("client", "Fetch" | "fetch_future" | "Follow")
            | ("config_service", "Ingest" | "ingest_future" | "job_future" | "blocking")
            | ("poller", "ForcePoll" | "force_poll_future" | "fetch_future" | "ingest_future")
            | (
                "store",
                "GetSnapshot" | "GetStored" | "Publish" | "publish_future" | "compress"
                | "SaveInput" | "save_input_future" | "LoadInputs" | "flush_future",
            )
            | ("announcer", "revision" | "look_future" | "deliver_future") => Self::Poll,
            ("client", "Unfollow" | "follow")
            | ("poller", "Pause" | "pause_future" | "Resume" | "resume_future")
            | ("store", "SaveSourceState" | "save_state_future" | "Audit" | "audit_future") => {
                Self::Pause
            }
            ("poller", "UpstreamChanged") => Self::Stream,
            ("client", "Open" | "open_future")
            | ("poller", "TakePush" | "push_future" | "PollSoon") => Self::Push,
            ("poller", "GetPollerStatus")
            | ("config_service", "GetFunnelStatus")
            | ("store", "GetStoreStatus")
            | ("announcer", "GetTargets") => Self::Status,
            ("config_service", "GetIssues") => Self::Issues,
            ("config_service", "GetHeld" | "DecideHeld" | "decide_future") => Self::Held,
            ("sticky", "ReadBuckets" | "read_future" | "WriteBuckets" | "write_future") => {
                Self::Sticky
            }
            ("token", "work_future") => Self::Wait,
            ("token", _) => Self::Token,
            ("store", "ListAudit" | "list_audit_future") => Self::Audit,
            (
                "store",
                "GetRevision" | "get_revision_future" | "ListRevisions" | "list_revisions_future",
            ) => Self::History,
            ("store", "SaveRegisters" | "save_registers_future" | "LoadRegisters")
            | (
                "config_service",
                "SetOverride" | "RemoveOverride" | "ListOverrides" | "SetPin" | "RemovePin"
                | "GetPin" | "order_future",
            ) => Self::Decide,
            _ => panic!("nobody knows how to reach `{}`", point.name),
        }
    }
}

/// Quick, and without a limit on restarts: here they are meant.
pub(crate) fn policy() -> Policy {
    Policy {
        backoff_first: Duration::from_millis(2),
        backoff_max: Duration::from_millis(40),
        restarts_max: 10_000,
        ping_every: Duration::from_millis(100),
        ..Policy::default()
    }
}

/// A source that is polled often and followed, and one that has never delivered anything; somebody who is told.
pub(crate) fn settings(bed: &Bed, told: &Receiver) -> Settings {
    bed.upstream.enable_streaming();
    let publish = format!(
        r#"
        [publish]
        purge_targets = ["{0}"]
        webhooks = [{{url = "{0}/hook", secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}}]
        [[sources]]
        "#,
        told.url()
    );
    let text = bed
        .toml()
        .replacen(
            "[[sources]]",
            "[sticky_buckets]\n engine = \"database\"\n timeout = \"5s\"\n [[sources]]",
            1,
        )
        .replacen("[[sources]]", &publish, 1)
        .replacen("poll.interval = \"1h\"", "poll.interval = \"300ms\"", 1)
        .replacen("poll.streaming = false", "poll.streaming = true", 1)
        .replacen("shutdown_grace = \"2s\"", "shutdown_grace = \"5s\"", 1);
    let silent = r#"
        [[sources]]
        id = "silent"
        environment = "elsewhere"
        enabled = false
        api_host = "http://127.0.0.1:9"
        client_key = "sdk-silent"
    "#;
    from_toml(&format!("{text}{silent}"), Profile::Test).unwrap_or_else(|error| panic!("{error}"))
}

/// A panic waiting to happen, once.
pub(crate) struct Armed {
    pub(crate) point: Point,
    fired: Arc<AtomicUsize>,
}

impl Armed {
    pub(crate) fn new(point: &Point) -> Self {
        let fired = Arc::new(AtomicUsize::new(0));
        let (counter, name) = (Arc::clone(&fired), point.name.clone());
        let panic_once = move || {
            assert!(
                counter.fetch_add(1, Ordering::SeqCst) > 0,
                "struck at {name}"
            );
        };
        fail::cfg_callback(point.name.as_str(), panic_once).unwrap();
        Self {
            point: point.clone(),
            fired,
        }
    }

    pub(crate) fn has_fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        fail::remove(&self.point.name);
    }
}

/// Restarts of every actor by cause.
pub(crate) type Restarts = BTreeMap<String, BTreeMap<&'static str, u64>>;

/// The service, what it polls, and what has been changed there.
pub(crate) struct Scene {
    pub(crate) bed: Bed,
    pub(crate) app: TestApp,
    /// A cache and a receiver of webhooks in one.
    pub(crate) told: Receiver,
    changes: AtomicUsize,
}

impl Scene {
    pub(crate) async fn start(bed: Bed) -> Self {
        let told = Receiver::start().await;
        // A bed that was used before has what was changed then: the next change must be one.
        let latest = bed.upstream.features().get("latest").cloned();
        let latest = latest.and_then(|latest| latest["defaultValue"].as_u64());
        let changes = usize::try_from(latest.unwrap_or(0)).unwrap();
        let app = TestApp::spawn_with(settings(&bed, &told), policy()).await;
        app.until_revision(1).await;
        Self {
            bed,
            app,
            told,
            changes: AtomicUsize::new(changes),
        }
    }

    /// Changes something upstream; gives what it is now.
    pub(crate) fn change(&self) -> usize {
        let number = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        let feature = json!({"defaultValue": number});
        self.bed.upstream.set_feature("latest", feature);
        number
    }

    /// Does what a trigger says. An order is carried out whoever dies of it; other answers may fail.
    pub(crate) async fn pull(&self, trigger: Trigger) {
        let app = &self.app;
        match trigger {
            Trigger::Wait | Trigger::Stop => {}
            Trigger::Poll => {
                self.change();
                self.post("poll").await;
            }
            Trigger::Pause => {
                self.post("pause").await;
                self.post("resume").await;
            }
            Trigger::Stream => {
                self.post("poll").await;
                if self.bed.upstream.open_streams() > 0 {
                    self.change();
                }
            }
            Trigger::Push => self.push().await,
            Trigger::Status => drop(app.admin_get("/admin/status").await),
            Trigger::Issues => {
                let path = format!("/admin/environments/{ENVIRONMENT}/issues");
                drop(app.admin_get(&path).await);
            }
            Trigger::Held => {
                let path = format!("/admin/environments/{ENVIRONMENT}/held");
                drop(app.admin_get(&path).await);
                let path = format!("{path}/{SOURCE}/discard");
                let answer = app.admin_post(&path, r#"{"reason":"a test"}"#).await;
                // Nothing is held, and whoever dies of being asked, that is what is answered.
                assert_eq!(answer.status, 404, "{answer:?}");
            }
            Trigger::Audit => drop(app.admin_get("/admin/audit").await),
            Trigger::History => self.look_back().await,
            Trigger::Decide => self.decide().await,
            Trigger::Sticky => {
                let sticky = app.handles.sticky.as_ref().unwrap();
                let key = "id||somebody".to_owned();
                drop(sticky.read(vec![key.clone()]).await);
                sticky.write(vec![(key, "{}".to_owned())]);
            }
            Trigger::Token => tokens::pull(app).await,
            Trigger::Death => {
                let victim = Armed::new(&Point {
                    name: "client.Ping".to_owned(),
                    is_deadly: true,
                });
                eventually("it dies", async || victim.has_fired().then_some(())).await;
            }
        }
    }

    /// Whoever dies of it, what was decided is there.
    async fn decide(&self) {
        let store = &self.app.handles.store;
        let word = json!(self.changes.fetch_add(1, Ordering::SeqCst));
        let environment = Arc::<str>::from(ENVIRONMENT);
        let save = SaveRegisters {
            environment: Arc::clone(&environment),
            changes: vec![("test".to_owned(), Some(word.clone()))],
            ended: Vec::new(),
        };
        store.ask_again(save, PATIENCE).await.unwrap();
        let load = LoadRegisters { environment };
        let known = store.ask_again(load, PATIENCE).await.unwrap();
        assert_eq!(known["test"], word);
        self.force_and_pin().await;
    }

    /// Takes everything back again.
    async fn force_and_pin(&self) {
        let (config, environment) = (&self.app.handles.config, Arc::<str>::from(ENVIRONMENT));
        let forced = Override {
            id: "test".to_owned(),
            key: "feature-00001".into(),
            forced: Forced::Value(CanonicalJson::from_value(&json!(true))),
            reason: "a test".to_owned(),
            author: "tests".to_owned(),
            created_at_ms: 0,
            expires_at_ms: None,
        };
        let set = SetOverride {
            environment: Arc::clone(&environment),
            forced: forced.clone(),
        };
        config.ask_again(set, PATIENCE).await.unwrap().unwrap();
        let list = ListOverrides {
            environment: Arc::clone(&environment),
        };
        let listed = config.ask_again(list, PATIENCE).await.unwrap();
        assert_eq!(listed, [forced]);
        let remove = RemoveOverride {
            environment: Arc::clone(&environment),
            id: "test".to_owned(),
            by: "tests".to_owned(),
            reason: None,
        };
        // The incarnation that died of it may have done it.
        let removed = config.ask_again(remove, PATIENCE).await.unwrap();
        assert!(
            matches!(removed, Ok(_) | Err(OrderError::UnknownOverride)),
            "{removed:?}"
        );
        let pin = SetPin {
            environment: Arc::clone(&environment),
            pin: Pin {
                revision: self.app.revision(),
                reason: "a test".to_owned(),
                by: "tests".to_owned(),
                at_ms: 0,
            },
        };
        config.ask_again(pin, PATIENCE).await.unwrap().unwrap();
        let look = GetPin {
            environment: Arc::clone(&environment),
        };
        assert!(config.ask_again(look, PATIENCE).await.unwrap().is_some());
        self.unpin().await;
    }

    /// Takes the pin back, if one is there: what is cut short may leave one behind.
    pub(crate) async fn unpin(&self) {
        let unpin = RemovePin {
            environment: ENVIRONMENT.into(),
            by: "tests".to_owned(),
            reason: "a test".to_owned(),
        };
        let config = &self.app.handles.config;
        let unpinned = config.ask_again(unpin, PATIENCE).await.unwrap();
        assert!(
            matches!(unpinned, Ok(_) | Err(OrderError::NotPinned)),
            "{unpinned:?}"
        );
    }

    /// Whoever dies of it, there is an answer.
    async fn look_back(&self) {
        let store = &self.app.handles.store;
        let list = ListRevisions {
            environment: ENVIRONMENT.into(),
            limit: 10,
            before: None,
        };
        // One that is answered by itself may go unanswered; it is asked again.
        let listed = eventually("a list", async || {
            store.ask_again(list.clone(), PATIENCE).await.ok()
        });
        assert_eq!(listed.await.error, None);
        let first = GetRevision {
            environment: ENVIRONMENT.into(),
            revision: 1,
        };
        let found = eventually("a revision", async || {
            store.ask_again(first.clone(), PATIENCE).await.ok()
        });
        assert_eq!(found.await.unwrap().unwrap().revision, 1);
    }

    /// What the upstream has, sent by itself; whoever dies of it, it is taken.
    async fn push(&self) {
        let source = &self.app.handles.sources[SOURCE];
        let (_, poller) = source.actors.as_ref().unwrap();
        let push = TakePush {
            connection: Connection {
                key: CLIENT_KEY.to_owned(),
                ..Connection::default()
            },
            body: json!({ "features": self.bed.upstream.features() })
                .to_string()
                .into(),
        };
        // Others may have paused the source meanwhile.
        match poller.ask_again(push, PATIENCE).await.unwrap() {
            PushReport::Taken(_) | PushReport::IgnoredPaused => {}
            report => panic!("{report:?}"),
        }
        poller.ask_again(PollSoon, PATIENCE).await.unwrap();
    }

    /// An order to the source, whose poller may be between two incarnations.
    async fn post(&self, verb: &str) {
        let path = format!("/admin/sources/{SOURCE}/{verb}");
        let since = Instant::now();
        let answer = self.app.admin_post(&path, "").await;
        assert_eq!(answer.status, 200, "{verb}: {answer:?}");
        let took = since.elapsed();
        assert!(
            took < PROMPT,
            "{verb} took {took:?}: the caller was forgotten"
        );
    }

    pub(crate) fn restarts(&self) -> Restarts {
        let members = self.app.handles.members.iter();
        members
            .map(|member| member.status())
            .map(|status| (status.name, status.restarts))
            .collect()
    }

    /// The member whose actor a point is in.
    pub(crate) fn member_of(actor: &str) -> String {
        match actor {
            "client" | "poller" => format!("{actor}:{SOURCE}"),
            _ => actor.to_owned(),
        }
    }

    pub(crate) async fn until_all_up(&self, what: &str) {
        let all_up = async || {
            let mut members = self.app.handles.members.iter();
            members.all(|member| member.status().is_up).then_some(())
        };
        eventually(&format!("all actors are up after {what}"), all_up).await;
    }

    /// Waits until a revision was told of, and the snapshot purged with it.
    async fn until_told(&self, revision: u64, what: &str) {
        let purge = format!("PURGE /v1/snapshot/{ENVIRONMENT}");
        eventually(&format!("{what}: {revision} is told of"), async || {
            let requests = self.told.requests();
            let is_told = requests.iter().any(|request| {
                serde_json::from_slice::<Value>(&request.body)
                    .is_ok_and(|body| body["data"]["revision"].as_u64() >= Some(revision))
            });
            (is_told && self.told.asked().contains(&purge)).then_some(())
        })
        .await;
    }

    /// Everything works at the first try: news is published and told of, a pause holds, a resume ends it.
    pub(crate) async fn check_whole(&self, what: &str) {
        self.told.take();
        let number = self.change();
        let report = tokio::time::timeout(PATIENCE, self.app.poll())
            .await
            .unwrap();
        let outcome = report["outcome"].as_str().unwrap();
        assert!(
            ["published", "unchanged"].contains(&outcome),
            "{what}: {report}"
        );
        let path = format!("/v1/snapshot/{ENVIRONMENT}");
        let snapshot = self.app.get(&path).await.json();
        let latest = &snapshot["features"]["latest"]["defaultValue"];
        assert_eq!(latest, &json!(number), "{what}: {report}");
        self.until_told(report["revision"].as_u64().unwrap(), what)
            .await;
        for (verb, state) in [("pause", "paused"), ("resume", "running")] {
            let path = format!("/admin/sources/{SOURCE}/{verb}");
            let answer = self.app.admin_post(&path, "").await;
            assert_eq!(answer.status, 200, "{what}: {answer:?}");
            assert_eq!(answer.json()["state"], state, "{what}");
            let status: Value = self.app.status().await;
            assert_eq!(status["sources"][SOURCE]["state"], state, "{what}");
        }
    }
}
