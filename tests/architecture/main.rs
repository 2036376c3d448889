//! The rules that keep the code apart and the documents true: style and structure as tests.
//!
//! Which module may import which is [`ALLOWED`]. README and ARCHITECTURE are compared with the settings, the route
//! table, the metrics and the issue codes; dependencies with their licences.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads its own environment and fails by panicking"
)]

mod audit;
mod dependencies;
mod documents;
mod imports;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Longest source file, in lines; longer ones are split by responsibility.
const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file under a folder whose name ends in `.rs`, relative to the repository.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(!files.is_empty(), "{folder} holds no Rust file");
    files.sort();
    files
}

/// The code of a line: what stands before a comment.
fn code(line: &str) -> &str {
    // A `//` within a URL in a string is no comment.
    let mut from = 0;
    while let Some(at) = line[from..].find("//").map(|at| at + from) {
        if !line[..at].ends_with(':') {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}

/// The lines of a file that are part of the program: no comments, no test module.
fn program(path: &Path) -> Vec<(usize, String)> {
    let is_test_file = path.components().any(|part| {
        matches!(
            part.as_os_str().to_str(),
            Some("tests" | "tests.rs" | "test_support.rs")
        )
    });
    if is_test_file {
        return Vec::new();
    }
    let source = text(path);
    let lines: Vec<&str> = source.lines().collect();
    let is_test_module = |at: &usize| {
        lines[*at].trim() == "#[cfg(test)]"
            && lines
                .get(at + 1)
                .is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
    };
    let end = (0..lines.len()).find(is_test_module).unwrap_or(lines.len());
    (1..=end)
        .map(|number| (number, code(lines[number - 1]).to_owned()))
        .collect()
}

#[test]
fn no_source_file_is_longer_than_its_limit() {
    let folders = ["src", "migration/src", "tests", "benches"];
    for path in folders.into_iter().flat_map(rust_files) {
        let lines = text(&path).lines().count();
        assert!(
            lines <= LINES_MAX,
            "{} has {lines} lines; split it",
            path.display()
        );
    }
}

#[test]
fn the_program_neither_unwraps_nor_forgets_answers_nor_is_unsafe() {
    let banned = [
        (".unwrap()", "return an error, or `expect` with a proof"),
        (
            ".do_send(",
            "it ignores the mailbox bound and drops silently",
        ),
        ("unsafe ", "forbidden"),
        ("todo!(", "finish it"),
    ];
    for path in rust_files("src")
        .into_iter()
        .chain(rust_files("migration/src"))
    {
        for (number, line) in program(&path) {
            for (word, advice) in banned {
                assert!(
                    !line.contains(word),
                    "{}:{number} has `{word}`: {advice}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_crate_takes_its_lints_from_the_workspace() {
    for manifest in ["Cargo.toml", "migration/Cargo.toml"] {
        let manifest: toml::Table = text(manifest).parse().unwrap();
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true));
    }
}

/// Files under version control, or every file where there is no repository.
fn tracked_files() -> Vec<String> {
    let listed = Command::new("git")
        .arg("-C")
        .arg(root())
        .arg("ls-files")
        .output();
    if let Ok(output) = listed
        && output.status.success()
        && !output.stdout.is_empty()
    {
        return String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
    }
    let folders = ["src", "migration/src", "tests", "benches"];
    let files = folders.into_iter().flat_map(rust_files);
    files
        .map(|path| path.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
    ];
    for path in tracked_files() {
        // A file may have been deleted and not yet committed; other bytes than text name nothing.
        let Ok(content) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for place in places {
            assert!(!content.contains(place), "{path} names {place}");
        }
    }
}
