//! A transparent node at the head of a fragment that turns a panic below it into an error, notes what ended the task, times it and tells its
//! memory.
//!
//! Without it a panic in an operator ends its stream early and cleanly: the query would return fewer rows and no error. On the coordinator the
//! library asks a stream for more after an error, which operators do not expect: there [`HeadGuard`] ends it.

use super::in_place::{InPlace, InPlaceExec};
use crate::error::panic_text;
use crate::query_memory::QueryPool;
use crate::residency::ledger::ReadingTask;
use crate::worker::PANIC_TEXT;
use arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};
use datafusion_distributed::{BroadcastExec, DistributedExec};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Starts the text of an error that was a panic on the coordinator.
pub const COORDINATOR_PANIC_TEXT: &str = "an operator panicked on the coordinator";
/// Rows that a task sent on.
pub const ROWS_METRIC: &str = "bowshot_rows";
/// Nanoseconds from a task's first poll to the end of its last stream.
pub const ELAPSED_METRIC: &str = "bowshot_elapsed_ns";
/// Most bytes that the query's tasks on this node held at once, as of the end of this one.
pub const PEAK_MEMORY_METRIC: &str = "bowshot_peak_memory_bytes";

#[derive(Debug, Default)]
struct PanicGuard {
    metrics: ExecutionPlanMetricsSet,
    started: OnceLock<Instant>,
}

/// The library's node, which it does not show, that measures rows for adaptive task counts. It is looked for by its type: nothing may stand in for it.
const SAMPLER: &str = "SamplerExec";

/// Guards a fragment. Heads that the library replaces at run time (a repartition or broadcast) or looks for stay the heads; what is below is guarded.
pub fn guard(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.is::<RepartitionExec>() || plan.is::<BroadcastExec>() || plan.name() == SAMPLER {
        let children = plan.children().into_iter().map(|child| guard(child.clone())).collect::<Result<Vec<_>>>()?;
        return plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute));
    }
    Ok(InPlaceExec::over(plan, Arc::new(PanicGuard::default())))
}

impl InPlace for PanicGuard {
    fn metrics(&self) -> MetricsSet {
        self.metrics.clone_inner()
    }

    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let started = *self.started.get_or_init(Instant::now);
        let rows = MetricBuilder::new(&self.metrics).counter(ROWS_METRIC, partition);
        let elapsed = MetricBuilder::new(&self.metrics).gauge(ELAPSED_METRIC, partition);
        let peak_memory = MetricBuilder::new(&self.metrics).gauge(PEAK_MEMORY_METRIC, partition);
        let task = context.session_config().get_extension::<ReadingTask>();
        let peak = context.memory_pool().downcast_ref::<QueryPool>().map(QueryPool::peak);
        let stream = match std::panic::catch_unwind(AssertUnwindSafe(|| node.execute(partition, context))) {
            Ok(stream) => stream,
            Err(panic) => exec_err!("{PANIC_TEXT}: {}", panic_text(&*panic)),
        };
        let told = move |error: &DataFusionError| {
            if let Some(task) = &task {
                task.failed(error);
            }
        };
        let stream = stream.inspect_err(&told)?;
        // Measured when the stream is dropped too: a consumer that has enough rows ends a task without polling to its end.
        let timer = Timer { started, elapsed, rows, peak, peak_memory };
        let guarded = ended_by_error(stream, PANIC_TEXT).inspect_ok(move |batch| timer.rows.add(batch.num_rows())).inspect_err(told);
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), guarded)))
    }
}

/// A stream that ends with its first error or panic: what is below it is in an unknown state then, and is not asked again.
fn ended_by_error(stream: SendableRecordBatchStream, text: &'static str) -> impl Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::unfold(Some(stream), move |stream| async move {
        let mut stream = stream?;
        let item = AssertUnwindSafe(stream.next()).catch_unwind().await;
        let item = item.unwrap_or_else(|panic| Some(exec_err!("{text}: {}", panic_text(&*panic))));
        item.map(|item| if item.is_ok() { (item, Some(stream)) } else { (item, None) })
    })
}

/// The guard of what runs on the coordinator.
#[derive(Debug)]
struct HeadGuard;

/// Guards the part of a plan that runs on the coordinator.
pub fn guard_head(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    match plan.children().as_slice() {
        [head] if plan.is::<DistributedExec>() => {
            let head = InPlaceExec::over((*head).clone(), Arc::new(HeadGuard));
            plan.replace_children(vec![head], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
        }
        _ => Ok(InPlaceExec::over(plan, Arc::new(HeadGuard))),
    }
}

impl InPlace for HeadGuard {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let guarded = ended_by_error(node.execute(partition, context)?, COORDINATOR_PANIC_TEXT);
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), guarded)))
    }
}

struct Timer {
    started: Instant,
    elapsed: Gauge,
    rows: Count,
    peak: Option<Arc<AtomicUsize>>,
    peak_memory: Gauge,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.elapsed.set_max(self.started.elapsed().as_nanos() as usize);
        self.peak_memory.set_max(self.peak.as_ref().map_or(0, |peak| peak.load(Ordering::Relaxed)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::catalog::memory::MemorySourceConfig;

    #[derive(Debug)]
    struct Panicking;

    impl InPlace for Panicking {
        fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
            let mut seen = 0;
            let stream = node.execute(partition, context)?.inspect(move |_| {
                seen += 1;
                assert!(seen < 2, "injected");
            });
            Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), stream)))
        }
    }

    /// Fails, and panics when it is asked for more.
    #[derive(Debug)]
    struct Failing;

    impl InPlace for Failing {
        fn execute(&self, node: &Arc<dyn ExecutionPlan>, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
            let mut seen = 0;
            let stream = futures::stream::poll_fn(move |_| {
                seen += 1;
                assert!(seen < 2, "asked again");
                std::task::Poll::Ready(Some(exec_err!("no more")))
            });
            Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), stream)))
        }
    }

    #[tokio::test]
    async fn nothing_is_asked_after_an_error() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
        let source = MemorySourceConfig::try_new_exec(&[vec![]], schema, None).unwrap();
        for guarded in [guard, guard_head] {
            let plan = guarded(InPlaceExec::over(source.clone(), Arc::new(Failing))).unwrap();
            let items: Vec<_> = plan.execute(0, Arc::new(TaskContext::default())).unwrap().collect().await;
            assert_eq!(items.len(), 1);
            assert!(items[0].as_ref().unwrap_err().to_string().contains("no more"));
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_not_a_short_answer() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int32Array::from(vec![1, 2]))]).unwrap();
        let source = MemorySourceConfig::try_new_exec(&[vec![batch.clone(), batch.clone(), batch]], schema, None).unwrap();
        let plan = guard(InPlaceExec::over(source, Arc::new(Panicking))).unwrap();
        let items: Vec<_> = plan.execute(0, Arc::new(TaskContext::default())).unwrap().collect().await;
        assert_eq!(items.len(), 2);
        assert!(items[0].is_ok());
        assert!(items[1].as_ref().unwrap_err().to_string().contains("injected"));
    }
}
