//! README and ARCHITECTURE against what they describe.

use std::collections::{BTreeMap, BTreeSet};

use stitchd::{http::ROUTES, metrics::Metrics};

use super::{program, root, rust_files, text};

const README: &str = "README.md";
const ARCHITECTURE: &str = "ARCHITECTURE.md";
/// Most that one reads before the first change.
const ARCHITECTURE_LINES_MAX: usize = 300;

/// What stands between single backticks, line by line; fenced blocks are left out.
fn quoted(document: &str) -> Vec<&str> {
    let mut quoted = Vec::new();
    let mut is_fenced = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            quoted.extend(line.split('`').skip(1).step_by(2));
        }
    }
    quoted
}

/// The first two cells of every table row whose first cell is one quoted word: the word, and the second cell as it is.
fn rows(document: &str) -> Vec<(&str, &str)> {
    document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let word = cells.next()?.strip_suffix('`')?;
            (!word.contains('`')).then_some((word, cells.next().unwrap_or_default()))
        })
        .collect()
}

/// Every key of `settings/default.toml` with the value that stands there, the commented source included.
fn default_settings() -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut section = String::new();
    let file = text("settings/default.toml");
    let source = file.find("# [[sources]]").unwrap();
    let uncommented: String = file[source..]
        .lines()
        .map(|l| l.trim_start_matches("# ").to_owned() + "\n")
        .collect();
    for line in file[..source].lines().chain(uncommented.lines()) {
        if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_start_matches('[').split(']').next().unwrap();
            name.clone_into(&mut section);
        } else if let Some((key, rest)) = line.split_once(" = ").filter(|(key, _)| is_key(key)) {
            let value = value_of(rest);
            settings.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    // Every key of `[guards]` may stand there too; the table says so in one row.
    settings.retain(|key, _| !key.starts_with("sources.guards."));
    settings
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// The value before the comment.
fn value_of(rest: &str) -> &str {
    let mut is_quoted = false;
    let end = rest.char_indices().find(|(_, c)| {
        is_quoted ^= *c == '"';
        *c == '#' && !is_quoted
    });
    rest[..end.map_or(rest.len(), |(at, _)| at)].trim_end()
}

/// Whether the shipped file gives the default; of a source's own keys it gives an example.
fn is_default(key: &str) -> bool {
    !key.starts_with("sources.")
        || key.starts_with("sources.poll.")
        || key.starts_with("sources.fields.")
}

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let readme = text(README);
    let settings = default_settings();
    assert!(settings.len() > 70, "{settings:?}");
    let is_setting = |word: &str| {
        settings.keys().any(|key| {
            let section = key.split('.').next().unwrap_or_default();
            word.starts_with(section) && word[section.len()..].starts_with('.')
        })
    };
    let listed: BTreeMap<&str, &str> = rows(&readme)
        .into_iter()
        .filter(|(word, _)| is_setting(word) && !word.contains('/'))
        .collect();
    for (key, default) in &settings {
        let shown = listed
            .get(key.as_str())
            .unwrap_or_else(|| panic!("README lacks `{key}`"));
        if is_default(key) {
            assert_eq!(*shown, format!("`{default}`"), "default of `{key}`");
        }
    }
    for key in listed.keys() {
        assert!(
            settings.contains_key(*key),
            "README lists `{key}`, which default.toml lacks"
        );
    }
}

/// Whether a path is answered by a route whose path may have `{parameters}`.
fn matches(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template
            .zip(path)
            .all(|(part, word)| part == word || (part.starts_with('{') && !word.is_empty()))
}

#[test]
fn the_readme_shows_every_route_and_no_other() {
    let readme = text(README);
    for route in ROUTES {
        let is_in_table = readme.contains(&format!("`{}`", route.path));
        assert!(is_in_table, "README lacks `{}`", route.path);
        let is_called = called(&readme).any(|path| matches(route.path, path));
        assert!(is_called, "README shows no call of `{}`", route.path);
    }
    let is_route = |path: &str| ROUTES.iter().any(|route| matches(route.path, path));
    for path in called(&readme) {
        assert!(is_route(path), "README calls {path}, which is no route");
    }
    for document in [readme, text(ARCHITECTURE)] {
        for word in quoted(&document) {
            let word = word.trim_start_matches("GET ").trim_start_matches("POST ");
            let path = word.split('?').next().unwrap_or_default();
            if path.starts_with('/') && !path.starts_with("/run/") {
                assert!(is_route(path), "`{path}` is no route");
            }
        }
    }
}

/// Paths that examples ask the two planes for.
fn called(document: &str) -> impl Iterator<Item = &str> {
    let after_host = |port: &'static str| document.split(port).skip(1);
    let rests = after_host("127.0.0.1:8080").chain(after_host("127.0.0.1:8081"));
    rests.filter(|rest| rest.starts_with('/')).map(|rest| {
        let end = rest.find(|c: char| c.is_whitespace() || "'\"?`)".contains(c));
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// Names in the table at the head of `src/metrics.rs`.
fn documented_metrics() -> BTreeSet<String> {
    let source = text("src/metrics.rs");
    let rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `stitchd_"));
    let names = rows.map(|row| row.split(['{', '`']).next().unwrap_or_default());
    names.map(|name| format!("stitchd_{name}")).collect()
}

/// Names that a scrape brings, once everything has happened at least once.
fn exported_metrics() -> BTreeSet<String> {
    let metrics = Metrics::default();
    metrics.source_age("s", Some(1.0));
    metrics.environment_known("e");
    metrics.snapshot_served("e", 1, true);
    metrics.issues("e", 1);
    metrics.poll_ended("s", "published", 0.1);
    metrics.part_failed("s", "payload", "timeout");
    metrics.source_paused("s", false);
    metrics.held_input("s", true);
    metrics.guard_tripped("s", "shrink");
    metrics.pushed("s", "published");
    metrics.webhook("s", "polling");
    metrics.purged("t", "purged", 1);
    metrics.webhooks_sent("t", "delivered", 1);
    metrics.publish_queued("t", 0);
    metrics.publish_target_up("t", true);
    metrics.actor_up("a", true);
    metrics.actor_restarted("a", "panic");
    metrics.requests("data", "/livez", "2xx").inc();
    metrics.connection_blocked("data");
    metrics.type_mismatched("boolean");
    metrics.sticky("read", 1);
    metrics.token_lookups("valid").inc();
    metrics.database_read("tokens");
    metrics.feature_used("e", "f", true, 1);
    let text = metrics.encode();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.map(|line| match line.split_once(' ').unwrap() {
        (name, "counter") => format!("{name}_total"),
        (name, _) => name.to_owned(),
    });
    names.collect()
}

#[test]
fn every_metric_is_documented_and_exported() {
    let documented = documented_metrics();
    assert_eq!(documented, exported_metrics());
    let readme = text(README);
    let listed: BTreeSet<String> = rows(&readme)
        .iter()
        .filter(|(word, _)| word.starts_with("stitchd_"))
        .map(|(word, _)| word.split('{').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(listed, documented, "the table of the README");
    for document in [readme, text(ARCHITECTURE)] {
        for word in quoted(&document)
            .into_iter()
            .filter(|word| word.starts_with("stitchd_"))
        {
            let name = word.split(['{', ' ']).next().unwrap_or_default();
            assert!(documented.contains(name), "`{name}` is no metric");
        }
    }
}

/// Codes of issues and refusals that the pipeline and the views make.
fn issue_codes() -> BTreeSet<String> {
    let makers = [
        "Issue::warning(",
        "Issue::error(",
        "Withheld::new(",
        "code: ",
    ];
    let mut codes = BTreeSet::new();
    for path in rust_files("src/pipeline")
        .into_iter()
        .chain(rust_files("src/views"))
    {
        let program: String = program(&path)
            .into_iter()
            .map(|(_, line)| line + "\n")
            .collect();
        for maker in makers {
            for (at, _) in program.match_indices(maker) {
                let rest = program[at + maker.len()..].trim_start();
                if let Some(code) = rest.strip_prefix('"') {
                    codes.insert(code.split('"').next().unwrap_or_default().to_owned());
                }
            }
        }
    }
    codes
}

#[test]
fn the_readme_explains_every_issue_code() {
    let readme = text(README);
    let listed: BTreeSet<&str> = rows(&readme).into_iter().map(|(word, _)| word).collect();
    let codes = issue_codes();
    assert!(codes.len() > 20, "{codes:?}");
    for code in codes {
        assert!(
            listed.contains(code.as_str()),
            "README explains no issue `{code}`"
        );
    }
}

#[test]
fn the_documents_name_files_that_exist() {
    for document in [README, ARCHITECTURE, "migration/README.md"] {
        let content = text(document);
        for word in quoted(&content) {
            let is_path = [
                "src/",
                "tests/",
                "settings/",
                "migration/",
                "benches/",
                ".ci/",
            ]
            .iter()
            .any(|folder| word.starts_with(folder));
            let is_plain = word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            // The settings that a user writes are not there.
            if is_path && is_plain && word != "settings/local.toml" {
                let folder = if document.starts_with("migration") && word.starts_with("src/") {
                    root().join("migration")
                } else {
                    root().to_owned()
                };
                assert!(
                    folder.join(word).exists(),
                    "{document} names `{word}`, which is not there"
                );
            }
        }
    }
}

#[test]
fn the_readme_has_the_two_commands_and_architecture_stays_readable() {
    let readme = text(README);
    for command in ["cargo run --release -- demo", "\ncargo test\n"] {
        assert!(readme.contains(command), "README lacks {command:?}");
    }
    let lines = text(ARCHITECTURE).lines().count();
    assert!(
        lines <= ARCHITECTURE_LINES_MAX,
        "ARCHITECTURE.md has {lines} lines"
    );
}
