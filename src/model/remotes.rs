//! A connection's document, compiled: at most once per dialect, and only where somebody asks.

use std::{fmt, sync::Arc};

use tokio::sync::OnceCell;

use crate::eval::{Dialect, Remote};

/// The compiled forms of one document.
#[derive(Default)]
pub struct Remotes([OnceCell<Arc<Remote>>; Dialect::ALL.len()]);

impl Remotes {
    /// The form for a dialect; empty until somebody has asked for it.
    pub fn of(&self, dialect: Dialect) -> &OnceCell<Arc<Remote>> {
        &self.0[dialect as usize]
    }

    /// The dialects that somebody has asked for.
    pub fn dialects(&self) -> impl Iterator<Item = Dialect> {
        let is_there = |dialect: &Dialect| self.of(*dialect).initialized();
        Dialect::ALL.into_iter().filter(is_there)
    }
}

impl fmt::Debug for Remotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.dialects()).finish()
    }
}
