//! A wall clock that a test sets, for a process of its own; by `libfaketime` (Debian: `faketime`).
//!
//! The time that nobody can set, `CLOCK_MONOTONIC`, goes on as it is: timers, timeouts and intervals take as long as ever.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the processes that were started with it take for the time.
pub struct FakeClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakeClock {
    /// A right clock; `None` where the library is missing.
    pub fn new(folder: &Path) -> Option<Self> {
        let places = ["/usr/lib", "/usr/local/lib"].map(Path::new);
        let library = places.into_iter().find_map(library_in)?;
        let clock = Self {
            library,
            file: folder.join("clock"),
        };
        clock.set(0);
        Some(clock)
    }

    /// Sets the clock so many seconds ahead of the right time, or behind it; at once, in running processes too.
    pub fn set(&self, ahead_secs: i64) {
        // In one step: who finds half a number ends.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{ahead_secs:+}\n")).unwrap();
        fs::rename(next, &self.file).unwrap();
    }

    /// Has a command go by this clock.
    pub fn rule(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
    }
}

/// In the folder itself, or in that of an architecture.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = below.map(|entry| entry.path()).chain([folder.to_owned()]);
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.is_file())
}
