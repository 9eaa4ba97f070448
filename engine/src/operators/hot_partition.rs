//! One partition's run of the kernels of a hot aggregation, row group by row group.

use super::hot_aggregate::{
    DEVICE_ESTIMATE_METRIC, EXECUTOR_LABEL, HOST_ESTIMATE_METRIC, KERNEL_ROWS_METRIC, KernelPart, Planned, Try, UPLOAD_ESTIMATE_METRIC,
    declined,
};
use super::hot_state::{self, Found};
use super::read_column::ReadError;
use super::row_group_reader::{FileReader, KernelRuntime, panicked};
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use bowshot_kernels::limits::GROUPS_MAX;
use bowshot_kernels::{ColumnType, Decline, Estimate, Executor, Kernel, KernelError, PartialState, RowGroup};
use datafusion::datasource::physical_plan::ParquetFileMetrics;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder};
use std::sync::Arc;

/// Bytes read from files or taken from the column cache; the name DataFusion's scan uses.
const BYTES_SCANNED_METRIC: &str = "bytes_scanned";
/// Rows a group, as the first row group lets expect, below which kernels leave the rest to DataFusion: merging groups would cost more
/// than rows save.
pub const GROUP_ROWS_MIN: usize = 2;
/// Rows that a row group must have for each distinct integer within a group that there could be. DataFusion has one set of integers over
/// all groups, which kernels are faster than only where they address values directly: at 11 rows a value they took 1.3 times as long.
const INTEGER_ROWS_MIN: u128 = 32;
/// As [`GROUP_ROWS_MIN`], of distinct values within groups. DataFusion keeps a set of strings a group: kernels took less time however few
/// the rows.
pub const VALUE_ROWS_MIN: usize = 1;
/// Groups that are merged in no time, however few their rows.
const GROUPS_FREE: usize = 10_000;

/// One partition's run of the kernels.
pub struct PartitionRun {
    /// What is run.
    pub planned: Arc<Planned>,
    /// Which files.
    pub partition: usize,
    /// Where chunks come from.
    pub runtime: KernelRuntime,
    /// Of the operator.
    pub metrics: ExecutionPlanMetricsSet,
    /// Of the operator's rows.
    pub schema: SchemaRef,
    /// Of the task.
    pub context: Arc<TaskContext>,
}

/// The states of a partition's kernels, in their order: the groups, then values within them.
type States = Vec<PartialState>;

impl PartitionRun {
    /// Records why a kernel, or an executor of it, does not run.
    pub fn declined(&self, reason: &str) {
        declined(&self.metrics, self.partition, reason);
    }

    /// The whole partition's state.
    pub async fn aggregate(&self, place: Try) -> Result<Vec<RecordBatch>, ReadError> {
        let scan = &self.planned.plan.scan;
        let store = self.context.runtime_env().object_store(&scan.object_store_url)?;
        let bytes_scanned = MetricBuilder::new(&self.metrics).counter(BYTES_SCANNED_METRIC, self.partition);
        let mut states: States = self.planned.parts.iter().map(|part| part.kernel.new_state()).collect();
        let reservation = MemoryConsumer::new("HotAggregate").register(&self.context.runtime_env().memory_pool);
        let (mut rows, mut row_groups, mut device_rows) = (0, 0, 0);
        // Whether statistics answered what the device was asked.
        let mut settled = false;
        // The last reason why a row group was the host's that the device was foreseen to be faster at.
        let mut not_on_device = None;
        let mut foreseen = Foreseen::default();
        let files = scan.file_groups.get(self.partition).map(|group| group.files()).unwrap_or_default();
        for file in files {
            let reader =
                FileReader::open(&self.runtime, store.clone(), scan.object_store_url.as_str(), file, &self.planned.columns).await?;
            let pruned = ParquetFileMetrics::new(self.partition, file.object_meta.location.as_ref(), &self.metrics);
            let of_file = reader.row_groups(self.planned.predicate.as_deref(), &pruned);
            let rows_in_all = of_file.iter().map(|row_group| reader.row_count(*row_group)).sum::<usize>() * files.len();
            for row_group in of_file {
                if row_groups == 1 {
                    let mut parts = self.planned.parts.iter().zip(&states);
                    parts.try_for_each(|(part, state)| worthwhile(state.group_count(), rows, rows_in_all, part.rows_min))?;
                }
                row_groups += 1;
                let read = reader.read(row_group).await?;
                bytes_scanned.add((read.bytes.read + read.bytes.cached) as usize);
                rows += read.rows.row_count;
                let work: Vec<Work> = self.planned.parts.iter().map(|part| Work::of(part, &read.rows)).collect();
                few_integers(&work)?;
                let estimate = work.iter().map(|work| work.kernel.estimate(&work.rows)).reduce(|all, one| Some(all?.and(&one?))).flatten();
                let executor = match place {
                    Try::All(executor) => executor,
                    Try::Cheaper => cheaper(&work, estimate, &mut not_on_device),
                };
                estimate.iter().for_each(|estimate| foreseen.add(estimate));
                let row_count = read.rows.row_count;
                // A row group is milliseconds of work: off the async threads, so that streams and keepalive go on.
                let run = tokio::task::spawn_blocking(move || accumulate(executor, &work, states));
                let (ran, found) = run.await.map_err(panicked)??;
                states = found;
                device_rows += if ran == Some(Executor::Device) { row_count } else { 0 };
                settled |= ran.is_none() && place == Try::All(Executor::Device);
                reserve(&reservation, &states, 0)?;
            }
        }
        if settled {
            self.declined("device: statistics of the columns have the answer");
        }
        if let Some(reason) = not_on_device {
            self.declined(&reason);
        }
        let folded = tokio::task::spawn_blocking(move || fold(states, reservation));
        let (found, _reservation) = folded.await.map_err(panicked)??;
        for (label, rows) in [("device", device_rows), ("host", rows - device_rows)] {
            MetricBuilder::new(&self.metrics).with_new_label(EXECUTOR_LABEL, label).counter(KERNEL_ROWS_METRIC, self.partition).add(rows);
        }
        foreseen.report(&self.metrics, self.partition);
        hot_state::batches(&found, &self.planned.plan.shapes, &self.schema, self.context.session_config().batch_size())
    }
}

/// One kernel over one row group.
struct Work {
    kernel: Kernel,
    rows: RowGroup,
}

impl Work {
    fn of(part: &KernelPart, read: &RowGroup) -> Self {
        let chunks = part.columns.iter().map(|column| read.chunks[*column].clone()).collect();
        Self { kernel: part.kernel.clone(), rows: RowGroup { row_count: read.row_count, chunks } }
    }
}

/// Adds a row group to the state of each kernel, and says where: nowhere, if statistics of its columns have every answer.
fn accumulate(executor: Executor, work: &[Work], mut states: States) -> Result<(Option<Executor>, States), KernelError> {
    let mut ran = None;
    for (work, state) in work.iter().zip(&mut states) {
        ran = work.kernel.accumulate(executor, &work.rows, state)?.or(ran);
    }
    Ok((ran, states))
}

/// Where a row group is foreseen to cost less, all kernels taken together; if the device cannot run it now, why not.
fn cheaper(work: &[Work], estimate: Option<Estimate>, not_on_device: &mut Option<String>) -> Executor {
    if estimate.map_or(Executor::Host, |estimate| estimate.executor()) == Executor::Host {
        return Executor::Host;
    }
    let mut executor = Executor::Device;
    // All are asked, so that kernels are compiled side by side.
    for work in work {
        let missing = match work.kernel.device_is_ready(&work.rows) {
            Ok(true) => continue,
            Ok(false) => "device: the kernel is being compiled, the host answers meanwhile".to_string(),
            Err(error) => error.to_string(),
        };
        *not_on_device = Some(missing);
        executor = Executor::Host;
    }
    executor
}

/// Declines distinct integers of which there may be too many; the first kernel has none.
fn few_integers(work: &[Work]) -> Result<(), ReadError> {
    for Work { kernel, rows } in &work[1..] {
        let value = kernel.plan().keys.last().map(|key| kernel.plan().columns[*key]);
        let (codes, rows_of) = (kernel.group_codes(rows), rows.row_count as u128);
        let too_many = rows.row_count > GROUPS_FREE && codes.saturating_mul(INTEGER_ROWS_MIN) > rows_of;
        if matches!(value, Some(ColumnType::Int { .. })) && too_many {
            let reason = format!("count(DISTINCT) over integers: up to {codes} of them within groups of {rows_of} rows");
            return Err(ReadError::Declined(Decline::new(reason)));
        }
    }
    Ok(())
}

/// Declines where what the first row group holds lets expect groups that are too many, or hardly fewer than rows.
fn worthwhile(groups: usize, rows: usize, rows_in_all: usize, rows_min: usize) -> Result<(), ReadError> {
    if groups <= GROUPS_FREE {
        return Ok(());
    }
    let expected = expected_groups(rows, groups, rows_in_all);
    let sampled = format!("{groups} groups in the first {rows} rows let expect");
    if expected > GROUPS_MAX {
        return Err(ReadError::Declined(Decline::new(format!("{sampled} more than {GROUPS_MAX} in all"))));
    }
    if rows_in_all / expected.max(1) < rows_min {
        return Err(ReadError::Declined(Decline::new(format!("{sampled} fewer than {rows_min} rows a group in all"))));
    }
    Ok(())
}

/// Accounts for the states and so many bytes more.
fn reserve(reservation: &MemoryReservation, states: &[PartialState], bytes: usize) -> Result<(), ReadError> {
    let groups = || states.iter().map(PartialState::group_count).sum::<usize>();
    let bytes = bytes + states.iter().map(PartialState::bytes).sum::<usize>();
    // DataFusion's own operator spills.
    reservation.try_resize(bytes).map_err(|error| ReadError::Declined(Decline::new(format!("{} groups: {error}", groups()))))
}

/// What the states come to; each distinct one is let go once its values are with their groups.
fn fold(mut states: States, reservation: MemoryReservation) -> Result<(Found, MemoryReservation), ReadError> {
    let mut distincts = vec![];
    // The groups' own state goes last.
    while states.len() > 1 {
        let values = states.remove(1);
        distincts.push(states[0].distinct_values(&values)?);
        drop(values);
        reserve(&reservation, &states, distincts.iter().map(Array::get_array_memory_size).sum())?;
    }
    let groups = states.remove(0).finish()?;
    Ok((Found { groups, distincts }, reservation))
}

/// What a partition was foreseen to cost, row group by row group.
#[derive(Default)]
struct Foreseen {
    host_seconds: f64,
    device_seconds: f64,
    upload_seconds: f64,
}

impl Foreseen {
    fn add(&mut self, estimate: &Estimate) {
        self.host_seconds += estimate.host_seconds;
        if let Some((run, upload)) = estimate.device_seconds {
            self.device_seconds += run;
            self.upload_seconds += upload;
        }
    }

    fn report(&self, metrics: &ExecutionPlanMetricsSet, partition: usize) {
        let parts = [
            (HOST_ESTIMATE_METRIC, self.host_seconds),
            (DEVICE_ESTIMATE_METRIC, self.device_seconds),
            (UPLOAD_ESTIMATE_METRIC, self.upload_seconds),
        ];
        for (name, seconds) in parts.into_iter().filter(|(_, seconds)| *seconds > 0.0) {
            MetricBuilder::new(metrics).counter(name, partition).add((seconds * 1e9) as usize);
        }
    }
}

/// Groups that `rows` rows have if `sampled_rows` of them have `sampled_groups` and keys come up evenly: of `D` possible keys `n` rows
/// meet `D * (1 - e^(-n / D))`.
fn expected_groups(sampled_rows: usize, sampled_groups: usize, rows: usize) -> usize {
    let met = |keys: f64, rows: usize| -keys * (-(rows as f64) / keys).exp_m1();
    let (mut low, mut high) = (sampled_groups.max(1) as f64, 1e15);
    while high / low > 1.01 {
        let middle = (low * high).sqrt();
        if met(middle, sampled_rows) < sampled_groups as f64 { low = middle } else { high = middle }
    }
    met(low, rows.max(sampled_rows)) as usize
}

#[cfg(test)]
mod tests {
    use super::expected_groups;

    #[test]
    fn groups_are_foreseen_from_a_sample() {
        // Two million keys, met evenly.
        let foreseen = expected_groups(1_000_000, 786_939, 10_000_000);
        assert!((1_900_000..2_100_000).contains(&foreseen), "{foreseen}");
        // All groups there are were met.
        let foreseen = expected_groups(1_000_000, 1_000, 50_000_000);
        assert!((1_000..1_020).contains(&foreseen), "{foreseen}");
        // Every row its own group.
        let foreseen = expected_groups(1_000_000, 1_000_000, 10_000_000);
        assert!(foreseen > 9_000_000, "{foreseen}");
    }
}
