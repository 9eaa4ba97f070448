//! The in-place operator for hot aggregations: runs a kernel over cached chunks, or the replaced `AggregateExec`, and says which.
//!
//! Nothing is released before a partition's whole state is there, so that a fallback never doubles a row.

use super::hot_partition::{GROUP_ROWS_MIN, PartitionRun, VALUE_ROWS_MIN};
use super::hot_plan::{HotPlan, recognise};
use super::read_column::{ReadColumn, ReadError};
use super::row_group_reader::KernelRuntime;
use crate::config::KernelChoice;
use bowshot_kernels::{Decline, Executor, Kernel};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
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

/// See the module.
#[derive(Debug)]
pub struct HotAggregateExec {
    fallback: Arc<AggregateExec>,
    planned: Result<Arc<Planned>, Decline>,
    choice: KernelChoice,
    runtime: KernelRuntime,
    metrics: ExecutionPlanMetricsSet,
}

/// A recognised aggregation, ready to run.
pub(super) struct Planned {
    pub plan: HotPlan,
    /// The kernel of the groups and what is not distinct, then those of [`HotPlan::distincts`].
    pub parts: Vec<KernelPart>,
    /// The columns that kernels read.
    pub columns: Vec<ReadColumn>,
    /// Tells row groups in which nothing passes.
    pub predicate: Option<Arc<PruningPredicate>>,
}

/// One kernel.
pub(super) struct KernelPart {
    pub kernel: Kernel,
    /// The position of each of its columns in [`Planned::columns`].
    pub columns: Vec<usize>,
    /// Rows a group below which it is not worth it.
    pub rows_min: usize,
}

impl Planned {
    fn new(plan: HotPlan, runtime: &KernelRuntime) -> Result<Self, Decline> {
        let distincts = plan.distincts.iter().map(|part| (part, VALUE_ROWS_MIN));
        let parts = std::iter::once((&plan.aggregate, GROUP_ROWS_MIN)).chain(distincts).map(|(part, rows_min)| {
            let kernel = runtime.kernels.plan(part.plan.clone())?;
            Ok(KernelPart { kernel, columns: part.columns.clone(), rows_min })
        });
        let parts = parts.collect::<Result<_, Decline>>()?;
        let schema = plan.scan.file_schema();
        let columns = plan.sources.iter().map(|(source, kind)| ReadColumn::new(source, *kind, schema)).collect::<Result<_, _>>()?;
        let predicate = plan.scan.file_source().filter().and_then(|predicate| {
            let builder = PruningPredicateBuilder::new().with_file_schema(schema.clone());
            builder.build(predicate)
        });
        Ok(Self { plan, parts, columns, predicate })
    }
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

/// Where row groups are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Try {
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
            recognise(&aggregate).and_then(|plan| Planned::new(plan, &runtime)).map(Arc::new)
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

/// Records why a kernel, or an executor of it, does not run.
pub(super) fn declined(metrics: &ExecutionPlanMetricsSet, partition: usize, reason: &str) {
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
