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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_ask_at_once_it_is_compiled_once() {
        let evaluators = Evaluators::default();
        let tail = Bytes::from_static(br#""features":{"a":{"defaultValue":1}},"experiments":[]}"#);
        let address = || {
            evaluators.prepare(Dialect::Strict, &tail).unwrap();
            std::ptr::from_ref(evaluators.get(Dialect::Strict).unwrap()).addr()
        };
        let first = address();
        let others = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(address)).collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined.collect::<Vec<_>>()
        });
        assert_eq!(others, [first; 8]);
        assert!(evaluators.get(Dialect::Legacy).is_none());
    }

    #[test]
    fn what_is_no_snapshot_is_refused_and_compiled_later_if_it_can_be() {
        let evaluators = Evaluators::default();
        let broken = Bytes::from_static(b"\"features\":7}");
        assert!(evaluators.prepare(Dialect::Strict, &broken).is_err());
        assert!(evaluators.get(Dialect::Strict).is_none());
        let tail = Bytes::from_static(b"\"features\":{}}");
        evaluators.prepare(Dialect::Strict, &tail).unwrap();
        assert!(evaluators.get(Dialect::Strict).is_some());
    }
}
