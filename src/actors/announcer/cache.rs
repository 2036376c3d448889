//! One cache: which of its paths are to be fetched anew, and asking it to.
//!
//! Paths of revisions that follow each other are one set, so that a cache that is behind is asked for each path once. What
//! a cache did not take is kept and asked for again with the next revision; until then its copies live as long as the
//! `s-maxage` they came with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;
use url::Url;

use super::{TargetStatus, backoff, health::Health};
use crate::{
    metrics::Metrics,
    notify::{Messenger, NotifyError},
    settings::TargetUrl,
};

/// How long a cache may take for one path; it fetches it from us meanwhile.
const LIMIT: Duration = Duration::from_secs(1);
/// Sweeps over what is due, the first included.
const TRIES: u32 = 3;
/// Before the second sweep at most; doubled per sweep, full jitter.
const BACKOFF: Duration = Duration::from_millis(200);
/// Paths that may be due. Four for each environment and one for each connection are usual.
const PATHS_MAX: usize = 10_000;

#[derive(Default)]
struct Due {
    /// When each path was last said to be due, as a number that rises.
    paths: BTreeMap<String, u64>,
    number: u64,
    /// Whether anything came since the last round began.
    is_new: bool,
}

/// One of `publish.purge_targets`; outlives the actor's incarnations.
pub(super) struct Cache {
    base: Url,
    due: Mutex<Due>,
    health: Health,
}

impl Cache {
    /// `None` for an address that the settings' check has refused.
    pub(super) fn new(target: &TargetUrl, metrics: &Arc<Metrics>) -> Option<Self> {
        Some(Self {
            base: target.url()?.clone(),
            due: Mutex::default(),
            health: Health::new("cache", target.shown(), Arc::clone(metrics)),
        })
    }

    /// These paths have other bytes now.
    pub(super) fn add(&self, paths: &[String]) {
        let mut due = self.due.lock();
        let mut dropped = 0;
        for path in paths {
            due.number += 1;
            let number = due.number;
            if due.paths.len() < PATHS_MAX || due.paths.contains_key(path) {
                due.paths.insert(path.clone(), number);
            } else {
                dropped += 1;
            }
        }
        due.is_new = !due.paths.is_empty();
        drop(due);
        if dropped > 0 {
            self.count("dropped", dropped);
        }
        self.show_queued();
    }

    /// Whether there is anything to ask for that was not given up.
    pub(super) fn has_news(&self) -> bool {
        self.due.lock().is_new
    }

    /// An incarnation begins: what the one before was at is to be asked for again.
    pub(super) fn resume(&self) {
        let mut due = self.due.lock();
        due.is_new = !due.paths.is_empty();
    }

    /// Asks until everything has been taken or given up.
    pub(super) async fn work(&self, messenger: &Messenger) {
        while std::mem::take(&mut self.due.lock().is_new) {
            self.round(messenger).await;
        }
    }

    async fn round(&self, messenger: &Messenger) {
        let (mut refusal, mut silent) = (None, BTreeSet::new());
        for number in 0..TRIES {
            if number > 0 {
                sleep(backoff(BACKOFF, number - 1)).await;
            }
            let passing = self.sweep(messenger, &mut refusal, &mut silent).await;
            let is_last = number + 1 == TRIES;
            match (passing, &refusal) {
                (None, None) => return self.health.is_well(),
                (None, Some(refusal)) => return self.health.failed(refusal),
                (Some(failure), _) if is_last => {
                    self.count("failed", self.due.lock().paths.len());
                    self.health.failed(&failure);
                }
                (Some(_), _) => {}
            }
        }
    }

    /// Asks for everything that is due, once; gives a failure that another try may mend.
    ///
    /// A path that was `silent` comes last: the cache may be well, and slow with this one alone.
    async fn sweep(
        &self,
        messenger: &Messenger,
        refusal: &mut Option<NotifyError>,
        silent: &mut BTreeSet<String>,
    ) -> Option<NotifyError> {
        let mut due: Vec<(String, u64)> = {
            let due = self.due.lock();
            due.paths.iter().map(|(p, n)| (p.clone(), *n)).collect()
        };
        due.sort_by_key(|(path, _)| silent.contains(path));
        let mut passing = None;
        for (path, number) in due {
            match messenger.purge(&self.base, &path, LIMIT).await {
                Ok(()) => {
                    self.is_done(&path, number, "purged");
                    self.health.succeeded();
                }
                Err(failure) if failure.is_retryable() => {
                    let is_silence = failure.is_silence();
                    passing = Some(failure);
                    // Each further path would wait as long.
                    if is_silence {
                        silent.insert(path);
                        break;
                    }
                }
                Err(failure) => {
                    self.is_done(&path, number, "failed");
                    *refusal = Some(failure);
                }
            }
        }
        passing
    }

    /// Forgets a path, unless it has changed again meanwhile.
    fn is_done(&self, path: &str, number: u64, outcome: &'static str) {
        let mut due = self.due.lock();
        if due.paths.get(path) == Some(&number) {
            due.paths.remove(path);
        }
        drop(due);
        self.count(outcome, 1);
        self.show_queued();
    }

    fn count(&self, outcome: &'static str, paths: usize) {
        let metrics = self.health.metrics();
        metrics.purged(self.health.shown(), outcome, paths);
    }

    fn show_queued(&self) {
        let queued = self.due.lock().paths.len();
        let metrics = self.health.metrics();
        metrics.publish_queued(self.health.shown(), queued);
    }

    /// Nothing can be sent to it at all.
    pub(super) fn failed(&self, error: &NotifyError) {
        self.health.failed(error);
    }

    pub(super) fn status(&self) -> TargetStatus {
        self.health.status(self.due.lock().paths.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> Cache {
        let target = TargetUrl::from("http://127.0.0.1:9".to_owned());
        Cache::new(&target, &Arc::default()).unwrap()
    }

    #[test]
    fn what_is_due_is_a_set_with_a_bound() {
        let cache = cache();
        assert!(!cache.has_news());
        for round in 0..3 {
            let paths: Vec<String> = (0..PATHS_MAX).map(|n| format!("/{n}")).collect();
            cache.add(&paths);
            assert_eq!(cache.status().queued, PATHS_MAX, "{round}");
        }
        cache.add(&["/one-more".to_owned()]);
        assert_eq!(cache.status().queued, PATHS_MAX);
        let text = cache.health.metrics().encode();
        let dropped = "outcome=\"dropped\"} 1\n";
        assert!(text.contains(dropped), "{text}");
    }

    #[test]
    fn a_path_that_changes_while_it_is_fetched_stays_due() {
        let cache = cache();
        cache.add(&["/a".to_owned(), "/b".to_owned()]);
        let asked: Vec<_> = cache.due.lock().paths.clone().into_iter().collect();
        cache.add(&["/a".to_owned()]);
        for (path, number) in asked {
            cache.is_done(&path, number, "purged");
        }
        let left: Vec<String> = cache.due.lock().paths.keys().cloned().collect();
        assert_eq!(left, ["/a"]);
    }
}
