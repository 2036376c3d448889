//! `stitchd check`.

use serde_json::json;

use crate::Folder;

#[test]
fn shipped_settings_are_good() {
    let ended = Folder::with("").run(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "settings: good, 0 source(s)\n");
    assert_eq!(ended.stderr, "");
}

#[test]
fn every_problem_is_told_at_once_with_its_key() {
    let folder = Folder::with(
        r#"
        no_such_section = 1
        [server]
        wrokers = 3
        data_bind = "here"
        shutdown_grace = "soon"
        [database]
        url = "oracle://x"
        keep_revisions = 0
        [admin]
        tokens = [{name = "", role = "operator", secret = "hunter2"}, {name = "ci", role = "boss", secret = "hunter2"}]
        [http]
        cors_origins = ["nonsense"]
        [guards]
        max_removed_share = 3.0
        [[sources]]
        id = "one"
        api_host = "ftp://x"
        client_key = "sdk-1"
        connections = "discover"
        secret_key = "hunter2"
        secret_key_file = "/nowhere"
        poll.interval = "10ms"
        poll.jitter = 2.0
        [[sources]]
        id = "one"
        kind = "file"
        [[sources]]
        id = "two"
        api_host = "https://cdn.growthbook.io"
        rest_host = "https://api.growthbook.io"
        client_key = "sdk-2"
        webhook_secret_file = "/nowhere"
        colour = "blue"
        "#,
    );
    let ended = folder.run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stderr, "");
    for key in [
        "`no_such_section`",
        "`server.wrokers`",
        "`server.data_bind`",
        "`server.shutdown_grace`",
        "`database.url`",
        "`database.keep_revisions`",
        "`admin.tokens[0].name`",
        "`admin.tokens[1].role`",
        "`http.cors_origins[0]`",
        "`guards.max_removed_share`",
        "`sources.one.api_host`",
        "`sources.one.client_key`",
        "`sources.one.secret_key` and `sources.one.secret_key_file` are both set",
        "`sources.one.poll.interval`",
        "`sources.one.poll.jitter`",
        "two sources are called `one`",
        "`sources.one.path`",
        "`sources.two.secret_key`",
        "`sources.two.webhook_secret_file`",
        "`sources.two.colour`",
    ] {
        let lines = ended.stdout.lines();
        let found = lines.filter(|line| line.starts_with("settings: ") && line.contains(key));
        assert!(found.count() > 0, "{key} is not named:\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains("hunter2"), "{}", ended.stdout);
}

#[test]
fn a_payload_is_run_through_the_real_pipeline() {
    let folder = Folder::with("");
    let payload = json!({"features": {
        "good": {"defaultValue": 1, "rules": [{"force": 2, "condition": {"a": {"$in": [1]}}}]},
    }});
    folder.write("good.json", &payload.to_string());
    let ended = folder.run(&["check", "--payload", "good.json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .ends_with("good.json: 1 feature(s), 0 experiment(s), 0 issue(s)\n")
    );

    let payload = json!({"features": {
        "good": {"defaultValue": 1},
        "bad": {"defaultValue": 1, "rules": 7},
        "odd": {"defaultValue": 1, "rules": [{"force": 2, "condition": {"a": {"$nearly": 1}}}]},
    }});
    folder.write("issues.json", &payload.to_string());
    let ended = folder.run(&["check", "--payload", "issues.json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = |text: &str| ended.stdout.lines().any(|line| line.contains(text));
    assert!(line("features.bad.rules"), "{}", ended.stdout);
    assert!(line("features.odd"), "{}", ended.stdout);
    assert!(line("2 feature(s)"), "{}", ended.stdout);
}

#[test]
fn a_payload_that_is_none_is_refused_with_the_reason() {
    let folder = Folder::with("");
    for (text, code) in [
        ("<html>", "refused (malformed)"),
        ("[]", "refused ("),
        ("{}", "refused ("),
        ("{\"features\": 7}", "refused ("),
        ("{\"features\": {\"a\":", "refused (malformed)"),
    ] {
        folder.write("payload.json", text);
        let ended = folder.run(&["check", "--payload", "payload.json"]);
        assert_eq!(ended.code, Some(1), "{text}: {ended:?}");
        assert!(ended.stdout.contains(code), "{text}: {}", ended.stdout);
    }
    let ended = folder.run(&["check", "--payload", "absent.json"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("absent.json"), "{}", ended.stderr);
}

#[test]
fn a_list_of_experiments_is_checked_too() {
    use stitchd::cli::demo::upstream::experiment;
    let folder = Folder::with("");
    let mut bad = experiment("bad");
    bad["phases"] = json!(7);
    let list = json!({"experiments": [experiment("good"), bad], "total": 2});
    folder.write("list.json", &list.to_string());
    let ended = folder.run(&["check", "--payload", "list.json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.contains("0 feature(s), 1 experiment(s)"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("exp_bad"), "{}", ended.stdout);
}

#[test]
fn without_a_folder_nothing_can_be_checked() {
    let mut command = crate::command();
    let ended = crate::run(command.args(["--settings", "/nowhere/at/all", "check"]));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("/nowhere/at/all"), "{}", ended.stderr);
}
