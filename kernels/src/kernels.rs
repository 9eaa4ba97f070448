//! The front: configuration, planning, accumulation, and what happened.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::bind::{self, GroupKeys, Program};
use crate::cache::{ChunkCache, MemoryAccount, Unaccounted};
use crate::chunk::Chunk;
use crate::cost::{self, CostModel, Estimate, Work};
use crate::device::{DeviceFaults, DevicePolicy, DeviceReport, Devices, DevicesConfig};
use crate::error::{Decline, KernelError};
use crate::forced::Forced;
use crate::host;
use crate::plan::{self, AggregatePlan};
use crate::state::PartialState;

/// How much memory kernels may keep, and which devices they may use.
#[derive(Clone)]
pub struct KernelsConfig {
    /// Bytes of encoded chunks kept in host memory. Default 1 GiB; 0 keeps none.
    pub host_cache_bytes: u64,
    /// Who lends the memory of those chunks. Default [`Unaccounted`].
    pub host_memory: Arc<dyn MemoryAccount>,
    /// Bytes of chunk copies kept in the memory of each card, and the most that row groups may take there at a time. Default 1 GiB.
    pub device_cache_bytes: u64,
    /// Which devices may run kernels. Default [`DevicePolicy::Hardware`].
    pub device: DevicePolicy,
    /// Failures on purpose. Default none.
    pub device_faults: DeviceFaults,
    /// The folder that keeps kernels which were compiled for a card, for the next start. Default none.
    pub pipelines: Option<PathBuf>,
    /// How often each adapter counts as a card, for tests on machines that have but one. Default 1.
    #[doc(hidden)]
    pub cards_repeated: usize,
}

impl Default for KernelsConfig {
    fn default() -> Self {
        Self {
            host_cache_bytes: 1 << 30,
            host_memory: Arc::new(Unaccounted),
            device_cache_bytes: 1 << 30,
            device: DevicePolicy::Hardware,
            device_faults: DeviceFaults::default(),
            pipelines: None,
            cards_repeated: 1,
        }
    }
}

/// What has run so far, in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows that host kernels went over.
    pub host_rows: u64,
    /// Rows that device kernels went over.
    pub device_rows: u64,
    /// Rows whose answers statistics of their columns gave, on no executor.
    pub settled_rows: u64,
    /// Chunks that host kernels went over.
    pub host_chunks: u64,
    /// Chunks that device kernels went over.
    pub device_chunks: u64,
    /// Plans and row groups that were declined.
    pub declined: u64,
    /// Row groups that a device failed on.
    pub device_errors: u64,
    /// Nanoseconds in which cards that are open ran kernels, as they told by themselves: 0 where their drivers do not tell.
    pub device_nanoseconds: u64,
}

#[derive(Default)]
struct Tally {
    host_rows: AtomicU64,
    device_rows: AtomicU64,
    settled_rows: AtomicU64,
    host_chunks: AtomicU64,
    device_chunks: AtomicU64,
    declined: AtomicU64,
    device_errors: AtomicU64,
}

struct Inner {
    cache: ChunkCache,
    devices: Devices,
    cost: OnceLock<CostModel>,
    tally: Tally,
}

/// Everything kernels share: the chunk cache, the device, the counters. Clones are the same thing.
#[derive(Clone)]
pub struct Kernels {
    inner: Arc<Inner>,
}

impl Kernels {
    /// Never fails: without a device the host kernels remain. The device is looked for on first need.
    pub fn open(config: KernelsConfig) -> Self {
        let inner = Inner {
            cache: ChunkCache::new(config.host_cache_bytes, config.host_memory),
            devices: Devices::new(DevicesConfig {
                policy: config.device,
                cache_bytes: config.device_cache_bytes,
                faults: config.device_faults,
                pipelines: config.pipelines,
                repeated: config.cards_repeated,
            }),
            cost: OnceLock::new(),
            tally: Tally::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The first card that can be used, or why there is none. The first call opens all, which can take seconds.
    pub fn device_report(&self) -> DeviceReport {
        self.device_reports().into_iter().next().unwrap_or_default()
    }

    /// All cards, those that can be used first; without any, one report of why.
    pub fn device_reports(&self) -> Vec<DeviceReport> {
        self.inner.devices.reports()
    }

    /// The cache of encoded chunks.
    pub fn cache(&self) -> &ChunkCache {
        &self.inner.cache
    }

    /// Measures what the host and the device, if there is a real one, do in a second: once, in some tenths of a second. Until then nothing
    /// is foreseen.
    ///
    /// # Errors
    /// Where a kernel fails that it measures with.
    pub fn measure(&self) -> Result<CostModel, KernelError> {
        if let Some(known) = self.inner.cost.get() {
            return Ok(*known);
        }
        let report = self.device_report();
        let has_device = report.available && !report.software;
        let kernel = |plan| Kernel { plan: Arc::new(plan), inner: Arc::clone(&self.inner), forced: Forced::default() };
        let model = cost::measure(kernel, has_device)?;
        Ok(*self.inner.cost.get_or_init(|| model))
    }

    /// Checks a plan and makes a kernel of it.
    ///
    /// # Errors
    /// Declines plans of shapes or types that kernels do not run.
    pub fn plan(&self, plan: AggregatePlan) -> Result<Kernel, Decline> {
        if let Err(decline) = plan::check(&plan) {
            self.inner.tally.declined.fetch_add(1, Ordering::Relaxed);
            return Err(decline);
        }
        Ok(Kernel { plan: Arc::new(plan), forced: Forced::default(), inner: Arc::clone(&self.inner) })
    }

    /// What has run so far.
    pub fn counters(&self) -> Counters {
        let tally = &self.inner.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            host_rows: read(&tally.host_rows),
            device_rows: read(&tally.device_rows),
            settled_rows: read(&tally.settled_rows),
            host_chunks: read(&tally.host_chunks),
            device_chunks: read(&tally.device_chunks),
            declined: read(&tally.declined),
            device_errors: read(&tally.device_errors),
            device_nanoseconds: self.inner.devices.busy_nanoseconds(),
        }
    }
}

/// Where a row group is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Executor {
    /// This processor.
    Host,
    /// The device, if there is one.
    Device,
}

/// Equally long chunks, one for each column of the plan.
#[derive(Debug, Clone)]
pub struct RowGroup {
    /// Rows of every chunk.
    pub row_count: usize,
    /// `chunks[i]` belongs to `columns[i]` of the plan.
    pub chunks: Vec<Arc<Chunk>>,
}

/// A plan that passed its checks. Clones are the same kernel; threads may share it.
#[derive(Clone)]
pub struct Kernel {
    plan: Arc<AggregatePlan>,
    forced: Forced,
    inner: Arc<Inner>,
}

impl Kernel {
    /// The plan.
    pub fn plan(&self) -> &AggregatePlan {
        &self.plan
    }

    /// The same kernel with fewer choices. For tests.
    #[doc(hidden)]
    pub fn forced(self, forced: Forced) -> Self {
        Self { forced, ..self }
    }

    /// A state of no rows.
    pub fn new_state(&self) -> PartialState {
        PartialState::new(Arc::clone(&self.plan))
    }

    /// Adds one row group to `state`, and says what went over its rows: nothing, where statistics of the columns have the answer.
    ///
    /// # Errors
    /// After any error throw `state` away. [`KernelError::Declined`]: this executor cannot answer exactly (the host may
    /// where the device does not). [`KernelError::Device`]: the device failed. [`KernelError::Internal`]: row group or
    /// state do not belong to this kernel.
    pub fn accumulate(&self, executor: Executor, rows: &RowGroup, state: &mut PartialState) -> Result<Option<Executor>, KernelError> {
        let outcome = self.run(executor, rows, state);
        let tally = &self.inner.tally;
        match &outcome {
            Ok(None) => {
                tally.settled_rows.fetch_add(rows.row_count as u64, Ordering::Relaxed);
            }
            Ok(Some(executor)) => {
                let (row_counter, chunk_counter) = match executor {
                    Executor::Host => (&tally.host_rows, &tally.host_chunks),
                    Executor::Device => (&tally.device_rows, &tally.device_chunks),
                };
                row_counter.fetch_add(rows.row_count as u64, Ordering::Relaxed);
                chunk_counter.fetch_add(rows.chunks.len() as u64, Ordering::Relaxed);
            }
            Err(KernelError::Declined(_)) => {
                tally.declined.fetch_add(1, Ordering::Relaxed);
            }
            Err(KernelError::Device { .. }) => {
                tally.device_errors.fetch_add(1, Ordering::Relaxed);
            }
            Err(KernelError::Internal { .. }) => {}
        }
        outcome
    }

    /// What the row group asks of an executor.
    pub(crate) fn work(&self, rows: &RowGroup) -> Work {
        let bytes = |chunk: &Arc<Chunk>| (chunk.row_count() * chunk.lane_width().bytes()) as u64;
        let missing = rows.chunks.iter().filter(|chunk| !self.inner.devices.holds(chunk));
        Work {
            bytes: rows.chunks.iter().map(bytes).sum(),
            upload_bytes: missing.map(bytes).sum(),
            steps: cost::steps(&self.plan) * rows.row_count as u64,
        }
    }

    /// Combinations of the keys' lanes that there can be in the row group: it has no more groups. 1 without keys.
    pub fn group_codes(&self, rows: &RowGroup) -> u128 {
        GroupKeys::new(&self.plan.keys, &rows.chunks).map_or(u128::MAX, |keys| keys.slots)
    }

    /// What the row group is foreseen to cost; `None` before [`Kernels::measure`].
    pub fn estimate(&self, rows: &RowGroup) -> Option<Estimate> {
        self.inner.cost.get().map(|model| model.estimate(self.work(rows)))
    }

    /// Whether the device can run the row group at once. If its kernel is not compiled yet, that begins beside; until then the host can
    /// answer.
    ///
    /// # Errors
    /// As [`Self::accumulate`] on the device, where that can be told beforehand.
    pub fn device_is_ready(&self, rows: &RowGroup) -> Result<bool, KernelError> {
        if self.plan.asks_nothing() {
            return Ok(true);
        }
        let program = bind::bind(&self.plan, &rows.chunks, rows.row_count, self.forced)?;
        self.inner.devices.is_ready(&program)
    }

    /// As [`Self::accumulate`], but nothing is counted.
    pub(crate) fn run(&self, executor: Executor, rows: &RowGroup, state: &mut PartialState) -> Result<Option<Executor>, KernelError> {
        self.check(rows, state)?;
        if self.plan.asks_nothing() {
            return Ok(None);
        }
        let program: Program<'_> = bind::bind(&self.plan, &rows.chunks, rows.row_count, self.forced)?;
        state.admit(&program)?;
        if rows.row_count == 0 {
            return Ok(None);
        }
        let (partial, ran) = match (program.settled(), executor) {
            (Some(partial), _) => (partial, None),
            (None, Executor::Host) => (host::run(&program)?, Some(executor)),
            (None, Executor::Device) => (self.inner.devices.run(&program)?, Some(executor)),
        };
        state.absorb(&program, &partial)?;
        Ok(ran)
    }

    fn check(&self, rows: &RowGroup, state: &PartialState) -> Result<(), KernelError> {
        if !Arc::ptr_eq(state.plan(), &self.plan) && **state.plan() != *self.plan {
            return Err(KernelError::internal("state of another plan"));
        }
        if rows.chunks.len() != self.plan.columns.len() {
            return Err(KernelError::internal(format!("{} chunks for {} columns", rows.chunks.len(), self.plan.columns.len())));
        }
        for (position, (chunk, column)) in rows.chunks.iter().zip(&self.plan.columns).enumerate() {
            if chunk.row_count() != rows.row_count {
                return Err(KernelError::internal(format!("chunk {position} has {} rows of {}", chunk.row_count(), rows.row_count)));
            }
            if chunk.column_type() != *column {
                return Err(KernelError::internal(format!("chunk {position} is {:?}, not {column:?}", chunk.column_type())));
            }
        }
        Ok(())
    }
}
