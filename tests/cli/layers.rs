//! The layers of the settings, as the program sees them.

use crate::Folder;

/// The number of sources that `check` counts, or what it complains about.
fn checked(folder: &Folder, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let ended = folder.run_with(&["check"], environment);
    assert_eq!(ended.stderr, "");
    (ended.code, ended.stdout)
}

fn file_source(id: &str) -> String {
    format!("[[sources]]\nid = \"{id}\"\nkind = \"file\"\npath = \"{id}.json\"\n")
}

#[test]
fn higher_layers_win_and_lists_are_replaced_whole() {
    let folder = Folder::with("");
    folder.write(
        "default.toml",
        &format!("{}{}", file_source("a"), file_source("b")),
    );
    let good = |number| (Some(0), format!("settings: good, {number} source(s)\n"));
    assert_eq!(checked(&folder, &[]), good(2));
    folder.write(
        "production.toml",
        &[file_source("c"), file_source("d"), file_source("e")].concat(),
    );
    assert_eq!(checked(&folder, &[]), good(3));
    // Another profile does not read production's file.
    assert_eq!(checked(&folder, &[("STITCHD_ENV", "test")]), good(2));
    assert_eq!(checked(&folder, &[("STITCHD_ENV", "production")]), good(3));
    folder.write("local.toml", &file_source("f"));
    assert_eq!(checked(&folder, &[]), good(1));
    assert_eq!(checked(&folder, &[("STITCHD_ENV", "test")]), good(1));
}

#[test]
fn each_layer_is_above_the_one_before() {
    let folder = Folder::with("");
    // A value out of range shows which layer was heard.
    let share = |value: &str| format!("[guards]\nmax_removed_share = {value}\n");
    let heard = |environment: &[(&str, &str)]| {
        let (_, text) = checked(&folder, environment);
        let (_, rest) = text
            .split_once("max_removed_share` is ")
            .unwrap_or(("", "0;"));
        rest.split_once(';').unwrap().0.to_owned()
    };
    folder.write("default.toml", &share("2.0"));
    assert_eq!(heard(&[]), "2");
    folder.write("production.toml", &share("3.0"));
    assert_eq!(heard(&[]), "3");
    folder.write("local.toml", &share("4.0"));
    assert_eq!(heard(&[]), "4");
    assert_eq!(heard(&[("STITCHD__GUARDS__MAX_REMOVED_SHARE", "5.0")]), "5");
    assert_eq!(heard(&[("STITCHD__GUARDS__MAX_REMOVED_SHARE", "0.5")]), "0");
}

#[test]
fn the_environment_sets_numbers_words_and_durations_and_knows_no_unknown_key() {
    let folder = Folder::with("");
    let good = (Some(0), "settings: good, 0 source(s)\n".to_owned());
    for (name, value) in [
        ("STITCHD__SERVER__WORKERS", "3"),
        ("STITCHD__SERVER__REFUSE_UNTIL_LOADED", "true"),
        ("STITCHD__SERVER__DATA_BIND", "0.0.0.0:9000"),
        ("STITCHD__SERVER__DEFAULT_ENVIRONMENT", "staging"),
        ("STITCHD__SERVER__SHUTDOWN_GRACE", "3s"),
        ("STITCHD__BACKUP__DIR", "/tmp/elsewhere"),
        ("STITCHD__TELEMETRY__LOG_FORMAT", "pretty"),
    ] {
        assert_eq!(checked(&folder, &[(name, value)]), good, "{name}");
    }
    for (name, value, key) in [
        ("STITCHD__SERVER__WORKERS", "many", "`server.workers`"),
        (
            "STITCHD__SERVER__SHUTDOWN_GRACE",
            "soon",
            "`server.shutdown_grace`",
        ),
        ("STITCHD__SERVER__WROKERS", "3", "`server.wrokers`"),
        ("STITCHD__BACKUP__GENERATIONS", "0", "`backup.generations`"),
    ] {
        let (code, text) = checked(&folder, &[(name, value)]);
        assert_eq!(code, Some(1), "{name}: {text}");
        assert!(text.contains(key), "{name}: {text}");
    }
    let ended = folder.run_with(&["check"], &[("STITCHD_ENV", "staging")]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("STITCHD_ENV"), "{}", ended.stderr);
}

#[test]
fn secrets_come_from_files() {
    let folder = Folder::with(
        r#"
        [[sources]]
        id = "gb"
        api_host = "https://cdn.growthbook.io"
        client_key = "sdk-1"
        rest_host = "https://api.growthbook.io"
        secret_key_file = "secret"
        "#,
    );
    let (code, text) = checked(&folder, &[]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("`sources.gb.secret_key_file` names secret"),
        "{text}"
    );
    folder.write("secret", " \n");
    assert!(checked(&folder, &[]).1.contains("which is empty"));
    folder.write("secret", "secret_xyz\n");
    assert_eq!(checked(&folder, &[]).0, Some(0));
}
