//! The shipped settings files and the typed settings say the same.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::{fs, path::Path};

use stitchd::settings::{Profile, Settings, Source, from_toml};

fn shipped(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("settings");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// The commented example of a source, uncommented.
fn example() -> String {
    let text = shipped("default.toml");
    let (_, example) = text.split_once("# [[sources]]\n").unwrap();
    let lines = example.lines().map(|line| {
        let line = line
            .strip_prefix('#')
            .expect("the example goes to the end of the file");
        line.strip_prefix(' ').unwrap_or(line)
    });
    let lines: Vec<&str> = lines.collect();
    format!("[[sources]]\n{}\n", lines.join("\n"))
}

/// `key = value` lines of a TOML text, as `section.key`.
fn keys(text: &str) -> Vec<String> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            name.split(']')
                .next()
                .unwrap()
                .trim_matches('[')
                .clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .trim_end()
                .chars()
                .all(|c| c.is_ascii_lowercase() || c == '_')
        {
            keys.push(format!("{section}.{}", key.trim_end()));
        }
    }
    keys
}

/// Field names in the order of a `{:#?}`, as `section.key`, two levels deep.
fn fields(debug: &str, depth: usize) -> Vec<String> {
    let mut section = String::new();
    let mut fields = Vec::new();
    let (outer, inner) = (" ".repeat(4 * depth), " ".repeat(4 * (depth + 1)));
    for line in debug.lines() {
        let name = |indent: &str| {
            let rest = line.strip_prefix(indent)?;
            let (name, _) = rest.split_once(": ")?;
            let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            is_name.then(|| name.to_owned())
        };
        if let Some(name) = name(&outer) {
            section = name;
            if !line.ends_with(" {") {
                fields.push(section.clone());
            }
        } else if let Some(name) = name(&inner) {
            fields.push(format!("{section}.{name}"));
        }
    }
    fields
}

#[test]
fn the_default_file_says_what_the_program_does_without_it() {
    let mut read = from_toml(&shipped("default.toml"), Profile::Production).unwrap();
    // The file names the URL that an unset one stands for, and empty files for unset ones.
    assert_eq!(
        read.database.url(),
        stitchd::settings::Database::DEFAULT_URL
    );
    read.database.url = None;
    read.database.url_file = None;
    assert_eq!(read.sticky_buckets.redis_url(), "");
    read.sticky_buckets.redis_url = None;
    read.sticky_buckets.redis_url_file = None;
    assert_eq!(format!("{read:#?}"), format!("{:#?}", Settings::default()));
}

#[test]
fn every_setting_is_in_the_default_file() {
    let text = shipped("default.toml");
    let mut in_file = keys(&text);
    let mut in_program = fields(&format!("{:#?}", Settings::default()), 1);
    // Tests alone set the limit.
    in_program.retain(|key| key != "sources" && key != "server.blocked_limit");
    in_file.sort_unstable();
    in_program.sort_unstable();
    assert_eq!(in_file, in_program);
}

#[test]
fn the_example_of_a_source_has_every_key_and_parses() {
    let example = example();
    let mut in_file: Vec<String> = keys(&example)
        .into_iter()
        .map(|key| key.trim_start_matches("sources.").to_owned())
        .collect();
    let mut in_program = fields(&format!("{:#?}", Source::default()), 1);
    // Not for the settings; a map whose keys are those of `[guards]`.
    in_program.retain(|key| key != "is_override" && !key.starts_with("guards."));
    in_program
        .iter_mut()
        .filter(|key| key.starts_with("connections"))
        .for_each(|key| {
            "connections".clone_into(key);
        });
    in_file.sort_unstable();
    in_program.sort_unstable();
    in_program.dedup();
    assert_eq!(in_file, in_program);

    let settings = from_toml(&example, Profile::Production).unwrap();
    let [source] = settings.sources.as_slice() else {
        panic!("one source is expected");
    };
    assert_eq!(
        (&*source.id, &*source.client_key),
        ("growthbook-prod", "sdk-abc123")
    );
    // Apart from what an example must name, it holds the defaults.
    let bare = Source {
        id: source.id.clone(),
        api_host: source.api_host.clone(),
        client_key: source.client_key.clone(),
        rest_host: source.rest_host.clone(),
        secret_key: source.secret_key.clone(),
        secret_key_file: source.secret_key_file.clone(),
        decryption_key_file: source.decryption_key_file.clone(),
        webhook_secret_file: source.webhook_secret_file.clone(),
        dialect: source.dialect,
        ..Source::default()
    };
    assert_eq!(format!("{source:#?}"), format!("{bare:#?}"));
    assert!(!format!("{settings:?}").contains("secret_xyz"));
}

#[test]
fn no_shipped_file_holds_a_source_or_a_token() {
    for (name, profile) in [
        ("default.toml", Profile::Production),
        ("development.toml", Profile::Development),
        ("test.toml", Profile::Test),
        ("production.toml", Profile::Production),
    ] {
        let settings = from_toml(&shipped(name), profile).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(
            settings.sources.is_empty() && settings.admin.tokens.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn secrets_are_not_shown() {
    let settings = from_toml(
        r#"
        [database]
        url = "postgres://me:hunter2@db/x"
        [admin]
        tokens = [{name = "ci", role = "viewer", secret = "hunter2"}]
        [publish]
        purge_targets = ["http://me:hunter2@cache.example.org:6081/"]
        webhooks = [{url = "https://me:hunter2@example.org/hook?token=hunter2", secret = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg=="}]
        [[sources]]
        id = "a"
        api_host = "https://cdn.growthbook.io"
        rest_host = "https://api.growthbook.io"
        secret_key = "hunter2"
        webhook_secret = "hunter2"
        connections = [{key = "sdk-1", decryption_key = "hunter2", push_signing_key = "hunter2"}]
        "#,
        Profile::Production,
    )
    .unwrap();
    let shown = format!("{settings:?} {settings:#?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains("aHVudGVy"), "{shown}");
    let names_hosts = "[http://cache.example.org:6081/]";
    assert!(shown.contains(names_hosts), "{shown}");
    assert!(shown.contains("https://example.org/hook,"), "{shown}");
}

#[test]
fn addresses_and_secrets_of_publish_are_checked_and_never_repeated() {
    let error = from_toml(
        r#"
        [publish]
        purge_targets = ["hunter2", "ftp://hunter2@a", "http://a/?hunter2", "http://hunter2:x@a:1/", "http://a:1"]
        webhooks = [
            {url = "hunter2", secret = "hunter2"},
            {url = "https://example.org"},
            {url = "https://example.org", secret = "whsec_aHVudGVyMg=="},
        ]
        "#,
        Profile::Test,
    )
    .unwrap_err();
    let shown = error.to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    let keys = [
        "purge_targets[0]` is no",
        "purge_targets[1]` is no",
        "purge_targets[2]` has a query",
        "purge_targets[4]` is listed twice",
        "webhooks[0].url` is no",
        "webhooks[0].secret` is not",
        "webhooks[1].secret` is missing",
        "webhooks[2].secret` is not",
    ];
    assert_eq!(error.problems.len(), keys.len(), "{shown}");
    for (problem, key) in error.problems.iter().zip(keys) {
        let begins = format!("`publish.{key}");
        assert!(problem.starts_with(&begins), "{problem}, not {begins}");
    }
}

#[test]
fn an_environment_has_one_dialect() {
    use stitchd::settings::Dialect;
    let source = |id: &str, environment: &str, more: &str| {
        format!(
            "[[sources]]\nid = \"{id}\"\nkind = \"file\"\npath = \"x\"\nenvironment = \"{environment}\"\n{more}\n"
        )
    };
    let legacy = source("a", "web", "dialect = \"legacy\"");
    let text = [
        legacy.clone(),
        source("b", "web", ""),
        source("c", "apps", "dialect = \"strict\""),
    ];
    let settings = from_toml(&text.concat(), Profile::Test).unwrap();
    assert_eq!(settings.dialect_of("web"), Dialect::Legacy);
    assert_eq!(settings.dialect_of("apps"), Dialect::Strict);
    assert_eq!(settings.dialect_of("elsewhere"), Dialect::Strict);

    let text = legacy + &source("b", "web", "dialect = \"strict\"");
    let error = from_toml(&text, Profile::Test).unwrap_err();
    assert_eq!(
        error.problems,
        [
            "`sources.b.dialect` is `strict`, but source `a` of environment `web` has `legacy`; use one"
        ]
    );
    let error = from_toml(&source("a", "web", "dialect = \"loose\""), Profile::Test).unwrap_err();
    assert!(error.to_string().contains("dialect"), "{error}");
    let error = from_toml("evaluation.max_decisions = 0", Profile::Test).unwrap_err();
    assert!(
        error.to_string().contains("`evaluation.max_decisions`"),
        "{error}"
    );
}
