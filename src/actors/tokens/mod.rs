//! Makes, rotates and revokes tokens, and keeps them: in memory, in the database that replicas share, in the backup.
//!
//! Owns the writing of [`Tokens`] and of what is stored of them; never sits on a request's path, which reads [`Tokens`] on
//! the board. A change is in force in this process before it is answered.
//!
//! Messages in: [`MakeToken`], [`RotateToken`], [`RevokeToken`] (control plane). Messages out: none.
//!
//! Tokens live in [`Tokens`], which outlives the actor: a restart loses nothing. What could not be written is written by a
//! timer, which also looks for what other replicas wrote: one cheap question a second, however many tokens there are. With
//! the database away the backup alone keeps a change. `Quit` writes once more before it answers.

mod keeping;
mod registry;

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message,
    ResponseActFuture, fut::wrap_future,
};
use tokio::time::{sleep, timeout};

pub use self::{
    keeping::TokenContext,
    registry::{Denial, Pass, TOKENS_MAX, Tokens},
};
use super::{MAILBOX, Quit};
use crate::{
    clock,
    eval::Dialect,
    model::{
        Scope, Token, TokenId, TokenKind, Validity,
        token::{Former, SECRET_BYTES, secret, verifier},
    },
};

/// How often what is unwritten is tried again, and how soon a change elsewhere counts here.
const TICK: Duration = Duration::from_secs(1);
/// Wait before a look that somebody's secret asked for; others that come meanwhile are in it.
const LOOK_GAP: Duration = Duration::from_millis(100);
/// How long the last writes may take when the service stops.
const LAST_WRITE_LIMIT: Duration = Duration::from_secs(3);

/// What a new token is to be.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// What it is for.
    pub kind: TokenKind,
    /// What it may see.
    pub scope: Scope,
    /// Dialect of its users.
    pub dialect: Option<Dialect>,
    /// The limit that its requests count against.
    pub rate_class: Option<Arc<str>>,
    /// How long it counts; `None`: until it is revoked.
    pub life: Option<Duration>,
    /// Who makes it.
    pub by: Arc<str>,
}

/// Makes a token. Sent by the control plane; not to be sent twice.
#[derive(Message)]
#[rtype(result = "Result<Changed, TokenError>")]
pub struct MakeToken(pub TokenSpec);

/// Gives a token another secret. Sent by the control plane; not to be sent twice.
#[derive(Message)]
#[rtype(result = "Result<Changed, TokenError>")]
pub struct RotateToken {
    /// Which one.
    pub id: TokenId,
    /// How long the old secret counts beside the new one.
    pub grace: Duration,
}

/// Takes a token back, for good. Sent by the control plane; may be sent twice.
#[derive(Clone, Message)]
#[rtype(result = "Result<Changed, TokenError>")]
pub struct RevokeToken {
    /// Which one.
    pub id: TokenId,
}

/// A token as it is after a change.
pub struct Changed {
    /// The token.
    pub token: Token,
    /// Its secret, if that is a new one; nobody can be told it again.
    pub secret: Option<String>,
    /// Whether the change would survive a crash.
    pub is_durable: bool,
}

/// Why a token was not made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none of this id.
    #[error("there is no token of this id")]
    Unknown,
    /// It does not count any more.
    #[error("the token {0}, so it cannot get another secret; make a new one")]
    Ended(&'static str),
    /// There are too many.
    #[error("there are {TOKENS_MAX} tokens; those that have ended are forgotten after a month")]
    TooMany,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoEntropy,
}

/// See the module's first paragraph.
pub struct TokenActor {
    context: Arc<TokenContext>,
    is_working: bool,
}

impl TokenActor {
    /// A new incarnation over the same tokens.
    pub fn new(context: Arc<TokenContext>) -> Self {
        Self {
            context,
            is_working: false,
        }
    }

    /// Looks for what others wrote and writes what is unwritten, unless that is under way.
    fn work(&mut self, ctx: &mut Context<Self>) {
        fail::fail_point!("token.timer");
        if self.is_working {
            return;
        }
        self.is_working = true;
        let context = Arc::clone(&self.context);
        let work = async move {
            fail::fail_point!("token.work_future");
            context.work().await;
        };
        ctx.spawn(wrap_future::<_, Self>(work).map(|(), this, _| this.is_working = false));
    }

    /// Waits until somebody shows a secret that is not known, looks, and waits again.
    fn heed(&mut self, ctx: &mut Context<Self>) {
        let context = Arc::clone(&self.context);
        let wanted = async move {
            fail::fail_point!("token.wanted_future");
            context.tokens().wanted().await;
            // Whoever makes up secrets does not drive the database.
            sleep(LOOK_GAP).await;
        };
        ctx.spawn(wrap_future::<_, Self>(wanted).map(|(), this, ctx| {
            this.work(ctx);
            this.heed(ctx);
        }));
    }

    fn make(&self, spec: TokenSpec) -> Result<(Token, Option<String>), TokenError> {
        if self.context.tokens().len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let id = TokenId::new(random()?);
        let now_ms = clock::now_ms();
        let secret = secret(spec.kind, &spec.scope, id, &random()?);
        let token = Token {
            id,
            kind: spec.kind,
            scope: Arc::new(spec.scope),
            dialect: spec.dialect,
            rate_class: spec.rate_class,
            created_by: spec.by,
            created_at_ms: now_ms,
            changed_at_ms: now_ms,
            expires_at_ms: spec.life.map(|life| after(now_ms, life)),
            revoked_at_ms: None,
            verifier: verifier(&secret),
            former: None,
        };
        Ok((token, Some(secret)))
    }

    fn rotate(&self, id: TokenId, grace: Duration) -> Result<(Token, Option<String>), TokenError> {
        let token = self.context.tokens().get(id).ok_or(TokenError::Unknown)?;
        let now_ms = clock::now_ms();
        match token.validity(now_ms) {
            Validity::Valid => {}
            Validity::Expired => return Err(TokenError::Ended("has expired")),
            Validity::Revoked => return Err(TokenError::Ended("was revoked")),
        }
        let random: [u8; SECRET_BYTES] = random()?;
        let secret = secret(token.kind, &token.scope, id, &random);
        let former = Former {
            verifier: token.verifier,
            until_ms: after(now_ms, grace),
        };
        let token = Token {
            changed_at_ms: now_ms.max(token.changed_at_ms + 1),
            verifier: verifier(&secret),
            former: (!grace.is_zero()).then(|| Box::new(former)),
            ..token
        };
        Ok((token, Some(secret)))
    }

    fn revoke(&self, id: TokenId) -> Result<(Token, Option<String>), TokenError> {
        let token = self.context.tokens().get(id).ok_or(TokenError::Unknown)?;
        if token.revoked_at_ms.is_some() {
            return Ok((token, None));
        }
        let now_ms = clock::now_ms();
        let token = Token {
            changed_at_ms: now_ms.max(token.changed_at_ms + 1),
            revoked_at_ms: Some(now_ms),
            former: None,
            ..token
        };
        Ok((token, None))
    }

    /// Puts a change in force and has it written; answered when one copy is durable, or none could be had.
    fn change(
        &mut self,
        made: Result<(Token, Option<String>), TokenError>,
    ) -> ResponseActFuture<Self, Result<Changed, TokenError>> {
        if let Ok((token, _)) = &made {
            self.context.tokens().change(token.clone());
        }
        let context = Arc::clone(&self.context);
        let keep = async move {
            fail::fail_point!("token.keep_future");
            let (token, secret) = made?;
            Ok(Changed {
                is_durable: context.keep(token.id).await,
                token,
                secret,
            })
        };
        Box::pin(wrap_future::<_, Self>(keep).map(|changed, this, ctx| {
            this.work(ctx);
            changed
        }))
    }
}

fn random<const N: usize>() -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).or(Err(TokenError::NoEntropy))?;
    Ok(bytes)
}

fn after(now_ms: i64, life: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(life.as_millis()).unwrap_or(i64::MAX))
}

impl Actor for TokenActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.work(ctx);
        self.heed(ctx);
        ctx.run_interval(TICK, Self::work);
    }
}

super::ping!(TokenActor, "token");

impl Handler<Quit> for TokenActor {
    // Other messages may still come while the last things are written; then the actor stops itself.
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Quit, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("token.Quit");
        let context = Arc::clone(&self.context);
        let last = async move {
            fail::fail_point!("token.quit_future");
            // What is not done by then is in the backup, or was never durable.
            drop(timeout(LAST_WRITE_LIMIT, context.work()).await);
        };
        Box::pin(wrap_future::<_, Self>(last).map(|(), _, ctx| ctx.stop()))
    }
}

impl Handler<MakeToken> for TokenActor {
    // In force at once; the answer waits for one durable copy, beside other messages.
    type Result = ResponseActFuture<Self, Result<Changed, TokenError>>;

    fn handle(&mut self, MakeToken(spec): MakeToken, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("token.MakeToken");
        let made = self.make(spec);
        self.change(made)
    }
}

impl Handler<RotateToken> for TokenActor {
    // As above.
    type Result = ResponseActFuture<Self, Result<Changed, TokenError>>;

    fn handle(&mut self, message: RotateToken, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("token.RotateToken");
        let made = self.rotate(message.id, message.grace);
        self.change(made)
    }
}

impl Handler<RevokeToken> for TokenActor {
    // As above.
    type Result = ResponseActFuture<Self, Result<Changed, TokenError>>;

    fn handle(&mut self, message: RevokeToken, _: &mut Context<Self>) -> Self::Result {
        fail::fail_point!("token.RevokeToken");
        let made = self.revoke(message.id);
        self.change(made)
    }
}
