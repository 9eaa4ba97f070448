//! Memory that the coordinator holds for what clients send: out of the pool that queries share, so that both together stay within it.

use super::Coordinator;
use crate::error::{Error, ErrorClass, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};

/// Memory for what one client sends; given back when it is dropped.
#[derive(Debug)]
pub struct ClientMemory(MemoryReservation);

impl Coordinator {
    /// Memory for `what`, none of it taken yet.
    pub fn client_memory(&self, what: &str) -> ClientMemory {
        ClientMemory(MemoryConsumer::new(what).register(&self.inner.base.runtime().memory_pool))
    }
}

impl ClientMemory {
    /// Takes as many bytes in all, or gives back what is more.
    ///
    /// # Errors
    /// [`ErrorClass::Resource`] when the pool has no room: as much as before is held then.
    pub fn hold(&self, bytes: u64) -> Result<()> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.0.try_resize(bytes).map_err(|error| {
            Error::new(
                ErrorClass::Resource,
                format!(
                    "the coordinator has no {bytes} bytes of memory for {} (coordinator.memory_bytes): send smaller batches, send them later, or raise it; {}",
                    self.0.consumer().name(),
                    error.strip_backtrace()
                ),
            )
        })
    }
}
