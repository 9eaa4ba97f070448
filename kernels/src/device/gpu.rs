//! One open device: buffers, pipelines, dispatch and readback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use wgpu::*;

use super::copies::{ChunkCopies, RecentlyUsed};
use super::faults::Faults;
use super::layout::Layout;
use super::wgsl::{self, Shader};
use super::{AdapterReport, DevicePolicy, DeviceReport};
use crate::bind::Program;
use crate::chunk::Chunk;
use crate::error::KernelError;
use crate::limits::{DEVICE_WAIT_MS, PIPELINES_MAX, WORKGROUP_SIZE, WORKGROUPS_MAX};
use crate::state::Partial;

/// The storage bindings before the columns.
const FIXED_BINDINGS: u32 = 3;

/// The adapters of this machine, the one that would be used first.
pub fn adapters() -> Vec<AdapterReport> {
    found().iter().map(report_of).collect()
}

fn found() -> Vec<Adapter> {
    let backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    let mut adapters = pollster::block_on(Instance::new(descriptor).enumerate_adapters(backends));
    adapters.sort_by_key(|adapter| rank(adapter.get_info().device_type).0);
    adapters
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
        is_hardware: info.device_type != DeviceType::Cpu,
        name: info.name,
    }
}

pub(super) struct Gpu {
    device: Device,
    queue: Queue,
    limits: Limits,
    pub report: DeviceReport,
    copies: Mutex<ChunkCopies<Buffer>>,
    pipelines: Mutex<RecentlyUsed<String, (ComputePipeline, BindGroupLayout)>>,
    /// Why the device was lost, once it was.
    lost: Arc<Mutex<Option<String>>>,
    copy_budget_bytes: u64,
    in_flight_bytes: AtomicU64,
    faults: Arc<Faults>,
}

impl Gpu {
    /// Opens the best adapter that the policy allows; the error is the reason for a report.
    pub(super) fn open(policy: DevicePolicy, copy_budget_bytes: u64, faults: Arc<Faults>) -> Result<Self, DeviceReport> {
        let unavailable = |reason: String| DeviceReport { reason: Some(reason), ..DeviceReport::default() };
        let Some(adapter) = found().into_iter().next() else {
            return Err(unavailable("no adapter was found".into()));
        };
        let AdapterReport { name, driver, backend, is_hardware, .. } = report_of(&adapter);
        let software = !is_hardware;
        let mut report = DeviceReport { available: false, name, driver, backend, software, reason: None };
        if software && policy == DevicePolicy::Hardware {
            let name = report.name.split_whitespace().next().unwrap_or("unnamed").to_string();
            report.reason = Some(format!("only a software adapter ({name}) was found"));
            return Err(report);
        }
        // The default limits are far below what adapters have: eight storage buffers, for one.
        let limits = adapter.limits();
        let opened = pollster::block_on(adapter.request_device(&DeviceDescriptor {
            label: Some("bowshot"),
            required_features: Features::empty(),
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
        report.available = true;
        Ok(Self {
            device,
            queue,
            limits,
            report,
            copies: Mutex::new(ChunkCopies::new(copy_budget_bytes)),
            pipelines: Mutex::new(RecentlyUsed::new(PIPELINES_MAX)),
            lost,
            copy_budget_bytes,
            in_flight_bytes: AtomicU64::new(0),
            faults,
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

    /// Destroys the device, as a driver reset would.
    pub(super) fn destroy(&self) {
        self.device.destroy();
        let _ = self.device.poll(PollType::Poll);
    }

    /// Runs a program over its row group and reads the answer back completely.
    pub(super) fn run(&self, program: &Program<'_>) -> Result<Partial, KernelError> {
        let layout = Layout::new(program)?;
        let shader = wgsl::generate(program, &layout)?;
        let bytes = self.check(program, &shader)?;
        if self.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > self.copy_budget_bytes {
            self.in_flight_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(KernelError::declined("device: row groups in flight fill the device memory budget"));
        }
        // Scopes belong to this thread: everything up to the last pop stays on it, with no await between.
        let validation = self.device.push_error_scope(ErrorFilter::Validation);
        let memory = self.device.push_error_scope(ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(ErrorFilter::Internal);
        let words = self.dispatch(program, &layout, &shader);
        let errors = [pollster::block_on(internal.pop()), pollster::block_on(memory.pop()), pollster::block_on(validation.pop())];
        self.in_flight_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if let Some(error) = errors.into_iter().flatten().next() {
            // A pipeline or a copy that was made under an error is no good to anyone.
            self.pipelines.lock().clear();
            self.copies.lock().clear();
            return Err(KernelError::device(error.to_string()));
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
        let (pipeline, bind_group_layout) = self.pipeline(shader);
        if self.faults.loses_device() {
            self.destroy();
        }
        let total_bytes = u64::from(layout.words()) * 4;
        let parameters = self.filled(&[bytemuck::cast_slice(&shader.parameters)])?;
        let tables = self.filled(&[bytemuck::cast_slice(&shader.tables)])?;
        let totals = self.buffer("totals", total_bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC, false);
        let readback = self.buffer("readback", total_bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST, false);
        let mut buffers = vec![parameters, totals.clone(), tables];
        for column in &shader.columns {
            buffers.push(self.copy_of(&program.chunks[*column])?);
        }
        let entries: Vec<BindGroupEntry<'_>> = buffers
            .iter()
            .enumerate()
            .map(|(binding, buffer)| BindGroupEntry { binding: binding as u32, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group =
            self.device.create_bind_group(&BindGroupDescriptor { label: Some("row group"), layout: &bind_group_layout, entries: &entries });
        let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            let workgroups = (program.row_count as u32).div_ceil(WORKGROUP_SIZE).clamp(1, WORKGROUPS_MAX);
            pass.dispatch_workgroups(workgroups.min(self.limits.max_compute_workgroups_per_dimension), 1, 1);
        }
        encoder.copy_buffer_to_buffer(&totals, 0, &readback, 0, total_bytes);
        let submission = self.queue.submit([encoder.finish()]);
        self.read(&readback, submission)
    }

    fn read(&self, readback: &Buffer, submission: SubmissionIndex) -> Result<Vec<u32>, KernelError> {
        let mapped = Arc::new(Mutex::new(None));
        let outcome = Arc::clone(&mapped);
        readback.map_async(MapMode::Read, .., move |result| *outcome.lock() = Some(result));
        let timeout = Some(Duration::from_millis(DEVICE_WAIT_MS));
        let waited = self.device.poll(PollType::Wait { submission_index: Some(submission), timeout });
        if let Err(error) = waited {
            // A device that does not come back is as good as lost.
            *self.lost.lock() = Some(error.to_string());
            return Err(KernelError::device(error.to_string()));
        }
        match mapped.lock().take() {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(KernelError::device(error.to_string())),
            None => return Err(KernelError::device("the answer was not mapped")),
        }
        let view = readback.get_mapped_range(..).map_err(|error| KernelError::device(error.to_string()))?;
        Ok(bytemuck::pod_collect_to_vec(&view))
    }

    fn buffer(&self, label: &str, size: u64, usage: BufferUsages, mapped_at_creation: bool) -> Buffer {
        // No device has that much: it refuses, and the buffer is as invalid as one that memory ran out for.
        let size = if self.faults.fails_allocation() { 1 << 62 } else { size };
        self.device.create_buffer(&BufferDescriptor { label: Some(label), size, usage, mapped_at_creation })
    }

    /// A storage buffer that starts with these bytes, each part a multiple of 4 long.
    fn filled(&self, parts: &[&[u8]]) -> Result<Buffer, KernelError> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let buffer = self.buffer("column", bytes.max(16) as u64, BufferUsages::STORAGE, true);
        {
            let mut view = buffer.get_mapped_range_mut(..).map_err(|error| KernelError::device(error.to_string()))?;
            let mut start = 0;
            for part in parts {
                view.slice(start..start + part.len()).copy_from_slice(part);
                start += part.len();
            }
        }
        buffer.unmap();
        Ok(buffer)
    }

    /// The device copy of a chunk: lanes, then validity words.
    fn copy_of(&self, chunk: &Arc<Chunk>) -> Result<Buffer, KernelError> {
        if let Some(buffer) = self.copies.lock().get(chunk.id()) {
            return Ok(buffer);
        }
        let validity = chunk.validity_words().unwrap_or_default();
        let buffer = self.filled(&[bytemuck::cast_slice(chunk.lane_words()), bytemuck::cast_slice(validity)])?;
        self.copies.lock().insert(chunk, buffer.clone(), buffer.size());
        Ok(buffer)
    }

    fn pipeline(&self, shader: &Shader) -> (ComputePipeline, BindGroupLayout) {
        if let Some(known) = self.pipelines.lock().get(&shader.source) {
            return known;
        }
        let entries: Vec<BindGroupLayoutEntry> = (0..FIXED_BINDINGS + shader.columns.len() as u32)
            .map(|binding| BindGroupLayoutEntry {
                binding,
                visibility: ShaderStages::COMPUTE,
                ty: BindingType::Buffer {
                    ty: BufferBindingType::Storage { read_only: binding != 1 },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = self.device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: None, entries: &entries });
        let pipeline_layout = self.device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let module = self.device.create_shader_module(ShaderModuleDescriptor {
            label: Some("hot aggregation"),
            source: ShaderSource::Wgsl(if self.faults.fails_shader() { "no shader".into() } else { shader.source.as_str().into() }),
        });
        let pipeline = self.device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: Some("hot aggregation"),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: PipelineCompilationOptions::default(),
            cache: None,
        });
        self.pipelines.lock().insert(shader.source.clone(), (pipeline.clone(), layout.clone()));
        (pipeline, layout)
    }
}

fn copy_bytes(chunk: &Chunk) -> u64 {
    let words = chunk.lane_words().len() + chunk.validity_words().map_or(0, <[u32]>::len);
    (words * 4).max(16) as u64
}
