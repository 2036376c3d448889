//! Where tokens are kept: what is read at a start, what is looked for, what is still to be written where.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use super::Tokens;
use crate::{
    actors::Board,
    clock,
    metrics::Metrics,
    model::{Token, TokenId},
    store::{Outage, Store, StoreError, TOKENS_PER_WRITE},
};

/// How long a change waits for the database before it is written to the backup instead.
const DATABASE_LIMIT: Duration = Duration::from_millis(150);
/// How long it then waits for the backup before it is answered without a durable copy.
const BACKUP_LIMIT: Duration = Duration::from_millis(250);
/// How often a write is tried when other replicas are faster each time; the next tick goes on.
const ATTEMPTS_MAX: usize = 5;
/// The backup is one file: with more tokens than these it is written so often at most while the database has every change.
const SMALL: usize = 10_000;
const BACKUP_EVERY: Duration = Duration::from_secs(10);
/// How long a token that does not count any more is remembered, so that operators see what became of it.
const KEPT_ENDED: Duration = Duration::from_hours(30 * 24);
/// How often older ones are deleted.
const DELETE_EVERY: Duration = Duration::from_hours(1);

/// Everything that outlives one incarnation of the `TokenActor`.
pub struct TokenContext {
    store: Store,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    /// Version up to which the database was read.
    seen: AtomicI64,
    /// How often the database had been replaced by then.
    replaced: AtomicU64,
    /// Ids read so far, while the database is read for the first time; `None`: it was read.
    first_read: Mutex<Option<HashSet<TokenId>>>,
    /// When the backup that was read was written, as Unix milliseconds.
    backup_from_ms: i64,
    /// Whether the database was asked once, with or without success.
    is_asked: watch::Sender<bool>,
    /// Counts what the backup should know, and how much of that it does.
    changes: AtomicU64,
    backed_up: AtomicU64,
    backed_up_at: Mutex<Option<Instant>>,
    /// One backup at a time: an older list must not become the newest file.
    backing_up: tokio::sync::Mutex<()>,
    deleted_at: Mutex<Option<Instant>>,
    /// One look or write at a time.
    working: tokio::sync::Mutex<()>,
}

impl TokenContext {
    /// Reads the backup; to be made before any actor runs. The database is the actor's to read.
    pub async fn load(
        store: Store,
        board: Arc<Board>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, StoreError> {
        let found = store.backup().load_tokens().await;
        let newest = found.as_ref().ok().and_then(|found| found.value.as_ref());
        let context = Self {
            backup_from_ms: newest.map_or(0, |backup| backup.written_at_ms),
            store,
            board,
            metrics,
            seen: AtomicI64::new(0),
            replaced: AtomicU64::new(0),
            first_read: Mutex::new(Some(HashSet::new())),
            is_asked: watch::Sender::new(false),
            changes: AtomicU64::new(0),
            backed_up: AtomicU64::new(0),
            backed_up_at: Mutex::default(),
            backing_up: tokio::sync::Mutex::default(),
            deleted_at: Mutex::default(),
            working: tokio::sync::Mutex::default(),
        };
        match found {
            Ok(found) => {
                for note in found.notes {
                    warn!("{note}");
                }
                for stored in found.value.into_iter().flat_map(|backup| backup.tokens) {
                    context.tokens().restore(stored);
                }
            }
            Err(error) => warn!(
                "the tokens in the backup cannot be read: {}",
                error.explain()
            ),
        }
        Ok(Arc::new(context))
    }

    /// The tokens.
    pub fn tokens(&self) -> &Tokens {
        self.board.tokens()
    }

    /// Waits until the database was asked which tokens there are, at most so long.
    pub async fn until_asked(&self, limit: Duration) {
        let mut is_asked = self.is_asked.subscribe();
        // Too late, or not at all: the backup counts until then.
        drop(timeout(limit, is_asked.wait_for(|is_asked| *is_asked)).await);
    }

    /// Looks for what others wrote, and writes what is unwritten.
    pub(super) async fn work(&self) {
        let one_at_a_time = self.working.lock().await;
        if let Err(error) = self.work_with_database().await {
            debug!(
                "tokens are still to be read or written: {}",
                error.explain()
            );
        }
        self.is_asked.send_replace(true);
        let is_due = self.tokens().len() <= SMALL
            || self
                .backed_up_at
                .lock()
                .is_none_or(|at| at.elapsed() >= BACKUP_EVERY);
        if self.is_backup_behind() && is_due {
            self.write_backup().await;
        }
        drop(one_at_a_time);
        let tokens = self.tokens();
        self.metrics.tokens(tokens.len(), tokens.count_unwritten());
    }

    /// Writes a change once; `true` when that is durable.
    pub(super) async fn keep(&self, id: TokenId) -> bool {
        self.changes.fetch_add(1, Ordering::Relaxed);
        let token = self.tokens().get(id).into_iter().collect();
        if let Ok(Ok(())) = timeout(DATABASE_LIMIT, self.write(token)).await {
            return true;
        }
        timeout(BACKUP_LIMIT, self.write_backup())
            .await
            .unwrap_or(false)
    }

    async fn work_with_database(&self) -> Result<(), StoreError> {
        self.look().await?;
        loop {
            let before = self.tokens().count_unwritten();
            if before == 0 {
                return self.delete_ended().await;
            }
            self.write(self.tokens().unwritten(TOKENS_PER_WRITE))
                .await?;
            // Changed meanwhile, or not taken as they are: the next tick goes on.
            if self.tokens().count_unwritten() >= before {
                return Ok(());
            }
        }
    }

    /// Reads what is behind the version that was seen: one question where there is no news.
    async fn look(&self) -> Result<(), StoreError> {
        let database = self.store.database();
        self.metrics.database_read("tokens");
        let highest = database.tokens_version().await?;
        let mut seen = self.seen.load(Ordering::Relaxed);
        let mut is_news = false;
        let replaced = database.times_replaced();
        let is_replaced = self.replaced.swap(replaced, Ordering::Relaxed) != replaced;
        if highest < seen {
            warn!(
                "the database has fewer tokens than before; those that are known here are written to it again"
            );
        }
        if is_replaced || highest < seen {
            self.tokens().all_unwritten();
            seen = 0;
            self.seen.store(0, Ordering::Relaxed);
        }
        while seen < highest {
            self.metrics.database_read("tokens");
            let page = database.tokens_after(seen).await?;
            page.notes.iter().for_each(|note| warn!("{note}"));
            for stored in page.tokens {
                if let Some(ids) = &mut *self.first_read.lock() {
                    ids.insert(stored.token.id);
                }
                self.tokens().restore(stored);
                is_news = true;
            }
            seen = page.version;
            self.seen.store(seen, Ordering::Relaxed);
            if !page.has_more {
                break;
            }
        }
        if let Some(ids) = self.first_read.lock().take() {
            is_news |= self.reconcile(&ids);
            self.tokens().set_loaded();
        }
        if is_news {
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.tokens().announce();
        }
        Ok(())
    }

    /// What only the backup has: the database keeps a token for a month after its end, so one that is missing there was
    /// lost with it, and is written again. A backup older than that may not know an end: then the database's word counts.
    fn reconcile(&self, in_database: &HashSet<TokenId>) -> bool {
        let age_ms = clock::now_ms().saturating_sub(self.backup_from_ms);
        let tokens = self.tokens();
        if u128::try_from(age_ms).is_ok_and(|age_ms| age_ms < KEPT_ENDED.as_millis()) {
            tokens.unwritten_but(|id| in_database.contains(&id))
        } else {
            tokens.retain_written(|id| in_database.contains(&id))
        }
    }

    async fn write(&self, tokens: Vec<Token>) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(saved) = self.store.database().save_tokens(tokens.clone()).await? else {
                continue;
            };
            for stored in saved {
                if let Some(ids) = &mut *self.first_read.lock() {
                    ids.insert(stored.token.id);
                }
                self.tokens().restore(stored);
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        Err(StoreError::Unavailable {
            source: Outage::Contended,
        })
    }

    fn is_backup_behind(&self) -> bool {
        self.backed_up.load(Ordering::Relaxed) < self.changes.load(Ordering::Relaxed)
    }

    async fn write_backup(&self) -> bool {
        let one_at_a_time = self.backing_up.lock().await;
        // Whatever changes from here on is written next time; what is cut short counts for nothing.
        let changes = self.changes.load(Ordering::Relaxed);
        let all = self.tokens().all();
        let written = self.store.backup().write_tokens(all, clock::now_ms()).await;
        *self.backed_up_at.lock() = Some(Instant::now());
        match &written {
            Ok(()) => drop(self.backed_up.fetch_max(changes, Ordering::Relaxed)),
            Err(error) => debug!("tokens are not in the backup: {}", error.explain()),
        }
        drop(one_at_a_time);
        written.is_ok()
    }

    async fn delete_ended(&self) -> Result<(), StoreError> {
        let is_due = self
            .deleted_at
            .lock()
            .is_none_or(|at| at.elapsed() >= DELETE_EVERY);
        if !is_due {
            return Ok(());
        }
        let kept_ms = i64::try_from(KEPT_ENDED.as_millis()).unwrap_or(i64::MAX);
        let before_ms = clock::now_ms().saturating_sub(kept_ms);
        let deleted = self.store.database().delete_tokens(before_ms).await?;
        self.tokens().forget_ended(before_ms);
        *self.deleted_at.lock() = Some(Instant::now());
        if deleted > 0 {
            info!(
                tokens = deleted,
                "deleted {deleted} tokens that ended a month ago"
            );
        }
        Ok(())
    }
}
