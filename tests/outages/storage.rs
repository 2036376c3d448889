//! Database and backup: gone, refusing, full.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    SOURCE, Scene,
    support::{
        Answer,
        databases::{Backend, on_server, sqlite},
        eventually, skipped,
        storage::{BackupTrouble, DatabaseTrouble, Disk},
    },
};

/// How long a process may take to end beside a backup that hangs. Its `shutdown_grace` is two seconds, for requests and
/// then for each actor.
const STOP_LIMIT: Duration = Duration::from_secs(6);

/// Publishes during an outage: each is a write that fails again.
const PUBLISHES: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Database(DatabaseTrouble),
    Backup(BackupTrouble),
}

impl Trouble {
    fn half(self) -> &'static str {
        match self {
            Self::Database(_) => "database",
            Self::Backup(_) => "backup",
        }
    }

    async fn begin(self, scene: &mut Scene) {
        match self {
            Self::Database(trouble) => scene.storage.break_database(trouble).await,
            Self::Backup(trouble) => scene.storage.break_backup(trouble).await,
        }
    }

    async fn end(self, scene: &mut Scene) {
        match self {
            Self::Database(trouble) => scene.storage.mend_database(trouble).await,
            Self::Backup(trouble) => scene.storage.mend_backup(trouble),
        }
    }

    fn is_possible(self, scene: &Scene) -> bool {
        let is_possible = match self {
            Self::Database(trouble) => scene.storage.can_break_database(trouble),
            Self::Backup(trouble) => scene.storage.can_break_backup(trouble),
        };
        if !is_possible {
            skipped(&format!("{self:?}"), "it needs the rights of root");
        }
        is_possible
    }
}

/// After a start with nothing but the database it is what was served.
async fn assert_in_database(scene: &mut Scene, served: &BTreeMap<String, Answer>) {
    scene.storage.remove_backup();
    scene.bed.upstream.go_down().await.unwrap();
    scene.start().await;
    assert_eq!(scene.face().await, *served);
    scene.stop().await;
}

/// What is seen of a half that is of no use.
pub(crate) async fn assert_told(scene: &Scene, half: &str) {
    let told = async || {
        let status = scene.status().await;
        (status[half]["up"] == false && status[half]["error"].is_string()).then_some(())
    };
    eventually("the status tells of it", told).await;
    assert_eq!(scene.metric(&format!("stitchd_{half}_up")).await, Some(0.0));
    // The store has a tenth of a second to answer; until it has, nothing is said of it.
    eventually("it is listed as degraded", async || {
        let ready = scene.admin_get("/readyz").await;
        assert_eq!(ready.status, 200);
        let degraded = ready.json()["degraded"].to_string();
        degraded.contains(half).then_some(())
    })
    .await;
    eventually("the other half has it", async || {
        let status = scene.status().await;
        let environment = &status["environments"][crate::ENVIRONMENT];
        (environment["durable"] == true).then_some(())
    })
    .await;
}

/// What is seen when it is over.
async fn assert_over(scene: &mut Scene, half: &str) {
    let over = format!("the {half} is back");
    scene.process().logged(&over).await;
    scene.until_written().await;
    assert_eq!(scene.metric(&format!("stitchd_{half}_up")).await, Some(1.0));
    eventually("it is not degraded any more", async || {
        let ready = scene.admin_get("/readyz").await.json();
        (!ready["degraded"].to_string().contains(half)).then_some(())
    })
    .await;
}

/// One line when it began and one when it was over, and nothing else that anybody should worry about.
async fn assert_two_lines(scene: &mut Scene, half: &str, first: &str) {
    let log = scene.stop().await.without_slow_disks();
    log.assert_lines("WARN", &format!("the {half} {first}"), 1);
    log.assert_lines("INFO", &format!("the {half} is back"), 1);
    log.assert_lines("WARN", "", 1);
    log.assert_lines("ERROR", "", 0);
}

async fn outage(scene: &mut Scene, trouble: Trouble) {
    let half = trouble.half();
    scene.start_loaded().await;
    if !trouble.is_possible(scene) {
        return;
    }
    let before = scene.face().await;
    trouble.begin(scene).await;
    assert_eq!(scene.face().await, before, "{trouble:?}");
    scene.publish().await;
    assert_told(scene, half).await;
    for hour in 1..PUBLISHES {
        if scene.clock.is_some() {
            // Some twenty minutes between two of them.
            scene.set_clock(1200 * i64::try_from(hour).unwrap());
        }
        scene.publish().await;
        assert_told(scene, half).await;
    }
    let served = scene.face().await;
    trouble.end(scene).await;
    assert_over(scene, half).await;
    assert_eq!(scene.face().await, served, "{trouble:?}");
    assert_two_lines(scene, half, "failed").await;

    // What was published meanwhile is in that half: it alone gives it back.
    if half == "database" {
        scene.storage.remove_backup();
        scene.bed.upstream.go_down().await.unwrap();
        scene.start().await;
        assert_eq!(scene.face().await, served, "{trouble:?}");
        scene.stop().await;
    }
}

async fn on(backend: Option<Backend>, trouble: Trouble) {
    if let Some(backend) = backend {
        outage(&mut Scene::new(backend, &[]).await, trouble).await;
    }
}

fn postgres() -> Option<Backend> {
    on_server("postgres", "STITCHD_TEST_POSTGRES")
}

#[tokio::test]
async fn a_database_that_is_away_at_the_start_is_told_once_and_gets_everything_later() {
    let Some(backend) = postgres() else { return };
    let mut scene = Scene::new(backend, &[]).await;
    let trouble = Trouble::Database(DatabaseTrouble::Gone);
    trouble.begin(&mut scene).await;
    scene.start().await;
    scene.process().logged("published revision 1 ").await;
    for _ in 0..PUBLISHES {
        scene.publish().await;
        assert_told(&scene, "database").await;
    }
    trouble.end(&mut scene).await;
    assert_over(&mut scene, "database").await;
    assert_two_lines(&mut scene, "database", "cannot be read").await;
}

#[tokio::test]
async fn a_database_that_is_cut_off_mid_write() {
    on(postgres(), Trouble::Database(DatabaseTrouble::CutMidWrite)).await;
}

/// The clock goes on by twenty minutes between the revisions; the retries come each second all the while.
#[tokio::test]
async fn a_database_that_is_gone_for_an_hour() {
    let Some(backend) = postgres() else { return };
    if let Some(mut scene) = Scene::with_clock(backend, &[]).await {
        outage(&mut scene, Trouble::Database(DatabaseTrouble::Gone)).await;
    }
}

#[tokio::test]
async fn a_database_server_that_is_read_only() {
    on(postgres(), Trouble::Database(DatabaseTrouble::ReadOnly)).await;
}

#[tokio::test]
async fn a_database_file_that_is_read_only() {
    on(Some(sqlite()), Trouble::Database(DatabaseTrouble::ReadOnly)).await;
}

/// It is made anew at once. Nothing changes upstream: what is served is in the new one all the same, what operators
/// said included.
#[tokio::test]
async fn a_database_file_that_is_deleted_is_filled_again() {
    let mut scene = Scene::new(sqlite(), &[]).await;
    scene.start_loaded().await;
    scene.force(1).await;
    scene.publish().await;
    scene.until_written().await;
    let served = scene.face().await;
    scene.storage.break_database(DatabaseTrouble::Deleted).await;
    assert_over(&mut scene, "database").await;
    assert_eq!(scene.face().await, served);
    assert_two_lines(&mut scene, "database", "failed").await;

    assert_in_database(&mut scene, &served).await;
}

/// Whoever is the first to find out: a publish, a look for what other replicas wrote, a look for tokens.
#[tokio::test]
async fn what_is_published_meanwhile_is_in_the_new_file() {
    let mut scene = Scene::new(sqlite(), &[]).await;
    scene.start_loaded().await;
    scene.force(1).await;
    scene.until_written().await;
    scene.storage.break_database(DatabaseTrouble::Deleted).await;
    scene.publish().await;
    assert_over(&mut scene, "database").await;
    scene.publish().await;
    // The one before was written into another file.
    scene.force(2).await;
    scene.until_written().await;
    let served = scene.face().await;
    assert_two_lines(&mut scene, "database", "failed").await;

    assert_in_database(&mut scene, &served).await;
}

#[tokio::test]
async fn a_database_on_a_full_disk() {
    let mut scene = Scene::on_disk(sqlite(), Disk::Small, &[]).await;
    outage(&mut scene, Trouble::Database(DatabaseTrouble::Full)).await;
}

#[tokio::test]
async fn a_backup_on_a_full_disk() {
    on(Some(sqlite()), Trouble::Backup(BackupTrouble::Full)).await;
}

#[tokio::test]
async fn a_backup_folder_that_cannot_be_written() {
    on(Some(sqlite()), Trouble::Backup(BackupTrouble::Unwritable)).await;
}

#[tokio::test]
async fn a_backup_on_a_disk_that_hangs() {
    on(Some(sqlite()), Trouble::Backup(BackupTrouble::Hanging)).await;
}

/// From the first moment on, while nobody knows yet that it hangs: the database has what is served.
#[tokio::test]
async fn beside_a_backup_that_hangs_the_database_alone_makes_revisions_durable() {
    let mut scene = Scene::new(sqlite(), &[]).await;
    let trouble = Trouble::Backup(BackupTrouble::Hanging);
    scene.start_loaded().await;
    if !trouble.is_possible(&scene) {
        return;
    }
    trouble.begin(&mut scene).await;
    for _ in 0..PUBLISHES {
        scene.publish().await;
        eventually("the database has it", async || {
            let status = scene.status().await;
            let is_durable = status["environments"][crate::ENVIRONMENT]["durable"] == true;
            is_durable.then_some(())
        })
        .await;
    }
    assert_told(&scene, "backup").await;
    let served = scene.face().await;
    let began = Instant::now();
    let log = scene.stop().await.without_slow_disks();
    let took = began.elapsed();
    assert!(took < STOP_LIMIT, "{took:?}");
    log.assert_lines("WARN", "the backup failed", 1);
    log.assert_lines("ERROR", "", 0);

    trouble.end(&mut scene).await;
    assert_in_database(&mut scene, &served).await;
}

/// A source's state still fits where a revision does not: that is no recovery.
#[tokio::test]
async fn a_backup_with_room_for_small_files_alone_is_told_once() {
    let mut scene = Scene::new(sqlite(), &[]).await;
    let trouble = Trouble::Backup(BackupTrouble::Cramped);
    // Nothing makes this much smaller.
    let bulk: String = (0..1500).map(|_| Uuid::new_v4().to_string()).collect();
    let bulk = json!({"defaultValue": bulk});
    scene.bed.upstream.set_feature("bulk", bulk);
    scene.start_loaded().await;
    if !trouble.is_possible(&scene) {
        return;
    }
    trouble.begin(&mut scene).await;
    for _ in 0..PUBLISHES {
        scene.publish().await;
        assert_told(&scene, "backup").await;
        for action in ["pause", "resume"] {
            let path = format!("/admin/sources/{SOURCE}/{action}");
            assert_eq!(scene.admin_post(&path).await.status, 200);
        }
        let states = scene.storage.backup().join("states").join(SOURCE);
        assert!(states.read_dir().unwrap().count() > 1, "they are written");
    }
    trouble.end(&mut scene).await;
    assert_over(&mut scene, "backup").await;
    assert_two_lines(&mut scene, "backup", "failed").await;
}
