//! The real program, as a process of its own.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread::JoinHandle,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::PATIENCE;

/// How a program that has ended, ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A command of the program without anything of this process's environment that it would read.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stitchd"));
    for (name, _) in std::env::vars() {
        if name.starts_with("STITCHD") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running service; killed when dropped.
pub struct Process {
    child: Child,
    out: Arc<Mutex<Vec<String>>>,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` and collects what it says.
    pub fn start(command: &mut Command) -> Self {
        Self::start_with_stdin(command, Stdio::null())
    }

    /// [`Self::start`] with something to read: a pipe stays open until the process is dropped.
    pub fn start_with_stdin(command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, log) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().unwrap(), Arc::clone(&out)),
            collect(child.stderr.take().unwrap(), Arc::clone(&log)),
        ];
        Self {
            child,
            out,
            log,
            readers,
        }
    }

    /// `stitchd --settings FOLDER serve`.
    pub fn serve(folder: &Path) -> Self {
        Self::start(command().arg("--settings").arg(folder).arg("serve"))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lines on standard output so far.
    pub fn out(&self) -> Vec<String> {
        self.out.lock().clone()
    }

    /// Lines on standard error so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// How many lines of the log so far have this text.
    pub fn lines_with(&self, text: &str) -> usize {
        let log = self.log.lock();
        log.iter().filter(|line| line.contains(text)).count()
    }

    /// Writes a line to its standard input, which must be a pipe. One that has ended does not read it.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).ok();
    }

    /// Waits for a log line with this text; gives what follows it on the line.
    pub async fn logged(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.log.lock().iter().find_map(|line| {
                let (_, rest) = line.split_once(text)?;
                Some(rest.to_owned())
            });
            if let Some(rest) = found {
                return rest;
            }
            let ended = self.child.try_wait().unwrap();
            let is_over = Instant::now() > deadline || ended.is_some();
            assert!(
                !is_over,
                "`{text}` was not logged, {ended:?}: {:#?}",
                self.log()
            );
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Where the data plane is, once it is open.
    pub async fn data(&mut self) -> String {
        format!("http://{}", address(&self.logged("data on http://").await))
    }

    /// Where the admin plane is.
    pub async fn admin(&mut self) -> String {
        let rest = self.logged("health and metrics on http://").await;
        format!("http://{}", address(&rest))
    }

    /// Waits for a line on standard output.
    pub async fn said(&mut self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.out.lock().iter().any(|said| said == line) {
            let ended = self.child.try_wait().unwrap();
            let is_over = Instant::now() > deadline || ended.is_some();
            assert!(
                !is_over,
                "`{line}` was not said: {:#?} {:#?}",
                self.out(),
                self.log()
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// `TERM`, `INT`…
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(pid)
            .status();
        assert!(sent.unwrap().success());
    }

    /// Ends it at once, as a power cut would; its log is whole when this returns.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(Instant::now() < deadline, "it goes on: {:#?}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The address that a log line goes on with.
fn address(rest: &str) -> &str {
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    &rest[..end.unwrap_or(rest.len())]
}

fn collect(from: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            lines.lock().push(line.unwrap_or_default());
        }
    })
}
