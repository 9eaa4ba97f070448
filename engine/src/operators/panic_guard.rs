//! A transparent node at the head of a fragment that turns a panic below it into an error and times the task.
//!
//! Without it a panic in an operator ends its stream early and cleanly: the query would return fewer rows and no error.

use crate::worker::PANIC_TEXT;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use datafusion_distributed::BroadcastExec;
use futures::StreamExt;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Rows that a task sent on.
pub const ROWS_METRIC: &str = "bowshot_rows";
/// Nanoseconds from a task's first poll to the end of its last stream.
pub const ELAPSED_METRIC: &str = "bowshot_elapsed_ns";

/// See the module.
#[derive(Debug)]
pub struct PanicGuardExec {
    inner: Arc<dyn ExecutionPlan>,
    metrics: ExecutionPlanMetricsSet,
    started: Arc<OnceLock<Instant>>,
}

impl PanicGuardExec {
    /// Guards a fragment. A head that the library replaces at run time (a repartition or broadcast) stays the head; its child is guarded.
    pub fn guard(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if plan.is::<RepartitionExec>() || plan.is::<BroadcastExec>() {
            let children = plan.children().into_iter().map(|child| Self::over(child.clone())).collect();
            return plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute));
        }
        Ok(Self::over(plan))
    }

    fn over(inner: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { inner, metrics: ExecutionPlanMetricsSet::new(), started: Arc::default() })
    }
}

impl DisplayAs for PanicGuardExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.fmt_as(kind, f)
    }
}

impl ExecutionPlan for PanicGuardExec {
    fn name(&self) -> &str {
        "PanicGuardExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        // The guarded node's own children: the guard takes the node's place in the tree.
        self.inner.children()
    }
    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = if children.is_empty() {
            self.inner.clone()
        } else {
            self.inner.clone().replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?
        };
        Ok(Self::over(inner))
    }
    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = self.inner.metrics().unwrap_or_default();
        for metric in self.metrics.clone_inner().iter() {
            all.push(metric.clone());
        }
        Some(all)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let started = *self.started.get_or_init(Instant::now);
        let rows = MetricBuilder::new(&self.metrics).counter(ROWS_METRIC, partition);
        let elapsed = MetricBuilder::new(&self.metrics).gauge(ELAPSED_METRIC, partition);
        let stream = match std::panic::catch_unwind(AssertUnwindSafe(|| self.inner.execute(partition, context))) {
            Ok(stream) => stream?,
            Err(panic) => return exec_err!("{PANIC_TEXT}: {}", panic_text(&*panic)),
        };
        // Measured when the stream is dropped too: a consumer that has enough rows ends a task without polling to its end.
        let timer = Timer { started, elapsed, rows };
        let guarded = AssertUnwindSafe(stream).catch_unwind().map(move |item| match item {
            Ok(Ok(batch)) => {
                timer.rows.add(batch.num_rows());
                Ok(batch)
            }
            Ok(Err(error)) => Err(error),
            Err(panic) => exec_err!("{PANIC_TEXT}: {}", panic_text(&*panic)),
        });
        // After a panic the stream below is in an unknown state: it ends with the error.
        let guarded = guarded.scan(false, |failed, item| {
            let ended = std::mem::replace(failed, item.is_err());
            futures::future::ready((!ended).then_some(item))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), guarded)))
    }
}

struct Timer {
    started: Instant,
    elapsed: Gauge,
    rows: Count,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.elapsed.set_max(self.started.elapsed().as_nanos() as usize);
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| text.to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::record_batch::RecordBatch;
    use datafusion::catalog::memory::MemorySourceConfig;

    #[derive(Debug)]
    struct Panicking(Arc<dyn ExecutionPlan>);
    impl DisplayAs for Panicking {
        fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("Panicking")
        }
    }
    impl ExecutionPlan for Panicking {
        fn name(&self) -> &str {
            "Panicking"
        }
        fn properties(&self) -> &Arc<PlanProperties> {
            self.0.properties()
        }
        fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
            vec![]
        }
        fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
            Ok(TreeNodeRecursion::Continue)
        }
        fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
            Ok(self)
        }
        fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
            let mut seen = 0;
            let stream = self.0.execute(partition, context)?.inspect(move |_| {
                seen += 1;
                assert!(seen < 2, "injected");
            });
            Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_not_a_short_answer() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int32Array::from(vec![1, 2]))]).unwrap();
        let source = MemorySourceConfig::try_new_exec(&[vec![batch.clone(), batch.clone(), batch]], schema, None).unwrap();
        let plan = PanicGuardExec::guard(Arc::new(Panicking(source))).unwrap();
        let items: Vec<_> = plan.execute(0, Arc::new(TaskContext::default())).unwrap().collect().await;
        assert_eq!(items.len(), 2);
        assert!(items[0].is_ok());
        assert!(items[1].as_ref().unwrap_err().to_string().contains("injected"));
    }
}
