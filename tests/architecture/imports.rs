//! Which module may use which.

use std::{collections::BTreeSet, path::Path};

use super::{code, rust_files, text};

/// Each module with the sibling modules it may import, its tests included.
///
/// `model`, `eval`, `pipeline` and `views` know no clock, no I/O, no actor; `http` knows no database and no source.
const ALLOWED: &[(&str, &[&str])] = &[
    // A snapshot keeps its compiled form.
    ("model", &["eval"]),
    ("clock", &[]),
    ("settings", &[]),
    ("metrics", &[]),
    // The exporter opens connections, for which a TLS provider must be chosen.
    ("telemetry", &["settings", "sources"]),
    ("eval", &[]),
    ("diff", &["eval"]),
    // Guards evaluate sample units and tell what a held input would change.
    ("pipeline", &["diff", "eval", "model"]),
    ("views", &["model"]),
    ("sources", &["settings"]),
    ("store", &["clock", "model", "settings"]),
    // `Retry-After` and the causes of errors are read as `sources` reads them.
    ("notify", &["sources"]),
    (
        "actors",
        &[
            "clock", "eval", "metrics", "model", "notify", "pipeline", "settings", "sources",
            "store", "views",
        ],
    ),
    (
        "http",
        &[
            "actors", "clock", "diff", "eval", "metrics", "model", "settings", "views",
        ],
    ),
];

/// Modules that put the others together and may import all of them.
const COMPOSERS: &[&str] = &["app", "cli", "lib", "main"];

/// The module of the crate that a file belongs to, and how deep the file lies below the crate.
fn place(path: &Path) -> (String, usize) {
    let inner = path.strip_prefix("src").unwrap().with_extension("");
    let parts: Vec<&str> = inner.iter().map(|part| part.to_str().unwrap()).collect();
    let depth = parts.iter().filter(|part| **part != "mod").count();
    (parts[0].to_owned(), depth)
}

/// Modules of the crate that a text imports by `crate::…`, or by climbing out of its own module.
fn imports(source: &str, depth: usize) -> BTreeSet<String> {
    let program: String = source
        .lines()
        .map(|line| code(line).to_owned() + "\n")
        .collect();
    let mut found = BTreeSet::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for (at, _) in program.match_indices("crate::") {
        // `stitchd_crate::` is another word; `$crate::` is this crate.
        if !program[..at].ends_with(is_word) {
            names(&program[at + "crate::".len()..], &mut found);
        }
    }
    let mut rest = program.as_str();
    while let Some(at) = rest.find("super::") {
        rest = &rest[at..];
        let mut climbs = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, climbs) = (after, climbs + 1);
        }
        if climbs >= depth {
            names(rest, &mut found);
        }
    }
    found
}

/// The first word of a path, or of each path of a group in braces.
fn names(path: &str, found: &mut BTreeSet<String>) {
    let word = |text: &str| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        found.insert(word(path));
        return;
    };
    let mut depth = 0;
    let mut item = String::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.insert(word(&item));
                item.clear();
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    found.insert(word(&item));
    found.remove("");
}

/// Imports of `source`, a file of `module`, that the table does not allow.
fn forbidden(module: &str, source: &str, depth: usize) -> Vec<String> {
    if COMPOSERS.contains(&module) {
        return Vec::new();
    }
    let row = ALLOWED.iter().find(|(name, _)| *name == module);
    let (_, allowed) = row.unwrap_or_else(|| panic!("`{module}` has no row in ALLOWED"));
    let is_module = |name: &String| {
        ALLOWED.iter().any(|(known, _)| known == name) || COMPOSERS.contains(&name.as_str())
    };
    imports(source, depth)
        .into_iter()
        .filter(|name| is_module(name) && name != module && !allowed.contains(&name.as_str()))
        .collect()
}

#[test]
fn modules_import_only_what_the_table_allows() {
    for path in rust_files("src") {
        let (module, depth) = place(&path);
        let forbidden = forbidden(&module, &text(&path), depth);
        assert!(
            forbidden.is_empty(),
            "{} imports {forbidden:?}",
            path.display()
        );
    }
}

#[test]
fn every_row_of_the_table_is_a_module() {
    let modules: BTreeSet<String> = rust_files("src").iter().map(|path| place(path).0).collect();
    for (name, allowed) in ALLOWED {
        for name in allowed.iter().chain([name]) {
            assert!(modules.contains(*name), "there is no module `{name}`");
        }
    }
}

#[test]
fn the_check_sees_every_way_to_import() {
    for (source, expected) in [
        ("use crate::store::Store;", "store"),
        ("use crate::{model::Issue, store};", "store"),
        (
            "use crate::{\n    model::{Issue, Severity},\n    store::{Store, packed},\n};",
            "store",
        ),
        ("let now = crate::clock::now();", "clock"),
        ("use super::super::actors::Slot;", "actors"),
        ("pub(in crate::http) struct A(pub crate::http::B);", "http"),
    ] {
        assert_eq!(forbidden("pipeline", source, 2), [expected], "{source}");
    }
    for source in [
        "use crate::{model::{Issue, Severity}, pipeline::Refusal};",
        "//! [`crate::store`] comes later.",
        "use super::store;",
        "use super::super::Payload;",
        "let url = \"http://x\"; use crate::model::Issue;",
    ] {
        assert_eq!(forbidden("pipeline", source, 2), [""; 0], "{source}");
    }
}
