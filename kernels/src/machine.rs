//! What this machine can do: instruction set and memory bandwidth, against which host kernels are judged.

use std::time::{Duration, Instant};

use crate::simd::{Level, level, vectorised};

/// Bytes that one thread reads again and again: far beyond every cache that it shares.
const READ_BYTES: usize = 128 << 20;

/// Bytes of a quick measurement: beyond most caches.
const QUICK_READ_BYTES: usize = 64 << 20;

/// How long reading is timed.
const READ_FOR: Duration = Duration::from_millis(300);

vectorised! {
    /// Touches every word; the sum keeps the compiler from leaving it out.
    fn sum_words [](words: &[u64]) -> u64 {
        let mut total = 0u64;
        for word in words {
            total = total.wrapping_add(*word);
        }
        total
    }
}

/// The instruction set that host kernels were compiled for and this processor has, in plain words.
pub fn instruction_set() -> &'static str {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => "AVX2",
        Level::Portable => "portable",
    }
}

/// Bytes a second that `threads` threads read from memory together, measured now: half a second and 128 MiB a thread. The best of a
/// few passes of each thread, since a busy machine only ever slows one down.
pub fn memory_read_bandwidth(threads: usize) -> f64 {
    let threads = threads.max(1);
    let barrier = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(|| read_rate(&barrier))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap_or(0.0)).sum()
    })
}

/// The same for one thread in a tenth of that, and as much less exact.
pub(crate) fn quick_read_bandwidth() -> f64 {
    passes(&written(QUICK_READ_BYTES), Duration::ZERO)
}

fn read_rate(barrier: &std::sync::Barrier) -> f64 {
    let words = written(READ_BYTES);
    barrier.wait();
    passes(&words, READ_FOR)
}

/// Written, so that pages are real and not all one page of zeros.
fn written(bytes: usize) -> Vec<u64> {
    (0..bytes as u64 / 8).collect()
}

/// Bytes a second of the best pass, of at least two.
fn passes(words: &[u64], time: Duration) -> f64 {
    let bytes = size_of_val(words);
    let (began, mut best, mut count) = (Instant::now(), 0.0f64, 0);
    while count < 2 || began.elapsed() < time {
        let pass = Instant::now();
        std::hint::black_box(sum_words(words));
        best = best.max(bytes as f64 / pass.elapsed().as_secs_f64());
        count += 1;
    }
    best
}
