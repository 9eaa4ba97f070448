//! Uploads through a ring of buffers that stay mapped between uses: making and clearing one for every upload costs several times the copy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use wgpu::*;

use crate::error::KernelError;
use crate::limits::{DEVICE_WAIT_MS, STAGING_BUFFER_BYTES, STAGING_BUFFERS_MAX};

/// How often a wait looks at what the device has finished.
const POLL: Duration = Duration::from_millis(1);

/// The ring of one device.
pub(super) struct Staging {
    device: Device,
    queue: Queue,
    ring: Arc<Ring>,
}

#[derive(Default)]
struct Ring {
    buffers: Mutex<Buffers>,
    /// One came back.
    returned: Condvar,
}

#[derive(Default)]
struct Buffers {
    /// Mapped and of no use to anyone.
    free: Vec<Buffer>,
    /// Free or on their way.
    made: usize,
}

impl Staging {
    pub(super) fn new(device: Device, queue: Queue) -> Self {
        Self { device, queue, ring: Arc::default() }
    }

    /// Fills `target` with the parts, one after the other, each a multiple of 4 long. What is submitted to the queue later finds them.
    ///
    /// `make` makes a buffer of this ring: with memory for the host to write, mapped.
    pub(super) fn upload(&self, target: &Buffer, parts: &[&[u8]], make: impl Fn(u64, BufferUsages) -> Buffer) -> Result<(), KernelError> {
        let mut start = 0;
        for part in parts {
            for piece in part.chunks(STAGING_BUFFER_BYTES) {
                let buffer = self.take(&make)?;
                if let Err(error) = fill(&buffer, piece) {
                    self.ring.lost();
                    return Err(error);
                }
                buffer.unmap();
                let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
                encoder.copy_buffer_to_buffer(&buffer, 0, target, start, piece.len() as u64);
                self.queue.submit([encoder.finish()]);
                self.give_back(buffer);
                start += piece.len() as u64;
            }
        }
        Ok(())
    }

    /// A mapped buffer: a free one, a new one, or the next to come back.
    fn take(&self, make: &impl Fn(u64, BufferUsages) -> Buffer) -> Result<Buffer, KernelError> {
        let deadline = Instant::now() + Duration::from_millis(DEVICE_WAIT_MS);
        let mut buffers = self.ring.buffers.lock();
        loop {
            if let Some(buffer) = buffers.free.pop() {
                return Ok(buffer);
            }
            if buffers.made < STAGING_BUFFERS_MAX {
                buffers.made += 1;
                drop(buffers);
                return Ok(make(STAGING_BUFFER_BYTES as u64, BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC));
            }
            if Instant::now() > deadline {
                return Err(KernelError::device("uploads do not end"));
            }
            // What the device has finished is told to whoever asks; the callbacks take the lock.
            drop(buffers);
            self.device.poll(PollType::Poll).map_err(|error| KernelError::device(error.to_string()))?;
            buffers = self.ring.buffers.lock();
            if buffers.free.is_empty() {
                self.ring.returned.wait_for(&mut buffers, POLL);
            }
        }
    }

    /// Once the device has copied it, the buffer is free again.
    fn give_back(&self, buffer: Buffer) {
        let (ring, again) = (Arc::clone(&self.ring), buffer.clone());
        buffer.map_async(MapMode::Write, .., move |mapped| match mapped {
            Ok(()) => {
                ring.buffers.lock().free.push(again);
                ring.returned.notify_one();
            }
            Err(_) => ring.lost(),
        });
    }

    /// Begins anew: under an error some buffers may be no good, or never come back.
    pub(super) fn clear(&self) {
        *self.ring.buffers.lock() = Buffers::default();
    }
}

impl Ring {
    /// One buffer fewer. Those of before a [`Staging::clear`] are no longer counted.
    fn lost(&self) {
        let made = &mut self.buffers.lock().made;
        *made = made.saturating_sub(1);
    }
}

fn fill(buffer: &Buffer, piece: &[u8]) -> Result<(), KernelError> {
    let mut view = buffer.get_mapped_range_mut(..).map_err(|error| KernelError::device(error.to_string()))?;
    view.slice(..piece.len()).copy_from_slice(piece);
    Ok(())
}
