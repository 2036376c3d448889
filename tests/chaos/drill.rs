//! One fault after another, then pairs: what is done, and what must be so meanwhile and afterwards.
//!
//! A drill begins with a service that is up to date and well. The faults begin; the upstream goes on, so that there is
//! something to get wrong; an operator forces a value; it is polled; signals and panics strike. Meanwhile the parts that are
//! lied about do not change by a bit, and the others are served as they come. The faults end, and the service is up to date and well again by itself.

use std::collections::BTreeMap;

use secrecy::SecretString;
use stitchd::{
    model::snapshot::SNAPSHOT_DOCUMENT,
    settings,
    store::{Store, packed::unpack_candidate},
};
use tokio::time::Instant;

use crate::{
    Extent,
    faults::{self, Effect, Kind, Signal, Trouble},
    load::{counter_in, snapshot_path},
    plan::{Expected, go_together, one_of_each_sort_first, points, signals, storage_away_at_start},
    random::Random,
    stage::{Face, Stage},
    support::{ENVIRONMENT, databases::Backend, eventually, storage::DatabaseTrouble},
    table::Table,
};

/// How often the upstream goes on while a fault lasts: panics strike in the first round, signals in the second.
const ROUNDS: usize = 2;
/// Resident memory that the process never has more of: a debug build under load.
const RSS_MAX_KIB: u64 = 400 * 1024;
/// Revisions that are surely within `database.keep_revisions`.
const KEPT: u64 = 9000;
/// Of so many revisions one may be taken back that the log gave up; a slow machine has some.
const GIVEN_UP_OF: usize = 50;

/// A point that is to panic once.
struct Armed {
    point: String,
    struck_before: usize,
}

pub(crate) struct Drill {
    stage: Stage,
    /// Of the moments at which signals strike.
    random: Random,
    /// Of the pairs.
    pairs: Random,
    troubles: Vec<Trouble>,
    table: Table,
    /// The history does not go further back: its database was deleted.
    history_from: u64,
}

impl Drill {
    pub(crate) async fn begin(backend: Backend, mut random: Random) -> Self {
        let stage = Stage::start(backend).await;
        stage.until_whole("the start").await;
        let mut troubles = faults::all(
            stage.storage.name(),
            &stage.actors().await,
            &stage.elsewhere.base_url(),
        );
        troubles.retain(|trouble| stage.can_have(trouble));
        let pairs = random.branch();
        random.shuffle(&mut troubles);
        one_of_each_sort_first(&mut troubles);
        Self {
            stage,
            random,
            pairs,
            troubles,
            table: Table::default(),
            history_from: 0,
        }
    }

    pub(crate) async fn run(mut self, extent: Extent) -> Table {
        let start = Instant::now();
        let (deadline, pairs_begin) = (start + extent.time, start + extent.singles);
        for trouble in self.troubles.clone() {
            if !extent.is_complete && Instant::now() >= pairs_begin {
                break;
            }
            self.strike(&[trouble]).await;
            self.table.singles += 1;
        }
        let mut first = storage_away_at_start(&self.troubles);
        self.pairs.shuffle(&mut first);
        while Instant::now() < deadline {
            let pair = first.pop().unwrap_or_else(|| self.pair());
            self.strike(&pair).await;
            self.table.pairs += 1;
        }
        self.check_history().await;
        let asked = self.stage.elsewhere.requests();
        assert!(asked.is_empty(), "a redirect was followed: {asked:?}");
        self.table.restarts = self.stage.restarts;
        self.table.possible = self.troubles.len();
        self.table.sums = self.stage.seen.sums();
        self.table
    }

    fn pair(&mut self) -> [Trouble; 2] {
        loop {
            let mut any = || self.troubles[self.pairs.below(self.troubles.len())].clone();
            let (one, other) = (any(), any());
            if go_together(&one, &other) {
                return [one, other];
            }
        }
    }

    async fn strike(&mut self, troubles: &[Trouble]) {
        let names: Vec<&str> = troubles
            .iter()
            .map(|trouble| trouble.name.as_str())
            .collect();
        let what = names.join(" and ");
        let (reads, polls) = (self.stage.seen.sums().reads, self.stage.polls().await);
        let expected = Expected::of(troubles);
        let before = self.stage.face().await;
        for trouble in troubles {
            self.stage.begin(&trouble.kind).await;
        }
        self.stage.poll().await;
        self.check_frozen(&what, expected, &before).await;
        self.stage.force(&what).await;
        let before = self.stage.face().await;
        // Before the news, which the schedule's own poll may bring at once.
        let mut armed = self.arm(troubles);
        for round in 0..ROUNDS {
            self.stage.change();
            if round > 0 {
                self.signal(troubles).await;
            } else if expected.has_news() {
                self.strikes(&what, &mut armed).await;
            }
            self.stage.poll().await;
            self.check_round(&what, expected, &before).await;
        }
        self.end(troubles).await;
        self.recover(&what, armed).await;
        let is_killed = signals(troubles).any(|signal| signal == Signal::Kill);
        self.stage.check_forced(&what, is_killed).await;
        let (reads, polls) = (
            self.stage.seen.sums().reads - reads,
            self.stage.polls().await - polls,
        );
        for name in names {
            self.table.add(name, reads, polls);
        }
    }

    /// Has every point panic as soon as somebody comes by.
    fn arm(&mut self, troubles: &[Trouble]) -> Vec<Armed> {
        let arm = |point: &str| Armed {
            point: point.to_owned(),
            struck_before: self.stage.arm(point),
        };
        points(troubles).map(arm).collect()
    }

    /// Waits until every point has struck.
    async fn strikes(&mut self, what: &str, armed: &mut Vec<Armed>) {
        for Armed {
            point,
            struck_before,
        } in armed.drain(..)
        {
            // An order to poll puts the schedule's own timer off.
            let is_timer = point.split('.').next_back() == Some("timer");
            let struck = async || {
                if !is_timer {
                    self.stage.poll().await;
                }
                drop(self.stage.status().await);
                (self.stage.struck(&point) > struck_before).then_some(())
            };
            eventually(&format!("{what}: {point} strikes"), struck).await;
            self.stage.disarm(&point);
        }
    }

    /// Ends the process at a moment of a poll that chance decides.
    async fn signal(&mut self, troubles: &[Trouble]) {
        for signal in signals(troubles) {
            let wait = self.random.below(120);
            let poll = self.stage.poll();
            let wait = std::time::Duration::from_millis(wait as u64);
            // The order is forgotten; what it has begun goes on.
            drop(tokio::time::timeout(wait, poll).await);
            self.stage.restart(signal).await;
        }
    }

    async fn check_round(&self, what: &str, expected: Expected, before: &Face) {
        self.stage.check(what);
        if expected.payload == Effect::Live {
            self.stage.until_up_to_date(what).await;
        }
        if expected.list == Effect::Live {
            self.stage.until_list_is_up_to_date(what).await;
        }
        self.check_frozen(what, expected, before).await;
    }

    /// What is lied about has not changed by a bit.
    async fn check_frozen(&self, what: &str, expected: Expected, before: &Face) {
        let now = self.stage.face().await;
        if expected.is_frozen() {
            assert_same(what, before, &now, |_| true);
            return;
        }
        if expected.payload == Effect::Frozen {
            assert_same(what, before, &now, |path| path.contains("/features/"));
            let counter = |face: &Face| counter_in(&face[&snapshot_path()].body);
            assert_eq!(counter(before), counter(&now), "{what}");
        }
        if expected.list == Effect::Frozen {
            assert_same(what, before, &now, |path| path.contains("/experiments"));
        }
    }

    async fn end(&mut self, troubles: &[Trouble]) {
        for trouble in troubles {
            self.stage.end(&trouble.kind).await;
            if matches!(trouble.kind, Kind::Database(DatabaseTrouble::Deleted)) {
                self.history_from = self.stage.seen.highest();
            }
        }
    }

    async fn recover(&mut self, what: &str, mut armed: Vec<Armed>) {
        self.stage.change();
        self.strikes(what, &mut armed).await;
        self.stage.until_up_to_date(what).await;
        self.stage.until_list_is_up_to_date(what).await;
        self.stage.until_whole(what).await;
        self.stage.until_told(what).await;
        for (path, answer) in self.stage.face().await {
            assert_eq!(answer.status, 200, "{what}: {path}");
        }
        self.stage.check(what);
        let rss_kib = self.stage.rss_kib();
        self.table.rss_max_kib = self.table.rss_max_kib.max(rss_kib);
        assert!(rss_kib < RSS_MAX_KIB, "{what}: {rss_kib} KiB resident");
    }

    /// Every revision that was read is in the history, as it was read.
    async fn check_history(&mut self) {
        let seen = &self.stage.seen;
        let oldest = seen.highest().saturating_sub(KEPT).max(self.history_from);
        let tags = seen.tags(&snapshot_path(), oldest + 1);
        self.stage.stop().await;
        let kept = history(&self.stage, oldest + 1).await;
        for (revision, tag) in &tags {
            let found = kept.get(revision);
            assert_eq!(
                found,
                Some(tag),
                "revision {revision} as the history has it"
            );
        }
        let told = self.stage.told();
        for revision in told.iter().filter(|revision| **revision > oldest) {
            assert!(kept.contains_key(revision), "{revision} was told of");
        }
        let sums = self.stage.seen.sums();
        assert!(
            sums.given_up <= 1 + sums.revisions / GIVEN_UP_OF,
            "{} of {} revisions were given up",
            sums.given_up,
            sums.revisions
        );
        self.stage.check("the end");
    }
}

#[track_caller]
fn assert_same(what: &str, before: &Face, now: &Face, is_meant: impl Fn(&str) -> bool) {
    for (path, answer) in before.iter().filter(|(path, _)| is_meant(path)) {
        let now = &now[path];
        assert_eq!(
            (now.status, &now.etag),
            (answer.status, &answer.etag),
            "{what}: {path}"
        );
        assert_eq!(now.body, answer.body, "{what}: {path}");
    }
}

/// Snapshot tags of the revisions in the database.
async fn history(stage: &Stage, oldest: u64) -> BTreeMap<u64, String> {
    let database = settings::Database {
        url: Some(SecretString::from(stage.storage.url.as_str())),
        ..settings::Database::default()
    };
    let backup = settings::Backup {
        dir: stage.storage.backup().to_owned(),
        generations: 3,
    };
    let store = Store::new(&database, &backup).unwrap();
    let mut tags = BTreeMap::new();
    let mut bound = u64::MAX;
    while let Some(row) = store
        .database()
        .revision_up_to(ENVIRONMENT, bound)
        .await
        .unwrap()
    {
        if row.revision < oldest {
            break;
        }
        bound = row.revision - 1;
        let snapshot = unpack_candidate(ENVIRONMENT, &row.body)
            .unwrap()
            .at_revision(row.revision);
        let tag = format!("\"{}\"", snapshot.documents[SNAPSHOT_DOCUMENT].tag);
        tags.insert(row.revision, tag);
    }
    store.close().await.unwrap();
    tags
}
