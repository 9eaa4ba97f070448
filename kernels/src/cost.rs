//! What a row group costs on each executor, foreseen from rates that are measured once on this machine.
//!
//! ```text
//!   seconds = launch + upload bytes / upload rate + bytes / read rate + rows * steps / step rate
//! ```
//! A step is one node of the plan's expressions, one key or one aggregate, for one row. The model need not be exact: executors that are
//! near each other are as good as each other, and answers are the same on both.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::Int64Array;

use crate::chunk::ChunkEncoder;
use crate::error::KernelError;
use crate::expr::{ArithmeticOp, ColumnType, CompareOp, Expr, Literal};
use crate::kernels::{Executor, Kernel, RowGroup};
use crate::limits::UPLOAD_USES;
use crate::machine;
use crate::plan::{Aggregate, AggregateFunction, AggregatePlan};

/// Rows that rates are measured over: a row group's usual length, so that a launch is as small a part as it will be.
const ROWS: usize = 1 << 20;
/// Times that a measurement is repeated; the best counts.
const REPEATS: usize = 3;
const INT: ColumnType = ColumnType::Int { bits: 64, signed: true };

/// One executor's rates: bytes and steps a second of one thread of the host, or of the whole device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Seconds from call to answer over next to no rows.
    pub launch_seconds: f64,
    /// Bytes of chunks a second that reach the executor's memory; infinite where they are there already.
    pub upload_bytes_per_second: f64,
    /// Bytes of chunks a second that are read.
    pub read_bytes_per_second: f64,
    /// Steps a second.
    pub steps_per_second: f64,
}

/// The rates of this machine's executors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostModel {
    /// One thread of this processor.
    pub host: Rates,
    /// The device, where there is one that may be used.
    pub device: Option<Rates>,
}

/// What a row group asks of an executor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes of its chunks' lanes.
    pub bytes: u64,
    /// Bytes of them that are not on the device yet.
    pub upload_bytes: u64,
    /// Steps over all rows.
    pub steps: u64,
}

/// What that is foreseen to cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// What is to be done.
    pub work: Work,
    /// Seconds of one thread of the host.
    pub host_seconds: f64,
    /// Seconds of the device once the chunks are there, and those of their upload.
    pub device_seconds: Option<(f64, f64)>,
}

impl Rates {
    fn seconds(&self, work: Work) -> f64 {
        self.launch_seconds + work.bytes as f64 / self.read_bytes_per_second + work.steps as f64 / self.steps_per_second
    }
}

impl CostModel {
    /// What `work` is foreseen to cost.
    pub fn estimate(&self, work: Work) -> Estimate {
        let device_seconds = self.device.map(|rates| (rates.seconds(work), work.upload_bytes as f64 / rates.upload_bytes_per_second));
        Estimate { work, host_seconds: self.host.seconds(work), device_seconds }
    }
}

impl Estimate {
    /// Both, one after the other. What neither has on the device yet counts twice, if both read it.
    pub fn and(&self, other: &Self) -> Self {
        let (ours, theirs) = (self.work, other.work);
        let work = Work {
            bytes: ours.bytes + theirs.bytes,
            upload_bytes: ours.upload_bytes + theirs.upload_bytes,
            steps: ours.steps + theirs.steps,
        };
        let device_seconds = self.device_seconds.zip(other.device_seconds);
        let device_seconds = device_seconds.map(|((run, upload), (more_run, more_upload))| (run + more_run, upload + more_upload));
        Self { work, host_seconds: self.host_seconds + other.host_seconds, device_seconds }
    }

    /// The cheaper executor. An upload serves the queries after this one too, so only a part of it counts.
    pub fn executor(&self) -> Executor {
        match self.device_seconds {
            Some((run, upload)) if run + upload / UPLOAD_USES < self.host_seconds => Executor::Device,
            _ => Executor::Host,
        }
    }
}

/// Steps a row of a plan.
pub(crate) fn steps(plan: &AggregatePlan) -> u64 {
    let of = |expr: &Option<Expr>| expr.as_ref().map_or(0, nodes);
    let aggregates = plan.aggregates.iter().map(|aggregate| 1 + of(&aggregate.argument) + of(&aggregate.filter)).sum::<u64>();
    of(&plan.filter) + 2 * plan.keys.len() as u64 + aggregates
}

/// Nodes that compute something.
fn nodes(expr: &Expr) -> u64 {
    match expr {
        Expr::Column(_) | Expr::Literal(_) => 0,
        other => 1 + other.children().into_iter().map(nodes).sum::<u64>(),
    }
}

/// Measures the host and, if `has_device`, the device through kernels that `plan` makes.
pub(crate) fn measure(plan: impl Fn(AggregatePlan) -> Kernel, has_device: bool) -> Result<CostModel, KernelError> {
    let (reading, adding) = (plan(reading()), plan(adding()));
    let rows = row_group(ROWS)?;
    let (read_work, add_work) = (reading.work(&rows), adding.work(&rows));
    let run = |kernel: &Kernel, executor, rows: &RowGroup| -> Result<f64, KernelError> {
        let began = Instant::now();
        kernel.run(executor, rows, &mut kernel.new_state())?;
        Ok(began.elapsed().as_secs_f64())
    };
    let best = |kernel: &Kernel, executor, rows: &RowGroup| -> Result<f64, KernelError> {
        (0..REPEATS).try_fold(f64::MAX, |best, _| Ok(run(kernel, executor, rows)?.min(best)))
    };
    let rate = |amount: u64, seconds: f64| amount as f64 / seconds.max(1e-9);

    let read_bytes_per_second = machine::quick_read_bandwidth();
    let seconds = best(&adding, Executor::Host, &rows)? - add_work.bytes as f64 / read_bytes_per_second;
    let host = Rates {
        launch_seconds: 0.0,
        upload_bytes_per_second: f64::INFINITY,
        read_bytes_per_second,
        steps_per_second: rate(add_work.steps, seconds),
    };
    if !has_device {
        return Ok(CostModel { host, device: None });
    }
    let few = row_group(64)?;
    // The first runs compile and upload.
    run(&reading, Executor::Device, &few)?;
    let launch_seconds = best(&reading, Executor::Device, &few)?;
    run(&reading, Executor::Device, &rows)?;
    let read_seconds = best(&reading, Executor::Device, &rows)?;
    let fresh = row_group(ROWS)?;
    let upload_seconds = run(&reading, Executor::Device, &fresh)? - read_seconds;
    run(&adding, Executor::Device, &rows)?;
    let add_seconds = best(&adding, Executor::Device, &rows)?;
    let read_bytes_per_second = rate(read_work.bytes, read_seconds - launch_seconds);
    let device = Rates {
        launch_seconds,
        upload_bytes_per_second: rate(read_work.bytes, upload_seconds),
        read_bytes_per_second,
        steps_per_second: rate(add_work.steps, add_seconds - launch_seconds - add_work.bytes as f64 / read_bytes_per_second),
    };
    Ok(CostModel { host, device: Some(device) })
}

/// COUNT(*) of what passes a comparison: as little work a byte as there is.
fn reading() -> AggregatePlan {
    let filter =
        Expr::Compare { op: CompareOp::Gt, left: Box::new(Expr::Column(1)), right: Box::new(Expr::Literal(Literal::Int(1 << 20))) };
    let count = Aggregate { function: AggregateFunction::CountStar, argument: None, filter: None };
    AggregatePlan { columns: vec![INT, INT], filter: Some(filter), keys: vec![], aggregates: vec![count] }
}

/// Sums of products by a key of a few values: as much work a byte as queries do.
fn adding() -> AggregatePlan {
    let result = ColumnType::Decimal128 { precision: 38, scale: 0 };
    let product = Expr::Arithmetic { op: ArithmeticOp::Mul, left: Box::new(Expr::Column(0)), right: Box::new(Expr::Column(1)), result };
    let sum = |argument| Aggregate { function: AggregateFunction::Sum, argument: Some(argument), filter: None };
    AggregatePlan { columns: vec![INT, INT], filter: None, keys: vec![0], aggregates: vec![sum(Expr::Column(1)), sum(product)] }
}

/// A column of one byte and one of four.
fn row_group(rows: usize) -> Result<RowGroup, KernelError> {
    let encode = |value: fn(i64) -> i64| -> Result<_, KernelError> {
        let mut encoder = ChunkEncoder::new(INT);
        encoder.push(&Int64Array::from_iter_values((0..rows as i64).map(value)))?;
        Ok(Arc::new(encoder.finish()?))
    };
    let chunks = vec![encode(|row| row % 7)?, encode(|row| row * 2_654_435_761 % (1 << 24))?];
    Ok(RowGroup { row_count: rows, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Rates =
        Rates { launch_seconds: 0.0, upload_bytes_per_second: f64::INFINITY, read_bytes_per_second: 1e10, steps_per_second: 1e9 };
    const CARD: Rates = Rates { launch_seconds: 1e-4, upload_bytes_per_second: 1e10, read_bytes_per_second: 1e12, steps_per_second: 1e11 };

    #[test]
    fn the_cheaper_executor_is_chosen() {
        let model = CostModel { host: HOST, device: Some(CARD) };
        let choice = |rows: u64, upload_bytes| model.estimate(Work { bytes: 8 * rows, upload_bytes, steps: 9 * rows }).executor();
        assert_eq!(choice(1_000, 0), Executor::Host, "the launch costs more than all rows");
        assert_eq!(choice(1_000_000, 0), Executor::Device);
        assert_eq!(choice(1_000_000, 8_000_000), Executor::Device, "an upload that later queries share");
        assert_eq!(choice(1_000_000, 4_000_000_000), Executor::Host, "an upload that is too large for that");
        let alone = CostModel { host: HOST, device: None };
        assert_eq!(alone.estimate(Work { bytes: 1 << 40, upload_bytes: 0, steps: 1 << 40 }).executor(), Executor::Host);
    }

    #[test]
    fn steps_are_what_computes() {
        assert_eq!((steps(&reading()), steps(&adding())), (2, 5));
    }
}
