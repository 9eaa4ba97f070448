//! The in-place operator for hot aggregations: runs a kernel over cached chunks, or the replaced `AggregateExec`, and says which.
//!
//! Nothing is released before a partition's whole state is there, so that a fallback never doubles a row.

use super::hot_plan::{HotPlan, StateShape, recognise};
use super::row_group_reader::{FileReader, KernelRuntime, ReadColumn, ReadError, panicked};
use crate::config::KernelChoice;
use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use bowshot_kernels::limits::GROUPS_MAX;
use bowshot_kernels::{
    AggregateColumn, Decline, Estimate, ExactFloatSum, ExactVariance, Executor, GroupedResult, Kernel, KernelError, PartialState,
    TotalOrder,
};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::datasource::physical_plan::ParquetFileMetrics;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::fmt;
use std::sync::Arc;

/// Rows that a kernel aggregated; labelled with the executor.
pub const KERNEL_ROWS_METRIC: &str = "bowshot_kernel_rows";
/// `device` or `host`.
pub const EXECUTOR_LABEL: &str = "executor";
/// Counts partitions on which a kernel declined; labelled with the reason.
pub const DECLINED_METRIC: &str = "bowshot_declined";
/// Nanoseconds that the host was foreseen to take for what kernels ran, one thread.
pub const HOST_ESTIMATE_METRIC: &str = "bowshot_host_estimate_ns";
/// Those of the device, without uploads.
pub const DEVICE_ESTIMATE_METRIC: &str = "bowshot_device_estimate_ns";
/// Those of uploads to the device.
pub const UPLOAD_ESTIMATE_METRIC: &str = "bowshot_upload_estimate_ns";
/// Why it declined.
pub const REASON_LABEL: &str = "reason";
/// Bytes read from files or taken from the column cache; the name DataFusion's scan uses.
const BYTES_SCANNED_METRIC: &str = "bytes_scanned";
/// Rows a group, as the first row group lets expect, below which kernels leave the rest to DataFusion: merging groups would cost more
/// than rows save.
const GROUP_ROWS_MIN: usize = 2;
/// Groups that are merged in no time, however few their rows.
const GROUPS_FREE: usize = 10_000;
/// Integers up to this magnitude are exact in a Float64.
const FLOAT_EXACT_MAX: i128 = 1 << 53;

/// See the module.
#[derive(Debug)]
pub struct HotAggregateExec {
    fallback: Arc<AggregateExec>,
    planned: Result<Arc<Planned>, Decline>,
    choice: KernelChoice,
    runtime: KernelRuntime,
    metrics: ExecutionPlanMetricsSet,
}

struct Planned {
    plan: HotPlan,
    kernel: Kernel,
    /// The columns that the kernel reads.
    columns: Vec<ReadColumn>,
    /// Tells row groups in which nothing passes.
    predicate: Option<Arc<PruningPredicate>>,
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

/// Where row groups are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    /// All on one executor.
    All(Executor),
    /// Each where it is foreseen to cost less.
    Cheaper,
}

const HOST: Try = Try::All(Executor::Host);

impl HotAggregateExec {
    /// Takes the place of a partial aggregate.
    pub fn new(aggregate: AggregateExec, runtime: KernelRuntime, choice: KernelChoice) -> Self {
        let planned = if choice == KernelChoice::Off {
            Err(Decline::new("bowshot.kernel is off"))
        } else {
            recognise(&aggregate).and_then(|plan| {
                let kernel = runtime.kernels.plan(plan.aggregate.clone())?;
                let schema = plan.scan.file_schema();
                let columns = plan.sources.iter().zip(&plan.aggregate.columns);
                let columns = columns.map(|(source, kind)| ReadColumn::new(source, *kind, schema)).collect::<Result<_, _>>()?;
                let predicate = plan.scan.file_source().filter().and_then(|predicate| {
                    let builder = PruningPredicateBuilder::new().with_file_schema(schema.clone());
                    builder.build(predicate)
                });
                Ok(Arc::new(Planned { plan, kernel, columns, predicate }))
            })
        };
        Self { fallback: Arc::new(aggregate), planned, choice, runtime, metrics: ExecutionPlanMetricsSet::new() }
    }

    /// What to try, in order, and why the wanted executor is not among it.
    fn tries(&self) -> (Vec<Try>, Option<String>) {
        let report = self.runtime.kernels.device_report();
        match self.choice {
            KernelChoice::Host | KernelChoice::Off => (vec![HOST], None),
            KernelChoice::Device if report.available => (vec![Try::All(Executor::Device), HOST], None),
            KernelChoice::Device => (vec![HOST], Some(report.reason.unwrap_or_else(|| "no device".into()))),
            KernelChoice::Auto if report.available && !report.software => (vec![Try::Cheaper, HOST], None),
            KernelChoice::Auto => (vec![HOST], None),
        }
    }
}

impl DisplayAs for HotAggregateExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.planned {
            Ok(_) => f.write_str("HotAggregateExec: ")?,
            Err(decline) => write!(f, "HotAggregateExec(declined: {decline}): ")?,
        }
        self.fallback.fmt_as(kind, f)
    }
}

impl ExecutionPlan for HotAggregateExec {
    fn name(&self) -> &str {
        "HotAggregateExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        self.fallback.properties()
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.fallback.children()
    }
    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        self.fallback.apply_expressions(f)
    }
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let rebuilt = (self.fallback.clone() as Arc<dyn ExecutionPlan>)
            .replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?;
        let Some(aggregate) = rebuilt.downcast_ref::<AggregateExec>() else {
            return internal_err!("AggregateExec became {}", rebuilt.name());
        };
        Ok(Arc::new(Self::new(aggregate.clone(), self.runtime.clone(), self.choice)))
    }
    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = self.fallback.metrics().unwrap_or_default();
        self.metrics.clone_inner().iter().for_each(|metric| all.push(metric.clone()));
        Some(all)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let planned = match &self.planned {
            Ok(planned) => planned.clone(),
            Err(decline) => {
                declined(&self.metrics, partition, &decline.to_string());
                return self.fallback.execute(partition, context);
            }
        };
        let (tries, missing) = self.tries();
        if let Some(reason) = missing {
            declined(&self.metrics, partition, &format!("device: {reason}"));
        }
        let run = PartitionRun {
            planned,
            partition,
            runtime: self.runtime.clone(),
            metrics: self.metrics.clone(),
            schema: self.schema(),
            context: context.clone(),
        };
        let fallback = self.fallback.clone();
        let schema = self.schema();
        let batches = stream::once(async move {
            for place in tries {
                match run.aggregate(place).await {
                    Ok(batches) => return Ok(stream::iter(batches.into_iter().map(Ok)).boxed()),
                    Err(ReadError::Failed(error)) => return Err(error),
                    Err(ReadError::Declined(decline)) => {
                        let of_device = place == Try::All(Executor::Device) && !decline.to_string().starts_with("device");
                        run.declined(&format!("{}{decline}", if of_device { "device: " } else { "" }));
                    }
                }
            }
            Ok(fallback.execute(partition, without_work_stealing(&context))?.boxed())
        })
        .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
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

/// Records why a kernel, or an executor of it, does not run.
fn declined(metrics: &ExecutionPlanMetricsSet, partition: usize, reason: &str) {
    MetricBuilder::new(metrics).with_new_label(REASON_LABEL, reason.to_string()).counter(DECLINED_METRIC, partition).add(1);
}

/// A context in which a scan reads the files of its own partition alone. By default DataFusion's scans take over files of sibling
/// partitions that have not started: here those may have been aggregated by a kernel, and their rows would count twice.
fn without_work_stealing(context: &TaskContext) -> Arc<TaskContext> {
    let mut config = context.session_config().clone();
    config.options_mut().execution.enable_file_stream_work_stealing = false;
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    ))
}

/// One partition's run of a kernel.
struct PartitionRun {
    planned: Arc<Planned>,
    partition: usize,
    runtime: KernelRuntime,
    metrics: ExecutionPlanMetricsSet,
    schema: arrow::datatypes::SchemaRef,
    context: Arc<TaskContext>,
}

impl PartitionRun {
    fn declined(&self, reason: &str) {
        declined(&self.metrics, self.partition, reason);
    }

    async fn aggregate(&self, place: Try) -> Result<Vec<RecordBatch>, ReadError> {
        let scan = &self.planned.plan.scan;
        let store = self.context.runtime_env().object_store(&scan.object_store_url)?;
        let bytes_scanned = MetricBuilder::new(&self.metrics).counter(BYTES_SCANNED_METRIC, self.partition);
        let mut state = self.planned.kernel.new_state();
        let reservation = MemoryConsumer::new("HotAggregate").register(&self.context.runtime_env().memory_pool);
        let (mut rows, mut row_groups, mut device_rows) = (0, 0, 0);
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
                let groups = state.group_count();
                if row_groups == 1 && groups > GROUPS_FREE {
                    let expected = expected_groups(rows, groups, rows_in_all);
                    if expected > GROUPS_MAX {
                        let reason = format!("{groups} groups in the first {rows} rows let expect more than {GROUPS_MAX} in all");
                        return Err(ReadError::Declined(Decline::new(reason)));
                    }
                    if rows_in_all / expected.max(1) < GROUP_ROWS_MIN {
                        let reason =
                            format!("{groups} groups in the first {rows} rows let expect fewer than {GROUP_ROWS_MIN} rows a group in all");
                        return Err(ReadError::Declined(Decline::new(reason)));
                    }
                }
                row_groups += 1;
                let read = reader.read(row_group).await?;
                bytes_scanned.add((read.bytes.read + read.bytes.cached) as usize);
                rows += read.rows.row_count;
                let kernel = self.planned.kernel.clone();
                let estimate = kernel.estimate(&read.rows);
                let executor = match place {
                    Try::All(executor) => executor,
                    Try::Cheaper => match estimate.map_or(Executor::Host, |estimate| estimate.executor()) {
                        Executor::Device => match kernel.device_is_ready(&read.rows) {
                            Ok(true) => Executor::Device,
                            Ok(false) => {
                                not_on_device = Some("device: the kernel is being compiled, the host answers meanwhile".to_string());
                                Executor::Host
                            }
                            Err(error) => {
                                not_on_device = Some(error.to_string());
                                Executor::Host
                            }
                        },
                        Executor::Host => Executor::Host,
                    },
                };
                estimate.iter().for_each(|estimate| foreseen.add(estimate));
                device_rows += if executor == Executor::Device { read.rows.row_count } else { 0 };
                // A row group is milliseconds of work: off the async threads, so that streams and keepalive go on.
                let run = tokio::task::spawn_blocking(move || -> Result<PartialState, KernelError> {
                    kernel.accumulate(executor, &read.rows, &mut state)?;
                    Ok(state)
                });
                state = run.await.map_err(panicked)??;
                // DataFusion's own operator spills.
                if let Err(error) = reservation.try_resize(state.bytes()) {
                    return Err(ReadError::Declined(Decline::new(format!("{} groups: {error}", state.group_count()))));
                }
            }
        }
        if let Some(reason) = not_on_device {
            self.declined(&reason);
        }
        let result = state.finish()?;
        for (label, rows) in [("device", device_rows), ("host", rows - device_rows)] {
            MetricBuilder::new(&self.metrics).with_new_label(EXECUTOR_LABEL, label).counter(KERNEL_ROWS_METRIC, self.partition).add(rows);
        }
        foreseen.report(&self.metrics, self.partition);
        let batch = self.to_batch(result)?;
        let step = self.context.session_config().batch_size().max(1);
        Ok((0..batch.num_rows()).step_by(step).map(|start| batch.slice(start, step.min(batch.num_rows() - start))).collect())
    }

    /// The partial state in the aggregate's own schema.
    fn to_batch(&self, result: GroupedResult) -> Result<RecordBatch, ReadError> {
        let fields = self.schema.fields();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(fields.len());
        for key in &result.keys {
            let wanted = fields[columns.len()].data_type();
            columns.push(if key.data_type() == wanted { key.clone() } else { arrow::compute::cast(key, wanted)? });
        }
        for shape in &self.planned.plan.shapes {
            let wanted = |offset: usize, columns: &Vec<ArrayRef>| fields[columns.len() + offset].data_type().clone();
            match *shape {
                StateShape::Count(at) => {
                    let counts: Vec<i128> = counts(&result, at)?.iter().map(|&count| count.into()).collect();
                    let array = integers(&counts, &vec![1; counts.len()], &wanted(0, &columns))?;
                    columns.push(array);
                }
                StateShape::Value(at) if matches!(result.aggregates[at], AggregateColumn::Text(_)) => {
                    let AggregateColumn::Text(texts) = &result.aggregates[at] else { continue };
                    columns.push(arrow::compute::cast(texts, &wanted(0, &columns))?);
                }
                StateShape::Value(at) => {
                    let (values, counts) = values(&result, at)?;
                    let array = integers(values, counts, &wanted(0, &columns))?;
                    columns.push(array);
                }
                StateShape::CountAndSum(at) => {
                    let (values, counts) = values(&result, at)?;
                    let sum = integers(values, counts, &wanted(1, &columns))?;
                    columns.push(Arc::new(UInt64Array::from(counts.to_vec())));
                    columns.push(sum);
                }
                StateShape::FloatSum(at) => columns.push(Arc::new(float_sums(&result, at)?.0)),
                StateShape::CountAndFloatSum(at) => {
                    let (sums, counts) = float_sums(&result, at)?;
                    columns.push(Arc::new(UInt64Array::from(counts.to_vec())));
                    columns.push(Arc::new(sums));
                }
                StateShape::CountAndExactSum { sum } => {
                    let (totals, counts) = exact_in_doubles(&result, sum, "AVG")?;
                    let sums: BinaryArray =
                        totals.iter().zip(counts).map(|(&total, &count)| (count > 0).then(|| exact_state(total))).collect();
                    columns.push(Arc::new(UInt64Array::from(counts.to_vec())));
                    columns.push(Arc::new(sums));
                }
                StateShape::ExactVariance { sum } => {
                    let (sums, counts) = exact_in_doubles(&result, sum, "a variance")?;
                    let (squares, _) = values(&result, sum + 3)?;
                    let groups = sums.iter().zip(squares).zip(counts);
                    let states = groups.map(|((&sum, &squares), &count)| {
                        (count > 0).then(|| ExactVariance::of_integers(count, sum, squares.unsigned_abs()).to_bytes())
                    });
                    columns.push(Arc::new(states.collect::<BinaryArray>()));
                }
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(result.group_count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
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

/// An integer sum as the partial state of an exact average.
fn exact_state(total: i128) -> Vec<u8> {
    let mut sum = ExactFloatSum::default();
    sum.add_integer(total);
    sum.to_bytes()
}

fn counts(result: &GroupedResult, at: usize) -> Result<&[u64], ReadError> {
    match &result.aggregates[at] {
        AggregateColumn::Count(counts) => Ok(counts),
        AggregateColumn::Value { counts, .. } | AggregateColumn::FloatSum { counts, .. } => Ok(counts),
        AggregateColumn::Text(_) => Err(DataFusionError::Internal("a kernel returned strings for a count".into()).into()),
    }
}

fn values(result: &GroupedResult, at: usize) -> Result<(&[i128], &[u64]), ReadError> {
    match &result.aggregates[at] {
        AggregateColumn::Value { values, counts } => Ok((values, counts)),
        other => Err(DataFusionError::Internal(format!("a kernel returned {other:?} for a value")).into()),
    }
}

/// Sums of integers and their counts, followed by the least and greatest integer, each of which must be a double.
fn exact_in_doubles<'r>(result: &'r GroupedResult, sum: usize, name: &str) -> Result<(&'r [i128], &'r [u64]), ReadError> {
    let ((least, counts), (greatest, _)) = (values(result, sum + 1)?, values(result, sum + 2)?);
    let mut extremes = least.iter().zip(greatest).zip(counts).filter(|(_, count)| **count > 0);
    if extremes.any(|((least, greatest), _)| *least < -FLOAT_EXACT_MAX || *greatest > FLOAT_EXACT_MAX) {
        return Err(ReadError::Declined(Decline::new(format!("{name} over integers beyond 2^53, each of which a double rounds"))));
    }
    values(result, sum)
}

/// Exact sums as the partial states of `sum` and `avg`.
fn float_sums(result: &GroupedResult, at: usize) -> Result<(BinaryArray, &[u64]), ReadError> {
    match &result.aggregates[at] {
        AggregateColumn::FloatSum { sums, counts } => {
            Ok((sums.iter().zip(counts).map(|(sum, &count)| (count > 0).then(|| sum.to_bytes())).collect(), counts))
        }
        other => Err(DataFusionError::Internal(format!("a kernel returned {other:?} for sums of doubles")).into()),
    }
}

/// Integers in an Arrow type; groups without inputs are NULL. Sums over 64-bit integers wrap as DataFusion's do.
fn integers(values: &[i128], counts: &[u64], wanted: &DataType) -> Result<ArrayRef, ReadError> {
    fn primitive<T: ArrowPrimitiveType>(values: &[i128], counts: &[u64], convert: fn(i128) -> T::Native) -> ArrayRef {
        let array: PrimitiveArray<T> = values.iter().zip(counts).map(|(&value, &count)| (count > 0).then(|| convert(value))).collect();
        Arc::new(array)
    }
    Ok(match wanted {
        DataType::Boolean => {
            let array: BooleanArray = values.iter().zip(counts).map(|(&value, &count)| (count > 0).then_some(value != 0)).collect();
            Arc::new(array)
        }
        DataType::Int8 => primitive::<Int8Type>(values, counts, |value| value as i8),
        DataType::Int16 => primitive::<Int16Type>(values, counts, |value| value as i16),
        DataType::Int32 => primitive::<Int32Type>(values, counts, |value| value as i32),
        DataType::Int64 => primitive::<Int64Type>(values, counts, |value| value as i64),
        DataType::UInt8 => primitive::<UInt8Type>(values, counts, |value| value as u8),
        DataType::UInt16 => primitive::<UInt16Type>(values, counts, |value| value as u16),
        DataType::UInt32 => primitive::<UInt32Type>(values, counts, |value| value as u32),
        DataType::UInt64 => primitive::<UInt64Type>(values, counts, |value| value as u64),
        DataType::Float64 => primitive::<Float64Type>(values, counts, |value| TotalOrder::at(value as i64).value()),
        DataType::Date32 => primitive::<Date32Type>(values, counts, |value| value as i32),
        DataType::Timestamp(..) => arrow::compute::cast(&primitive::<Int64Type>(values, counts, |value| value as i64), wanted)?,
        DataType::Decimal128(precision, scale) => {
            let array: Decimal128Array = values.iter().zip(counts).map(|(&value, &count)| (count > 0).then_some(value)).collect();
            Arc::new(array.with_precision_and_scale(*precision, *scale)?)
        }
        other => return Err(DataFusionError::Internal(format!("a kernel has no state of type {other}")).into()),
    })
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
