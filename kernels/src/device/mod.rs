//! The device kernel: the same program as one fused WGSL shader, through wgpu, on each card of the machine.
//!
//! A row group goes to the card that holds most of its bytes. A lost card is dropped with everything on it and opened once more on the next
//! need; after a second loss the others, or the host kernel, have the rest of the process.

mod copies;
mod faults;
mod gpu;
mod layout;
mod pipelines;
mod staging;
#[cfg(test)]
mod tests;
mod wgsl;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use wgpu::{Adapter, Device, ErrorFilter};

use crate::bind::Program;
use crate::chunk::Chunk;
use crate::error::KernelError;
use crate::limits::CARDS_MAX;
use crate::state::Partial;
pub use faults::DeviceFaults;
use faults::Faults;
pub use gpu::adapters;
use gpu::{Gpu, Prepared};

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
    /// Where it is plugged in; empty where the driver does not say.
    pub slot: String,
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

impl DeviceReport {
    /// Of an adapter that is not open.
    fn of(adapter: AdapterReport) -> Self {
        let AdapterReport { name, driver, backend, is_hardware, .. } = adapter;
        Self { available: false, name, driver, backend, software: !is_hardware, reason: None }
    }
}

/// Runs something whose errors on the device are all caught, and gives the first. Scopes belong to a thread: there must be no await inside.
fn with_error_scopes<T>(device: &Device, run: impl FnOnce() -> T) -> (T, Option<String>) {
    let validation = device.push_error_scope(ErrorFilter::Validation);
    let memory = device.push_error_scope(ErrorFilter::OutOfMemory);
    let internal = device.push_error_scope(ErrorFilter::Internal);
    let outcome = run();
    let errors = [pollster::block_on(internal.pop()), pollster::block_on(memory.pop()), pollster::block_on(validation.pop())];
    (outcome, errors.into_iter().flatten().next().map(|error| error.to_string()))
}

/// How devices are used.
pub(crate) struct DevicesConfig {
    pub policy: DevicePolicy,
    /// Bytes of copies on each card.
    pub cache_bytes: u64,
    pub faults: DeviceFaults,
    /// The folder of compiled kernels.
    pub pipelines: Option<PathBuf>,
    /// How often each adapter counts as a card.
    pub repeated: usize,
}

/// Times a lost card is opened again.
const REBUILDS_MAX: u32 = 1;

enum State {
    Unopened,
    Open(Arc<Gpu>),
    Unavailable(DeviceReport),
}

/// One card.
struct Card {
    adapter: Adapter,
    /// How it is, and how often it was lost.
    state: Mutex<(State, u32)>,
}

/// The cards of this process, looked for on first need.
pub(crate) struct Devices {
    config: DevicesConfig,
    faults: Arc<Faults>,
    cards: OnceLock<Result<Vec<Card>, DeviceReport>>,
}

impl Devices {
    pub(crate) fn new(config: DevicesConfig) -> Self {
        let faults = Arc::new(Faults::new(config.faults));
        Self { config, faults, cards: OnceLock::new() }
    }

    /// Every card, the first that can be used first; without any, why.
    pub(crate) fn reports(&self) -> Vec<DeviceReport> {
        let mut reports: Vec<DeviceReport> = match self.cards() {
            Ok(cards) => cards
                .iter()
                .map(|card| match self.open(card) {
                    Ok(gpu) => gpu.report.clone(),
                    Err(report) => report,
                })
                .collect(),
            Err(report) => vec![report.clone()],
        };
        reports.sort_by_key(|report| !report.available);
        reports
    }

    /// Runs a program on the card that suits it.
    pub(crate) fn run(&self, program: &Program<'_>) -> Result<Partial, KernelError> {
        let prepared = Prepared::new(program)?;
        self.card_for(program)?.run(program, &prepared)
    }

    /// Whether the program would run at once; if its kernel is not compiled yet, that begins beside.
    pub(crate) fn is_ready(&self, program: &Program<'_>) -> Result<bool, KernelError> {
        let prepared = Prepared::new(program)?;
        self.card_for(program)?.is_ready(&prepared)
    }

    /// Whether a copy of the chunk is on an open card.
    pub(crate) fn holds(&self, chunk: &Chunk) -> bool {
        self.opened().iter().any(|gpu| gpu.holds(chunk))
    }

    /// Nanoseconds in which open cards ran kernels, as they told by themselves.
    pub(crate) fn busy_nanoseconds(&self) -> u64 {
        self.opened().iter().map(|gpu| gpu.busy_nanoseconds()).sum()
    }

    /// The card that holds most of the program's bytes; among equals, the one with least to hold.
    fn card_for(&self, program: &Program<'_>) -> Result<Arc<Gpu>, KernelError> {
        let none = |report: DeviceReport| KernelError::declined(format!("device: {}", report.reason.unwrap_or_else(|| "none".into())));
        let mut reason = DeviceReport::default();
        let mut best: Option<((u64, u64), Arc<Gpu>)> = None;
        for card in self.cards().map_err(|report| none(report.clone()))? {
            match self.open(card) {
                Ok(gpu) => {
                    let rank = (gpu.bytes_held(program), u64::MAX - gpu.load());
                    if best.as_ref().is_none_or(|(best, _)| rank > *best) {
                        best = Some((rank, gpu));
                    }
                }
                Err(report) => reason = report,
            }
        }
        best.map(|(_, gpu)| gpu).ok_or_else(|| none(reason))
    }

    /// Cards that are open by now.
    fn opened(&self) -> Vec<Arc<Gpu>> {
        let cards = self.cards.get().and_then(|cards| cards.as_ref().ok()).map_or(&[][..], |cards| cards);
        let opened = cards.iter().filter_map(|card| match &card.state.lock().0 {
            State::Open(gpu) => Some(Arc::clone(gpu)),
            _ => None,
        });
        opened.collect()
    }

    /// The cards that may be used: all of the fastest kind, so that none waits for a slower one.
    fn cards(&self) -> Result<&Vec<Card>, &DeviceReport> {
        let found = || {
            let unavailable = |reason: &str| DeviceReport { reason: Some(reason.into()), ..DeviceReport::default() };
            if self.config.policy == DevicePolicy::Off {
                return Err(unavailable("devices are switched off"));
            }
            let adapters: Vec<(Adapter, AdapterReport)> = gpu::found().into_iter().map(gpu::with_report).collect();
            let Some((_, first)) = adapters.first() else { return Err(unavailable("no adapter was found")) };
            let first = first.clone();
            if !first.is_hardware && self.config.policy == DevicePolicy::Hardware {
                let name = first.name.split_whitespace().next().unwrap_or("unnamed").to_string();
                let report = DeviceReport::of(first);
                return Err(DeviceReport { reason: Some(format!("only a software adapter ({name}) was found")), ..report });
            }
            // One card is seen once through each of the system's interfaces, and its slot tells it from its like.
            let mut seen: Vec<String> = vec![];
            let mut is_new = |report: &AdapterReport| {
                let is_new = report.slot.is_empty() || !seen.contains(&report.slot);
                seen.push(report.slot.clone());
                is_new
            };
            let alike = adapters.into_iter().filter(|(_, report)| report.kind == first.kind && report.backend == first.backend);
            let cards = alike.filter(|(_, report)| is_new(report)).flat_map(|(adapter, _)| vec![adapter; self.config.repeated.max(1)]);
            let card = |adapter| Card { adapter, state: Mutex::new((State::Unopened, 0)) };
            Ok(cards.take(CARDS_MAX).map(card).collect())
        };
        self.cards.get_or_init(found).as_ref()
    }

    /// The card, opened if need be.
    fn open(&self, card: &Card) -> Result<Arc<Gpu>, DeviceReport> {
        let (state, losses) = &mut *card.state.lock();
        if let State::Open(gpu) = state
            && let Some(reason) = gpu.lost()
        {
            *losses += 1;
            tracing::warn!(reason, losses, card = gpu.report.name, "device lost");
            *state = if *losses <= REBUILDS_MAX {
                State::Unopened
            } else {
                let reason = Some(format!("lost {losses} times: {reason}"));
                State::Unavailable(DeviceReport { available: false, reason, ..gpu.report.clone() })
            };
        }
        if matches!(state, State::Unopened) {
            let opened = Gpu::open(&card.adapter, self.config.cache_bytes, Arc::clone(&self.faults), self.config.pipelines.as_deref());
            *state = opened.map_or_else(State::Unavailable, |gpu| State::Open(Arc::new(gpu)));
        }
        match state {
            State::Open(gpu) => Ok(Arc::clone(gpu)),
            State::Unavailable(report) => Err(report.clone()),
            State::Unopened => Err(DeviceReport::default()),
        }
    }
}
