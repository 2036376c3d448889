//! Fail points of a running service, set from outside; a part of builds with the feature `failpoints` alone.
//!
//! Each line on standard input is `<point>=<actions>` in the words of the crate `fail`: `store.Publish=1*panic`. The chaos
//! tests break the real program in this way.

use std::io::{BufRead as _, stdin};

use tracing::warn;

/// Obeys lines on standard input from now on, on a thread of its own, until they end.
pub(super) fn listen() {
    std::thread::spawn(|| {
        for line in stdin().lock().lines().map_while(Result::ok) {
            let set = match line.split_once('=') {
                Some((point, actions)) => fail::cfg(point, actions),
                None => Err("there is no `=` in it".to_owned()),
            };
            if let Err(problem) = set {
                warn!("`{line}` sets no fail point: {problem}");
            }
        }
    });
}
