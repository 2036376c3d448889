//! A connection's document, compiled: at most once per dialect, and only where somebody asks.

use std::{fmt, sync::Arc};

use tokio::sync::OnceCell;

use crate::eval::{Dialect, Remote};

/// The compiled forms of one document.
#[derive(Default)]
pub struct Evaluators {
    strict: OnceCell<Arc<Remote>>,
    legacy: OnceCell<Arc<Remote>>,
}

impl Evaluators {
    /// The form for a dialect; empty until somebody has asked for it.
    pub fn of(&self, dialect: Dialect) -> &OnceCell<Arc<Remote>> {
        match dialect {
            Dialect::Strict => &self.strict,
            Dialect::Legacy => &self.legacy,
        }
    }

    /// The dialects that somebody has asked for.
    pub fn dialects(&self) -> impl Iterator<Item = Dialect> {
        [Dialect::Strict, Dialect::Legacy]
            .into_iter()
            .filter(|dialect| self.of(*dialect).initialized())
    }
}

impl fmt::Debug for Evaluators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.dialects()).finish()
    }
}
