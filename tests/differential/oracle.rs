//! Other implementations, as processes that are asked by line.

use std::{
    env,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::Value;

/// Another implementation, ready to be started.
pub(crate) struct Oracle {
    program: PathBuf,
    script: &'static str,
    environment: Option<(&'static str, PathBuf)>,
}

impl Oracle {
    /// A script for Node.js and the packages that `STITCHD_TEST_NODE` holds; `None`, and a line that says so, without it.
    pub(crate) fn node(script: &'static str) -> Option<Self> {
        let packages = variable("STITCHD_TEST_NODE", script)?;
        Some(Self {
            program: "node".into(),
            script,
            environment: Some(("STITCHD_TEST_NODE", packages)),
        })
    }

    /// A script for the interpreter that `STITCHD_TEST_PYTHON` names.
    pub(crate) fn python(script: &'static str) -> Option<Self> {
        let program = variable("STITCHD_TEST_PYTHON", script)?;
        Some(Self {
            program,
            script,
            environment: None,
        })
    }

    fn start(&self) -> Child {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential");
        let mut command = Command::new(&self.program);
        command.arg(folder.join(self.script));
        if let Some((name, value)) = &self.environment {
            command.env(name, value);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()))
    }

    /// Asks one process about each case and gives its answers to `check`, one line per user of a case.
    pub(crate) fn ask(&self, cases: &[Value], mut check: impl FnMut(&Value, &Value, &str)) {
        let mut process = self.start();
        let mut input = BufWriter::new(process.stdin.take().unwrap());
        let mut answers = BufReader::new(process.stdout.take().unwrap()).lines();
        // `move`: a check that fails closes the process's output, which ends it and then the thread that feeds it.
        thread::scope(move |scope| {
            scope.spawn(move || {
                for case in cases {
                    if writeln!(input, "{case}").is_err() {
                        // The process has ended; the missing answers tell.
                        return;
                    }
                }
            });
            for case in cases {
                for user in case["users"].as_array().unwrap() {
                    let line = answers.next();
                    let line = line.unwrap_or_else(|| panic!("{} ended early", self.script));
                    check(case, user, &line.unwrap());
                }
            }
        });
        let status = process.wait().unwrap();
        assert!(status.success(), "{} failed: {status}", self.script);
    }
}

fn variable(name: &str, script: &str) -> Option<PathBuf> {
    let value = env::var_os(name);
    if value.is_none() {
        assert!(
            env::var("CI").as_deref() != Ok("true"),
            "{name} is not set, and CI leaves no implementation out"
        );
        // The macros are captured by the test harness; nobody would see it.
        let line = format!("skipped: differential: {script}, because {name} is not set\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    value.map(PathBuf::from)
}
