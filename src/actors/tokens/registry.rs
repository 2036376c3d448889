//! Every token in memory: what a request's secret stands for, without asking anybody.
//!
//! Part of the board, so it outlives every incarnation of the `TokenActor`, which alone writes it. A lookup takes one shard's
//! lock for as long as it takes to copy a few words.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dashmap::{DashMap, mapref::entry::Entry};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    eval::Dialect,
    model::{
        Scope, Token, TokenId, TokenKind, Validity,
        token::{Verifier, selector, verifier},
    },
    store::StoredToken,
};

/// Most tokens there may be.
pub const TOKENS_MAX: usize = 1_000_000;
/// Unknown selectors remembered.
const UNKNOWN_SLOTS: usize = 4096;

/// What a token stands for, as far as a request needs it.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The token.
    pub id: TokenId,
    /// Hash of the secret that was shown.
    pub proof: Verifier,
    /// What it is for.
    pub kind: TokenKind,
    /// What it may see.
    pub scope: Arc<Scope>,
    /// Dialect of its users; `None`: the environment's.
    pub dialect: Option<Dialect>,
    /// The limit that its requests count against.
    pub rate_class: Option<Arc<str>>,
}

/// Why a secret is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It is no secret of ours.
    Unknown,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
    /// Nobody has read yet which tokens there are.
    NotLoaded,
}

/// A token, and whether the database has it as it is here.
struct Kept {
    token: Token,
    is_written: bool,
}

/// All tokens.
pub struct Tokens {
    by_id: DashMap<TokenId, Kept>,
    /// Those that the database does not have as they are here.
    unwritten: Mutex<BTreeSet<TokenId>>,
    shared: Mutex<Shared>,
    unknown: Unknown,
    /// Counts changes; whoever holds a stream open looks after each whether its token still counts.
    changed: watch::Sender<u64>,
    is_loaded: AtomicBool,
    look: Notify,
}

/// What many tokens have in common, each kept once.
#[derive(Default)]
struct Shared {
    scopes: Once<Scope>,
    words: Once<str>,
}

impl Shared {
    fn take_in(&mut self, token: &mut Token) {
        token.scope = self.scopes.kept(&token.scope);
        token.created_by = self.words.kept(&token.created_by);
        if let Some(class) = &mut token.rate_class {
            *class = self.words.kept(class);
        }
    }
}

/// Values of which each is kept once, as long as somebody uses it.
struct Once<T: ?Sized> {
    kept: BTreeSet<Arc<T>>,
    /// With so many, what nobody uses any more is dropped.
    tidy_at: usize,
}

impl<T: ?Sized + Ord> Default for Once<T> {
    fn default() -> Self {
        Self {
            kept: BTreeSet::new(),
            tidy_at: 1024,
        }
    }
}

impl<T: ?Sized + Ord> Once<T> {
    /// The one that is kept of equal values.
    fn kept(&mut self, value: &Arc<T>) -> Arc<T> {
        if let Some(known) = self.kept.get(value) {
            return Arc::clone(known);
        }
        if self.kept.len() >= self.tidy_at {
            self.kept.retain(|kept| Arc::strong_count(kept) > 1);
            // Looked through once per doubling, so that many values cost each its own share.
            self.tidy_at = (2 * self.kept.len()).max(1024);
        }
        self.kept.insert(Arc::clone(value));
        Arc::clone(value)
    }
}

/// Selectors that were asked for and are nobody's, so that a client with an old secret does not have the database asked at
/// each request. Of fixed size: a selector takes the place of whichever had it.
struct Unknown(Box<[AtomicU64]>);

impl Unknown {
    /// Notes a selector; `true` where it was not noted already.
    fn note(&self, id: TokenId) -> bool {
        let (place, mark) = id.bytes().split_at(8);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let slots = self.0.len() as u64;
        let place = usize::try_from(number(place) % slots).expect("it is below a length");
        // 0 marks an empty place.
        let mark = number(mark) | 1;
        self.0[place].swap(mark, Ordering::Relaxed) != mark
    }

    fn clear(&self) {
        for slot in &self.0 {
            slot.store(0, Ordering::Relaxed);
        }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            by_id: DashMap::new(),
            unwritten: Mutex::default(),
            shared: Mutex::default(),
            unknown: Unknown((0..UNKNOWN_SLOTS).map(|_| AtomicU64::new(0)).collect()),
            changed: watch::Sender::new(0),
            is_loaded: AtomicBool::new(false),
            look: Notify::new(),
        }
    }
}

impl Tokens {
    /// What a secret stands for.
    ///
    /// One that is unknown may be of a token that another replica has just made: the first time it is seen the database is
    /// looked into at once instead of within a second.
    pub fn find(&self, secret: &str, now_ms: i64) -> Result<Pass, Denial> {
        let id = selector(secret).ok_or(Denial::Unknown)?;
        let Some(kept) = self.by_id.get(&id) else {
            if self.unknown.note(id) {
                self.look.notify_one();
            }
            let is_loaded = self.is_loaded.load(Ordering::Relaxed);
            return Err(if is_loaded {
                Denial::Unknown
            } else {
                Denial::NotLoaded
            });
        };
        let token = &kept.token;
        let proof = verifier(secret);
        if !token.is_proven_by(&proof, now_ms) {
            return Err(Denial::Unknown);
        }
        match token.validity(now_ms) {
            Validity::Valid => Ok(pass(token, proof)),
            Validity::Expired => Err(Denial::Expired),
            Validity::Revoked => Err(Denial::Revoked),
        }
    }

    /// A token that counts, as does the secret that was shown before.
    pub fn standing(&self, id: TokenId, proof: &Verifier, now_ms: i64) -> Option<Pass> {
        let kept = self.by_id.get(&id)?;
        let token = &kept.token;
        let stands = token.validity(now_ms) == Validity::Valid && token.is_proven_by(proof, now_ms);
        stands.then(|| pass(token, *proof))
    }

    /// Hashes of the secrets of a token that count: keys that every replica has.
    pub fn verifiers_of(&self, id: TokenId, now_ms: i64) -> Vec<Verifier> {
        let Some(kept) = self.by_id.get(&id) else {
            return Vec::new();
        };
        let former = kept.token.former.as_ref();
        let former = former.filter(|former| former.until_ms > now_ms);
        let former = former.map(|former| former.verifier);
        [kept.token.verifier].into_iter().chain(former).collect()
    }

    /// A token as it is.
    pub fn get(&self, id: TokenId) -> Option<Token> {
        Some(self.by_id.get(&id)?.token.clone())
    }

    /// Up to `limit` tokens behind an id, sorted by id.
    pub fn list(&self, after: Option<TokenId>, limit: usize) -> Vec<Token> {
        let ids = self.by_id.iter().map(|kept| *kept.key());
        let mut ids: Vec<TokenId> = ids
            .filter(|id| after.is_none_or(|after| *id > after))
            .collect();
        ids.sort_unstable();
        ids.truncate(limit);
        ids.into_iter().filter_map(|id| self.get(id)).collect()
    }

    /// How many there are, those included that do not count any more.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A receiver that is told of each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether it was read which tokens there are.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Relaxed)
    }

    /// Notes that it was.
    pub(super) fn set_loaded(&self) {
        self.is_loaded.store(true, Ordering::Relaxed);
    }

    /// Fires when somebody shows a secret that is not known yet.
    pub(super) async fn wanted(&self) {
        self.look.notified().await;
    }

    /// Puts a change of ours in force; the database does not have it yet.
    pub(super) fn change(&self, token: Token) {
        self.merge(token, false);
        self.announce();
    }

    /// Takes in what was read from the database or the backup, or written there; whoever does so calls [`Self::announce`]
    /// behind.
    pub(super) fn restore(&self, stored: StoredToken) {
        self.merge(stored.token, stored.version > 0);
    }

    /// Wakes whoever holds a stream open, and forgets which selectors were unknown.
    pub(super) fn announce(&self) {
        self.unknown.clear();
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Up to `limit` tokens that the database does not have as they are here.
    pub(super) fn unwritten(&self, limit: usize) -> Vec<Token> {
        let ids: Vec<TokenId> = self.unwritten.lock().iter().take(limit).copied().collect();
        ids.into_iter().filter_map(|id| self.get(id)).collect()
    }

    /// How many those are.
    pub(super) fn count_unwritten(&self) -> usize {
        self.unwritten.lock().len()
    }

    /// All of them, as the backup keeps them.
    pub(super) fn all(&self) -> Vec<StoredToken> {
        let stored = |token: &Token, is_written: bool| StoredToken {
            token: token.clone(),
            version: i64::from(is_written),
        };
        self.by_id
            .iter()
            .map(|kept| stored(&kept.token, kept.is_written))
            .collect()
    }

    /// Notes that the database has none of them any more.
    pub(super) fn all_unwritten(&self) {
        self.unwritten_but(|_| false);
    }

    /// Notes which the database has no more; `false`: there was nothing of the kind.
    pub(super) fn unwritten_but(&self, is_there: impl Fn(TokenId) -> bool) -> bool {
        let mut is_news = false;
        for mut kept in self.by_id.iter_mut() {
            let id = *kept.key();
            if kept.is_written && !is_there(id) {
                kept.is_written = false;
                self.unwritten.lock().insert(id);
                is_news = true;
            }
        }
        is_news
    }

    /// Drops what the database had and has no more; `false`: there was nothing of the kind.
    pub(super) fn retain_written(&self, is_there: impl Fn(TokenId) -> bool) -> bool {
        let before = self.by_id.len();
        self.by_id
            .retain(|id, kept| !kept.is_written || is_there(*id));
        self.by_id.len() < before
    }

    /// Drops tokens that have not counted since a moment, in Unix milliseconds.
    pub(super) fn forget_ended(&self, before_ms: i64) {
        let is_over = |at: Option<i64>| at.is_some_and(|at| at < before_ms);
        self.by_id.retain(|_, kept| {
            !kept.is_written
                || (!is_over(kept.token.revoked_at_ms) && !is_over(kept.token.expires_at_ms))
        });
    }

    /// Lays a copy of a token over what is known of it. It counts as written where one that is in the database says all.
    fn merge(&self, mut token: Token, is_written: bool) {
        self.shared.lock().take_in(&mut token);
        let id = token.id;
        let is_written = match self.by_id.entry(id) {
            Entry::Occupied(mut kept) => {
                let kept = kept.get_mut();
                let merged = kept.token.clone().merged(token.clone());
                kept.is_written =
                    (is_written && merged == token) || (kept.is_written && merged == kept.token);
                kept.token = merged;
                kept.is_written
            }
            Entry::Vacant(place) => {
                place.insert(Kept { token, is_written });
                is_written
            }
        };
        let mut unwritten = self.unwritten.lock();
        if is_written {
            unwritten.remove(&id);
        } else {
            unwritten.insert(id);
        }
    }
}

fn pass(token: &Token, proof: Verifier) -> Pass {
    Pass {
        id: token.id,
        proof,
        kind: token.kind,
        scope: Arc::clone(&token.scope),
        dialect: token.dialect,
        rate_class: token.rate_class.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Projects, token::secret};

    fn token(number: u8, projects: &str) -> (Token, String) {
        let id = TokenId::new([number; 16]);
        let scope = Scope {
            environment: "production".into(),
            projects: Projects::from_names([projects]).unwrap(),
        };
        let secret = secret(TokenKind::Frontend, &scope, id, &[number; 32]);
        let token = Token {
            id,
            kind: TokenKind::Frontend,
            scope: Arc::new(scope),
            dialect: None,
            rate_class: None,
            created_by: "ops".into(),
            created_at_ms: 0,
            changed_at_ms: 1,
            expires_at_ms: None,
            revoked_at_ms: None,
            verifier: verifier(&secret),
            former: None,
        };
        (token, secret)
    }

    #[test]
    fn a_secret_is_found_and_nothing_that_looks_like_it() {
        let tokens = Tokens::default();
        let (token, secret) = token(1, "shop");
        assert_eq!(tokens.find(&secret, 0).unwrap_err(), Denial::NotLoaded);
        tokens.set_loaded();
        assert_eq!(tokens.find(&secret, 0).unwrap_err(), Denial::Unknown);
        tokens.change(token.clone());
        let pass = tokens.find(&secret, 0).unwrap();
        assert_eq!(pass.scope.projects.names(), ["shop"]);
        let other = secret.replace("shop:", "other:");
        assert_eq!(tokens.find(&other, 0).unwrap_err(), Denial::Unknown);
        tokens.change(Token {
            expires_at_ms: Some(10),
            changed_at_ms: 2,
            ..token.clone()
        });
        let proof = verifier(&secret);
        assert!(tokens.find(&secret, 9).is_ok() && tokens.standing(token.id, &proof, 9).is_some());
        assert_eq!(tokens.find(&secret, 10).unwrap_err(), Denial::Expired);
        tokens.change(Token {
            revoked_at_ms: Some(3),
            changed_at_ms: 3,
            ..token.clone()
        });
        assert_eq!(tokens.find(&secret, 9).unwrap_err(), Denial::Revoked);
        assert!(tokens.standing(token.id, &proof, 9).is_none());
    }

    #[test]
    fn scopes_are_kept_once_however_many_tokens_have_them() {
        let tokens = Tokens::default();
        for number in 0..100 {
            tokens.change(token(number, "shop").0);
        }
        let scopes: BTreeSet<_> = (0..100)
            .map(|number| tokens.get(TokenId::new([number; 16])).unwrap().scope)
            .map(|scope| Arc::as_ptr(&scope).addr())
            .collect();
        assert_eq!(scopes.len(), 1);
    }

    #[test]
    fn what_is_not_written_yet_is_not_lost_to_an_older_row() {
        let tokens = Tokens::default();
        let (old, _) = token(1, "shop");
        let revoked = Token {
            revoked_at_ms: Some(5),
            changed_at_ms: 5,
            ..old.clone()
        };
        tokens.change(revoked.clone());
        tokens.restore(StoredToken {
            token: old.clone(),
            version: 7,
        });
        assert_eq!(tokens.unwritten(10), std::slice::from_ref(&revoked));
        tokens.restore(StoredToken {
            token: revoked.clone(),
            version: 8,
        });
        assert_eq!(tokens.count_unwritten(), 0);
        // An older row that was on its way meanwhile changes nothing.
        tokens.restore(StoredToken {
            token: old.clone(),
            version: 7,
        });
        assert_eq!(tokens.get(old.id), Some(revoked));
        assert_eq!(tokens.count_unwritten(), 0);
        assert!(!tokens.retain_written(|id| id == old.id));
        assert!(tokens.retain_written(|_| false) && tokens.is_empty());
    }

    #[test]
    fn an_unknown_selector_is_looked_for_once() {
        let unknown = Tokens::default().unknown;
        let id = TokenId::new([9; 16]);
        assert!(unknown.note(id) && !unknown.note(id));
        unknown.clear();
        assert!(unknown.note(id));
    }
}
