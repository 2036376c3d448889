//! `stitchd serve`, and `stitchd` alone.

use std::net::TcpListener;

use crate::{
    Folder, command,
    support::{
        Bed, client,
        process::{Process, run},
    },
};

#[tokio::test]
async fn no_command_means_serve() {
    let bed = Bed::new();
    let folder = Folder::with(&bed.toml());
    let mut process = Process::start(command().arg("--settings").arg(folder.path()));
    let data = process.data().await;
    process.logged("published revision 1 of production").await;
    let answer = client()
        .get(format!("{data}/v1/snapshot/production"))
        .send()
        .await;
    assert_eq!(answer.unwrap().status(), 200);
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    assert_eq!(
        process.out(),
        Vec::<String>::new(),
        "standard output is for answers"
    );
}

#[test]
fn a_port_that_is_taken_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (key, other) in [("data_bind", "admin_bind"), ("admin_bind", "data_bind")] {
        let folder = Folder::with(&format!(
            "[server]\n{key} = \"{address}\"\n{other} = \"127.0.0.1:0\"\n[telemetry]\nlog_filter = \"error\"\n"
        ));
        let ended = folder.run(&["serve"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("`server.{key}`")),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains(&address.to_string()),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn broken_settings_start_nothing_and_are_all_told() {
    let folder = Folder::with(
        "[server]\nwrokers = 1\ndata_bind = \"x\"\n[backup]\ngenerations = 0\n[[sources]]\nid = \"a b\"\n",
    );
    for arguments in [&["serve"][..], &[], &["healthcheck"], &["migrate", "up"]] {
        let ended = folder.run(arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        for key in [
            "`server.wrokers`",
            "`server.data_bind`",
            "`backup.generations`",
            "`sources.id`",
        ] {
            assert!(ended.stderr.contains(key), "{key}: {}", ended.stderr);
        }
    }
    let mut command = command();
    let ended = run(command.args(["--settings", "/nowhere/at/all"]));
    assert_eq!(ended.code, Some(2));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn sources_that_are_off_are_told_once_and_left_alone() {
    for (off, words) in [
        ("enabled = false", "source gb is disabled"),
        ("poll.enabled = false", "source gb is not polled"),
    ] {
        let mut bed = Bed::new();
        off.clone_into(&mut bed.source_extra);
        let folder = Folder::with(&bed.toml());
        let mut process = Process::serve(folder.path());
        let (data, admin) = (process.data().await, process.admin().await);
        process.logged(words).await;
        let http = client();
        let answer = http
            .get(format!("{data}/v1/snapshot/production"))
            .send()
            .await;
        assert_eq!(answer.unwrap().status(), 503);
        let status = http
            .get(format!("{admin}/admin/status"))
            .send()
            .await
            .unwrap();
        let status: serde_json::Value =
            serde_json::from_slice(&status.bytes().await.unwrap()).unwrap();
        assert_eq!(status["sources"]["gb"]["state"], "disabled", "{off}");
        assert_eq!(bed.upstream.requests().len(), 0, "{off}");
        let poll = http
            .post(format!("{admin}/admin/sources/gb/poll"))
            .send()
            .await;
        let expected = if off == "enabled = false" { 409 } else { 200 };
        assert_eq!(poll.unwrap().status(), expected, "{off}");
        process.signal("TERM");
        assert_eq!(process.ended().await.code(), Some(0));
        let log = process.log();
        let told = log.iter().filter(|line| line.contains(words)).count();
        assert_eq!(told, 1, "{log:#?}");
        assert!(
            !log.iter()
                .any(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")),
            "{log:#?}"
        );
    }
}

#[tokio::test]
async fn secrets_are_in_no_log_line() {
    const SECRETS: [&str; 5] = [
        "secret_hunter2",
        "hunter2-token",
        "aHVudGVyMmh1bnRlcjJodQ==",
        "hunter2-webhook",
        "hunter2-database",
    ];
    let [secret, token, decryption, webhook, database] = SECRETS;
    let bed = Bed::new();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let text = bed
        .toml()
        .replacen("secret_demo", secret, 1)
        .replacen(
            "poll.streaming",
            &format!("decryption_key = \"{decryption}\"\nwebhook_secret = \"{webhook}\"\npoll.streaming"),
            1,
        )
        .replacen(
            "[backup]",
            &format!("[admin]\ntokens = [{{name = \"ci\", role = \"admin\", secret = \"{token}\"}}]\n[telemetry]\nlog_filter = \"trace\"\n[backup]"),
            1,
        )
        .replacen(&bed.database_url, &format!("postgres://me:{database}@{port}/x"), 1);
    let folder = Folder::with(&text);
    let mut process = Process::serve(folder.path());
    let admin = process.admin().await;
    process.data().await;
    let http = client();
    for (token, status) in [(token, 200), ("hunter2-wrong", 401)] {
        let poll = http
            .post(format!("{admin}/admin/poll"))
            .bearer_auth(token)
            .send()
            .await;
        assert_eq!(poll.unwrap().status(), status);
    }
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), Some(0));
    for line in process.log() {
        for secret in SECRETS {
            assert!(!line.contains(secret), "{line}");
        }
        assert!(!line.contains("hunter2-wrong"), "{line}");
    }
}
