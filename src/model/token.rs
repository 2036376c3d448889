//! Tokens: what a client shows to be answered, and what of an environment it may then see.
//!
//! A secret is `<prefix><selector>_<random>`: the prefix says what kind it is and, for frontend tokens, the environment and
//! the projects as Unleash spells them; the selector (22 characters, the token's id) finds the token; the rest is known to
//! the client alone. What is kept of a secret is its hash, compared in constant time.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::eval::Dialect;

/// Bytes of a selector.
const ID_BYTES: usize = 16;
/// Characters of a selector: base64url without padding.
const ID_CHARS: usize = 22;
/// Random bytes behind the selector.
pub const SECRET_BYTES: usize = 32;
/// Characters of those.
const SECRET_CHARS: usize = 43;
/// The name that stands for every project.
pub const ALL_PROJECTS: &str = "*";
/// What a frontend token begins with whose projects are several.
const SEVERAL_PROJECTS: &str = "[]";

/// A token's id; also the selector in its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; ID_BYTES]);

impl TokenId {
    /// An id of random bytes.
    pub fn new(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads the 22 characters.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; ID_BYTES];
        // Asked for the length first: a slice that does not fit would be an error of another kind.
        if text.len() != ID_CHARS {
            return None;
        }
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (read == ID_BYTES).then_some(Self(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// GrowthBook's SDKs; in browsers and apps, so hardly a secret.
    Client,
    /// Servers: snapshots, decisions, intake.
    Server,
    /// Unleash's frontend SDKs.
    Frontend,
}

impl TokenKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Frontend];

    /// The word used in calls and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Frontend => "frontend",
        }
    }

    /// Reads that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Projects of GrowthBook that a token may see.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projects {
    /// Every project, and features of which no project is known.
    All,
    /// These alone; sorted, each once.
    Some(Box<[Box<str>]>),
}

impl Projects {
    /// Reads a list of project ids; one that has `*` is all. `None`: the list is empty.
    pub fn from_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<Self> {
        let mut listed: Vec<Box<str>> = names.into_iter().map(Into::into).collect();
        if listed.iter().any(|name| **name == *ALL_PROJECTS) {
            return Some(Self::All);
        }
        listed.sort_unstable();
        listed.dedup();
        (!listed.is_empty()).then(|| Self::Some(listed.into()))
    }

    /// As lists spell it.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::All => vec![ALL_PROJECTS],
            Self::Some(names) => names.iter().map(|name| &**name).collect(),
        }
    }

    /// Whether what belongs to any of these projects may be seen.
    pub fn sees<'p>(&self, mut projects: impl Iterator<Item = &'p str>) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => projects.any(|project| {
                let found = names.binary_search_by(|name| (**name).cmp(project));
                found.is_ok()
            }),
        }
    }
}

/// What a token may see. All tokens with the same scope share one, and what is derived from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// Whose configuration.
    pub environment: Arc<str>,
    /// Which part of it.
    pub projects: Projects,
}

/// Hash of a secret.
pub type Verifier = [u8; 32];

/// The hash that is kept of a secret.
pub fn verifier(secret: &str) -> Verifier {
    Sha256::digest(secret.as_bytes()).into()
}

/// The secret before the last rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Hash of it.
    pub verifier: Verifier,
    /// Unix milliseconds from which on it does not count any more.
    pub until_ms: i64,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its selector.
    pub id: TokenId,
    /// What it is for.
    pub kind: TokenKind,
    /// What it may see.
    pub scope: Arc<Scope>,
    /// Dialect in which its users are evaluated; `None`: the environment's.
    pub dialect: Option<Dialect>,
    /// Name of the limit in the settings that its requests count against.
    pub rate_class: Option<Arc<str>>,
    /// Name of the admin token that made it.
    pub created_by: Arc<str>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// When it was last made, rotated or revoked, as Unix milliseconds; only rises.
    pub changed_at_ms: i64,
    /// Unix milliseconds from which on it does not count any more.
    pub expires_at_ms: Option<i64>,
    /// When it was revoked; for good.
    pub revoked_at_ms: Option<i64>,
    /// Hash of its secret.
    pub verifier: Verifier,
    /// The secret before, while that still counts.
    pub former: Option<Box<Former>>,
}

/// Why a token does not count, or that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It counts.
    Valid,
    /// Its time is over.
    Expired,
    /// Somebody took it back.
    Revoked,
}

impl Token {
    /// Whether it counts at a time, whatever secret is shown.
    pub fn validity(&self, now_ms: i64) -> Validity {
        if self.revoked_at_ms.is_some() {
            Validity::Revoked
        } else if self.expires_at_ms.is_some_and(|at| at <= now_ms) {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }

    /// Whether a secret with this hash is its own, or the one before for as long as that counts.
    pub fn is_proven_by(&self, shown: &Verifier, now_ms: i64) -> bool {
        let is_current: bool = self.verifier.ct_eq(shown).into();
        let former = self.former.as_ref();
        let is_former = former.is_some_and(|former| {
            former.until_ms > now_ms && bool::from(former.verifier.ct_eq(shown))
        });
        is_current || is_former
    }

    /// Both of two copies of one token: what was said later counts, and a revocation whenever it was said.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let revoked = [self.revoked_at_ms, other.revoked_at_ms];
        let rank = |token: &Self| (token.changed_at_ms, token.verifier);
        let later = if rank(&other) > rank(&self) {
            other
        } else {
            self
        };
        Self {
            revoked_at_ms: revoked.into_iter().flatten().min(),
            ..later
        }
    }
}

/// The secret of a token: its kind and its scope for people, its selector, and what only its owner knows.
pub fn secret(kind: TokenKind, scope: &Scope, id: TokenId, random: &[u8; SECRET_BYTES]) -> String {
    let random = URL_SAFE_NO_PAD.encode(random);
    match kind {
        TokenKind::Client => format!("sdk-{id}_{random}"),
        TokenKind::Server => format!("srv-{id}_{random}"),
        TokenKind::Frontend => {
            let projects = match &scope.projects {
                Projects::All => ALL_PROJECTS,
                Projects::Some(names) if names.len() == 1 => &names[0],
                Projects::Some(_) => SEVERAL_PROJECTS,
            };
            // The version is Unleash's for tokens with a selector.
            format!("{projects}:{}.v2_{id}_{random}", scope.environment)
        }
    }
}

/// The selector in what a client shows; `None`: it is no secret of ours.
///
/// Counted from the end: selector and random part are of fixed length and may hold any character that separates others.
pub fn selector(secret: &str) -> Option<TokenId> {
    let (rest, random) = secret.split_at_checked(secret.len().checked_sub(SECRET_CHARS)?)?;
    if random.len() != SECRET_CHARS {
        return None;
    }
    let rest = rest.strip_suffix('_')?;
    let (prefix, id) = rest.split_at_checked(rest.len().checked_sub(ID_CHARS)?)?;
    let is_ours =
        matches!(prefix, "sdk-" | "srv-") || (prefix.ends_with(".v2_") && prefix.contains(':'));
    is_ours.then(|| TokenId::parse(id)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(projects: &[&str]) -> Arc<Scope> {
        Arc::new(Scope {
            environment: "production".into(),
            projects: Projects::from_names(projects.iter().copied()).unwrap(),
        })
    }

    fn token(changed_at_ms: i64, revoked_at_ms: Option<i64>) -> Token {
        Token {
            id: TokenId::new([7; ID_BYTES]),
            kind: TokenKind::Server,
            scope: scope(&["*"]),
            dialect: None,
            rate_class: None,
            created_by: "ops".into(),
            created_at_ms: 0,
            changed_at_ms,
            expires_at_ms: None,
            revoked_at_ms,
            verifier: verifier(&changed_at_ms.to_string()),
            former: None,
        }
    }

    #[test]
    fn a_secret_is_found_by_its_selector_whatever_its_random_part_holds() {
        let id = TokenId::new([0xfb; ID_BYTES]);
        for (kind, projects, prefix) in [
            (TokenKind::Client, vec!["*"], "sdk-"),
            (TokenKind::Server, vec!["a", "b"], "srv-"),
            (TokenKind::Frontend, vec!["*"], "*:production.v2_"),
            (TokenKind::Frontend, vec!["shop"], "shop:production.v2_"),
            (TokenKind::Frontend, vec!["b", "a"], "[]:production.v2_"),
        ] {
            for random in [[0; SECRET_BYTES], [0xff; SECRET_BYTES]] {
                let secret = secret(kind, &scope(&projects), id, &random);
                assert!(secret.starts_with(prefix), "{secret}");
                assert_eq!(selector(&secret), Some(id), "{secret}");
            }
        }
        for other in [
            "",
            "sdk-abc123",
            "default:development.unleash-insecure",
            "ä",
        ] {
            assert_eq!(selector(other), None, "{other}");
        }
        let secret = secret(TokenKind::Server, &scope(&["*"]), id, &[1; SECRET_BYTES]);
        assert_eq!(selector(&format!("x{secret}")), None);
        assert_eq!(selector(&secret[..secret.len() - 1]), None);
    }

    #[test]
    fn the_former_secret_counts_until_its_time_is_over() {
        let mut token = token(1, None);
        token.former = Some(Box::new(Former {
            verifier: verifier("old"),
            until_ms: 100,
        }));
        assert!(token.is_proven_by(&verifier("1"), 200));
        assert!(token.is_proven_by(&verifier("old"), 99));
        assert!(!token.is_proven_by(&verifier("old"), 100));
        assert!(!token.is_proven_by(&verifier("other"), 0));
    }

    #[test]
    fn a_revocation_survives_a_later_rotation_elsewhere_in_any_order() {
        let (rotated, revoked) = (token(20, None), token(10, Some(10)));
        let one = rotated.clone().merged(revoked.clone());
        assert_eq!(one, revoked.merged(rotated));
        assert_eq!((one.changed_at_ms, one.revoked_at_ms), (20, Some(10)));
        assert_eq!(one.validity(0), Validity::Revoked);
    }

    #[test]
    fn unknown_projects_are_for_those_who_see_everything() {
        let all = Projects::from_names(["a", "*"]).unwrap();
        assert!(all == Projects::All && all.sees([].into_iter()));
        let some = Projects::from_names(["b", "a", "b"]).unwrap();
        assert_eq!(some.names(), ["a", "b"]);
        assert!(some.sees(["x", "b"].into_iter()));
        assert!(!some.sees([].into_iter()) && !some.sees(["x"].into_iter()));
        assert_eq!(Projects::from_names([]), None);
    }
}
