//! One receiver of webhooks: what it is still to be sent, in order, and sending it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use secrecy::SecretSlice;
use tokio::time::sleep;
use url::Url;

use super::{TargetStatus, backoff, health::Health};
use crate::{
    clock,
    metrics::Metrics,
    notify::{Message, Messenger, NotifyError},
    settings::WebhookTarget,
};

/// How long a receiver may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Times that one webhook is sent, the first included.
const TRIES: u32 = 5;
/// Before the second try at most; doubled per try, full jitter. `Retry-After` makes it longer.
const BACKOFF: Duration = Duration::from_millis(500);
/// Webhooks that may wait. Who is this far behind reads the revision that is served instead.
pub(super) const QUEUE_MAX: usize = 64;

struct Entry {
    number: u64,
    message: Arc<Message>,
    tries: u32,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    number: u64,
}

/// One of `publish.webhooks`; outlives the actor's incarnations.
pub(super) struct Receiver {
    url: Url,
    key: SecretSlice<u8>,
    queue: Mutex<Queue>,
    health: Health,
}

impl Receiver {
    /// `None` for an address or a secret that the settings' check has refused.
    pub(super) fn new(target: &WebhookTarget, metrics: &Arc<Metrics>) -> Option<Self> {
        Some(Self {
            url: target.url.url()?.clone(),
            key: target.signing_key()?,
            queue: Mutex::default(),
            health: Health::new("webhook", target.url.shown(), Arc::clone(metrics)),
        })
    }

    /// Something to send; the oldest goes where too much waits.
    pub(super) fn add(&self, message: &Arc<Message>) {
        let mut queue = self.queue.lock();
        queue.number += 1;
        let entry = Entry {
            number: queue.number,
            message: Arc::clone(message),
            tries: 0,
        };
        queue.entries.push_back(entry);
        let is_over = queue.entries.len() > QUEUE_MAX;
        if is_over {
            queue.entries.pop_front();
        }
        drop(queue);
        if is_over {
            self.count("dropped");
        }
        self.show_queued();
    }

    /// Whether anything waits.
    pub(super) fn has_news(&self) -> bool {
        !self.queue.lock().entries.is_empty()
    }

    /// Sends until nothing waits.
    pub(super) async fn work(&self, messenger: &Messenger) {
        while let Some(number) = self.first() {
            let sent = self.deliver(messenger, number).await;
            self.queue
                .lock()
                .entries
                .retain(|entry| entry.number != number);
            match sent {
                Some(Ok(())) => {
                    self.count("delivered");
                    self.health.succeeded();
                    self.health.is_well();
                }
                Some(Err(failure)) => {
                    self.count("failed");
                    self.health.failed(&failure);
                }
                // Counted when it was dropped.
                None => {}
            }
            self.show_queued();
        }
    }

    fn first(&self) -> Option<u64> {
        Some(self.queue.lock().entries.front()?.number)
    }

    /// Sends one webhook as often as it takes; `None`: it was dropped meanwhile.
    async fn deliver(&self, messenger: &Messenger, number: u64) -> Option<Result<(), NotifyError>> {
        loop {
            let (message, tries) = self.begin_try(number)?;
            let seconds = clock::now().unix_timestamp();
            let sent = messenger
                .post(&self.url, &self.key, &message, seconds, LIMIT)
                .await;
            match sent {
                Err(failure) if failure.is_retryable() && tries < TRIES => {
                    let asked = failure.retry_after().unwrap_or_default();
                    sleep(backoff(BACKOFF, tries - 1).max(asked)).await;
                }
                sent => return Some(sent),
            }
        }
    }

    /// A webhook that still waits, and how often it will have been sent, counting this time.
    fn begin_try(&self, number: u64) -> Option<(Arc<Message>, u32)> {
        let mut queue = self.queue.lock();
        let mut entries = queue.entries.iter_mut();
        let entry = entries.find(|entry| entry.number == number)?;
        entry.tries += 1;
        Some((Arc::clone(&entry.message), entry.tries))
    }

    fn count(&self, outcome: &'static str) {
        let metrics = self.health.metrics();
        metrics.webhooks_sent(self.health.shown(), outcome, 1);
    }

    fn show_queued(&self) {
        let queued = self.queue.lock().entries.len();
        let metrics = self.health.metrics();
        metrics.publish_queued(self.health.shown(), queued);
    }

    /// Nothing can be sent to it at all.
    pub(super) fn failed(&self, error: &NotifyError) {
        self.health.failed(error);
    }

    pub(super) fn status(&self) -> TargetStatus {
        self.health.status(self.queue.lock().entries.len())
    }
}
