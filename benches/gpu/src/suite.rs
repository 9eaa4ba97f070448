//! Every query on the host and on the device, side by side.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bowshot_kernels::{Chunk, Executor, Kernel, KernelError, Kernels, RowGroup};

use crate::answer::Answer;
use crate::bandwidth::{CardRates, Rate};
use crate::lineitem::{self, COLUMNS};
use crate::queries::{self, Query};
use crate::report::{DEVICE, Mode, Report, Row, is_step};
use crate::runs::{self, DeviceWatch};
use crate::{Arguments, Outcome};

/// The sweep ends here even where the device would go on: as many groups as a row group has rows.
const SWEEP_GROUPS_MAX: u64 = 1 << 20;

/// The chunks of one row group, in the order of [`COLUMNS`].
pub type Columns = Vec<Arc<Chunk>>;

pub struct Suite<'a> {
    pub kernels: Kernels,
    pub arguments: &'a Arguments,
    pub cores: usize,
    pub card: CardRates,
    pub host_all: Rate,
    pub host_one: Rate,
    /// Rows of each row group.
    pub sizes: Vec<usize>,
    pub report: Report,
}

/// What is told of the device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    /// The pass that uploads the chunks, then hot ones.
    First,
    Hot,
}

/// The right answers of Q1 and Q6 over the first rows, for peers.
pub struct Answers {
    /// Row groups that peers get.
    pub sizes: Vec<usize>,
    /// By the name of the query.
    pub answers: Vec<(String, Answer)>,
}

impl Suite<'_> {
    /// The table, and one row group beyond it that warms pipelines, so that the first touch of the others is their upload alone.
    pub fn generate(&self) -> Outcome<(Vec<Columns>, Vec<Columns>)> {
        let began = Instant::now();
        let rows_of = |group: usize| self.sizes.get(group).copied().unwrap_or(self.sizes[0]);
        let mut columns = lineitem::generate(self.sizes.len() + 1, rows_of, self.cores)?;
        let spare = columns.split_off(self.sizes.len());
        eprintln!("{} rows generated in {:.1} s", self.arguments.rows, began.elapsed().as_secs_f64());
        self.check_device_memory(&columns)?;
        Ok((columns, spare))
    }

    /// Runs all queries but the sweep.
    pub fn queries(&mut self, columns: &[Columns], spare: &[Columns]) -> Outcome<Answers> {
        let peers = self.peer_groups();
        let mut answers = Answers { sizes: self.sizes[peers.clone()].to_vec(), answers: vec![] };
        for (position, query) in queries::queries().into_iter().enumerate() {
            let kernel = self.kernels.plan(query.plan.clone())?;
            let (groups, warm) = (row_groups(columns, &query), row_groups(spare, &query));
            let expected = self.host(&query, &kernel, &groups)?;
            if matches!(query.name.as_str(), "q1" | "q6") {
                let answer = runs::once(&kernel, Executor::Host, &groups[peers.clone()], self.cores)?.answer;
                answers.answers.push((query.name.clone(), answer));
            }
            let touch = if position == 0 { Touch::First } else { Touch::Hot };
            self.device(&query, &kernel, &groups, &warm, &expected, touch);
        }
        Ok(answers)
    }

    /// Doubles the number of groups until the device declines.
    pub fn sweep(&mut self, columns: &[Columns]) -> Outcome<()> {
        let quantities: Vec<&Arc<Chunk>> = columns.iter().map(|columns| &columns[lineitem::QUANTITY]).collect();
        let mut cardinality = 1;
        while cardinality <= SWEEP_GROUPS_MAX {
            let query = queries::sweep(cardinality);
            let kernel = self.kernels.plan(query.plan.clone())?;
            let keys = lineitem::keys(&self.sizes, cardinality, self.cores)?;
            let pairs = quantities.iter().copied().zip(keys);
            let groups: Vec<RowGroup> =
                pairs.map(|(quantity, key)| RowGroup { row_count: key.row_count(), chunks: vec![Arc::clone(quantity), key] }).collect();
            let expected = self.host(&query, &kernel, &groups)?;
            if !self.device(&query, &kernel, &groups, &groups, &expected, Touch::Hot) {
                break;
            }
            cardinality *= 2;
        }
        Ok(())
    }

    /// Hot means on the device: what does not fit would be uploaded again and again.
    fn check_device_memory(&self, columns: &[Columns]) -> Outcome<()> {
        let bytes: u64 = columns.iter().flatten().map(|chunk| lane_bytes(chunk)).sum();
        // Two columns of a sweep's step come on top, of at most eight bytes a row.
        let needed = bytes + 8 * self.arguments.rows as u64;
        if needed > self.arguments.device_memory {
            let given = self.arguments.device_memory;
            return Err(format!("the columns need {needed} bytes of device memory, --device-memory gives {given}").into());
        }
        Ok(())
    }

    /// The row groups that peers get: whole ones.
    fn peer_groups(&self) -> Range<usize> {
        let rows = self.arguments.peer_rows.min(self.arguments.rows);
        0..rows.div_ceil(self.arguments.row_group_rows).clamp(1, self.sizes.len())
    }

    /// The host kernel by all cores and by one; the answer is that of all.
    fn host(&mut self, query: &Query, kernel: &Kernel, groups: &[RowGroup]) -> Outcome<Answer> {
        let (rows, bytes) = extent(groups);
        let all = runs::best(kernel, Executor::Host, groups, self.cores, self.arguments.runs)?;
        let row = Row::new(&query.name, &format!("host, {} threads", self.cores), rows, bytes);
        self.report.add(row.timed(all.seconds, Some(self.host_all), None));
        let one = runs::best(kernel, Executor::Host, groups, 1, self.arguments.runs)?;
        let row = Row::new(&query.name, "host, 1 thread", rows, bytes).timed(one.seconds, Some(self.host_one), None);
        let is_same = one.answer == all.answer;
        self.report.add(if is_same { row } else { row.failed("one thread and all threads answer differently") });
        Ok(all.answer)
    }

    /// The device kernel; false where it declined or failed.
    fn device(&mut self, query: &Query, kernel: &Kernel, groups: &[RowGroup], warm: &[RowGroup], expected: &Answer, touch: Touch) -> bool {
        let (rows, bytes) = extent(groups);
        let row = || Row::new(&query.name, DEVICE, rows, bytes);
        let threads = self.arguments.threads;
        if let Err(error) = runs::once(kernel, Executor::Device, warm, threads) {
            self.report.add(refused(row(), &error));
            return false;
        }
        if touch == Touch::First {
            let first = self.first_touch(kernel, groups, expected, row());
            self.report.add(first);
        }
        let watch = DeviceWatch::new(&self.kernels);
        let measured = match runs::best(kernel, Executor::Device, groups, threads, self.arguments.runs) {
            Ok(measured) => measured,
            Err(error) => {
                self.report.add(refused(row(), &error));
                return false;
            }
        };
        let row = row().timed(measured.seconds, Some(self.card.read), Some(self.card.copy));
        let row = match watch.problem(rows * measured.passes) {
            Some(problem) => row.failed(problem),
            None if measured.answer != *expected => row.failed("the device's answer differs from the host's"),
            None => row.clocked(watch.device_seconds().map(|seconds| seconds / measured.passes as f64)),
        };
        self.report.add(row);
        true
    }

    /// The first pass over chunks that are in host memory alone: their upload is most of it.
    fn first_touch(&self, kernel: &Kernel, groups: &[RowGroup], expected: &Answer, row: Row) -> Row {
        let row = Row { mode: Mode::FirstTouch, engine: "device, upload".into(), ..row };
        let watch = DeviceWatch::new(&self.kernels);
        let measured = match runs::once(kernel, Executor::Device, groups, self.arguments.threads) {
            Ok(measured) => measured,
            Err(error) => return refused(row, &error),
        };
        let part = row.bytes as f64 / measured.seconds / self.card.bus.bytes_per_second();
        let row = Row { seconds: Some(measured.seconds), ..row };
        match watch.problem(row.rows) {
            Some(problem) => row.failed(problem),
            None if measured.answer != *expected => row.failed("the device's answer differs from the host's"),
            None => row.noted(format!("first touch: {:.0} % of the bus", 100.0 * part)),
        }
    }
}

/// In the sweep a decline of the device says how far it goes; anything else is a failure.
fn refused(row: Row, error: &KernelError) -> Row {
    match error {
        KernelError::Declined(decline) if is_step(&row.query) => match decline.reason.strip_prefix("device: ") {
            Some(reason) => row.noted(format!("declined: {reason}")),
            None => row.failed(error.to_string()),
        },
        error => row.failed(error.to_string()),
    }
}

fn row_groups(columns: &[Columns], query: &Query) -> Vec<RowGroup> {
    let group = |columns: &Columns| {
        let chunks: Columns = query.columns.iter().map(|column| Arc::clone(&columns[*column])).collect();
        RowGroup { row_count: chunks.first().map_or(0, |chunk| chunk.row_count()), chunks }
    };
    debug_assert!(columns.iter().all(|columns| columns.len() == COLUMNS.len()));
    columns.iter().map(group).collect()
}

fn lane_bytes(chunk: &Chunk) -> u64 {
    (chunk.row_count() * chunk.lane_width().bytes()) as u64
}

/// Rows, and the encoded bytes of all their columns.
fn extent(groups: &[RowGroup]) -> (u64, u64) {
    let rows = groups.iter().map(|group| group.row_count as u64).sum();
    (rows, groups.iter().flat_map(|group| &group.chunks).map(|chunk| lane_bytes(chunk)).sum())
}
