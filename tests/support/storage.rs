//! The database and the backup, and how they are broken.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};

use super::{
    Bed,
    databases::Backend,
    disk::{HangingDisk, SmallDisk, as_root},
    eventually,
    proxy::{Proxy, Wire},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatabaseTrouble {
    /// Connections are reset, new ones closed at once.
    Gone,
    /// Takes everything, answers nothing.
    Hanging,
    Slow,
    /// The connection ends within a statement.
    CutMidWrite,
    ReadOnly,
    /// Another session holds the table, or the file.
    Locked,
    /// The file is deleted.
    Deleted,
    /// Its disk has no room.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackupTrouble {
    /// A file stands where the folder was.
    Unwritable,
    Full,
    /// There is room for small files alone.
    Cramped,
    /// Its disk takes everything and answers nothing.
    Hanging,
    /// Somebody deletes it.
    Removed,
}

/// Room for the history on `SQLite`, in mebibytes.
const DATABASE_DISK: usize = 96;
const BACKUP_DISK: usize = 24;
/// Room for some states of a source, and not for a large revision.
const CRAMPED: u64 = 16 << 10;
/// Some 25 kB a second: a revision takes longer than a publish waits for it.
const SLOW: Wire = Wire::Slow {
    bytes: 512,
    wait: Duration::from_millis(20),
};
/// Larger than any statement without a revision or an input in it.
const MID_WRITE: Wire = Wire::CutWithin(2048);

/// Where a database file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// One of its own, with little room.
    Small,
    /// Where everything is.
    Shared,
}

pub(crate) struct Storage {
    backend: Backend,
    /// In front of a server.
    proxy: Option<Proxy>,
    /// The way round the proxy.
    pub(crate) url: String,
    folder: PathBuf,
    backup: PathBuf,
    database_disk: Option<SmallDisk>,
    backup_disk: Option<SmallDisk>,
    /// Lies over the backup.
    hanging: Option<HangingDisk>,
    /// Who holds a lock.
    held: Option<DatabaseConnection>,
}

impl Storage {
    /// Puts database and backup where they can be broken; the bed's settings then lead there.
    ///
    /// A file on a small disk can be left without room. Elsewhere it can be made read-only while it is open.
    pub(crate) async fn new(backend: Backend, bed: &mut Bed, disk: Disk) -> Self {
        let folder = bed.dir.path().join("database");
        let backup_folder = bed.dir.path().join("backups");
        let backup_disk = SmallDisk::mount(&backup_folder, BACKUP_DISK);
        let mut storage = Self {
            proxy: None,
            url: backend.url.clone(),
            backup: backup_folder.join("backup"),
            database_disk: None,
            backup_disk,
            hanging: None,
            held: None,
            folder,
            backend,
        };
        if storage.backend.name == "sqlite" {
            fs::create_dir_all(&storage.folder).unwrap();
            if disk == Disk::Small {
                storage.database_disk = SmallDisk::mount(&storage.folder, DATABASE_DISK);
            }
            storage.url = format!("sqlite://{}?mode=rwc", storage.file().display());
            bed.database_url.clone_from(&storage.url);
        } else {
            let (proxy, url) = Proxy::in_front_of(&storage.backend).await;
            storage.proxy = Some(proxy);
            bed.database_url = url;
        }
        storage
    }

    pub(crate) fn name(&self) -> &'static str {
        self.backend.name
    }

    pub(crate) fn backup(&self) -> &Path {
        &self.backup
    }

    /// Whether the database can be broken like this here; some of it needs the rights of root.
    pub(crate) fn can_break_database(&self, trouble: DatabaseTrouble) -> bool {
        match trouble {
            DatabaseTrouble::Full => self.database_disk.is_some(),
            DatabaseTrouble::ReadOnly if self.backend.name == "sqlite" => {
                self.database_disk.is_some()
                    || (self.set_immutable(true) && self.set_immutable(false))
            }
            _ => true,
        }
    }

    /// Whether the backup can be.
    pub(crate) fn can_break_backup(&self, trouble: BackupTrouble) -> bool {
        match trouble {
            BackupTrouble::Full | BackupTrouble::Cramped => self.backup_disk.is_some(),
            BackupTrouble::Hanging => {
                let folder = tempfile::tempdir().unwrap();
                HangingDisk::mount(folder.path()).is_some()
            }
            BackupTrouble::Unwritable | BackupTrouble::Removed => true,
        }
    }

    pub(crate) async fn break_database(&mut self, trouble: DatabaseTrouble) {
        match trouble {
            DatabaseTrouble::Gone => self.wire(Wire::Cut),
            DatabaseTrouble::Hanging => self.wire(Wire::Blackhole),
            DatabaseTrouble::Slow => self.wire(SLOW),
            DatabaseTrouble::CutMidWrite => self.wire(MID_WRITE),
            DatabaseTrouble::Locked => self.lock().await,
            DatabaseTrouble::ReadOnly if self.backend.name == "sqlite" => {
                self.set_file_read_only(true);
            }
            DatabaseTrouble::ReadOnly => self.set_read_only("on").await,
            DatabaseTrouble::Deleted => {
                for path in self.files() {
                    fs::remove_file(path).ok();
                }
            }
            DatabaseTrouble::Full => self.database_disk.as_ref().unwrap().fill(),
        }
    }

    pub(crate) async fn mend_database(&mut self, trouble: DatabaseTrouble) {
        match trouble {
            DatabaseTrouble::Gone
            | DatabaseTrouble::Hanging
            | DatabaseTrouble::Slow
            | DatabaseTrouble::CutMidWrite => self.wire(Wire::Pass),
            DatabaseTrouble::Locked => {
                let held = self.held.take().unwrap();
                let end = match self.backend.name {
                    "mariadb" => "UNLOCK TABLES",
                    _ => "ROLLBACK",
                };
                held.execute_unprepared(end).await.unwrap();
                held.close().await.unwrap();
            }
            DatabaseTrouble::ReadOnly if self.backend.name == "sqlite" => {
                self.set_file_read_only(false);
            }
            DatabaseTrouble::ReadOnly => self.set_read_only("off").await,
            DatabaseTrouble::Deleted => {}
            DatabaseTrouble::Full => self.database_disk.as_ref().unwrap().clear(),
        }
    }

    pub(crate) async fn break_backup(&mut self, trouble: BackupTrouble) {
        match trouble {
            BackupTrouble::Unwritable => {
                fs::rename(&self.backup, self.aside()).unwrap();
                // A write that is under way makes the folder again.
                eventually("a file stands in the place of the backup", async || {
                    fs::remove_dir_all(&self.backup).ok();
                    fs::write(&self.backup, "not a folder").ok()
                })
                .await;
            }
            BackupTrouble::Full => self.backup_disk.as_ref().unwrap().fill(),
            BackupTrouble::Cramped => self.backup_disk.as_ref().unwrap().fill_but(CRAMPED),
            BackupTrouble::Hanging => self.hanging = HangingDisk::mount(&self.backup),
            BackupTrouble::Removed => {
                eventually("the backup is deleted", async || {
                    fs::remove_dir_all(&self.backup).ok()
                })
                .await;
            }
        }
    }

    pub(crate) fn mend_backup(&mut self, trouble: BackupTrouble) {
        match trouble {
            BackupTrouble::Unwritable => {
                fs::remove_file(&self.backup).unwrap();
                // Whoever has made the folder anew meanwhile has put newer things there.
                if fs::rename(self.aside(), &self.backup).is_err() {
                    fs::remove_dir_all(self.aside()).unwrap();
                }
            }
            BackupTrouble::Full | BackupTrouble::Cramped => {
                self.backup_disk.as_ref().unwrap().clear();
            }
            BackupTrouble::Hanging => self.hanging = None,
            BackupTrouble::Removed => {}
        }
    }

    /// Deletes it while nobody writes.
    pub(crate) fn remove_backup(&self) {
        fs::remove_dir_all(&self.backup).unwrap();
    }

    fn aside(&self) -> PathBuf {
        self.backup.with_extension("aside")
    }

    fn wire(&self, wire: Wire) {
        self.proxy.as_ref().unwrap().set(wire);
    }

    fn file(&self) -> PathBuf {
        self.folder.join("stitchd.db")
    }

    /// Database, log and index of the log.
    fn files(&self) -> [PathBuf; 3] {
        ["db", "db-wal", "db-shm"].map(|extension| self.file().with_extension(extension))
    }

    /// Whether a trouble begins and ends only while no process has the database open.
    pub(crate) fn needs_no_process(&self, trouble: DatabaseTrouble) -> bool {
        trouble == DatabaseTrouble::ReadOnly && self.database_disk.is_some()
    }

    fn set_file_read_only(&self, is_read_only: bool) {
        match &self.database_disk {
            Some(disk) => disk.set_read_only(is_read_only),
            None => assert!(self.set_immutable(is_read_only), "it was possible before"),
        }
    }

    /// The index is mapped into memory, where a refusal is a signal and no error: it is left alone.
    fn set_immutable(&self, is_immutable: bool) -> bool {
        let change = if is_immutable { "+i" } else { "-i" };
        let [database, log, _] = self.files();
        let files = [database, log];
        let present = files.iter().filter(|file| file.exists());
        let mut done = present.map(|file| as_root(&["chattr", change, file.to_str().unwrap()]));
        done.all(|is_done| is_done)
    }

    async fn connect(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(&self.url);
        options.max_connections(1).min_connections(1);
        Database::connect(options).await.unwrap()
    }

    async fn lock(&mut self) {
        let connection = self.connect().await;
        let statements: &[&str] = match self.backend.name {
            "sqlite" => &["BEGIN EXCLUSIVE"],
            "mariadb" => &["LOCK TABLES revisions WRITE"],
            _ => &["BEGIN", "LOCK TABLE revisions IN ACCESS EXCLUSIVE MODE"],
        };
        for statement in statements {
            connection.execute_unprepared(statement).await.unwrap();
        }
        self.held = Some(connection);
    }

    /// For every session from now on; those of the time before are ended.
    async fn set_read_only(&self, value: &str) {
        let connection = self.connect().await;
        let (_, database) = self.url.rsplit_once('/').unwrap();
        let statements = [
            "SET default_transaction_read_only = off".to_owned(),
            format!("ALTER DATABASE {database} SET default_transaction_read_only = {value}"),
            format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = '{database}' AND pid <> pg_backend_pid()"
            ),
        ];
        for statement in statements {
            connection.execute_unprepared(&statement).await.unwrap();
        }
        connection.close().await.unwrap();
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // What cannot be deleted would stay behind.
        if self.backend.name == "sqlite" && self.database_disk.is_none() {
            self.set_immutable(false);
        }
    }
}
