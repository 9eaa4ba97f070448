//! What a card and its bus can do, measured by plain shaders and copies that share nothing with the kernels: the floor they are judged by.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bowshot_kernels::DeviceReport;
use wgpu::*;

use crate::Outcome;

const FILL: &str = include_str!("../shaders/fill.wgsl");
const READ: &str = include_str!("../shaders/read.wgsl");
const COPY: &str = include_str!("../shaders/copy.wgsl");

/// Bytes of the buffer that is read: far beyond every card's caches. Software adapters get less, where only correctness counts.
const BUFFER_BYTES: u64 = 1 << 30;
const SOFTWARE_BUFFER_BYTES: u64 = 16 << 20;
/// Passes of one submission, so that its launch is a small part.
const PASSES: u32 = 32;
const SOFTWARE_PASSES: u32 = 2;
/// Workgroups of 256: several waves of the largest cards, with 32 vectors of the buffer for each invocation.
const WORKGROUPS: u32 = 8_192;
const VECTOR_BYTES: u64 = 16;
/// Staging buffers that take turns, and the bytes of each: two are in the air while the third is filled.
const RING: usize = 3;
const STAGING_BYTES: u64 = 64 << 20;
const SOFTWARE_STAGING_BYTES: u64 = 4 << 20;
/// A submission that takes longer means a device that is gone.
const WAIT: Duration = Duration::from_secs(60);

/// Bytes moved, and the best time that took.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    pub seconds: f64,
    pub bytes: u64,
}

impl Rate {
    pub fn bytes_per_second(self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-9)
    }
}

/// The rates of one card.
pub struct CardRates {
    /// Device memory, read by a shader.
    pub read: Rate,
    /// Device memory, copied by a shader: bytes read plus bytes written.
    pub copy: Rate,
    /// The bus: from a staging buffer to device memory.
    pub bus: Rate,
    /// The bus as uploads use it: one thread copies host memory into a ring of mapped staging buffers.
    pub upload: Rate,
}

/// Measures the card that the kernels report.
///
/// # Errors
/// Where it cannot be opened, fails, or adds up wrongly.
pub fn measure(report: &DeviceReport, runs: usize) -> Outcome<CardRates> {
    let card = Card::open(report)?;
    let (read, copy) = card.memory(runs)?;
    let (bus, upload) = (card.bus(runs)?, card.upload(runs)?);
    card.check()?;
    Ok(CardRates { read, copy, bus, upload })
}

/// A device of our own beside that of the kernels.
struct Card {
    device: Device,
    queue: Queue,
    buffer_bytes: u64,
    passes: u32,
    staging_bytes: u64,
    /// The first error that no call returned.
    error: Arc<OnceLock<String>>,
}

impl Card {
    fn open(report: &DeviceReport) -> Outcome<Self> {
        let backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
        let mut descriptor = InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends;
        let adapters = pollster::block_on(Instance::new(descriptor).enumerate_adapters(backends));
        let is_reported = |adapter: &Adapter| {
            let info = adapter.get_info();
            info.name == report.name && format!("{:?}", info.backend) == report.backend
        };
        let adapter = adapters.into_iter().find(is_reported).ok_or("the adapter of the kernels is not listed")?;
        let limits = adapter.limits();
        let (device, queue) = pollster::block_on(adapter.request_device(&DeviceDescriptor {
            label: Some("bandwidth"),
            required_features: Features::empty(),
            required_limits: limits.clone(),
            experimental_features: ExperimentalFeatures::disabled(),
            memory_hints: MemoryHints::Performance,
            trace: Trace::Off,
        }))?;
        let error = Arc::new(OnceLock::new());
        let first = Arc::clone(&error);
        device.on_uncaptured_error(Arc::new(move |error: Error| {
            // Later errors follow from the first.
            let _ = first.set(error.to_string());
        }));
        let (bytes, passes, staging_bytes) = if report.software {
            (SOFTWARE_BUFFER_BYTES, SOFTWARE_PASSES, SOFTWARE_STAGING_BYTES)
        } else {
            (BUFFER_BYTES, PASSES, STAGING_BYTES)
        };
        let largest = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let buffer_bytes = bytes.min(largest / VECTOR_BYTES * VECTOR_BYTES);
        Ok(Self { device, queue, buffer_bytes, passes, staging_bytes, error })
    }

    fn check(&self) -> Outcome<()> {
        self.error.get().map_or(Ok(()), |error| Err(format!("the bandwidth of the device: {error}").into()))
    }

    fn buffer(&self, size: u64, usage: BufferUsages, mapped: bool) -> Buffer {
        self.device.create_buffer(&BufferDescriptor { label: Some("bandwidth"), size, usage, mapped_at_creation: mapped })
    }

    fn wait(&self, submission: SubmissionIndex) -> Outcome<()> {
        self.device.poll(PollType::Wait { submission_index: Some(submission), timeout: Some(WAIT) })?;
        Ok(())
    }

    /// Records, submits and waits; the seconds of all three.
    fn submit(&self, record: impl FnOnce(&mut CommandEncoder)) -> Outcome<f64> {
        let began = Instant::now();
        let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
        record(&mut encoder);
        self.wait(self.queue.submit([encoder.finish()]))?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Seconds of `passes` runs of a shader over `buffers`, bound in this order.
    fn run(&self, shader: &str, buffers: &[&Buffer], passes: u32, runs: usize) -> Outcome<f64> {
        let module = self.device.create_shader_module(ShaderModuleDescriptor { label: None, source: ShaderSource::Wgsl(shader.into()) });
        let pipeline = self.device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: PipelineCompilationOptions::default(),
            cache: None,
        });
        let entries: Vec<BindGroupEntry<'_>> =
            (0..).zip(buffers).map(|(binding, buffer)| BindGroupEntry { binding, resource: buffer.as_entire_binding() }).collect();
        let layout = pipeline.get_bind_group_layout(0);
        let group = self.device.create_bind_group(&BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
        // The first run warms.
        let mut best = f64::MAX;
        for run in 0..=runs {
            let seconds = self.submit(|encoder| {
                let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &group, &[]);
                (0..passes).for_each(|_| pass.dispatch_workgroups(WORKGROUPS, 1, 1));
            })?;
            best = if run == 0 { best } else { best.min(seconds) };
        }
        self.check()?;
        Ok(best)
    }

    /// Reading and copying device memory.
    fn memory(&self, runs: usize) -> Outcome<(Rate, Rate)> {
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
        let words = self.buffer(self.buffer_bytes, storage, false);
        let totals = self.buffer(u64::from(WORKGROUPS) * 4, storage, false);
        self.run(FILL, &[&words], 1, 1)?;
        let seconds = self.run(READ, &[&words, &totals], self.passes, runs)?;
        let read = Rate { seconds, bytes: self.buffer_bytes * u64::from(self.passes) };
        if self.sum(&totals)? != expected_sum(self.buffer_bytes / VECTOR_BYTES) {
            return Err("the device read its memory and added up wrongly: its bandwidth means nothing".into());
        }
        let copied = self.buffer(self.buffer_bytes, storage, false);
        let seconds = self.run(COPY, &[&words, &copied], self.passes, runs)?;
        self.run(READ, &[&copied, &totals], 1, 1)?;
        if self.sum(&totals)? != expected_sum(self.buffer_bytes / VECTOR_BYTES) {
            return Err("the device copied its memory wrongly: its bandwidth means nothing".into());
        }
        Ok((read, Rate { seconds, bytes: 2 * read.bytes }))
    }

    /// The sum of a buffer's words, modulo 2^32.
    fn sum(&self, words: &Buffer) -> Outcome<u32> {
        let readback = self.buffer(words.size(), BufferUsages::MAP_READ | BufferUsages::COPY_DST, false);
        self.submit(|encoder| encoder.copy_buffer_to_buffer(words, 0, &readback, 0, words.size()))?;
        readback.map_async(MapMode::Read, .., |_| {});
        self.device.poll(PollType::Wait { submission_index: None, timeout: Some(WAIT) })?;
        let view = readback.get_mapped_range(..)?;
        Ok(bytemuck::cast_slice::<u8, u32>(&view).iter().fold(0, |sum, word| sum.wrapping_add(*word)))
    }

    /// Staging buffer to device memory, nothing else.
    fn bus(&self, runs: usize) -> Outcome<Rate> {
        let staging = self.staging()?;
        let target = self.buffer(self.staging_bytes, BufferUsages::COPY_DST, false);
        staging.unmap();
        let mut best = f64::MAX;
        for run in 0..=runs {
            let seconds = self.submit(|encoder| {
                (0..self.passes).for_each(|_| encoder.copy_buffer_to_buffer(&staging, 0, &target, 0, self.staging_bytes));
            })?;
            best = if run == 0 { best } else { best.min(seconds) };
        }
        Ok(Rate { seconds: best, bytes: self.staging_bytes * u64::from(self.passes) })
    }

    /// A staging buffer, mapped and written once, so that its pages are there.
    fn staging(&self) -> Outcome<Buffer> {
        let staging = self.buffer(self.staging_bytes, BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC, true);
        let ones = vec![1u8; usize::try_from(self.staging_bytes)?];
        staging.get_mapped_range_mut(..)?.slice(..).copy_from_slice(&ones);
        Ok(staging)
    }

    /// Host memory to device memory, by one thread through a ring of mapped staging buffers.
    fn upload(&self, runs: usize) -> Outcome<Rate> {
        let piece = usize::try_from(self.staging_bytes)?;
        let source: Vec<u8> = (0..RING * piece).map(|at| at as u8).collect();
        let target = self.buffer(self.staging_bytes, BufferUsages::COPY_DST, false);
        let mut ring = (0..RING).map(|_| Ok(Slot::new(self.staging()?))).collect::<Outcome<Vec<_>>>()?;
        let mut best = f64::MAX;
        for run in 0..=runs {
            let began = Instant::now();
            for turn in 0..self.passes as usize {
                let at = turn % RING;
                self.send(&mut ring[at], &source[at * piece..][..piece], &target)?;
            }
            ring.iter_mut().try_for_each(|slot| self.free(slot))?;
            best = if run == 0 { best } else { best.min(began.elapsed().as_secs_f64()) };
        }
        Ok(Rate { seconds: best, bytes: self.staging_bytes * u64::from(self.passes) })
    }

    /// Waits until a slot can be written again.
    fn free(&self, slot: &mut Slot) -> Outcome<()> {
        if let Some(submission) = slot.sent.take() {
            self.wait(submission)?;
        }
        if !slot.is_mapped.load(Ordering::Acquire) {
            return Err("a staging buffer was not mapped again".into());
        }
        Ok(())
    }

    fn send(&self, slot: &mut Slot, bytes: &[u8], target: &Buffer) -> Outcome<()> {
        self.free(slot)?;
        slot.staging.get_mapped_range_mut(..)?.slice(..).copy_from_slice(bytes);
        slot.staging.unmap();
        slot.is_mapped.store(false, Ordering::Release);
        let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&slot.staging, 0, target, 0, self.staging_bytes);
        slot.sent = Some(self.queue.submit([encoder.finish()]));
        let is_mapped = Arc::clone(&slot.is_mapped);
        slot.staging.map_async(MapMode::Write, .., move |result| is_mapped.store(result.is_ok(), Ordering::Release));
        Ok(())
    }
}

/// One staging buffer of the ring.
struct Slot {
    staging: Buffer,
    is_mapped: Arc<AtomicBool>,
    sent: Option<SubmissionIndex>,
}

impl Slot {
    fn new(staging: Buffer) -> Self {
        Self { staging, is_mapped: Arc::new(AtomicBool::new(true)), sent: None }
    }
}

/// What fill.wgsl's words add up to, modulo 2^32.
fn expected_sum(vectors: u64) -> u32 {
    let sum = u128::from(vectors) * u128::from(vectors.saturating_sub(1)) / 2;
    (sum as u32).wrapping_mul(2_654_435_761).wrapping_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_words() {
        let plain = (0..100_000u32).fold(0u32, |sum, at| sum.wrapping_add(at.wrapping_mul(2_654_435_761).wrapping_mul(4)));
        assert_eq!(expected_sum(100_000), plain);
    }
}
