//! `migrate`, `healthcheck`, `--help` and what a command that cannot be done says.

use std::net::TcpListener;

use crate::{
    Folder, command, run,
    support::{Bed, databases::backends, process::Process},
};

#[test]
fn help_tells_all_commands_and_options() {
    let ended = run(command().arg("--help"));
    assert_eq!(ended.code, Some(0));
    for word in [
        "serve",
        "demo",
        "check",
        "migrate",
        "healthcheck",
        "--settings",
        "--version",
    ] {
        assert!(ended.stdout.contains(word), "{word}: {}", ended.stdout);
    }
    for (path, word) in [
        (["check", "--help"], "--payload"),
        (["migrate", "--help"], "down"),
        (["demo", "--help"], "--data-bind"),
        (["healthcheck", "--help"], "0 when ready"),
        (["serve", "--help"], "--settings"),
    ] {
        let ended = run(command().args(path));
        assert_eq!(ended.code, Some(0), "{path:?}");
        assert!(ended.stdout.contains(word), "{path:?}: {}", ended.stdout);
    }
    let ended = run(command().arg("server"));
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("serve"), "{}", ended.stderr);
}

#[test]
fn the_schema_goes_up_and_down_and_tells_where_it_is() {
    for backend in backends() {
        let folder = Folder::with(&format!("[database]\nurl = \"{}\"", backend.url));
        let status = |code, word: &str| {
            let ended = folder.run(&["migrate", "status"]);
            assert_eq!(ended.code, Some(code), "{}: {ended:?}", backend.name);
            let words: Vec<_> = ended
                .stdout
                .lines()
                .map(|line| line.rsplit(' ').next())
                .collect();
            assert!(!words.is_empty());
            assert!(
                words.iter().all(|last| *last == Some(word)),
                "{}",
                ended.stdout
            );
            words.len()
        };
        let number = status(1, "pending");
        let up = folder.run(&["migrate", "up"]);
        assert_eq!(up.code, Some(0), "{}: {up:?}", backend.name);
        assert_eq!(
            up.stdout
                .lines()
                .filter(|l| l.starts_with("applied "))
                .count(),
            number
        );
        status(0, "applied");
        let again = folder.run(&["migrate", "up"]);
        assert_eq!((again.code, &*again.stdout), (Some(0), "nothing to do\n"));
        let down = folder.run(&["migrate", "down"]);
        assert_eq!(down.code, Some(0), "{}: {down:?}", backend.name);
        assert_eq!(
            down.stdout
                .lines()
                .filter(|l| l.starts_with("took back "))
                .count(),
            number
        );
        status(1, "pending");
        assert_eq!(folder.run(&["migrate", "up"]).code, Some(0));
        status(0, "applied");
    }
}

#[test]
fn a_database_that_is_away_cannot_be_migrated() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let folder = Folder::with(&format!(
        "[database]\nurl = \"postgres://a:hunter2@{port}/b\""
    ));
    for direction in ["up", "down", "status"] {
        let ended = folder.run(&["migrate", direction]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("does not answer"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn the_health_check_says_ready_not_ready_or_nobody() {
    let bed = Bed::new();
    bed.upstream.go_down().await.unwrap();
    // One port for the program and for its health check.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let text = bed.toml().replacen(
        "admin_bind = \"127.0.0.1:0\"",
        &format!("admin_bind = \"{port}\""),
        1,
    );
    let folder = Folder::with(&text);
    let absent = folder.run(&["healthcheck"]);
    assert_eq!(absent.code, Some(1), "{absent:?}");
    assert!(
        absent.stdout.contains("does not answer"),
        "{}",
        absent.stdout
    );

    let mut process = Process::serve(folder.path());
    let admin = process.admin().await;
    process.data().await;
    let not_ready = folder.run(&["healthcheck"]);
    assert_eq!(not_ready.code, Some(1), "{not_ready:?}");
    assert!(
        not_ready.stdout.contains("not ready: 503"),
        "{}",
        not_ready.stdout
    );

    bed.upstream.come_back().unwrap();
    let http = crate::support::client();
    http.post(format!("{admin}/admin/poll"))
        .send()
        .await
        .unwrap();
    let ready = folder.run(&["healthcheck"]);
    assert_eq!((ready.code, &*ready.stdout), (Some(0), "ready\n"));
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
}
