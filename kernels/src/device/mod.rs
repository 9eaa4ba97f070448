//! The device kernel: the same program as one fused WGSL shader, through wgpu.
//!
//! A lost device is dropped with everything on it and opened once more on the next need; after a second loss the
//! host kernel has the rest of the process.

mod copies;
mod faults;
mod gpu;
mod layout;
#[cfg(test)]
mod tests;
mod wgsl;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::bind::Program;
use crate::chunk::Chunk;
use crate::error::KernelError;
use crate::state::Partial;
pub use faults::DeviceFaults;
use faults::Faults;
use gpu::Gpu;
pub use gpu::adapters;

/// Which devices may run kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DevicePolicy {
    /// None.
    Off,
    /// Hardware adapters only; a software adapter is slower than the host kernel.
    Hardware,
    /// Software adapters too, for tests.
    AllowSoftware,
}

/// The device, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceReport {
    /// Whether kernels can run on it now.
    pub available: bool,
    /// The adapter's name; empty without one.
    pub name: String,
    /// The driver's name and version.
    pub driver: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    /// Whether the adapter is software.
    pub software: bool,
    /// Why it is not available.
    pub reason: Option<String>,
}

/// One adapter of this machine, used or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterReport {
    /// Its name.
    pub name: String,
    /// The driver's name and version.
    pub driver: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    /// Discrete, integrated, virtual, other or software.
    pub kind: &'static str,
    /// Bytes of one storage binding: a chunk must fit.
    pub binding_bytes_max: u64,
    /// Bytes of workgroup memory, where small groups are added up.
    pub workgroup_memory_bytes: u32,
    /// Whether it computes with doubles.
    pub has_doubles: bool,
    /// Whether it computes with 64-bit integers.
    pub has_wide_integers: bool,
    /// Whether it tells how long a kernel ran.
    pub has_timestamps: bool,
    /// Whether workers may use it without being told to.
    pub is_hardware: bool,
}

/// Times a lost device is opened again.
const REBUILDS_MAX: u32 = 1;

enum State {
    Unopened,
    Open(Arc<Gpu>),
    Unavailable(DeviceReport),
}

/// The one device of this process, opened on first need.
pub(crate) struct Devices {
    policy: DevicePolicy,
    cache_bytes: u64,
    faults: Arc<Faults>,
    state: Mutex<(State, u32)>,
}

impl Devices {
    pub(crate) fn new(policy: DevicePolicy, cache_bytes: u64, faults: DeviceFaults) -> Self {
        Self { policy, cache_bytes, faults: Arc::new(Faults::new(faults)), state: Mutex::new((State::Unopened, 0)) }
    }

    pub(crate) fn report(&self) -> DeviceReport {
        match self.gpu() {
            Ok(gpu) => gpu.report.clone(),
            Err(report) => report,
        }
    }

    pub(crate) fn run(&self, program: &Program<'_>) -> Result<Partial, KernelError> {
        let gpu =
            self.gpu().map_err(|report| KernelError::declined(format!("device: {}", report.reason.unwrap_or_else(|| "none".into()))))?;
        gpu.run(program)
    }

    /// Whether a copy of the chunk is on the open device.
    pub(crate) fn holds(&self, chunk: &Chunk) -> bool {
        matches!(&self.state.lock().0, State::Open(gpu) if gpu.holds(chunk))
    }

    fn gpu(&self) -> Result<Arc<Gpu>, DeviceReport> {
        let (state, losses) = &mut *self.state.lock();
        if let State::Open(gpu) = state
            && let Some(reason) = gpu.lost()
        {
            *losses += 1;
            tracing::warn!(reason, losses, "device lost");
            *state = if *losses <= REBUILDS_MAX {
                State::Unopened
            } else {
                let reason = Some(format!("lost {losses} times: {reason}"));
                State::Unavailable(DeviceReport { available: false, reason, ..gpu.report.clone() })
            };
        }
        if matches!(state, State::Unopened) {
            *state = match self.policy {
                DevicePolicy::Off => {
                    let reason = Some("devices are switched off".into());
                    State::Unavailable(DeviceReport { reason, ..DeviceReport::default() })
                }
                policy => match Gpu::open(policy, self.cache_bytes, Arc::clone(&self.faults)) {
                    Ok(gpu) => State::Open(Arc::new(gpu)),
                    Err(report) => State::Unavailable(report),
                },
            };
        }
        match state {
            State::Open(gpu) => Ok(Arc::clone(gpu)),
            State::Unavailable(report) => Err(report.clone()),
            State::Unopened => Err(DeviceReport::default()),
        }
    }
}
