//! Faults injected on purpose, for tests of failure paths with real processes. Off unless `worker.faults` names one.
//!
//! - `panic-in-scan`: every scan panics on its second batch.
//! - `panic-in-head`: the fragment's head operator panics on its first batch.
//! - `slow-scan`: every batch of a scan takes 200 ms.

use crate::error::Error;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    PanicAtBatch(usize),
    Slow(Duration),
}

/// Wraps the nodes that the named faults are about.
pub fn inject(faults: &[String], mut plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    for name in faults {
        let wrap = |inner: Arc<dyn ExecutionPlan>, fault| Arc::new(FaultExec { inner, fault }) as Arc<dyn ExecutionPlan>;
        let on_scans = |plan: Arc<dyn ExecutionPlan>, fault| {
            plan.transform_up(|node| {
                Ok(if node.is::<DataSourceExec>() { Transformed::yes(wrap(node, fault)) } else { Transformed::no(node) })
            })
            .map(|done| done.data)
        };
        plan = match name.as_str() {
            "panic-in-scan" => on_scans(plan, Fault::PanicAtBatch(2))?,
            "slow-scan" => on_scans(plan, Fault::Slow(Duration::from_millis(200)))?,
            "panic-in-head" => wrap(plan, Fault::PanicAtBatch(1)),
            other => return Err(Error::user(format!("worker.faults names the unknown fault '{other}'")).into()),
        };
    }
    Ok(plan)
}

/// Takes a node's place and misbehaves in its stream.
#[derive(Debug)]
struct FaultExec {
    inner: Arc<dyn ExecutionPlan>,
    fault: Fault,
}

impl DisplayAs for FaultExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.fmt_as(kind, f)
    }
}

impl ExecutionPlan for FaultExec {
    fn name(&self) -> &str {
        "FaultExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
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
        Ok(Arc::new(Self { inner, fault: self.fault }))
    }
    fn metrics(&self) -> Option<MetricsSet> {
        self.inner.metrics()
    }
    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let fault = self.fault;
        let mut seen = 0;
        let stream = self.inner.execute(partition, context)?.then(move |batch| {
            seen += 1;
            if fault == Fault::PanicAtBatch(seen) {
                panic!("injected by worker.faults");
            }
            async move {
                if let Fault::Slow(wait) = fault {
                    tokio::time::sleep(wait).await;
                }
                batch
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}
