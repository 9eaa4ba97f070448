//! Failures on purpose, so that tests see what follows from them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which call fails, counted from 1 over the life of the process; `None` for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceFaults {
    /// The buffer that the device has no memory for.
    pub allocation: Option<u64>,
    /// The shader that does not compile.
    pub shader: Option<u64>,
    /// The dispatch during which the device is lost, as by a driver's reset.
    pub loss: Option<u64>,
}

/// The faults and how far the calls have come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: DeviceFaults,
    allocations: AtomicU64,
    shaders: AtomicU64,
    dispatches: AtomicU64,
}

impl Faults {
    pub(super) fn new(planned: DeviceFaults) -> Self {
        Self { planned, ..Self::default() }
    }

    pub(super) fn fails_allocation(&self) -> bool {
        is_now(&self.allocations, self.planned.allocation)
    }
    pub(super) fn fails_shader(&self) -> bool {
        is_now(&self.shaders, self.planned.shader)
    }
    pub(super) fn loses_device(&self) -> bool {
        is_now(&self.dispatches, self.planned.loss)
    }
}

fn is_now(calls: &AtomicU64, planned: Option<u64>) -> bool {
    planned.is_some_and(|call| calls.fetch_add(1, Ordering::Relaxed) + 1 == call)
}
