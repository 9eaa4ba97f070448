//! A runtime for work that saturates cores, apart from the one that serves connections and heartbeats.

use crate::error::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};

/// Ends its tasks without waiting for them when it is dropped: dropping a bare runtime inside another one would block or panic.
pub struct CpuRuntime {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl CpuRuntime {
    /// A runtime of `threads` threads.
    pub fn new(name: &str, threads: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(|error| Error::bug(format!("the runtime {name} cannot start: {error}")))?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Where work is spawned.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for CpuRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
