//! The program from outside: commands, exit codes, settings, the demo.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its doc is its name"
)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod commands;
mod demo;
mod eval;
mod layers;
mod serve;
mod traces;

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::support::process::{Ended, command, run};

/// A folder of settings files, and whatever else a test puts beside them.
struct Folder(TempDir);

impl Folder {
    /// With this `local.toml` over the shipped files.
    fn with(local: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("settings");
        for name in ["default", "development", "test", "production"] {
            let name = format!("{name}.toml");
            fs::copy(shipped.join(&name), folder.path().join(&name)).unwrap();
        }
        folder.write("local.toml", local);
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// Runs `stitchd --settings FOLDER …` in the folder.
    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, &[])
    }

    /// The same with environment variables.
    fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let mut command = command();
        command.current_dir(self.path());
        command.arg("--settings").arg(self.path()).args(arguments);
        run(command.envs(environment.iter().copied()))
    }
}
