//! Nodes that take another node's place in a plan and do something to its streams.
//!
//! The library reads a plan's metrics by position, so a node must not be added above another one: it stands in for it, with the same
//! children, properties and schema.

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use std::fmt;
use std::sync::Arc;

/// What a stand-in does.
pub trait InPlace: fmt::Debug + Send + Sync + 'static {
    /// Runs one partition of the node whose place it takes.
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream>;

    /// Metrics beside the node's own.
    fn metrics(&self) -> MetricsSet {
        MetricsSet::new()
    }
}

/// A node with a stand-in before it.
#[derive(Debug)]
pub struct InPlaceExec {
    node: Arc<dyn ExecutionPlan>,
    stand_in: Arc<dyn InPlace>,
}

impl InPlaceExec {
    /// Lets `stand_in` take the place of `node`.
    pub fn over(node: Arc<dyn ExecutionPlan>, stand_in: Arc<dyn InPlace>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { node, stand_in })
    }
}

impl DisplayAs for InPlaceExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.node.fmt_as(kind, f)
    }
}

impl ExecutionPlan for InPlaceExec {
    fn name(&self) -> &str {
        // Reasons and errors are about the node.
        self.node.name()
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        self.node.properties()
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.node.children()
    }
    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        self.node.apply_expressions(f)
    }
    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() {
            return Ok(self);
        }
        let node = self.node.clone().replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?;
        Ok(Self::over(node, self.stand_in.clone()))
    }
    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = self.node.metrics().unwrap_or_default();
        self.stand_in.metrics().iter().for_each(|metric| all.push(metric.clone()));
        Some(all)
    }
    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.stand_in.execute(&self.node, partition, context)
    }
}
