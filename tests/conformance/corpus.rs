//! Where the case files are, and how cases are counted.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Prints past the harness, which would swallow it.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr takes a line");
}

/// Reads a case file; `None`, with a line saying so, on a machine that has none. A missing file is a failure.
pub(crate) fn read(name: &str) -> Option<Value> {
    let Some(directory) = std::env::var_os("STITCHD_CONFORMANCE_DIR") else {
        say("skipped: conformance: STITCHD_CONFORMANCE_DIR is not set");
        return None;
    };
    Some(parse(&PathBuf::from(directory).join(name)))
}

fn parse(path: &Path) -> Value {
    let text = fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_str(&text).expect("a case file is JSON")
}

/// Reads the strict corpus out of the crate that ships it.
pub(crate) fn read_packaged() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo tells JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let package = packages
        .iter()
        .find(|package| package["name"] == "growthbook-rust")
        .expect("a dev-dependency");
    let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a path"));
    parse(&manifest.with_file_name("tests").join("cases/cases.json"))
}

/// Equality of JSON in which 1 and 1.0 are the same.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// How the cases of a corpus went.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    total: usize,
    failures: Vec<String>,
}

impl Tally {
    /// Runs all cases of a section: `judge` gives what was found and what was expected.
    pub(crate) fn section(
        &mut self,
        corpus: &str,
        name: &str,
        cases: &Value,
        judge: impl Fn(&Value) -> (Value, Value),
    ) {
        let cases = cases.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut passed = 0;
        for case in cases {
            let (found, expected) = judge(case);
            if same(&found, &expected) {
                passed += 1;
            } else {
                self.failures.push(format!(
                    "{name}: {}\n  found    {found}\n  expected {expected}",
                    case[0]
                ));
            }
        }
        say(&format!(
            "conformance: {corpus} {name} {passed}/{}",
            cases.len()
        ));
        self.passed += passed;
        self.total += cases.len();
    }

    /// Says the sum; fails unless it is exactly `expected` and nothing failed.
    pub(crate) fn finish(self, corpus: &str, expected: usize) {
        say(&format!(
            "conformance: {corpus} total {}/{}",
            self.passed, self.total
        ));
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        assert_eq!(self.total, expected, "cases of the {corpus} corpus");
    }
}
