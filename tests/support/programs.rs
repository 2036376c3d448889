//! Programs that run other people's clients: where they are, and what they say, one line of JSON after another.
//!
//! `.ci/run` installs the clients; where one is missing a test says so and ends.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::{PATIENCE, eventually, process::Process, skipped};

/// Where the environment says that something is; `None`, and a line that says so, where it does not.
pub fn place_of(suite: &str, variable: &str) -> Option<String> {
    let place = std::env::var(variable).ok();
    if place.is_none() {
        skipped(suite, &format!("{variable} is not set"));
    }
    place
}

/// A script of `tests/`, run by Node.js with the packages in the folder `STITCHD_TEST_NODE`.
pub fn node(suite: &str, script: &str) -> Option<Command> {
    let folder = place_of(suite, "STITCHD_TEST_NODE")?;
    let mut command = Command::new("node");
    command.arg(path_of(script));
    command.env("NODE_PATH", Path::new(&folder).join("node_modules"));
    Some(command)
}

/// A script of `tests/`, run by the interpreter `STITCHD_TEST_PYTHON`.
pub fn python(suite: &str, script: &str) -> Option<Command> {
    let mut command = Command::new(place_of(suite, "STITCHD_TEST_PYTHON")?);
    command.arg(path_of(script));
    Some(command)
}

fn path_of(script: &str) -> String {
    format!("{}/tests/{script}", env!("CARGO_MANIFEST_DIR"))
}

/// A running program; its standard input is open until it is dropped.
pub struct Program {
    process: Process,
    /// Lines that were waited for already.
    passed: usize,
}

impl Program {
    pub fn start(mut command: Command) -> Self {
        Self {
            process: Process::start_with_stdin(&mut command, Stdio::piped()),
            passed: 0,
        }
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &Value) {
        self.process.tell(&line.to_string());
    }

    /// Lines so far.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.process.out();
        let read = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        lines.iter().map(read).collect()
    }

    /// How many lines so far are like that.
    pub fn count(&self, is_it: impl Fn(&Value) -> bool) -> usize {
        self.lines().iter().filter(|line| is_it(line)).count()
    }

    /// Waits for a line behind those that were waited for already.
    pub async fn line(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        // A moment before `eventually` gives up, so that what was said is told.
        let deadline = Instant::now() + PATIENCE - Duration::from_secs(1);
        let passed = self.passed;
        let (at, line) = eventually(what, async || {
            let is_over = !self.process.is_running() || Instant::now() > deadline;
            let lines = self.lines();
            let found = (passed..lines.len()).find(|at| is_it(&lines[*at]));
            assert!(
                found.is_some() || !is_over,
                "not seen: {what}\n{:#?}\n{:#?}",
                self.process.out(),
                self.process.log()
            );
            found.map(|at| (at, lines[at].clone()))
        })
        .await;
        self.passed = at + 1;
        line
    }

    /// Waits for the next line of an event.
    pub async fn event(&mut self, name: &str) -> Value {
        self.line(name, |line| line["event"] == name).await
    }

    /// Passes over the lines that are printed already: the next wait takes later ones only.
    pub fn pass(&mut self) {
        self.passed = self.process.out().len();
    }
}
