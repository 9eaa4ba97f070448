//! Nodes that take their input in parts, and give way to other tasks between them.
//!
//! - A join compares each batch of one side with all rows of the other in one step: parts of it are as large as a step may take time.
//! - A constant is as long as it is in each row of a batch: parts are as large as such a column may be.
//! - An unnest repeats what stands beside a list for each of its elements: that has to find memory.
//!
//! The children of a node are replaced when it runs. What the library has prepared in a plan stays where it is until then.

use super::bounded_functions::bytes_of_constant_call;
use super::function_memory::{FunctionMemory, Making, find};
use super::function_sizes::content_bytes;
use super::in_place::{InPlace, InPlaceExec};
use crate::cpu_runtime::step_aside;
use crate::limits;
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, InListExpr, LikeExpr, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::joins::{HashJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, PhysicalExpr, ReplaceChildrenOptions};
use futures::{Stream, StreamExt, ready};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A node that takes its input in parts.
#[derive(Debug)]
pub struct InParts {
    cut: Cut,
    replaced: Mutex<Option<Replaced>>,
}

/// The node whose children were replaced, and the one with others in their place.
type Replaced = (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>);

/// How large the parts of a node's input are.
#[derive(Debug, Clone)]
enum Cut {
    /// As many rows as take a join a short time, of its right side. The left side is there before the first row of that is asked for.
    ByTime(Arc<Join>),
    /// No more than so many rows.
    Rows(usize),
    /// As they come, if there is memory for the columns that are repeated for each element of a list; those of the lists.
    Unnested(HashSet<usize>),
}

/// What is known of a join that runs.
#[derive(Debug)]
struct Join {
    /// Whether it looks rows up by a key: few are compared with many.
    by_key: bool,
    /// The work of each of its partitions.
    work: Vec<Mutex<Work>>,
}

/// How long the steps of a join took: what is above it, and what waits, is none of its work.
#[derive(Debug, Default)]
struct Work {
    before: Duration,
    /// When the step began that is under way.
    began: Option<Instant>,
}

impl Work {
    fn until_now(&self) -> Duration {
        self.before + self.began.map(|began| began.elapsed()).unwrap_or_default()
    }

    /// Ends a step, and says how long it took.
    fn end(&mut self) -> Duration {
        let took = self.began.take().map(|began| began.elapsed()).unwrap_or_default();
        self.before += took;
        took
    }
}

impl Join {
    fn of(node: &Arc<dyn ExecutionPlan>) -> Self {
        let partitions = node.properties().partitioning.partition_count();
        let work = std::iter::repeat_with(Mutex::default).take(partitions).collect();
        Self { by_key: node.is::<HashJoinExec>() || node.is::<SortMergeJoinExec>(), work }
    }

    /// A step that takes longer is one of many: a thread of its own runs the next.
    fn slow(&self) -> Duration {
        if self.by_key { limits::KEYED_STEP_LONG } else { limits::STEP_SHORT }
    }

    fn first_rows(&self) -> usize {
        if self.by_key { limits::BATCH_ROWS_USUAL } else { limits::JOIN_PART_ROWS }
    }
}

impl InParts {
    /// How a node takes its input; `None` if as it comes.
    pub fn of(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        let cut = if node.name().ends_with("JoinExec") {
            Some(Cut::ByTime(Arc::new(Join::of(node))))
        } else if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
            let lists = unnest.list_column_indices().iter().map(|list| list.index_in_input_schema);
            Some(Cut::Unnested(lists.collect()))
        } else {
            rows_beside_constants(node)?.map(Cut::Rows)
        };
        Ok(cut.map(|cut| Self { cut, replaced: Mutex::default() }))
    }

    fn replaced(&self, node: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if node.children().is_empty() {
            return Ok(node.clone());
        }
        let mut replaced = self.replaced.lock();
        if let Some((of, by)) = &*replaced
            && Arc::ptr_eq(of, node)
        {
            return Ok(by.clone());
        }
        let children = node.children().into_iter().enumerate().map(|(at, child)| match &self.cut {
            Cut::ByTime(_) if at == 0 => child.clone(),
            _ => InPlaceExec::over(child.clone(), Arc::new(CutChild(self.cut.clone()))),
        });
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        let by = node.clone().replace_children(children.collect(), options)?;
        *replaced = Some((node.clone(), by.clone()));
        Ok(by)
    }
}

impl InPlace for InParts {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (context, join) = match &self.cut {
            // A scan calculates what it can on its batches.
            Cut::Rows(rows) if node.children().is_empty() => (Arc::new(in_batches_of(*rows, &context)), None),
            Cut::ByTime(join) => (context, Some(join.clone())),
            _ => (context, None),
        };
        let batches = self.replaced(node)?.execute(partition, context)?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            node.schema(),
            GivingWay { batches, join, partition, since: Instant::now(), slow: false },
        )))
    }

    fn metrics(&self) -> MetricsSet {
        self.replaced.lock().as_ref().and_then(|(_, by)| by.metrics()).unwrap_or_default()
    }
}

/// The context with smaller batches.
fn in_batches_of(rows: usize, context: &TaskContext) -> TaskContext {
    let config = context.session_config().clone();
    let rows = rows.min(config.batch_size());
    TaskContext::new(
        context.task_id(),
        context.session_id(),
        config.with_batch_size(rows),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    )
}

/// How many rows a node may take at once for the constants that it has; `None` if as many as come.
pub fn rows_beside_constants(node: &Arc<dyn ExecutionPlan>) -> Result<Option<usize>> {
    let rows = limits::CONSTANT_COLUMNS_BYTES / constant_bytes(node)?.max(1);
    Ok((rows < limits::BATCH_ROWS_USUAL).then_some(rows.max(1)))
}

/// Bytes of the constants that a node may make a column of.
fn constant_bytes(node: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let mut bytes = 0_usize;
    node.apply_expressions(&mut |expr| {
        bytes = bytes.saturating_add(bytes_within(expr));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(bytes)
}

fn bytes_within(expr: &Arc<dyn PhysicalExpr>) -> usize {
    if let Some(bytes) = bytes_of_constant(expr) {
        return if bytes > limits::CONSTANT_SHORT_BYTES { bytes } else { 0 };
    }
    // What compares reads its constants where they are; functions make columns of them, unless all that they have is constant.
    let reads = expr.is::<BinaryExpr>() || expr.is::<LikeExpr>() || expr.is::<InListExpr>();
    let is_short = |call: &ScalarFunctionExpr| call.return_type().primitive_width().is_some() || call.return_type() == &DataType::Boolean;
    if expr.downcast_ref::<ScalarFunctionExpr>().is_some_and(is_short) && collect_columns(expr).is_empty() {
        return 0;
    }
    let within = expr.children().into_iter().filter(|child| !(reads && bytes_of_constant(child).is_some()));
    within.map(bytes_within).fold(0, usize::saturating_add)
}

/// Bytes of a constant, or of a call that makes one; `None` for anything else.
fn bytes_of_constant(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    match expr.downcast_ref::<Literal>() {
        Some(literal) => Some(literal.value().size()),
        None => expr.downcast_ref::<ScalarFunctionExpr>().and_then(bytes_of_constant_call),
    }
}

/// A child of a node that takes its input in parts.
#[derive(Debug)]
struct CutChild(Cut);

impl InPlace for CutChild {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batches = node.execute(partition, context.clone())?;
        let (rows, join) = match &self.0 {
            Cut::ByTime(join) => (join.first_rows(), Some(join.clone())),
            Cut::Rows(rows) => (*rows, None),
            Cut::Unnested(lists) => {
                let (lists, batch_rows) = (lists.clone(), context.session_config().batch_size());
                let found = batches.map(move |batch| {
                    let batch = batch?;
                    may_be_repeated(&batch, &lists, batch_rows, &context)?;
                    Ok(batch)
                });
                return Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), found)));
            }
        };
        let parts = Parts { batches, rest: None, rows, join, partition, given: None, since: Instant::now() };
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), parts)))
    }
}

/// Whether there is memory for what stands beside lists, once for each row that an unnest makes in a step.
fn may_be_repeated(batch: &RecordBatch, lists: &HashSet<usize>, batch_rows: usize, context: &TaskContext) -> Result<()> {
    let config = context.session_config().options();
    if config.extensions.get::<FunctionMemory>().is_none() {
        return Ok(());
    }
    let beside = batch.columns().iter().enumerate().filter(|(at, _)| !lists.contains(at)).map(|(_, column)| column);
    let beside: Vec<_> = beside.filter(|column| column.data_type().primitive_width().is_none()).collect();
    let longest = (0..batch.num_rows()).map(|row| beside.iter().map(|column| content_bytes(column, row, row + 1)).sum::<usize>());
    let bytes = longest.max().unwrap_or(0).saturating_mul(batch_rows);
    if bytes > limits::CONSTANT_COLUMNS_BYTES {
        find(&Making { function: "unnest", bytes, rows: batch_rows, is_list: false }, config)?;
    }
    Ok(())
}

/// Parts of batches. A part by time is half of the one before if that took long, and twice as much if it was over soon.
struct Parts {
    batches: SendableRecordBatchStream,
    rest: Option<RecordBatch>,
    rows: usize,
    /// Whose steps say how large a part may be.
    join: Option<Arc<Join>>,
    partition: usize,
    /// The join's work when the last part was given away.
    given: Option<Duration>,
    /// When this task last gave way.
    since: Instant,
}

impl Stream for Parts {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(given) = self.given.take()
            && let Some(took) = self.work().map(|work| work.saturating_sub(given))
        {
            if took > limits::STEP_LONG {
                self.rows = (self.rows / 2).max(1);
            } else if took < limits::STEP_SHORT {
                self.rows = self.rows.saturating_mul(2).min(limits::BATCH_ROWS_USUAL);
            }
        }
        ready!(gives_way(&mut self.since, context));
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match ready!(self.batches.poll_next_unpin(context)) {
                Some(Ok(batch)) => batch,
                other => return Poll::Ready(other),
            },
        };
        let rows = self.rows.min(batch.num_rows());
        let part = batch.slice(0, rows);
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        self.given = self.work();
        Poll::Ready(Some(Ok(part)))
    }
}

impl Parts {
    fn work(&self) -> Option<Duration> {
        Some(self.join.as_ref()?.work.get(self.partition)?.lock().until_now())
    }
}

/// Batches, between which the task gives way when it has run long enough. While steps are slow, threads of their own run them: the system shares the
/// processor between these and what else there is, a turn of which would otherwise wait for a step of each.
struct GivingWay {
    batches: SendableRecordBatchStream,
    join: Option<Arc<Join>>,
    partition: usize,
    since: Instant,
    /// Whether the last step was.
    slow: bool,
}

impl Stream for GivingWay {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(gives_way(&mut self.since, context));
        let join = self.join.clone();
        let work = join.as_ref().and_then(|join| join.work.get(self.partition));
        if let Some(work) = work {
            work.lock().began = Some(Instant::now());
        }
        let step = if self.slow { step_aside(|| self.batches.poll_next_unpin(context)) } else { self.batches.poll_next_unpin(context) };
        self.slow = join.as_ref().zip(work).is_some_and(|(join, work)| work.lock().end() > join.slow());
        step
    }
}

/// Pending, once, when it is long ago that it was: other tasks of the runtime run then, and a task that was ended is dropped. The runtime's own
/// budget counts steps, of which some take seconds here.
fn gives_way(since: &mut Instant, context: &mut Context<'_>) -> Poll<()> {
    if since.elapsed() < limits::STEP_SHORT {
        return Poll::Ready(());
    }
    *since = Instant::now();
    context.waker().wake_by_ref();
    Poll::Pending
}
