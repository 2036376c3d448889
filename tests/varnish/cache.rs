//! A real `varnishd` with the VCL that is shipped, and a place before the service that a test can change.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

use crate::support::{self, eventually};

/// What is behind the address that Varnish knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Nobody: connections are closed.
    Nobody,
    /// The service.
    Service(SocketAddr),
    /// Something that answers every request with this status, the probe's too.
    Status(u16),
    /// The same, but for the probe, which finds it healthy.
    Unsound(u16),
}

/// The address that Varnish knows; the same while the service comes and goes.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    behind: watch::Sender<Behind>,
    refused: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Origin {
    pub(crate) async fn start(behind: Behind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = watch::Sender::new(behind);
        let refused = Arc::default();
        let accepting = accept(listener, &behind, &refused);
        Self {
            address,
            behind,
            refused,
            accepting,
        }
    }

    /// From now on; open connections are closed.
    pub(crate) fn set(&self, behind: Behind) {
        self.behind.send_replace(behind);
    }

    /// Requests answered with a status of ours, probes aside.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Nobody listens any more: connections are refused.
    pub(crate) fn stop_listening(&self) {
        self.set(Behind::Nobody);
        self.accepting.abort();
    }

    /// Listens again, with something else behind it.
    pub(crate) async fn listen(&mut self, behind: Behind) {
        let address = self.address;
        let listener = eventually("the port is free", async || {
            TcpListener::bind(address).await.ok()
        })
        .await;
        self.set(behind);
        self.accepting = accept(listener, &self.behind, &self.refused);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn accept(
    listener: TcpListener,
    behind: &watch::Sender<Behind>,
    refused: &Arc<AtomicUsize>,
) -> AbortHandle {
    let (changes, refused) = (behind.subscribe(), Arc::clone(refused));
    let accepting = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(link(client, changes.clone(), Arc::clone(&refused)));
        }
    });
    accepting.abort_handle()
}

async fn link(
    mut client: TcpStream,
    mut behind: watch::Receiver<Behind>,
    refused: Arc<AtomicUsize>,
) {
    let now = *behind.borrow_and_update();
    let served = async {
        match now {
            Behind::Nobody => {}
            Behind::Service(address) => {
                if let Ok(mut service) = TcpStream::connect(address).await {
                    copy_bidirectional(&mut client, &mut service).await.ok();
                }
            }
            Behind::Status(status) => refuse(&mut client, status, status, &refused).await,
            Behind::Unsound(status) => refuse(&mut client, 200, status, &refused).await,
        }
    };
    tokio::select! {
        () = served => {}
        _ = behind.wait_for(|behind| *behind != now) => {}
    }
}

/// Answers one request: a probe with one status, everything else with another.
async fn refuse(client: &mut TcpStream, probe: u16, other: u16, refused: &AtomicUsize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let is_probe = head.starts_with(b"GET /readyz ");
    if !is_probe {
        refused.fetch_add(1, Ordering::SeqCst);
    }
    let status = if is_probe { probe } else { other };
    let answer =
        format!("HTTP/1.1 {status} X\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnone");
    client.write_all(answer.as_bytes()).await.ok();
}

/// A piece of the shipped VCL and what stands in its place.
pub(crate) type Change<'a> = (&'a str, &'a str);

/// A running `varnishd`; killed when dropped.
pub(crate) struct Varnish {
    pub(crate) url: String,
    child: Child,
    folder: TempDir,
}

/// Where `varnishd` is, if it is; on CI it must be.
pub(crate) fn varnishd() -> Option<PathBuf> {
    let found = ["/usr/sbin/varnishd", "/usr/local/sbin/varnishd"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    if found.is_none() {
        support::skipped("varnish", "varnishd is not installed");
    }
    found
}

impl Varnish {
    /// Starts it in front of an origin that is not there yet, and waits until it listens and has found that out.
    pub(crate) async fn start(varnishd: &Path, origin: &Origin, changes: &[Change<'_>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = format!(".port = \"{}\";", origin.address.port());
        let own: Change<'_> = (".port = \"8080\";", &port);
        let mut vcl = include_str!("../../deploy/varnish/stitchd.vcl").to_owned();
        for (old, new) in changes.iter().chain([&own]) {
            assert!(vcl.contains(old), "the VCL has lost `{old}`");
            vcl = vcl.replacen(old, new, 1);
        }
        let file = folder.path().join("stitchd.vcl");
        std::fs::write(&file, vcl).unwrap();
        let child = Command::new(varnishd)
            .args([
                "-F",
                "-j",
                "none",
                "-a",
                "127.0.0.1:0",
                "-s",
                "malloc,16m",
                "-n",
            ])
            .arg(folder.path())
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut varnish = Self {
            url: String::new(),
            child,
            folder,
        };
        varnish.url = eventually("varnishd listens", async || {
            // `a0 127.0.0.1 40123`
            let listening = varnish.ask(&["debug.listen_address"])?;
            let mut words = listening.split_whitespace().skip(1);
            Some(format!("http://{}:{}", words.next()?, words.next()?))
        })
        .await;
        // It begins with the belief that the origin is well, and a probe may fail just after the origin has come.
        varnish.until_origin_is(false).await;
        varnish
    }

    /// Waits until its probe has found that.
    pub(crate) async fn until_origin_is(&self, healthy: bool) {
        let what = format!("varnishd finds the origin healthy: {healthy}");
        eventually(&what, async || {
            (self.is_origin_healthy() == healthy).then_some(())
        })
        .await;
    }

    fn is_origin_healthy(&self) -> bool {
        let backends = self.ask(&["backend.list"]).unwrap_or_default();
        backends.to_ascii_lowercase().contains("healthy")
    }

    fn ask(&self, command: &[&str]) -> Option<String> {
        let output = Command::new("varnishadm")
            .arg("-n")
            .arg(self.folder.path())
            .args(command)
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Varnish {
    fn drop(&mut self) {
        // The manager takes its worker along when it is asked to end, not when it is killed.
        self.ask(&["stop"]);
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
