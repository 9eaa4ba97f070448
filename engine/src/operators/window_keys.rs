//! Sorts below windows by all partition keys, constant ones and those that equal others too.
//!
//! Where a filter holds a partition key at one value, or two keys are one column, DataFusion leaves the key out of the sort below the window: the
//! rows are in order without it. It also passes over a constant that stands before a key. A node that runs the window above a boundary knows of no
//! constants, finds the key missing in the order of the rows, and refuses the plan.
//!
//! ```text
//!   WindowAggExec: PARTITION BY [d_qoy, brand]         WindowAggExec: PARTITION BY [d_qoy, brand]
//!     SortExec: [brand]                         ──►      SortExec: [d_qoy, brand]
//!       FilterExec: d_qoy = 1                              FilterExec: d_qoy = 1
//! ```

use arrow::compute::SortOptions;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, InputOrderMode, replace_children_if_necessary};
use std::sync::Arc;

/// The rule; the last one before a plan is spread.
#[derive(Debug)]
pub struct SortByAllWindowKeys;

impl PhysicalOptimizerRule for SortByAllWindowKeys {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let sorted = plan.transform_up(|node| match unsorted_keys(&node) {
            Some((window, input)) => {
                let sort = sorted_by_all_keys(window, input);
                Ok(match sort {
                    Some(sort) => Transformed::yes(replace_children_if_necessary(node.clone(), vec![sort])?),
                    None => Transformed::no(node),
                })
            }
            None => Ok(Transformed::no(node)),
        })?;
        Ok(sorted.data)
    }

    fn name(&self) -> &str {
        "sort_by_all_window_keys"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A window and its input.
type WindowOver<'a> = (&'a Arc<dyn WindowExpr>, &'a Arc<dyn ExecutionPlan>);

/// The window and its input, if the node is a window over sorted rows and these are not sorted by all partition keys before anything else, for all
/// that is known above a boundary.
fn unsorted_keys(node: &Arc<dyn ExecutionPlan>) -> Option<WindowOver<'_>> {
    let (windows, input) = match (node.downcast_ref::<BoundedWindowAggExec>(), node.downcast_ref::<WindowAggExec>()) {
        (Some(bounded), _) if bounded.input_order_mode != InputOrderMode::Sorted => return None,
        (Some(bounded), _) => (bounded.window_expr(), bounded.input()),
        (None, Some(whole)) => (whole.window_expr(), whole.input()),
        (None, None) => return None,
    };
    // All windows of one node have the same keys.
    let window = windows.first()?;
    let mut keys: Vec<&Arc<dyn PhysicalExpr>> = vec![];
    for key in window.partition_by() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return None;
    }
    // A plan that cannot be built without that knowledge is sorted in any case.
    let known = above_boundaries(input).ok();
    let order = known.iter().filter_map(|input| input.output_ordering()).flat_map(|order| order.iter().take(keys.len()));
    let sorted_by = order.filter(|sort| keys.contains(&&sort.expr)).count();
    (sorted_by < keys.len()).then_some((window, input))
}

/// The plan as if a boundary were below each of its sorts and merges: what lies there is known to be constant or equal no more.
fn above_boundaries(node: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let sorts = node.is::<SortExec>() || node.is::<SortPreservingMergeExec>();
    let inputs = node.children().into_iter().map(|input| match sorts {
        true => Ok(Arc::new(EmptyExec::new(input.schema()).with_partitions(input.output_partitioning().partition_count())) as _),
        false => above_boundaries(input),
    });
    replace_children_if_necessary(node.clone(), inputs.collect::<Result<Vec<_>>>()?)
}

fn sorted_by_all_keys(window: &Arc<dyn WindowExpr>, input: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let keys = window.partition_by().iter().map(|key| PhysicalSortExpr::new(key.clone(), SortOptions::default()));
    let order = LexOrdering::new(keys.chain(window.order_by().iter().cloned()))?;
    // A sort that is there already is replaced.
    let below = input.downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none()).map_or(input, |sort| sort.input());
    let partitions = below.output_partitioning().partition_count();
    Some(Arc::new(SortExec::new(order, below.clone()).with_preserve_partitioning(partitions > 1)))
}
