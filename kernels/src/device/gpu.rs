//! One open device: buffers, pipelines, dispatch and readback.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use wgpu::*;

use super::copies::ChunkCopies;
use super::faults::Faults;
use super::layout::Layout;
use super::pipelines::{FIXED_BINDINGS, Pipelines};
use super::staging::Staging;
use super::wgsl::{self, Shader};
use super::{AdapterReport, DeviceReport, with_error_scopes};
use crate::bind::Program;
use crate::chunk::Chunk;
use crate::error::KernelError;
use crate::limits::{DEVICE_WAIT_MS, WORKGROUP_SIZE, WORKGROUPS_MAX};
use crate::state::Partial;

/// Bytes of the two time stamps of a dispatch.
const STAMPS_BYTES: u64 = 16;

/// The adapters of this machine, the one that would be used first.
pub fn adapters() -> Vec<AdapterReport> {
    found().iter().map(report_of).collect()
}

/// All adapters, the fastest kind first.
pub(super) fn found() -> Vec<Adapter> {
    let backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    let mut adapters = pollster::block_on(Instance::new(descriptor).enumerate_adapters(backends));
    adapters.sort_by_cached_key(|adapter| rank(adapter.get_info().device_type).0);
    adapters
}

/// An adapter with what is told of it.
pub(super) fn with_report(adapter: Adapter) -> (Adapter, AdapterReport) {
    let report = report_of(&adapter);
    (adapter, report)
}

fn rank(device_type: DeviceType) -> (u8, &'static str) {
    match device_type {
        DeviceType::DiscreteGpu => (0, "discrete"),
        DeviceType::IntegratedGpu => (1, "integrated"),
        DeviceType::VirtualGpu => (2, "virtual"),
        DeviceType::Other => (3, "other"),
        DeviceType::Cpu => (4, "software"),
    }
}

fn report_of(adapter: &Adapter) -> AdapterReport {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    AdapterReport {
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        backend: format!("{:?}", info.backend),
        kind: rank(info.device_type).1,
        binding_bytes_max: limits.max_storage_buffer_binding_size,
        workgroup_memory_bytes: limits.max_compute_workgroup_storage_size,
        has_doubles: features.contains(Features::SHADER_F64),
        has_wide_integers: features.contains(Features::SHADER_INT64),
        has_timestamps: features.contains(Features::TIMESTAMP_QUERY),
        slot: info.device_pci_bus_id,
        is_hardware: info.device_type != DeviceType::Cpu,
        name: info.name,
    }
}

/// A program in the form of a device.
pub(super) struct Prepared {
    layout: Layout,
    shader: Shader,
}

impl Prepared {
    pub(super) fn new(program: &Program<'_>) -> Result<Self, KernelError> {
        let layout = Layout::new(program)?;
        let shader = wgsl::generate(program, &layout)?;
        Ok(Self { layout, shader })
    }
}

pub(super) struct Gpu {
    device: Device,
    queue: Queue,
    limits: Limits,
    pub report: DeviceReport,
    copies: Mutex<ChunkCopies<Buffer>>,
    pipelines: Arc<Pipelines>,
    staging: Staging,
    has_stamps: bool,
    /// Why the device was lost, once it was.
    lost: Arc<Mutex<Option<String>>>,
    copy_budget_bytes: u64,
    in_flight_bytes: AtomicU64,
    busy_nanoseconds: AtomicU64,
    faults: Arc<Faults>,
}

impl Gpu {
    /// Opens an adapter; the error is the reason for a report. Compiled kernels are kept in `pipelines`, a folder.
    pub(super) fn open(
        adapter: &Adapter,
        copy_budget_bytes: u64,
        faults: Arc<Faults>,
        pipelines: Option<&Path>,
    ) -> Result<Self, DeviceReport> {
        let mut report = DeviceReport::of(report_of(adapter));
        // The default limits are far below what adapters have: eight storage buffers, for one.
        let limits = adapter.limits();
        let opened = pollster::block_on(adapter.request_device(&DeviceDescriptor {
            label: Some("bowshot"),
            required_features: adapter.features() & (Features::PIPELINE_CACHE | Features::TIMESTAMP_QUERY),
            required_limits: limits.clone(),
            experimental_features: ExperimentalFeatures::disabled(),
            memory_hints: MemoryHints::Performance,
            trace: Trace::Off,
        }));
        let (device, queue) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                report.reason = Some(error.to_string());
                return Err(report);
            }
        };
        let lost = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, message| {
            *seen.lock() = Some(format!("{reason:?}: {message}"));
        });
        // Without a handler wgpu panics on an error outside every scope.
        device.on_uncaptured_error(Arc::new(|error: Error| tracing::warn!(%error, "device error outside a scope")));
        let file = util::pipeline_cache_key(&adapter.get_info()).and_then(|key| Some(pipelines?.join(key)));
        report.available = true;
        Ok(Self {
            limits,
            report,
            copies: Mutex::new(ChunkCopies::new(copy_budget_bytes)),
            pipelines: Arc::new(Pipelines::new(device.clone(), Arc::clone(&faults), file)),
            staging: Staging::new(device.clone(), queue.clone()),
            has_stamps: device.features().contains(Features::TIMESTAMP_QUERY),
            lost,
            copy_budget_bytes,
            in_flight_bytes: AtomicU64::new(0),
            busy_nanoseconds: AtomicU64::new(0),
            faults,
            device,
            queue,
        })
    }

    /// Why the device was lost, if it was.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.lock().clone()
    }

    /// Whether a copy of the chunk is here.
    pub(super) fn holds(&self, chunk: &Chunk) -> bool {
        self.copies.lock().holds(chunk.id())
    }

    /// Bytes of the program's chunks that are here.
    pub(super) fn bytes_held(&self, program: &Program<'_>) -> u64 {
        let copies = self.copies.lock();
        program.chunks.iter().filter(|chunk| copies.holds(chunk.id())).map(|chunk| copy_bytes(chunk)).sum()
    }

    /// Bytes of copies here, and of row groups on their way.
    pub(super) fn load(&self) -> u64 {
        self.copies.lock().bytes() + self.in_flight_bytes.load(Ordering::Acquire)
    }

    /// Nanoseconds in which the device ran kernels, as it told by itself; 0 where it does not tell.
    pub(super) fn busy_nanoseconds(&self) -> u64 {
        self.busy_nanoseconds.load(Ordering::Relaxed)
    }

    /// Whether compiled kernels are written down.
    #[cfg(test)]
    pub(super) fn stores_pipelines(&self) -> bool {
        self.pipelines.is_stored()
    }

    /// Destroys the device, as a driver reset would.
    pub(super) fn destroy(&self) {
        self.device.destroy();
        let _ = self.device.poll(PollType::Poll);
    }

    /// Whether the kernel is compiled; if not, that begins beside.
    pub(super) fn is_ready(&self, prepared: &Prepared) -> Result<bool, KernelError> {
        self.pipelines.is_ready(&prepared.shader)
    }

    /// Runs a program over its row group and reads the answer back completely.
    pub(super) fn run(&self, program: &Program<'_>, prepared: &Prepared) -> Result<Partial, KernelError> {
        let Prepared { layout, shader } = prepared;
        let bytes = self.check(program, shader)? + 2 * layout.bytes();
        if self.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > self.copy_budget_bytes {
            self.in_flight_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(KernelError::declined("device: row groups in flight fill the device memory budget"));
        }
        let (words, error) = with_error_scopes(&self.device, || self.dispatch(program, layout, shader));
        self.in_flight_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if let Some(error) = error {
            // A pipeline, a copy or a buffer that was made under an error is no good to anyone.
            self.pipelines.clear();
            self.copies.lock().clear();
            self.staging.clear();
            return Err(KernelError::device(error));
        }
        if let Some(reason) = self.lost() {
            return Err(KernelError::device(reason));
        }
        layout.decode(program, &words?)
    }

    /// Bytes of the row group on the device, all limits respected.
    fn check(&self, program: &Program<'_>, shader: &Shader) -> Result<u64, KernelError> {
        if shader.columns.len() as u64 + u64::from(FIXED_BINDINGS) > u64::from(self.limits.max_storage_buffers_per_shader_stage) {
            return Err(KernelError::declined(format!("device: {} columns exceed its bindings", shader.columns.len())));
        }
        let largest = self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size);
        let mut total = 0;
        for column in &shader.columns {
            let bytes = copy_bytes(&program.chunks[*column]);
            if bytes > largest {
                return Err(KernelError::declined(format!("device: a chunk of {bytes} bytes exceeds a binding")));
            }
            total += bytes;
        }
        if shader.tables.len() as u64 * 4 > largest {
            return Err(KernelError::declined("device: string tables exceed a binding"));
        }
        if total > self.copy_budget_bytes {
            return Err(KernelError::declined(format!("device: chunks of {total} bytes exceed the device memory budget")));
        }
        Ok(total)
    }

    fn dispatch(&self, program: &Program<'_>, layout: &Layout, shader: &Shader) -> Result<Vec<u32>, KernelError> {
        let pipeline = self.pipelines.get(shader);
        if self.faults.loses_device() {
            self.destroy();
        }
        let total_bytes = layout.bytes();
        let parameters = self.filled(&shader.parameters)?;
        let tables = self.filled(&shader.tables)?;
        let totals = self.buffer("totals", total_bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC, false);
        let stamps = self.has_stamps.then(|| Stamps::new(self));
        let answer_bytes = total_bytes + if stamps.is_some() { STAMPS_BYTES } else { 0 };
        let readback = self.buffer("readback", answer_bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST, false);
        let mut buffers = vec![parameters, totals.clone(), tables];
        for column in &shader.columns {
            buffers.push(self.copy_of(&program.chunks[*column])?);
        }
        let entries: Vec<BindGroupEntry<'_>> = buffers
            .iter()
            .enumerate()
            .map(|(binding, buffer)| BindGroupEntry { binding: binding as u32, resource: buffer.as_entire_binding() })
            .collect();
        let bindings =
            self.device.create_bind_group(&BindGroupDescriptor { label: Some("row group"), layout: &pipeline.bindings, entries: &entries });
        let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
        {
            let timestamp_writes = stamps.as_ref().map(Stamps::writes);
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor { label: None, timestamp_writes });
            pass.set_bind_group(0, &bindings, &[]);
            let workgroups = (program.row_count as u32).div_ceil(WORKGROUP_SIZE).clamp(1, WORKGROUPS_MAX);
            let workgroups = workgroups.min(self.limits.max_compute_workgroups_per_dimension);
            for part in std::iter::once(&pipeline.main).chain(&pipeline.lower_words) {
                pass.set_pipeline(part);
                pass.dispatch_workgroups(workgroups, 1, 1);
            }
        }
        encoder.copy_buffer_to_buffer(&totals, 0, &readback, 0, total_bytes);
        if let Some(stamps) = &stamps {
            stamps.copy(&mut encoder, &readback, total_bytes);
        }
        let submission = self.queue.submit([encoder.finish()]);
        let mut words = self.read(&readback, submission)?;
        let stamps: [u64; 2] = match words.split_off((total_bytes / 4) as usize)[..] {
            [low, high, later_low, later_high] => {
                [(low, high), (later_low, later_high)].map(|(low, high)| u64::from(high) << 32 | u64::from(low))
            }
            _ => [0, 0],
        };
        let ticks = stamps[1].saturating_sub(stamps[0]) as f64;
        self.busy_nanoseconds.fetch_add((ticks * f64::from(self.queue.get_timestamp_period())) as u64, Ordering::Relaxed);
        Ok(words)
    }

    fn read(&self, readback: &Buffer, submission: SubmissionIndex) -> Result<Vec<u32>, KernelError> {
        let (sender, mapped) = std::sync::mpsc::sync_channel(1);
        readback.map_async(MapMode::Read, .., move |result| {
            let _ = sender.try_send(result);
        });
        let wait = Duration::from_millis(DEVICE_WAIT_MS);
        let timeout = Some(wait);
        let waited = self.device.poll(PollType::Wait { submission_index: Some(submission), timeout });
        if let Err(error) = waited {
            // A device that does not come back is as good as lost.
            *self.lost.lock() = Some(error.to_string());
            return Err(KernelError::device(error.to_string()));
        }
        match mapped.recv_timeout(wait) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(KernelError::device(error.to_string())),
            Err(_) => return Err(KernelError::device("the answer was not mapped")),
        }
        let view = readback.get_mapped_range(..).map_err(|error| KernelError::device(error.to_string()))?;
        Ok(bytemuck::pod_collect_to_vec(&view))
    }

    fn buffer(&self, label: &str, size: u64, usage: BufferUsages, mapped_at_creation: bool) -> Buffer {
        // No device has that much: it refuses, and the buffer is as invalid as one that memory ran out for.
        let size = if self.faults.fails_allocation() { 1 << 62 } else { size };
        self.device.create_buffer(&BufferDescriptor { label: Some(label), size, usage, mapped_at_creation })
    }

    /// A storage buffer of some words.
    fn filled(&self, words: &[u32]) -> Result<Buffer, KernelError> {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let buffer = self.buffer("words", bytes.len().max(16) as u64, BufferUsages::STORAGE, true);
        {
            let mut view = buffer.get_mapped_range_mut(..).map_err(|error| KernelError::device(error.to_string()))?;
            view.slice(..bytes.len()).copy_from_slice(bytes);
        }
        buffer.unmap();
        Ok(buffer)
    }

    /// The device copy of a chunk: lanes, then validity words.
    fn copy_of(&self, chunk: &Arc<Chunk>) -> Result<Buffer, KernelError> {
        if let Some(buffer) = self.copies.lock().get(chunk.id()) {
            return Ok(buffer);
        }
        let buffer = self.buffer("column", copy_bytes(chunk), BufferUsages::STORAGE | BufferUsages::COPY_DST, false);
        let parts = [bytemuck::cast_slice(chunk.lane_words()), bytemuck::cast_slice(chunk.validity_words().unwrap_or_default())];
        self.staging.upload(&buffer, &parts, |size, usage| self.buffer("staging", size, usage, true))?;
        self.copies.lock().insert(chunk, buffer.clone(), buffer.size());
        Ok(buffer)
    }
}

/// When the device began and ended a dispatch.
struct Stamps {
    queries: QuerySet,
    resolved: Buffer,
}

impl Stamps {
    fn new(gpu: &Gpu) -> Self {
        let queries = gpu.device.create_query_set(&QuerySetDescriptor { label: None, ty: QueryType::Timestamp, count: 2 });
        let resolved = gpu.buffer("stamps", STAMPS_BYTES, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC, false);
        Self { queries, resolved }
    }

    fn writes(&self) -> ComputePassTimestampWrites<'_> {
        ComputePassTimestampWrites { query_set: &self.queries, beginning_of_pass_write_index: Some(0), end_of_pass_write_index: Some(1) }
    }

    fn copy(&self, encoder: &mut CommandEncoder, readback: &Buffer, at: u64) {
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, readback, at, STAMPS_BYTES);
    }
}

fn copy_bytes(chunk: &Chunk) -> u64 {
    let words = chunk.lane_words().len() + chunk.validity_words().map_or(0, <[u32]>::len);
    (words * 4).max(16) as u64
}
