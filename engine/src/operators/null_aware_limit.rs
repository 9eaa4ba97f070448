//! A LIMIT over NOT IN: DataFusion puts it into the join, which then ends before it has seen whether the list has a NULL.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use std::sync::Arc;

/// Puts the LIMIT over the join again.
#[derive(Debug)]
pub struct LimitOverNullAware;

impl PhysicalOptimizerRule for LimitOverNullAware {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let over = |node: Arc<dyn ExecutionPlan>| {
            let null_aware = node.downcast_ref::<HashJoinExec>().is_some_and(|join| join.null_aware);
            let (true, Some(fetch)) = (null_aware, node.fetch()) else { return Ok(Transformed::no(node)) };
            let Some(join) = node.with_fetch(None) else { return Ok(Transformed::no(node)) };
            let limit: Arc<dyn ExecutionPlan> = match join.output_partitioning().partition_count() {
                1 => Arc::new(GlobalLimitExec::new(join, 0, Some(fetch))),
                _ => Arc::new(LocalLimitExec::new(join, fetch)),
            };
            Ok(Transformed::yes(limit))
        };
        plan.transform_up(over).data()
    }

    fn name(&self) -> &str {
        "limit_over_null_aware"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
