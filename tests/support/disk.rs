//! Small disks of their own, to be filled to the last byte, and disks that hang.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A file system in memory with little room, mounted over an empty folder; needs root, or `sudo` that does not ask.
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None` where nothing may be mounted.
    pub(crate) fn mount(path: &Path, mebibytes: usize) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={mebibytes}m,mode=1777");
        let path = path.to_owned();
        as_root(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &size,
            "tmpfs",
            path.to_str().unwrap(),
        ])
        .then_some(Self { path })
    }

    /// Leaves no room: whoever writes gets `ENOSPC`.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Leaves room for this many bytes.
    pub(crate) fn fill_but(&self, bytes: u64) {
        self.fill();
        let ballast = File::options().write(true).open(self.ballast()).unwrap();
        let filled = ballast.metadata().unwrap().len();
        ballast.set_len(filled - bytes).unwrap();
    }

    /// Gives the room back.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    /// Refuses or takes writes; only while nobody has a file open for writing.
    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        let options = if is_read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        let is_done = as_root(&["mount", "-o", options, self.path.to_str().unwrap()]);
        assert!(is_done, "{options}");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the killed process may not be gone yet.
        as_root(&["umount", "-l", self.path.to_str().unwrap()]);
    }
}

/// A file system over a folder that takes every question and answers none, until it is dropped.
pub(crate) struct HangingDisk {
    path: PathBuf,
    /// Keeps the device open from which it would be answered.
    owner: Child,
}

impl HangingDisk {
    /// `None` where nothing may be mounted.
    pub(crate) fn mount(path: &Path) -> Option<Self> {
        const OWN: &str = r#"exec 3<>/dev/fuse && mount -i -t fuse hanging "$0" \
            -o fd=3,rootmode=40000,user_id=0,group_id=0,allow_other && echo && exec cat"#;
        let own = |program: &str, arguments: &[&str]| {
            let mut owner = Command::new(program)
                .args(arguments)
                .args(["sh", "-c", OWN])
                .arg(path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .ok()?;
            let is_mounted = owner.stdout.as_mut()?.read_exact(&mut [0]).is_ok();
            if !is_mounted {
                owner.wait().ok();
            }
            is_mounted.then_some(owner)
        };
        let owner = own("env", &[]).or_else(|| own("sudo", &["-n"]))?;
        Some(Self {
            path: path.to_owned(),
            owner,
        })
    }
}

impl Drop for HangingDisk {
    fn drop(&mut self) {
        // Whoever comes now finds what was there before; whoever waits is told that it is gone.
        as_root(&["umount", "-l", self.path.to_str().unwrap()]);
        drop(self.owner.stdin.take());
        self.owner.wait().ok();
    }
}

/// Whether a command succeeded with the rights of root.
pub(crate) fn as_root(command: &[&str]) -> bool {
    let is_done = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    is_done(command[0], &command[1..]) || is_done("sudo", &[&["-n"], command].concat())
}
