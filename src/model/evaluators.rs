//! A snapshot's compiled forms: one per dialect, made when somebody first evaluates.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::eval::{Dialect, Environment};

/// The place of the compiled environments of one content; shared by a candidate and its snapshot.
#[derive(Clone, Default)]
pub struct Evaluators(Arc<[Evaluator; Dialect::ALL.len()]>);

#[derive(Default)]
struct Evaluator {
    environment: OnceLock<Environment>,
    /// Held while it is compiled, so that nobody does it twice.
    compiling: Mutex<()>,
}

impl Evaluators {
    /// The compiled environment; `None`: not compiled yet.
    pub fn get(&self, dialect: Dialect) -> Option<&Environment> {
        self.0[dialect as usize].environment.get()
    }

    /// Compiles the snapshot document whose part behind the revision is `tail`, unless that was done before.
    ///
    /// Takes up to some tenths of a second: for a blocking thread. Fails when the document is not one.
    pub(super) fn prepare(&self, dialect: Dialect, tail: &Bytes) -> Result<(), serde_json::Error> {
        let evaluator = &self.0[dialect as usize];
        let _one_at_a_time = evaluator.compiling.lock();
        if evaluator.environment.get().is_none() {
            let mut document = Vec::with_capacity(tail.len() + 1);
            document.push(b'{');
            document.extend_from_slice(tail);
            let environment = Environment::new(&document, dialect)?;
            evaluator
                .environment
                .set(environment)
                .expect("whoever sets it holds the lock");
        }
        Ok(())
    }
}

impl fmt::Debug for Evaluators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compiled = Dialect::ALL.map(|dialect| self.get(dialect));
        f.debug_list().entries(compiled.iter().flatten()).finish()
    }
}
