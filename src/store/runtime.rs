//! The threads on which the store does its input and output.

use std::{fmt, future::Future, io, sync::Arc};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};

use super::StoreError;

/// Threads for the database's sockets. They only wait, so two are plenty.
const WORKER_THREADS: usize = 2;

/// Threads for files and for packing; more would wait for the same disk and cores.
const BLOCKING_THREADS: usize = 8;

/// A runtime of the store's own, shared by everything in it.
///
/// A pooled connection belongs to the runtime where it was opened: opened on an actor's arbiter it would stall and die with
/// that actor. Work handed over here goes on even when the caller is dropped, so an aborted caller never tears a write apart.
#[derive(Clone)]
pub struct StoreRuntime {
    threads: Arc<Threads>,
}

struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A plain drop waits for its tasks, which panics inside another runtime.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for StoreRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreRuntime")
    }
}

impl StoreRuntime {
    /// Starts the threads.
    pub fn new() -> Result<Self, StoreError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("db-io")
            .enable_all()
            .build()
            .map_err(|source| StoreError::Stopped { source })?;
        Ok(Self {
            threads: Arc::new(Threads {
                handle: runtime.handle().clone(),
                runtime: Some(runtime),
            }),
        })
    }

    /// Starts work at once; it goes on even when the handle is dropped.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.threads.handle.spawn(work)
    }

    /// Starts work and waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.spawn(work).await.map_err(stopped)?
    }

    /// Runs something that blocks or computes, and waits for it.
    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let task = self.threads.handle.spawn_blocking(work);
        task.await.map_err(stopped)?
    }
}

pub(super) fn stopped(error: JoinError) -> StoreError {
    StoreError::Stopped {
        source: io::Error::other(error),
    }
}
