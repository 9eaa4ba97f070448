//! A runtime for work that saturates cores, apart from the one that serves connections and heartbeats.

use crate::error::{Error, Result};
use crate::limits;
use std::future::poll_fn;
use std::pin::pin;
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::task::block_in_place;

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
            .thread_stack_size(limits::THREAD_STACK_BYTES)
            .event_interval(limits::TURNS_BEFORE_EVENTS)
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

/// Runs a future whose steps may take long: other tasks of its runtime go to other threads meanwhile.
pub async fn aside<F: Future>(future: F, takes_long: bool) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| match takes_long {
        true => step_aside(|| future.as_mut().poll(context)),
        false => future.as_mut().poll(context),
    })
    .await
}

/// The same of one step. A runtime of one thread has no other.
pub fn step_aside<T>(step: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(step),
        _ => step(),
    }
}
