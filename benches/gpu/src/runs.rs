//! Runs a kernel over row groups from several threads, as the engine does, and keeps the best time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bowshot_kernels::{Executor, Kernel, KernelError, Kernels, PartialState, RowGroup};

use crate::answer::Answer;

/// A measurement that is repeated longer than this ends early, after at least one run: a sweep over hundreds of millions of rows stays
/// within minutes.
const MEASURE_FOR: Duration = Duration::from_secs(5);

/// The best time of some passes, and the answer of the last.
pub struct Measured {
    pub seconds: f64,
    pub answer: Answer,
    pub passes: u64,
}

/// One pass over all row groups: each thread has a state of its own, they merge at the end. Finishing the groups is part of it.
pub fn once(kernel: &Kernel, executor: Executor, groups: &[RowGroup], threads: usize) -> Result<Measured, KernelError> {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let work = || -> Result<PartialState, KernelError> {
        let mut state = kernel.new_state();
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            kernel.accumulate(executor, group, &mut state)?;
        }
        Ok(state)
    };
    let states: Vec<Result<PartialState, KernelError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.clamp(1, groups.len().max(1))).map(|_| scope.spawn(work)).collect();
        let panicked = || KernelError::Internal { reason: "a thread panicked".into() };
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    let mut states = states.into_iter();
    let mut merged = states.next().unwrap_or_else(|| Ok(kernel.new_state()))?;
    for state in states {
        merged.merge(state?)?;
    }
    let result = merged.finish()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Measured { seconds, answer: Answer::sorted(result)?, passes: 1 })
}

/// The best of `runs` passes.
pub fn best(kernel: &Kernel, executor: Executor, groups: &[RowGroup], threads: usize, runs: usize) -> Result<Measured, KernelError> {
    let began = Instant::now();
    let mut best = once(kernel, executor, groups, threads)?;
    for _ in 1..runs {
        if began.elapsed() > MEASURE_FOR {
            break;
        }
        let next = once(kernel, executor, groups, threads)?;
        best = Measured { seconds: next.seconds.min(best.seconds), answer: next.answer, passes: best.passes + 1 };
    }
    Ok(best)
}

/// Rows and errors of the device that runs added: nothing that did not run there may pass for it.
pub struct DeviceWatch<'k> {
    kernels: &'k Kernels,
    rows: u64,
    errors: u64,
    nanoseconds: u64,
}

impl<'k> DeviceWatch<'k> {
    pub fn new(kernels: &'k Kernels) -> Self {
        let counters = kernels.counters();
        Self { kernels, rows: counters.device_rows, errors: counters.device_errors, nanoseconds: counters.device_nanoseconds }
    }

    /// Seconds in which the device ran kernels since, by its own clock; `None` where it has none.
    pub fn device_seconds(&self) -> Option<f64> {
        let nanoseconds = self.kernels.counters().device_nanoseconds - self.nanoseconds;
        (nanoseconds > 0).then_some(nanoseconds as f64 / 1e9)
    }

    /// What is wrong after passes over `rows` rows in all; none if each of them ran on the device.
    pub fn problem(&self, rows: u64) -> Option<String> {
        let counters = self.kernels.counters();
        let (ran, errors) = (counters.device_rows - self.rows, counters.device_errors - self.errors);
        if errors > 0 {
            return Some(format!("{errors} errors of the device"));
        }
        (ran != rows).then(|| format!("not on the device: {ran} rows of {rows} ran there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lineitem, queries};
    use bowshot_kernels::{DevicePolicy, KernelsConfig};
    use std::sync::Arc;

    /// Kernels without a device, and a step of the sweep over 5 row groups of 1,000 rows.
    fn host_only() -> (Kernels, Kernel, Vec<RowGroup>) {
        let kernels = Kernels::open(KernelsConfig { device: DevicePolicy::Off, ..KernelsConfig::default() });
        let kernel = kernels.plan(queries::sweep(64).plan).unwrap();
        let columns = lineitem::generate(5, |_| 1_000, 2).unwrap();
        let keys = lineitem::keys(&[1_000; 5], 64, 2).unwrap();
        let pairs = columns.into_iter().zip(keys);
        let groups = pairs.map(|(columns, key)| RowGroup { row_count: 1_000, chunks: vec![Arc::clone(&columns[lineitem::QUANTITY]), key] });
        (kernels, kernel, groups.collect())
    }

    #[test]
    fn answers_do_not_depend_on_threads() {
        let (_, kernel, groups) = host_only();
        let one = best(&kernel, Executor::Host, &groups, 1, 2).unwrap();
        let four = once(&kernel, Executor::Host, &groups, 4).unwrap();
        assert_eq!((one.passes, four.passes), (2, 1));
        assert_eq!(one.answer, four.answer);
        assert_eq!(one.answer.keys[0].len(), 64);
        let fewer = once(&kernel, Executor::Host, &groups[1..], 1).unwrap();
        assert_ne!(one.answer, fewer.answer);
    }

    #[test]
    fn rows_of_the_host_do_not_pass_for_the_devices() {
        let (kernels, kernel, groups) = host_only();
        let watch = DeviceWatch::new(&kernels);
        assert_eq!(watch.problem(0), None);
        once(&kernel, Executor::Host, &groups, 2).unwrap();
        let problem = watch.problem(5_000).unwrap();
        assert!(problem.contains("0 rows of 5000"), "{problem}");
    }
}
